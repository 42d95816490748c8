"""The robot behind ROS 2 topics: a fake arm in another process, real DDS on loopback between."""

import itertools
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import FINGER_OPEN, HOME, LOOPBACK, NAMES, Arm
from terminals import InTerminal

from robopolicy.clock import WallClock
from robopolicy.errors import ConfigError, ContractError, StaleFrame, UnknownCamera, UsageError
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, StateSpec
from robopolicy.testing import RobotContract
from robopolicy.topics.config import load_config
from robopolicy_data.check import check
from robopolicy_data.reader import Dataset
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.robot import RosRobot, make_ros_robot
from robopolicy_hardware.ros.set_points import of_action, of_gripper
from robopolicy_hardware.ros.streams import type_of

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 100 + os.getpid() % 60  # beside other tests on this machine


@pytest.fixture
def arm(tmp_path, request):
    """A fake arm; parametrised by its kind of command."""
    running = Arm(tmp_path, DOMAIN, getattr(request, "param", "joint"))
    yield running
    running.close()


@pytest.fixture
def robot(arm):
    made = make_ros_robot(arm.config, WallClock(), domain=DOMAIN)
    yield made
    made.close()


def until(seen, timeout_s=30.0):
    """Ask again until it is so; return it."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if found := seen():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come")


def stale(robot):
    """Read until a stream is too old; return what is said of it."""

    def seen():
        try:
            robot.read()
        except StaleFrame as error:
            return str(error)

    return until(seen)


def arrives(arm, topic, send):
    """Send, as a loop does step after step, until one more has come: a reader may not know its writer yet."""
    before = len(arm.commands(topic))
    until(lambda: send() is not None and len(arm.commands(topic)) > before)


class Live(RobotContract):
    """The contract, with the clock of the machine."""

    def clock(self):
        return WallClock()

    def make(self, clock):
        return make_ros_robot(self.arm.config, clock, domain=DOMAIN)

    def tick(self, clock, robot, steps=1):
        clock.sleep_until(clock.now_ns() + steps * robot.spec.period_ns)
        return until(lambda: readable(robot))


def readable(robot):
    try:
        return robot.read()
    except StaleFrame:  # a busy machine; a robot that stays silent fails by time
        return None


class TestJoints(Live):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _arm(cls, tmp_path_factory):
        cls.arm = Arm(tmp_path_factory.mktemp("arm"), DOMAIN)
        yield
        cls.arm.close()


class TestToolPose(Live):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _arm(cls, tmp_path_factory):
        cls.arm = Arm(tmp_path_factory.mktemp("arm"), DOMAIN, "pose")
        yield
        cls.arm.close()


def test_its_spec_is_what_comes(robot):
    assert robot.spec.cameras == {"front": CameraSpec(24, 32), "wrist": CameraSpec(24, 32)}
    assert robot.spec.state == {"q": StateSpec(3, ("rad",)), "dq": StateSpec(3, ("rad/s",))}
    assert robot.spec.action == ActionSpec("joint", NAMES, ("rad",))
    assert robot.spec.rate_hz == 20


def test_it_publishes_nothing_before_it_is_told_to(arm, robot):
    until(lambda: readable(robot))
    time.sleep(0.2)
    assert len(arm.commands("/joint_commands")) == 0


def test_time_goes_on_although_the_camera_is_slower(robot):
    until(lambda: readable(robot))
    seen = [o for _ in range(200) if (o := readable(robot)) is not None]  # as fast as can be
    stamps = [o.stamp_ns for o in seen]
    assert len(seen) > 100
    assert all(a < b for a, b in itertools.pairwise(stamps))
    assert len({o.image_stamps_ns["front"] for o in seen}) < len(seen)


def test_an_instant_is_a_picture_and_numbers_are_those_of_then(robot):
    time.sleep(0.1)
    seen = until(lambda: (o := readable(robot)) and o.stamp_ns == o.image_stamps_ns["front"] and o)
    assert abs(seen.image_stamps_ns["wrist"] - seen.stamp_ns) <= 80_000_000
    assert 0 <= time.monotonic_ns() - seen.stamp_ns < 10**9
    np.testing.assert_allclose(seen.state["q"], HOME, atol=1e-6)
    np.testing.assert_allclose(seen.state["dq"], 10 * HOME[[2, 0, 1]], atol=1e-5)
    assert len(np.unique(seen.images["front"])) == 1  # one grey, and bgr8 came as RGB
    assert list(seen.encoded) == ["wrist"]  # as the camera sent it


def test_commands_arrive_and_move_it_and_stop_holds_where_it_is(arm, robot):
    target = HOME + np.array([0.2, 0.0, -0.1])
    assert robot.command(target.astype(np.float32), 0).dtype == np.float32
    arrives(arm, "/joint_commands", lambda: robot.command(target, 0))
    np.testing.assert_allclose(arm.commands("/joint_commands")[-1], target, atol=1e-6)
    moving = until(lambda: (o := readable(robot)) and o.state["q"][0] > HOME[0] + 0.05 and o)
    assert moving.state["q"][2] < HOME[2]
    held = robot.stop("enough")
    assert HOME[0] + 0.04 < held[0] < target[0] + 1e-6
    np.testing.assert_array_equal(robot.stop(), held)
    arrives(arm, "/joint_commands", robot.stop)
    until(lambda: np.allclose(arm.commands("/joint_commands")[-1], held, atol=1e-6))
    until(lambda: (o := readable(robot)) and np.allclose(o.state["q"], held, atol=1e-3))


@pytest.mark.parametrize("arm", ["pose"], indirect=True)
def test_a_tool_pose_and_its_gripper_go_to_two_controllers(arm, robot):
    assert robot.spec.action == TOOL_POSE
    assert robot.spec.state["gripper"] == StateSpec(1, ("open",))
    seen = until(lambda: readable(robot))
    assert seen.state["gripper"] == pytest.approx(1.0)
    held = robot.stop()
    np.testing.assert_allclose(held[:3], [0.4, 0, 0.3], atol=1e-6)
    np.testing.assert_allclose(rot6d_to_matrix(held[3:9]), quat_to_matrix(np.array([0, 1.0, 0, 0])), atol=1e-6)
    target = held.copy()
    turned = quat_to_matrix(np.array([0.1, 0.9, 0.3, 0.2]))
    target[:3], target[3:9], target[9] = [0.45, 0.1, 0.2], matrix_to_rot6d(turned), 0.25
    arrives(arm, "/finger_commands", lambda: robot.command(target, 0))
    arrives(arm, "/tool_commands", lambda: robot.command(target, 0))
    until(lambda: np.allclose(arm.commands("/tool_commands")[-1][:3], target[:3], atol=1e-6))
    until(lambda: np.allclose(arm.commands("/finger_commands")[-1], 0.25 * FINGER_OPEN, atol=1e-8))
    pose = arm.commands("/tool_commands")[-1]
    np.testing.assert_allclose(pose[:3], [0.45, 0.1, 0.2], atol=1e-6)
    np.testing.assert_allclose(quat_to_matrix(pose[3:]), turned, atol=1e-6)
    np.testing.assert_allclose(arm.commands("/finger_commands")[-1], [0.25 * FINGER_OPEN], atol=1e-8)
    until(lambda: (o := readable(robot)) and abs(o.state["gripper"][0] - 0.25) < 0.01)


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("std_msgs/msg/Float64MultiArray", "joint"),
        ("sensor_msgs/msg/JointState", "joint"),
        ("trajectory_msgs/msg/JointTrajectory", "joint"),
        ("geometry_msgs/msg/PoseStamped", "tool_pose"),
    ],
)
def test_a_set_point_survives_the_wire_as_any_of_its_messages(tmp_path, type_, kind):
    (tmp_path / "a.yaml").write_text(
        f"rate_hz: 20\nstate: {{}}\naction: {{topic: /c, type: {type_}, kind: {kind}, "
        + ("names: [j1, j2], frame: base}" if kind == "joint" else "gripper: /g}")
    )
    topic = load_config(tmp_path / "a.yaml").action
    values = np.array([0.5, -1.5]) if kind == "joint" else np.array([0.1, 0.2, 0.3, 1, 0, 0, 0, 1, 0])
    sent_as, make = of_action(topic, 0.05)
    assert sent_as == type_
    received, topics = [], Topics(DOMAIN)
    publisher = topics.publisher("/c", type_)
    subscription = Topics(DOMAIN).subscribe("/c", type_, lambda message, came_ns: received.append(message))
    until(lambda: publisher.subscribers)
    until(lambda: publisher.send(make(values, 1_500_000_002)) or received)  # a reader may not know its writer yet
    message = received[0]
    subscription.close()
    if type_.endswith("Array"):
        assert message.data.tolist() == values.tolist()
    elif type_.endswith("JointState"):
        assert (message.name, message.position.tolist()) == (["j1", "j2"], values.tolist())
        assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_002)
        assert message.header.frame_id == "base"
    elif type_.endswith("Trajectory"):
        (point,) = message.points
        assert (message.joint_names, point.positions.tolist()) == (["j1", "j2"], values.tolist())
        assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)
    else:
        assert (message.pose.position.x, message.pose.orientation.w) == (0.1, 1.0)


def test_the_example_in_the_documentation_is_a_robot():
    config = load_config(Path(__file__).parents[1] / "data" / "topics.example.yaml")
    assert {what: type_of(what, topic).rpartition("/")[2] for what, topic in config.observed().items()} == {
        "camera front": "CompressedImage", "camera wrist_depth": "Image", "state q": "JointState",
        "state tool_pos": "PoseStamped", "state tool_quat": "PoseStamped", "state gripper": "Float64MultiArray",
    }  # fmt: skip
    assert of_action(config.action, 0.1)[0] == of_gripper(config.action.gripper)[0] == "std_msgs/msg/Float64MultiArray"


def test_a_gripper_is_scaled_to_what_the_robot_calls_open(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "rate_hz: 20\nstate: {}\naction: {topic: /c, kind: joint, names: [a], "
        "gripper: {topic: /g, type: std_msgs/msg/Float64, closed: 0.8, open: 0.0}}"
    )
    kind, make = of_gripper(load_config(tmp_path / "a.yaml").action.gripper)
    assert kind == "std_msgs/msg/Float64"
    assert make(np.array([0.25]), 0).data == pytest.approx(0.6)


def test_a_camera_that_stalls_is_named(arm, robot):
    until(lambda: readable(robot))
    arm.tell("blind")
    said = stale(robot)
    assert said.startswith("camera front: the newest message on /front/image_raw is of 0.")
    assert "at most 0.2 s is allowed" in said


def test_a_camera_that_changes_its_size_is_named(arm, robot):
    until(lambda: readable(robot))
    arm.tell("small")

    def seen():
        try:
            readable(robot)
        except ContractError as error:
            return str(error)

    assert until(seen) == "camera front: a picture of (12, 16, 3); it began with (24, 32, 3)"


def test_what_is_no_number_never_becomes_an_observation(arm, robot):
    until(lambda: readable(robot))
    arm.tell("nan")
    assert "joint c on /joint_states is nan" in stale(robot)


def test_a_publisher_that_died_is_stale_and_one_that_came_back_is_read_again(arm, robot, tmp_path):
    until(lambda: readable(robot))
    robot.command(HOME + 0.01, 0)
    arm.kill()
    assert re_match("the newest message on|nothing on", stale(robot))
    time.sleep(0.3)
    np.testing.assert_allclose(robot.stop(), HOME + 0.01, atol=1e-6)  # it knows no better than the last set-point
    again = Arm(tmp_path, DOMAIN)
    try:
        until(lambda: readable(robot))
    finally:
        again.close()


def test_a_clock_that_went_back_begins_anew_and_is_told(arm, robot):
    until(lambda: readable(robot))
    arm.tell("back")
    assert re_match("of [12][.].* s ago", stale_by(robot, "of [12][.]"))


def stale_by(robot, pattern):
    """Read until the robot says what matches."""
    return until(lambda: (said := stale(robot)) and re_match(pattern, said) and said)


def re_match(pattern, text):
    import re

    return re.search(pattern, text)


def test_a_clock_ahead_is_told(tmp_path):
    arm = Arm(tmp_path, DOMAIN, offset_s=3.0)
    robot = make_ros_robot(arm.config, WallClock(), domain=DOMAIN)
    try:
        said = stale(robot)
        assert re_match(r"the stamps on /\S+ are [23]\.\d+ s ahead of this machine's clock; synchronise", said)
        with pytest.raises(StaleFrame, match="ahead"):  # nothing was commanded yet: there is nothing to hold
            robot.stop()
    finally:
        robot.close()
        arm.close()


def test_calibrated_cameras_of_its_file_are_told_to_who_records(arm, tmp_path):
    from robopolicy.geometry.calibrations import write_calibrations
    from robopolicy.geometry.cameras import Camera

    front = Camera(np.diag([30.0, 30.0, 1.0]), np.eye(4), (), (24, 32)).to_json()
    write_calibrations(tmp_path / "cams.yaml", {"front": {**front, "calibration": {"error_px": 0.1}}})
    (tmp_path / "calibrated.yaml").write_text(arm.config.read_text() + "\ncalibration: cams.yaml\n")
    robot = make_ros_robot(tmp_path / "calibrated.yaml", WallClock(), domain=DOMAIN)
    try:
        assert robot.camera_calibration() == {"front": front}
        robot.camera_calibration()["front"].clear()
        assert robot.camera_calibration() == {"front": front}
    finally:
        robot.close()
    write_calibrations(tmp_path / "cams.yaml", {"front": {**front, "size": [480, 640]}})
    with pytest.raises(ConfigError, match="calibrated at 640 x 480, its pictures are 32 x 24"):
        make_ros_robot(tmp_path / "calibrated.yaml", WallClock(), domain=DOMAIN)


def test_nobody_and_somebody_else(arm, tmp_path):
    text = arm.config.read_text()
    topics = Topics(DOMAIN)
    for old, new, line in (
        ("/joint_commands", "/nowhere", r"nobody listens on /nowhere; is the controller active"),
        ("/wrist/", "/wrst/", r"within 1 s: camera wrist: nothing comes on /wrst/image_raw/compressed"),
        ("/joint_states, field: position", "/joint_states, field: posture", "has no field 'posture'"),
        ("joints: [a, b, c]", "joints: [a, b, z]", "has no joint 'z'; it has"),
        ("names: [a, b, c]", "names: [a, b]", "the action has 2 joints .a, b.; to hold them still it wants"),
        ("kind: joint", "kind: vector", "cannot be held still by vector commands"),
        ("latency_s: 0.005", "type: sensor_msgs/msg/CompressedImage", "carries sensor_msgs/msg/Image, not"),
        (
            "latency_s: 0.005",
            "type: std_msgs/msg/String",
            "camera front: std_msgs/msg/String on /front/image_raw; want",
        ),
    ):
        assert old in text
        (tmp_path / "other.yaml").write_text(text.replace(old, new))
        config = load_config(tmp_path / "other.yaml")
        with pytest.raises((ConfigError, ContractError, StaleFrame, UsageError), match=line):
            RosRobot(config, WallClock(), topics, wait_s=1.0)
    (tmp_path / "other.yaml").write_text(text.replace("latency_s: 0.005", "type: sensor_msgs/msg/Picture"))
    with pytest.raises(ConfigError, match=r"other\.yaml: .*sensor_msgs/msg/Picture"):
        make_ros_robot(tmp_path / "other.yaml", WallClock(), domain=DOMAIN)
    with pytest.raises(UnknownCamera, match="no camera 'top'; valid: front, wrist"):
        RosRobot(load_config(arm.config), WallClock(), topics, cameras=("top",))
    first = RosRobot(load_config(arm.config), WallClock(), topics, cameras=("wrist",))
    try:
        assert list(until(lambda: readable(first)).images) == ["wrist"]
        with pytest.raises(UsageError, match="somebody else publishes on /joint_commands too"):
            RosRobot(load_config(arm.config), WallClock(), Topics(DOMAIN))
    finally:
        first.close()


LEADER = """
import sys, time
import numpy as np
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.set_points import header
publisher = Topics(int(sys.argv[1])).publisher("/leader/joint_states", "sensor_msgs/msg/JointState")
none = np.zeros(0)
print("up", flush=True)
start_s = time.monotonic()
while True:
    t = time.monotonic() - start_s
    position = np.array([0.1, -0.2, 0.3]) + 0.2 * np.sin(t)
    state = message("sensor_msgs/msg/JointState")
    publisher.send(state(header(time.time_ns()), ["c", "b", "a"], position[::-1].copy(), none, none))
    time.sleep(0.01)
"""


@pytest.fixture
def leader():
    import subprocess

    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, str(DOMAIN)], stdout=subprocess.PIPE,
        env={**os.environ, "CYCLONEDDS_URI": LOOPBACK},
    )  # fmt: skip
    assert process.stdout.readline() == b"up\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.slow
def test_a_leader_arm_records_demonstrations_of_it(arm, leader, tmp_path):
    """Three processes: leader, recorder, arm; a step that a busy machine starves ends an episode, which begins anew."""
    late = r"episode \d+ of 9: (?:StaleFrame|LateCommand): .*\d s"
    terminal = InTerminal(
        "record", "--robot", f"ros:{arm.config}", "--teleop", "ros", "--message", "JointState", "--domain", DOMAIN,
        "--data", tmp_path / "d.zarr", "--episodes", 9, env={"CYCLONEDDS_URI": LOOPBACK},
    )  # fmt: skip
    try:
        terminal.wait_for("ep 0/9 ○", 120)
        terminal.wait_for("human", 60)
        for attempt in range(8):
            terminal.press(" ")
            if terminal.wait_for(rf"● 00:0[0-9]\.[5-9]|{late}", 60)[0].startswith("●"):
                terminal.press("\r")
                if terminal.wait_for(rf"episode {attempt + 1} of 9: success|{late}", 60)[0].endswith("success"):
                    break
        terminal.press(" ")
        terminal.wait_for(rf"●|{late}", 60)
        arm.kill()
        assert terminal.ends() == 1  # between episodes too it waits for the robot a moment only
    finally:
        terminal.close()
    assert re_match(late, terminal.text)
    assert re_match("robopolicy: .*the newest message on .* ago", terminal.text)
    assert "Traceback" not in terminal.text
    episodes = list(Dataset(tmp_path / "d.zarr"))
    first = next(episode for episode in episodes if episode.meta.success)
    assert episodes[-1].meta.success is False
    assert first.meta.robot == f"ros:{arm.config}"
    assert [str(p) for p in check(tmp_path / "d.zarr") if p.severity == "error"] == []
    sent, received = first.action(), arm.commands("/joint_commands").astype(np.float32)
    assert len(sent) >= 5
    assert np.ptp(sent[:, 0]) > 0.01
    windows = [received[k : k + len(sent)] for k in range(len(received) - len(sent) + 1)]
    assert any(np.array_equal(window, sent) for window in windows)  # what was recorded as sent is what reached the arm
    assert set(Dataset(tmp_path / "d.zarr").spec.cameras) == {"front", "wrist"}


def test_a_closed_robot_leaves_its_topics_at_once(arm):
    import gc

    from cyclonedds.core import Entity

    def those():
        return sorted(type(each).__name__ for each in Entity._entities.values())

    gc.collect()
    before = those()
    gc.disable()  # what is in a cycle would stay
    try:
        robot = make_ros_robot(arm.config, WallClock(), domain=DOMAIN)
        assert {"DataReader", "DataWriter", "DomainParticipant"} <= set(those())
        robot.close()
        del robot
        left = those()
        for each in before:
            left.remove(each)
    finally:
        gc.enable()
    assert not {"DataReader", "DataWriter", "Topic", "DomainParticipant"} & set(left)
