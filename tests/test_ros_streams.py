"""The robot behind ROS 2 topics without a wire: what it refuses, holds and survives, message by message."""

import threading
import time
from contextlib import suppress

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")

from robopolicy.errors import ConfigError, ContractError, StaleFrame, UnsafeCommand
from robopolicy.topics.config import NumbersTopic, load_config
from robopolicy_hardware.ros import robot as robot_module
from robopolicy_hardware.ros import streams as streams_module
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.local import LocalTopics
from robopolicy_hardware.ros.local import Wire as Hub
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.set_points import header, of_action

MS = 1_000_000
JOINT_STATE, ARRAY = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray"
POSE, IMAGE = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/Image"
JOINTS = f"""
rate_hz: 49
primary: front
cameras: {{front: {{topic: /front, stamp: bag}}}}
state:
  q: {{topic: /joint_states, joints: [a, b], stamp: bag}}
  gripper: {{topic: /grip, type: {ARRAY}, closed: 0.0, open: 0.04, align: before, stamp: bag}}
action:
  topic: /command
  kind: joint
  names: [a, b]
  units: rad
  gripper: {{topic: /grip_command, closed: 0.0, open: 0.04}}
"""
TOOL = f"""
rate_hz: 20
state:
  tool_pos: {{topic: /tool, type: {POSE}, field: pose.position, stamp: bag}}
  tool_quat: {{topic: /tool, type: {POSE}, field: pose.orientation, stamp: bag}}
  gripper: {{topic: /grip, type: {ARRAY}, closed: 0.0, open: 0.04, stamp: bag}}
action: {{topic: /command, kind: tool_pose, frame: base, gripper: {{topic: /grip_command, closed: 0.0, open: 0.04}}}}
"""


class Wire:
    """A transport within this process; what is said on a topic is heard before `say` returns."""

    def __init__(self):
        self.heard, self.sent, self.listeners, self.open = {}, [], 1, 0

    def subscribe(self, topic, kind, on_message=None):
        if topic == "/bad":
            raise ConfigError("no such topic")
        self.heard.setdefault(topic, []).append(on_message)
        self.open += 1
        return Subscription(self)

    def publisher(self, topic, kind):
        return Publisher(self, topic)

    def publishers(self, topic):
        return ["ours"]

    def say(self, topic, said, came_ns):
        for take in self.heard.get(topic, []):
            take(said, came_ns)


class Subscription:
    trouble = ""

    def __init__(self, wire):
        self._wire, self._open = wire, True

    def close(self):
        self._wire.open -= self._open
        self._open = False


class Publisher:
    def __init__(self, wire, topic):
        self._wire, self._topic = wire, topic

    def send(self, sent):
        self._wire.sent.append((self._topic, sent))

    def close(self):
        """It has nothing to leave."""

    @property
    def subscribers(self):
        return self._wire.listeners


class Set:
    """A clock that is set by hand."""

    def __init__(self):
        self.ns = 1_000_000 * MS

    def now_ns(self):
        return self.ns

    def sleep_until(self, stamp_ns):
        self.ns = max(self.ns, stamp_ns)


def joints(position, names=("x", "b", "a"), velocity=()):
    return message(JOINT_STATE)(header(0), list(names), np.array(position), np.array(velocity, float), np.zeros(0))


def array(*values):
    return message(ARRAY)(message("std_msgs/msg/MultiArrayLayout")([], 0), np.array(values, np.float64))


def pose(position, xyzw, frame=""):
    point, quaternion = message("geometry_msgs/msg/Point"), message("geometry_msgs/msg/Quaternion")
    return message(POSE)(header(0, frame), message("geometry_msgs/msg/Pose")(point(*position), quaternion(*xyzw)))


def depth(value):
    return message(IMAGE)(header(0), 2, 3, "16UC1", 0, 6, np.full(6, value, "<u2").view(np.uint8))


FRONT = {"/front": depth(7)}
SAID = {"/joint_states": joints([9.0, -0.2, 0.1]), "/grip": array(0.03), **FRONT}
TOOL_SAID = {"/tool": pose((0.4, 0.0, 0.3), (1.0, 0.0, 0.0, 0.0)), "/grip": array(0.03)}


class Rig:
    """A robot on a wire: `make` says something until it is there, then time stands still."""

    def __init__(self, folder):
        self._path, self.wire, self.clock, self.robot = folder / "arm.yaml", Wire(), Set(), None

    def make(self, text, said, wait_s=3.0):
        self._path.write_text(text)
        config, made = load_config(self._path), threading.Event()

        def talk():
            while not made.is_set():
                self.say(**said)
                time.sleep(0.002)

        talking = threading.Thread(target=talk)
        talking.start()
        try:
            self.robot = RosRobot(config, self.clock, self.wire, wait_s=wait_s)
        finally:
            made.set()
            talking.join()
        return self.robot

    def say(self, age_ms=0, **said):
        self.clock.ns += MS
        for topic, each in said.items():
            for one in each if isinstance(each, list) else [each]:
                self.wire.say(topic, one, self.clock.ns - age_ms * MS)


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    if made.robot is not None:
        made.robot.close()


def test_what_is_held_is_what_is_measured(rig):
    robot = rig.make(JOINTS, SAID)
    assert robot.spec.rate_hz == 49  # exactly, or a dataset of the same file would be of another robot
    held = robot.stop()
    np.testing.assert_allclose(held, [0.1, -0.2, 0.75], rtol=1e-6)
    (arm, at), (grip, opened) = rig.wire.sent
    assert (arm, at.data.tolist(), grip) == ("/command", [0.1, -0.2], "/grip_command")
    assert opened.data.tolist() == pytest.approx([0.03])


@pytest.mark.parametrize(
    ("text", "old", "new", "line"),
    [
        (JOINTS, "joints: [a, b]", "joints: [b, a]", "is for a, b, None, and state q and gripper measures b, a, None"),
        (JOINTS, "joints: [a, b]", "joints: [x, b]", "want the same joints in the same order"),
        (JOINTS, "joints: [a, b]", f"index: [2, 1], type: {JOINT_STATE}", "state q: say which joints of /joint_states"),
        (JOINTS, "units: rad", "units: deg", "measured in rad, rad, open and commanded in deg, deg, open"),
        (JOINTS, "closed: 0.0, open: 0.04, align", "align", "a gripper says closed and open both in state.gripper"),
        (JOINTS, "_command, closed: 0.0, open: 0.04", "_command", "say what the robot calls closed and open"),
        (JOINTS, "_command, ", "_command, joints: [l, r], ", "one number commands it, not 2 joints"),
        (JOINTS, "kind: joint", "kind: joint\n  closed: 0\n  open: 1", "closed and open are of a gripper"),
        (JOINTS, "kind: joint", "kind: joint\n  index: [0, 1]", r"index: \[0, 1\] cannot be published; the set"),
        (JOINTS, "kind: joint", f"kind: joint\n  type: {JOINT_STATE}\n  field: velocity", "velocity cannot be"),
        (JOINTS, "align: before", "align: after", "messages that are still to come"),
        (JOINTS, "names: [a, b]", "names: [p, q]\n  joints: [b, a]", "the action is for b, a"),
        (TOOL, "closed: 0.0, open: 0.04, stamp", "stamp", "state gripper is measured in 1 and commanded in open"),
        (TOOL, "position, stamp", "position, units: mm, stamp", "measured in mm, mm, mm and commanded in m, m, m"),
    ],
)  # fmt: skip
def test_an_arm_that_would_jump_when_it_is_held_is_refused(rig, text, old, new, line):
    assert old in text
    with pytest.raises(ConfigError, match=line):
        rig.make(text.replace(old, new), SAID if text is JOINTS else TOOL_SAID)
    assert rig.wire.open == 0  # nobody listens on behalf of a robot that is not there
    assert rig.wire.sent == []


def test_a_tool_is_commanded_in_the_frame_it_is_measured_in(rig):
    measured = pose((0.4, 0, 0.3), (1.0, 0, 0, 0), "/world")
    with pytest.raises(ConfigError, match=r"tool_pos is measured in the frame 'world', and action.frame is 'base'"):
        rig.make(TOOL, {**TOOL_SAID, "/tool": measured})
    robot = rig.make(TOOL.replace("frame: base, ", ""), {**TOOL_SAID, "/tool": measured})
    robot.stop()
    assert rig.wire.sent[0][1].header.frame_id == "world"


def test_no_rotation_is_neither_observed_nor_sent(rig):
    robot = rig.make(TOOL, TOOL_SAID)
    held = robot.stop()
    rig.clock.ns += 150 * MS
    rig.say(**{"/tool": pose((0.4, 0, 0.3), (0.0, 0, 0, 0)), "/grip": array(0.03)})
    rig.clock.ns += 150 * MS
    with pytest.raises(StaleFrame, match=r"no rotation on /tool: quaternion wxyz \[0\. 0\. 0\. 0\.\]"):
        robot.read()
    count = len(rig.wire.sent)
    with pytest.raises(UnsafeCommand, match="rotation is degenerate"):
        robot.command(np.r_[held[:3], np.zeros(6), 1.0], 0)
    assert len(rig.wire.sent) == count


def test_a_vector_that_changes_its_length_is_told_however_it_is_aligned(rig):
    robot = rig.make(JOINTS, SAID)
    rig.clock.ns += 150 * MS
    rig.say(**{**SAID, "/grip": array(0.03, 0.01)})
    with pytest.raises(StaleFrame, match=r"2 numbers on /grip; it began with 1"):
        robot.read()


def test_somebody_elses_joints_on_the_same_topic_do_not_matter(rig):
    both = {**SAID, "/joint_states": [joints([0.5], ["finger"]), SAID["/joint_states"], joints([0.5], ["finger"])]}
    robot = rig.make(JOINTS, both)
    np.testing.assert_allclose(robot.read().state["q"], [0.1, -0.2], atol=1e-6)


def test_a_field_that_stays_empty_is_told(rig):
    text = JOINTS.replace(
        "state:", "state:\n  dq: {topic: /joint_states, type: sensor_msgs/msg/JointState, field: velocity, stamp: bag}"
    )
    with pytest.raises(ContractError, match="state dq: /joint_states holds no number in velocity"):
        rig.make(text, SAID)


def test_header_stamps_of_nothing_are_told(rig):
    with pytest.raises(ContractError, match=r"state q: the header stamps of /joint_states are 0; set its stamp: bag"):
        rig.make(JOINTS.replace("joints: [a, b], stamp: bag", "joints: [a, b]"), SAID)


def test_a_picture_without_a_newer_one_stays_while_numbers_go_on(rig):
    robot = rig.make(JOINTS, SAID)
    first = robot.read()
    for _ in range(3):
        rig.clock.ns += 8 * MS
        rig.say(**{"/joint_states": joints([9.0, -0.1, 0.2]), "/grip": array(0.02)})
    seen = robot.read()
    assert seen.image_stamps_ns == first.image_stamps_ns
    assert seen.stamp_ns == rig.clock.ns
    np.testing.assert_allclose(seen.state["q"], [0.2, -0.1], rtol=1e-6)
    rig.clock.ns += MS
    assert robot.read().stamp_ns == rig.clock.ns  # nothing new at all: time goes on all the same


def test_a_stalled_camera_does_not_keep_it_from_being_held_where_it_is(rig):
    robot = rig.make(JOINTS, SAID)
    robot.command(np.array([0.3, 0.3, 1.0]), 0)
    rig.clock.ns += 400 * MS
    rig.say(**{"/joint_states": joints([9.0, -0.1, 0.2]), "/grip": array(0.02)})
    with pytest.raises(StaleFrame, match=r"camera front: the newest message on /front is of 0\.40 s ago"):
        robot.read()
    np.testing.assert_allclose(robot.stop(), [0.2, -0.1, 0.5], rtol=1e-6)


def test_what_came_while_this_process_was_busy_is_read(rig, monkeypatch):
    """The threads that receive run as soon as the one that reads lets them."""
    robot = rig.make(JOINTS, SAID)
    rig.clock.ns += 400 * MS
    monkeypatch.setattr(robot_module.time, "sleep", lambda _s: rig.say(**SAID))
    assert rig.clock.ns - robot.read().stamp_ns < 10 * MS


def test_a_silent_robot_is_held_at_the_last_set_point(rig):
    robot = rig.make(JOINTS, SAID)
    robot.command(np.array([0.3, 0.3, 1.0]), 0)
    rig.clock.ns += 400 * MS
    rig.say(**FRONT)
    np.testing.assert_allclose(robot.stop(), [0.3, 0.3, 1.0], rtol=1e-6)


def test_a_controller_that_left_is_told_and_nothing_is_sent(rig):
    robot = rig.make(JOINTS, SAID)
    rig.wire.listeners = 0
    with pytest.raises(UnsafeCommand, match="nobody listens on /command any more"):
        robot.command(np.zeros(3), 0)
    assert rig.wire.sent == []


def test_a_closed_robot_sends_nothing(rig):
    robot = rig.make(JOINTS, SAID)
    held = robot.stop()
    robot.close()
    robot.close()
    count = len(rig.wire.sent)
    np.testing.assert_array_equal(robot.stop(), held)
    with pytest.raises(UnsafeCommand, match="closed"):
        robot.command(np.zeros(3), 0)
    assert (rig.wire.open, len(rig.wire.sent)) == (0, count)


def test_an_error_between_two_subscriptions_leaves_none(rig):
    with pytest.raises(ConfigError, match="no such topic"):
        rig.make(JOINTS.replace("/grip,", "/bad,"), {})
    assert rig.wire.open == 0


def test_the_receiving_thread_survives_whatever_comes(rig):
    class Bad:
        @property
        def position(self):
            raise RuntimeError("odd")

    robot = rig.make(JOINTS, SAID)
    rig.clock.ns += 250 * MS
    rig.say(**{**SAID, "/joint_states": Bad()})
    with pytest.raises(StaleFrame, match="RuntimeError: odd"):
        robot.read()
    rig.say(**SAID)
    np.testing.assert_allclose(robot.read().state["q"], [0.1, -0.2], atol=1e-6)


def test_a_slow_camera_is_read_as_long_as_its_own_age_allows(rig):
    slow = JOINTS.replace("topic: /front", "topic: /front, max_age_s: 1.5").replace(
        "cameras: {", "cameras: {top: /top, "
    )
    slow = slow.replace("/top,", "{topic: /top, max_age_s: 0.3, stamp: bag},")
    robot = rig.make(slow, {**SAID, "/top": depth(3)})
    for _ in range(120):  # of 1.2 s, in which the front camera is silent
        rig.clock.ns += 9 * MS
        rig.say(**{topic: each for topic, each in {**SAID, "/top": depth(3)}.items() if topic != "/front"})
    seen = robot.read()
    assert rig.clock.ns - seen.image_stamps_ns["front"] > 10**9
    assert abs(seen.image_stamps_ns["top"] - seen.image_stamps_ns["front"]) < 20 * MS


def test_a_stream_that_began_anew_leaves_the_others_alone(rig):
    robot = rig.make(JOINTS, SAID)
    rig.say(**SAID)
    rig.say(age_ms=2000, **{"/grip": array(0.04)})
    with pytest.raises(StaleFrame, match=r"state gripper: the newest message on /grip is of 2\.0\d s ago"):
        robot.read()
    rig.say(**{"/grip": array(0.04)})
    rig.say(**{"/front": depth(8)})
    seen = robot.read()
    assert seen.state["gripper"] == pytest.approx(1.0)
    assert seen.images["front"].max() == 8


def test_a_picture_read_twice_is_two_arrays(rig):
    robot = rig.make(JOINTS, SAID)
    first = robot.read()
    first.images["front"][:] = 0
    assert robot.read().images["front"].max() == 7


def test_a_thread_stopped_between_two_clocks_does_not_shift_stamps(monkeypatch):
    """The wall clock seems a second late whenever it is read but for every fourth time."""
    count = iter(range(10**6))
    real = time.time_ns

    def wall_ns():
        if next(count) % 4 < 3:
            time.sleep(0.002)
        return real()

    monkeypatch.setattr(streams_module.time, "time_ns", wall_ns)
    sure = streams_module.sure_offset_ns(None)
    assert streams_module.sure_offset_ns(sure) == sure
    assert abs(sure - (time.monotonic_ns() - real())) < 500_000


@pytest.mark.parametrize("jump_s", [10.0, -3600.0])
def test_a_wall_clock_that_is_set_moves_no_stream(monkeypatch, jump_s):
    """Stamps are the wall clock's, instants are not: whatever it is set to, a value stays where it was in time."""
    real, shift = time.time_ns, [0]
    monkeypatch.setattr(streams_module.time, "time_ns", lambda: real() + shift[0])
    wire = LocalTopics(Hub())
    publisher = wire.publisher("/joints", JOINT_STATE)
    streams = streams_module.Streams({"state q": NumbersTopic("/joints", joints=("a",), max_age_s=5.0)}, wire, 5.0)

    def say():
        made = joints([0.0], ["a"])
        made.position[0], made.header = time.monotonic_ns() / 1e9, header(time.time_ns())
        publisher.send(made)

    try:
        say()
        with suppress(StaleFrame):
            streams.wait(0.0)
        for jump in (0.0, jump_s):
            shift[0] = round(jump * 1e9)
            for _ in range(3):
                say()
            seen = streams.at(None, time.monotonic_ns())
            assert seen.values["state q"][0] == pytest.approx(seen.reference_ns / 1e9, abs=0.1)
    finally:
        streams.close()


def test_a_joint_state_is_published_by_the_controllers_names(tmp_path):
    (tmp_path / "a.yaml").write_text(
        f"rate_hz: 20\nstate: {{}}\naction: {{topic: /c, type: {JOINT_STATE}, kind: joint, names: [p, q], "
        "joints: [j1, j2]}"
    )
    _, make = of_action(load_config(tmp_path / "a.yaml").action, 0.05)
    assert make(np.array([1.0, 2.0]), 0).name == ["j1", "j2"]


def test_a_state_that_stalls_is_said_to_have_stalled(rig):
    robot = rig.make(JOINTS, SAID)
    robot.read()
    for _ in range(3):
        rig.clock.ns += 45 * MS
        rig.say(**{**FRONT, "/grip": array(0.02)})
    stalled = (
        r"^state q: the newest message on /joint_states is of 0\.14 s ago, the observation of 0\.00 s ago; at most "
        r"0\.1 s between them is allowed \(max_age_s\): did it stall\?$"
    )
    with pytest.raises(StaleFrame, match=stalled):
        robot.read()


def test_a_stream_that_stalls_is_named_and_not_a_slower_one_that_it_keeps_waiting(rig):
    q, gripper = (line for line in JOINTS.splitlines() if line.startswith(("  q:", "  gripper: {topic: /grip,")))
    slow = gripper.replace("align: before", "align: before, max_age_s: 0.01")
    robot = rig.make(JOINTS.replace("primary: front\n", "").replace(f"{q}\n{gripper}", f"{slow}\n{q}"), SAID)
    robot.read()
    for _ in range(3):
        rig.clock.ns += 45 * MS
        rig.say(**{**FRONT, "/grip": array(0.02)})
    rig.clock.ns += 20 * MS
    with pytest.raises(StaleFrame, match=r"^state q: the newest message on /joint_states is of 0\.1"):
        robot.read()


def test_a_stream_that_comes_too_seldom_is_told_how_that_is_allowed(rig):
    robot = rig.make(JOINTS, SAID)
    robot.read()
    rig.clock.ns += 60 * MS
    rig.say(**FRONT)
    rig.clock.ns += 140 * MS
    rig.wire.say("/joint_states", joints([9.0, -0.2, 0.1]), rig.clock.ns)
    rig.wire.say("/grip", array(0.02), rig.clock.ns)
    with pytest.raises(
        StaleFrame, match=r"state q: nothing on /joint_states within 0\.1 s of the instant 0\.14 s ago; r"
    ):
        robot.read()
