"""A robot served over topics and the robot behind them: what goes in at one end comes out at the other."""

import threading
import time

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.clock import WallClock
from robopolicy.errors import ConfigError, SpecMismatch
from robopolicy.rotations import quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.server import RobotServer
from robopolicy_hardware.ros.set_points import header

JOINTS = """
rate_hz: 20
primary: front
cameras: {front: {topic: /front/image_raw, max_age_s: 0.5}, side: {topic: /side/image_raw/compressed, max_age_s: 0.5}}
state:
  q: {topic: /joint_states, joints: [b, a], max_age_s: 0.5}
  gripper: {topic: /joint_states, joints: [finger], closed: 0.0, open: 0.04, max_age_s: 0.5}
  force: {topic: /force, type: std_msgs/msg/Float64MultiArray, units: N, stamp: bag, max_age_s: 0.5}
action:
  topic: /command
  type: sensor_msgs/msg/JointState
  kind: joint
  names: [b, a]
  units: rad
  gripper: {topic: /finger_command, type: std_msgs/msg/Float64, closed: 0.0, open: 0.04}
"""
POSE = """
rate_hz: 20
state:
  tool_pos: {topic: /tool, type: geometry_msgs/msg/PoseStamped, field: pose.position, max_age_s: 0.5}
  tool_quat: {topic: /tool, type: geometry_msgs/msg/PoseStamped, field: pose.orientation, max_age_s: 0.5}
  gripper: {topic: /grip, type: std_msgs/msg/Float64, closed: 0, open: 1, max_age_s: 0.5, stamp: bag}
action: {topic: /target, kind: tool_pose, gripper: {topic: /grip_target, closed: 0, open: 1}}
"""
ARM = PolicySpec(
    cameras={"front": CameraSpec(24, 32), "side": CameraSpec(16, 16)},
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",)), "force": StateSpec(3, ("N",))},
    action=ActionSpec("joint", ("b", "a", "gripper"), ("rad", "rad", "open")),
)


STATE = "sensor_msgs/msg/JointState"


class Pair:
    """A mock that is served within the process."""

    def __init__(self, folder, text, spec):
        (folder / "arm.yaml").write_text(text)
        self.config = load_config(folder / "arm.yaml")
        wire, self.clock = Wire(), WallClock()
        self.inner = MockRobot(spec, self.clock, lag_s=0.02)
        self.server = RobotServer(self.inner, self.config, LocalTopics(wire), self.clock)
        self.topics = LocalTopics(wire)


@pytest.fixture(params=["joints", "trajectory", "array", "pose"])
def pair(request, tmp_path):
    types = {"trajectory": "trajectory_msgs/msg/JointTrajectory", "array": "std_msgs/msg/Float64MultiArray"}
    text = JOINTS.replace("type: sensor_msgs/msg/JointState", f"type: {types.get(request.param, STATE)}")
    made = Pair(tmp_path, *((POSE, None) if request.param == "pose" else (text, ARM)))
    yield made
    made.server.close()
    made.server.close()


def running(pair, until):
    """Step the server in a thread of its own while a robot is made and looked at."""
    going = [True]

    def step():
        while going[0]:
            pair.server.step()
            time.sleep(0.005)

    thread = threading.Thread(target=step)
    thread.start()
    try:
        robot = RosRobot(pair.config, pair.clock, pair.topics)
        until(robot)
        robot.close()
    finally:
        going[0] = False
        thread.join()


def test_what_it_observes_and_takes_is_what_the_client_sees_and_gives(pair):
    def look(robot):
        time.sleep(0.05)
        seen = robot.read()
        own = pair.inner.read()
        assert set(seen.state) == set(pair.config.state)
        for name, value in seen.state.items():
            np.testing.assert_allclose(value, own.state[name], atol=1e-5)
        for name, image in seen.images.items():
            assert image.shape == pair.inner.spec.cameras[name].shape
        assert robot.spec.action.kind == pair.inner.spec.action.kind
        held = robot.stop()
        goal = held.copy()
        goal[0] += 0.2
        goal[-1] = 0.5
        while pair.server.received < 3:
            robot.command(goal, 0)
            time.sleep(0.02)
        time.sleep(0.3)
        after = robot.read()
        if robot.spec.action.kind == "joint":
            np.testing.assert_allclose(after.state["q"], goal[:2], atol=1e-3)
        else:
            np.testing.assert_allclose(after.state["tool_pos"], goal[:3], atol=1e-3)
            np.testing.assert_allclose(quat_to_matrix(after.state["tool_quat"]), rot6d_to_matrix(goal[3:9]), atol=1e-3)
        np.testing.assert_allclose(after.state["gripper"], [0.5], atol=1e-3)
        assert pair.server.refused == 0

    running(pair, look)


def test_what_is_no_set_point_is_refused_and_moves_nothing(tmp_path):
    pair = Pair(tmp_path, JOINTS, ARM)
    other = LocalTopics(pair.topics._wire)
    publisher = other.publisher("/command", STATE)
    state = message(STATE)
    none = np.zeros(0)
    for names, values, why in (
        (["b", "c"], [0.1, 0.2], "has no joint 'a'; it has"),
        (["b", "a"], [0.1, np.nan], "a set-point on /command is not finite"),
    ):
        publisher.send(state(header(0), names, np.array(values), none, none))
        pair.server.step()
        assert why in pair.server.why
    assert (pair.server.received, pair.server.refused) == (0, 2)
    np.testing.assert_array_equal(pair.inner.read().state["q"], 0)


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ("  force:", "  torque:", SpecMismatch, "the robot has no state torque; it has camera front, "),
        ("side: {topic", "top: {topic", SpecMismatch, "the robot has no camera top"),
        ("joints: [b, a]", "joints: [b, a, c]", SpecMismatch, "state q: the file names 3 joints, the robot has 2 numb"),
        ("Float64MultiArray, units", "String, units", ConfigError, "std_msgs/msg/String on /force is not published"),
        ("kind: joint", "kind: vector", SpecMismatch, "the file commands vector, the robot takes joint actions"),
    ],
)
def test_a_file_that_does_not_fit_the_robot_is_refused(tmp_path, old, new, error, says):
    assert old in JOINTS
    with pytest.raises(error, match=says):
        Pair(tmp_path, JOINTS.replace(old, new), ARM)
