"""ROS 2 teleoperators over real DDS on loopback, published by another process."""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import UnknownName, UsageError
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import TeleopContract
from robopolicy.types import Observation, Status
from robopolicy_hardware.mock import ARM
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.teleop.leader import APPROACH_RAD_S, LeaderArm
from robopolicy_hardware.teleop.ros import RosTeleop

sys.path.insert(0, str(Path(__file__).parent))
from test_teleop_target import seen

pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

LOOPBACK = (
    "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name='lo' multicast='false'/></Interfaces>"
    "<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>"
    "<MaxAutoParticipantIndex>60</MaxAutoParticipantIndex>"
    "<Peers><Peer address='127.0.0.1'/></Peers></Discovery></Domain></CycloneDDS>"
)
os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 60 + os.getpid() % 40  # beside other tests on this machine

JOINTS = PolicySpec(
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("j1", "j2", "gripper"), ("rad", "rad", "open")),
    rate_hz=20.0,
)
PUBLISHER = """
import sys, time
import numpy as np
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
domain, topic, kind = int(sys.argv[1]), sys.argv[2], sys.argv[3]
publisher = Topics(domain).publisher(topic, kind)
Time, Header = message("builtin_interfaces/msg/Time"), message("std_msgs/msg/Header")
Vector, Point, Quaternion = (message(f"geometry_msgs/msg/{n}") for n in ("Vector3", "Point", "Quaternion"))
header = Header(Time(1, 2), "base")
def make(k):
    if kind.endswith("TwistStamped"):
        Twist = message("geometry_msgs/msg/Twist")
        return message(kind)(header, Twist(Vector(0.1, 0.0, 0.0), Vector(0.0, 0.0, 0.5)))
    if kind.endswith("Twist"):
        return message(kind)(Vector(0.1, 0.0, 0.0), Vector(0.0, 0.0, 0.5))
    if kind.endswith("PoseStamped"):
        Pose = message("geometry_msgs/msg/Pose")
        return message(kind)(header, Pose(Point(7.0 + 0.001 * k, 0.0, 0.0), Quaternion(0.0, 0.0, 0.0, 1.0)))
    if kind.endswith("Joy"):
        buttons = [0] * 11
        buttons[5], buttons[0] = 1, int(k % 40 >= 20)
        axes = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        return message(kind)(header, np.array(axes, np.float32), np.array(buttons, np.int32))
    names, values = ["j2", "other", "j1"], [0.2, 9.0, -0.3]
    return message(kind)(header, names, np.array(values), np.zeros(0), np.zeros(0))
print("up", flush=True)
for k in range(100_000):
    publisher.send(make(k))
    time.sleep(0.01)
"""
TWIST, POSE, JOY, STATE = (
    "geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/Joy",
    "sensor_msgs/msg/JointState",
)  # fmt: skip


class Publishes:
    """Another process that publishes 100 messages a second until it is killed."""

    def __init__(self, kind, topic="/t"):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(DOMAIN), topic, kind],
            stdout=subprocess.PIPE, env={**os.environ, "CYCLONEDDS_URI": LOOPBACK},
        )  # fmt: skip

    def __enter__(self):
        assert self.process.stdout.readline() == b"up\n"
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __exit__(self, *error):
        self.kill()
        self.process.stdout.close()


def teleop(kind, spec=ARM, **options):
    return RosTeleop(spec, topic="/t", kind=kind, domain=DOMAIN, **options)


def comes(device, observation, timeout_s=30.0):
    """Wait until the device drives; return its command."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        command = device.read(observation)
        if command.source == "human":
            return command
        time.sleep(0.01)
    raise AssertionError(command.reason)


@pytest.fixture
def closing():
    devices = []
    yield devices
    for device in devices:
        device.close()
        device.close()


class TestNobodyPublishes(TeleopContract):
    def make(self):
        return teleop(TWIST), ARM

    def observe(self, spec):
        return seen()


def test_a_velocity_moves_the_tool_and_a_dead_publisher_is_a_hold(closing):
    device = teleop("TwistStamped", speed=0.5, max_age_s=0.3)
    closing.append(device)
    device.engage(seen(), None)
    assert device.read(seen()).reason == "nothing comes on /t"
    with Publishes(TWIST) as other:
        comes(device, seen())
        device.engage(seen(), None)
        x = [comes(device, seen(stamp_ns=k * 50_000_000)).values[0] for k in range(5)]
        np.testing.assert_allclose(np.diff(x), 0.5 * 0.1 * 0.05, atol=1e-6)
        device.press("g")
        assert comes(device, seen(stamp_ns=300_000_000)).values[9] == 0.0
        assert 0 <= device.latency_s <= 0.3
        other.kill()
        time.sleep(0.35)
        command = device.read(seen(stamp_ns=350_000_000))
    assert command.source == "hold"
    assert "s old" in command.reason


def test_a_hand_moves_the_tool_by_what_it_moved_since_it_was_engaged(closing):
    device = teleop(POSE, max_age_s=5.0)
    closing.append(device)
    with Publishes(POSE):
        device.engage(seen(), None)
        first = comes(device, seen()).values
        np.testing.assert_allclose(first[:3], (0.4, 0, 0.3), atol=1e-6)
        time.sleep(0.2)
        later = device.read(seen()).values
        assert later[0] > first[0]
        device.engage(seen((0.5, 0.1, 0.3)), None)
        np.testing.assert_allclose(device.read(seen((0.5, 0.1, 0.3))).values[:3], (0.5, 0.1, 0.3), atol=1e-6)


def test_a_pad_drives_and_its_buttons_are_events(closing):
    device = teleop("Joy", max_age_s=5.0)
    closing.append(device)
    with Publishes(JOY):
        device.engage(seen(), None)
        comes(device, seen(stamp_ns=0))
        x = [device.read(seen(stamp_ns=k * 50_000_000)).values[0] for k in range(3)]
        np.testing.assert_allclose(np.diff(x), 0.2 * 0.05, atol=1e-6)
        pressed = []
        deadline_s = time.monotonic() + 30
        while "start" not in pressed and time.monotonic() < deadline_s:
            time.sleep(0.05)
            pressed += device.events()
        device.show(Status("recording", 0, 1))
        while "success" not in pressed and time.monotonic() < deadline_s:
            time.sleep(0.05)
            pressed += device.events()
    assert {"start", "success"} <= set(pressed)


def test_a_leader_arm_is_followed_by_name_and_met_without_a_jump(closing):
    device = teleop(None, JOINTS, max_age_s=5.0)
    closing.append(device)
    state = {"q": np.float32([0, 0]), "gripper": np.float32([0.4])}
    with Publishes(STATE):
        device.engage(Observation(0, state), None)
        values = [comes(device, Observation(0, state)).values for _ in range(20)]
    np.testing.assert_allclose(values[0], (0, 0, 0.4), atol=1e-6)
    assert np.abs(np.diff(values, axis=0)).max() <= APPROACH_RAD_S / 20 + 1e-6
    np.testing.assert_allclose(values[-1], (-0.3, 0.2, 0.4), atol=1e-6)


def test_a_leader_of_other_joints_is_refused_with_both_sides():
    class Message:
        name, position = ["a", "b"], [0.0, 1.0]

    leader = LeaderArm(JOINTS)
    leader.engage(Observation(0, {}), None)
    with pytest.raises(UsageError, match="joints a, b; the robot has j1, j2, gripper"):
        leader.follow(Observation(0, {}), Message)


@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        (ARM, "JointState", "does not drive a robot of tool_pose"),
        (JOINTS, "TwistStamped", "does not drive a robot of joint"),
        (ARM, "std_msgs/msg/String", "is not followed; these are: geometry_msgs"),
    ],
)
def test_what_does_not_fit_is_said_at_once(spec, kind, says):
    with pytest.raises(UsageError, match=says):
        RosTeleop(spec, kind=kind, domain=DOMAIN)


@pytest.mark.parametrize("topic", ["a b", "/", "/ä", "/t/", "/1"])
def test_a_name_that_no_topic_has_is_refused(topic):
    with pytest.raises(UsageError, match="is no topic's name; want letters"):
        RosTeleop(ARM, topic=topic, domain=DOMAIN)


@pytest.mark.parametrize("domain", [-1, 233, None])
def test_a_domain_there_is_not_is_refused(domain, monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", "lab")
    with pytest.raises(UsageError, match=r"no ROS 2 domain '(-1|233|lab)': --domain and ROS_DOMAIN_ID are 0 to 232"):
        Topics(domain)


def test_dds_that_does_not_start_is_one_line():
    code = "import sys\nfrom robopolicy.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    words = ["record", "--robot", "mock", "--teleop", "ros", "--message", "Joy", "--data", "nowhere"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**os.environ, "CYCLONEDDS_URI": "<CycloneDDS><Domain><General><Interfaces><NetworkInterface name='no'/>"
             "</Interfaces></General></Domain></CycloneDDS>"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "robopolicy: DDS does not start in domain 0: " in done.stderr
    assert done.stderr.endswith("look at CYCLONEDDS_URI\n")


def test_an_unknown_message_names_those_of_its_package():
    with pytest.raises(UnknownName, match="sensor_msgs/msg/Joy"):
        message("sensor_msgs/msg/Jou")


def test_names_and_types_on_the_wire_are_those_of_ros():
    topics = Topics(DOMAIN)
    subscription = topics.subscribe("/arm/twist", TWIST)
    assert subscription._reader.topic.name == "rt/arm/twist"
    assert subscription._reader.topic.typename == "geometry_msgs::msg::dds_::TwistStamped_"
    subscription.close()


def test_messages_that_cannot_be_decoded_are_counted_and_said_and_end_nothing(closing):
    device = teleop(TWIST, max_age_s=5.0)
    closing.append(device)
    publisher = Topics(DOMAIN).publisher("/t", TWIST)
    until(lambda: publisher.subscribers > 0)
    sample = publisher._struct.__new__(publisher._struct)
    text = b"\xff\xfe\xfd\xfc\x00"  # no UTF-8
    sample.cdr = struct.pack("<4sIII5s7x6d", b"\0\1\0\0", 1, 2, len(text), text, *np.zeros(6))
    device.engage(seen(), None)
    assert device.trouble == ""
    for count in (1, 2):
        publisher._writer.write(sample)
        until(lambda: device.read(seen()).reason == f"{count} messages on /t cannot be read")  # noqa: B023
        assert device.trouble.startswith(f"what comes on /t cannot be read: Could not deserialize '{TWIST}'")
    with Publishes(TWIST):
        assert comes(device, seen()).source == "human"


def test_a_topic_of_another_type_is_not_silence_but_named(closing):
    device = teleop("Twist", max_age_s=0.3)
    closing.append(device)
    device.engage(seen(), None)
    assert device.read(seen()).reason == "nothing comes on /t"
    with Publishes(TWIST):
        until(lambda: device.trouble == f"/t carries {TWIST}, not geometry_msgs/msg/Twist")
        assert device.read(seen()).reason == device.trouble
        with Publishes("geometry_msgs/msg/Twist"):
            comes(device, seen())
            until(lambda: device.trouble == "")


def until(true, timeout_s=30.0):
    """Wait until it is."""
    deadline_s = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
