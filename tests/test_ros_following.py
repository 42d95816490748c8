"""Trajectories and set-points as a served robot takes them: followed in time, replaced, stopped, refused."""

import re

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.following import Points, motion_of
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.server import RobotServer
from robopolicy_hardware.ros.set_points import header

MS = 1_000_000
ARRAY, TRAJECTORY = "std_msgs/msg/Float64MultiArray", "trajectory_msgs/msg/JointTrajectory"
ARM = PolicySpec(
    cameras={},
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("a", "b", "gripper"), ("rad", "rad", "open")),
)
TEXT = """
rate_hz: 20
state:
  q: {{topic: /joint_states, joints: [a, b]}}
  gripper: {{topic: /joint_states, joints: [finger], closed: 0, open: 1}}
action:
  topic: /command
  type: {kind}
  kind: joint
  names: [a, b]
  units: rad
  gripper: {{topic: /grip, closed: 0, open: 1}}
"""


class Served:
    """A mock without lag behind a server, in simulated time, and a publisher of its commands."""

    def __init__(self, folder, kind=TRAJECTORY, timeout_s=None):
        (folder / "arm.yaml").write_text(TEXT.format(kind=kind))
        self.clock, wire = SimClock(1_000 * MS), Wire()
        self.robot = MockRobot(ARM, self.clock, lag_s=1e-8)
        topics = LocalTopics(wire)
        config = load_config(folder / "arm.yaml")
        self.server = RobotServer(self.robot, config, LocalTopics(wire), self.clock, timeout_s=timeout_s)
        self.command, self.grip = topics.publisher("/command", kind), topics.publisher("/grip", ARRAY)
        self.now_ns = 0

    def send(self, times_s, positions, velocities=None, names=("a", "b"), stamp_ns=0):
        point, duration = (
            message("trajectory_msgs/msg/JointTrajectoryPoint"),
            message("builtin_interfaces/msg/Duration"),
        )
        none, points = np.zeros(0), []
        for k, time_s in enumerate(times_s):
            due = duration(int(time_s), round((time_s - int(time_s)) * 1e9))
            speed = none if velocities is None else np.array(velocities[k], float)
            points.append(point(np.array(positions[k], float), speed, none, none, due))
        self.command.send(message(TRAJECTORY)(header(stamp_ns), list(names), points))

    def array(self, values, publisher=None):
        layout = message("std_msgs/msg/MultiArrayLayout")([], 0)
        (publisher or self.command).send(message(ARRAY)(layout, np.array(values, float)))

    def run(self, duration_s, every_ms=10):
        """Step; return when (N,) s from now, and where the joints were told to be (N, 2)."""
        start_ns, times, places = self.clock.now_ns(), [], []
        while (past_ns := self.clock.now_ns() - start_ns) <= duration_s * 1e9:
            self.server.step()
            self.clock.sleep_until(self.clock.now_ns() + 1000)  # the mock is there at once
            places.append(self.robot.read().state["q"])
            times.append(past_ns / 1e9)
            self.clock.sleep_until(start_ns + past_ns + every_ms * MS)
        return np.array(times), np.array(places)


def test_a_trajectory_is_the_cubic_through_its_points_and_velocities_and_the_last_is_held(tmp_path):
    served = Served(tmp_path)
    times_s = [0.1, 0.25, 0.5]
    positions, velocities = [[0.1, -0.2], [0.3, 0.1], [0.2, 0.0]], [[1.0, 0.5], [0.4, -0.3], [0.0, 0.0]]
    served.send(times_s, positions, velocities)
    times, places = served.run(0.8)
    spline = CubicHermiteSpline([0, *times_s], [[0, 0], *positions], [[0, 0], *velocities])
    np.testing.assert_allclose(places, spline(np.minimum(times, 0.5)), atol=1e-6)


def test_positions_alone_are_straight_lines(tmp_path):
    served = Served(tmp_path)
    served.send([0.2, 0.4], [[0.2, 0.0], [0.2, 0.4]])
    times, places = served.run(0.6)
    np.testing.assert_allclose(places[:, 0], np.interp(times, [0, 0.2], [0, 0.2]), atol=1e-6)
    np.testing.assert_allclose(places[:, 1], np.interp(times, [0.2, 0.4], [0, 0.4]), atol=1e-6)


def test_joints_are_found_by_name_whatever_their_order(tmp_path):
    served = Served(tmp_path)
    served.send([0.1], [[0.5, -0.5]], names=("b", "a"))
    np.testing.assert_allclose(served.run(0.2)[1][-1], [-0.5, 0.5], atol=1e-6)


def test_a_new_trajectory_goes_on_from_where_and_as_fast_as_the_old_one_is(tmp_path):
    served = Served(tmp_path)
    served.send([1.0], [[1.0, 0.0]], [[0.0, 0.0]])
    _, before = served.run(0.5, every_ms=2)
    served.send([0.5], [[0.0, 0.0]], [[0.0, 0.0]])
    _, after = served.run(0.6, every_ms=2)
    steps = np.diff(np.concatenate([before, after])[:, 0])
    assert np.abs(np.diff(steps)).max() < 0.05 * steps.max()  # no corner, at the change neither
    assert steps[len(before)] > 0.9 * steps[len(before) - 2] > 0
    np.testing.assert_allclose(after[-1], 0, atol=1e-6)


def test_points_that_are_past_are_left_out_and_a_stamp_says_when_it_began(tmp_path):
    points = Points(7_000 * MS, np.array([0.1, 0.2, 0.3]), np.array([[1.0], [2.0], [3.0]]), None)
    motion = motion_of(points, 1_000 * MS, 7_150 * MS, np.array([0.5]), np.zeros(1))
    assert motion.times_ns.tolist() == [1_000 * MS, 1_050 * MS, 1_150 * MS]
    assert motion.positions.ravel().tolist() == [0.5, 2.0, 3.0]
    with pytest.raises(ContractError, match=r"a trajectory that ended 0\.200 s ago"):
        motion_of(points, 1_000 * MS, 7_500 * MS, np.array([0.5]), np.zeros(1))


def test_an_empty_trajectory_stops_where_it_is(tmp_path):
    served = Served(tmp_path)
    served.send([1.0], [[1.0, 1.0]])
    _, before = served.run(0.4)
    served.send([], [])
    _, after = served.run(0.4)
    assert 0.3 < before[-1][0] < 0.5
    np.testing.assert_allclose(after[1:], np.broadcast_to(after[1], after[1:].shape), atol=1e-6)
    assert abs(after[-1][0] - before[-1][0]) < 0.02
    assert served.server.holds == "a trajectory without points"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        ({"times_s": [0.1], "positions": [[1, 2]], "names": ("a", "c")}, r"joints \['a', 'c'\]; want \['a', 'b'\]"),
        ({"times_s": [0.1], "positions": [[1, 2, 3]], "names": ("a", "b", "c")}, "want .'a', 'b'., each once"),
        ({"times_s": [0.1], "positions": [[1]]}, "point 0 has 1 positions; want 2"),
        ({"times_s": [0.1, 0.2], "positions": [[1, 2], [1, np.nan]]}, "positions of point 1 not finite"),
        ({"times_s": [0.2, 0.2], "positions": [[1, 2], [1, 2]]}, r"times \[0.2, 0.2\] s do not rise"),
        ({"times_s": [0.1], "positions": [[1, 2]], "velocities": [[0, 1]]}, "the last point has a velocity"),
        ({"times_s": [0.1], "positions": [[1, 2]], "stamp_ns": 1}, "a trajectory that ended"),
    ],
)
def test_what_is_no_trajectory_is_refused_and_moves_nothing(tmp_path, sent, why):
    served = Served(tmp_path)
    served.send(**sent)
    _, places = served.run(0.2)
    assert served.server.refused == 1
    assert re.search(why, served.server.why)
    np.testing.assert_array_equal(places, 0)


def test_the_part_that_nobody_commanded_is_held(tmp_path):
    served = Served(tmp_path, ARRAY)
    served.array([0.4, 0.5])
    served.run(0.05)
    state = served.robot.read().state
    np.testing.assert_allclose([*state["q"], *state["gripper"]], [0.4, 0.5, 0.0], atol=1e-6)
    served.array([0.7], served.grip)
    served.run(0.05)
    state = served.robot.read().state
    np.testing.assert_allclose([*state["q"], *state["gripper"]], [0.4, 0.5, 0.7], atol=1e-6)


@pytest.mark.parametrize(("timeout_s", "holds"), [(0.1, "no command for 0.1 s"), (None, "")])
def test_silence_is_a_hold_only_where_a_timeout_is_asked_for(tmp_path, timeout_s, holds):
    served = Served(tmp_path, ARRAY, timeout_s)
    served.array([0.4, 0.5])
    served.run(0.08)
    assert served.server.holds == ""
    _, places = served.run(0.1)
    assert served.server.holds == holds
    np.testing.assert_allclose(places, np.broadcast_to([0.4, 0.5], places.shape), atol=1e-6)
    served.array([0.1, 0.1])
    served.run(0.02)
    assert served.server.holds == ""  # the next command ends it


def test_of_a_trajectory_the_timeout_counts_from_its_end(tmp_path):
    served = Served(tmp_path, TRAJECTORY, 0.1)
    served.send([0.5], [[1.0, 0.0]])
    served.run(0.55)
    assert served.server.holds == ""
    _, places = served.run(0.2)
    assert served.server.holds == "no command for 0.1 s"
    np.testing.assert_allclose(places[-1], [1.0, 0.0], atol=1e-3)


def test_after_a_hold_nothing_of_before_is_followed(tmp_path):
    served = Served(tmp_path)
    served.send([1.0], [[1.0, 1.0]])
    served.run(0.2)
    served.server.hold("reset")
    _, places = served.run(0.5)
    assert np.ptp(places[:, 0]) < 1e-6
    assert served.server.holds == "reset"
