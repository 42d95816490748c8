"""The suite of every robot, for a robot behind topics: within the process, through rclpy, fake and real.

Over DDS, beside a fake arm in another process, `test_ros_robot` runs the same suite.
"""

import importlib.util
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.clock import WallClock
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import RobotContract
from robopolicy.topics.config import load_config
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.rclpy_topics import RclpyTopics
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.server import RobotServer

FAKES = Path(__file__).parent / "fake_rclpy"
ROS = ("rclpy", "rosidl_runtime_py")
REAL = importlib.util.find_spec("rclpy") is not None
ARM = PolicySpec(
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("a", "b", "gripper"), ("rad", "rad", "open")),
    rate_hz=20.0,
)
TOPICS = """
rate_hz: 20
state:
  q: {topic: /joint_states, joints: [a, b], max_age_s: 2.0}
  gripper: {topic: /joint_states, joints: [finger], closed: 0.0, open: 0.04, max_age_s: 2.0}
action:
  topic: /commands
  type: sensor_msgs/msg/JointState
  kind: joint
  names: [a, b]
  units: rad
  gripper: {topic: /finger_commands, closed: 0.0, open: 0.04}
"""


def forget():
    for name in [n for n in sys.modules if n.split(".")[0] in ROS]:
        del sys.modules[name]


class TestRobotBehindTopics(RobotContract):
    @pytest.fixture(
        autouse=True,
        params=[
            "local",
            "fake rclpy",
            pytest.param(
                "rclpy", marks=[pytest.mark.ros2, pytest.mark.skipif(not REAL, reason="rclpy is not installed")]
            ),
        ],
    )
    def carried(self, request, tmp_path, monkeypatch):
        """What carries the topics, and a mock that is served behind them."""
        if request.param == "fake rclpy":
            forget()
            monkeypatch.syspath_prepend(str(FAKES))
        wire, made = Wire(), []

        def transport():
            made.append(LocalTopics(wire) if request.param == "local" else RclpyTopics())
            return made[-1]

        (tmp_path / "arm.yaml").write_text(TOPICS)
        self.config, self.transport, clock = load_config(tmp_path / "arm.yaml"), transport, WallClock()
        server, over = RobotServer(MockRobot(ARM, clock), self.config, transport(), clock), threading.Event()

        def serve():
            while not over.is_set():
                server.step()
                time.sleep(0.005)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        over.set()
        thread.join()
        for one in made:
            one.close()
        if request.param == "fake rclpy":
            forget()

    def clock(self):
        return WallClock()

    def make(self, clock):
        return RosRobot(self.config, clock, self.transport(), wait_s=30.0)
