from dataclasses import replace

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.testing import RobotContract
from robopolicy_hardware.mock import ARM, HOME, MockRobot

JOINTS = PolicySpec(
    cameras={"a": CameraSpec(24, 32), "b": CameraSpec(16, 16)},
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",)), "force": StateSpec(6, ("N",))},
    action=ActionSpec("joint", ("j1", "j2", "gripper"), ("rad", "rad", "open")),
    n_obs=2,
    horizon=16,
    n_execute=8,
)


class TestMockArm(RobotContract):
    def make(self, clock):
        return MockRobot(None, clock)


class TestMockJoints(RobotContract):
    def make(self, clock):
        return MockRobot(JOINTS, clock)


def test_follows_with_its_lag():
    clock = SimClock()
    robot = MockRobot(None, clock, lag_s=0.1)
    target = np.concatenate([HOME, matrix_to_rot6d(quat_to_matrix(np.array([0, 1.0, 0, 0]))), [0.0]])
    target[0] += 0.1
    robot.command(target, clock.now_ns())
    clock.sleep_until(100_000_000)
    observation = robot.read()
    assert observation.state["tool_pos"][0] == pytest.approx(HOME[0] + 0.1 * (1 - np.exp(-1)), abs=1e-6)
    assert observation.state["gripper"][0] == pytest.approx(np.exp(-1), abs=1e-6)
    np.testing.assert_allclose(observation.state["tool_quat"], [0, 1, 0, 0], atol=1e-6)


def test_a_command_waits_for_its_time_and_a_stop_drops_it():
    clock = SimClock()
    robot = MockRobot(JOINTS, clock, lag_s=0.01)
    robot.command(np.float32([1, 1, 1]), 500_000_000)
    clock.sleep_until(499_000_000)
    np.testing.assert_array_equal(robot.read().state["q"], 0)
    robot.command(np.float32([2, 2, 1]), 400_000_000)  # newer: replaces all that comes later
    clock.sleep_until(900_000_000)
    np.testing.assert_allclose(robot.read().state["q"], 2, atol=1e-6)
    robot.command(np.float32([5, 5, 1]), 950_000_000)
    held = robot.stop()
    clock.sleep_until(2_000_000_000)
    np.testing.assert_allclose(robot.read().state["q"], held[:2], atol=1e-6)


def test_pictures_have_their_sizes_and_change_with_the_arm():
    clock = SimClock()
    robot = MockRobot(JOINTS, clock)
    before = robot.read()
    robot.command(np.float32([1, 1, 1]), 0)
    clock.sleep_until(100_000_000)
    after = robot.read()
    assert before.images["a"].shape == (24, 32, 3)
    assert not np.array_equal(before.images["b"], after.images["b"])


def test_a_state_as_long_as_the_action_follows_it():
    spec = replace(ARM, state={"point": StateSpec(2, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m",)))
    clock = SimClock()
    robot = MockRobot(spec, clock)
    robot.command(np.float32([3, 4]), 0)
    clock.sleep_until(10_000_000_000)
    np.testing.assert_allclose(robot.read().state["point"], [3, 4], atol=1e-6)
