"""One recorded stream through both: what a policy sees live is what the dataset, and the bag's import, hold of it."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
sys.path.insert(0, str(Path(__file__).parent))
import ros_bags

from robopolicy.agents import Chunked
from robopolicy.clock import SimClock
from robopolicy.loop import run_episode
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy.types import EpisodeMeta, Plan
from robopolicy_data.importers.rosbag import import_rosbag
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_data.windows import WindowSampler, load_arrays
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.streams import sure_offset_ns
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits

MS = 1_000_000
STEPS = 25
YAML = """
rate_hz: 10
primary: front
cameras:
  front: {topic: /front, type: sensor_msgs/msg/CompressedImage, latency_s: 0.01}
  wrist: {topic: /wrist, max_age_s: 0.06}
state:
  q: {topic: /joints, type: sensor_msgs/msg/JointState, field: position, joints: [a, b, c]}
  quat: {topic: /pose, type: geometry_msgs/msg/PoseStamped, field: pose.orientation}
action:
  {topic: /command, type: std_msgs/msg/Float64MultiArray, kind: joint, names: [a, b, c], stamp: bag, max_age_s: 1.0}
"""


class Replayed(SimClock):
    """A clock along which a recording is sent again, each message when it came then."""

    def __init__(self, wire, messages, offset_ns):
        super().__init__(messages[0][1] + offset_ns)
        topics = LocalTopics(wire)
        self._publishers = {
            topic: topics.publisher(topic, kind)
            for topic, kind in {topic: kind for topic, _, (kind, _) in messages}.items()
        }
        self._left, self._offset_ns = list(messages), offset_ns

    def send(self, topic, message):
        self._publishers[topic].send(message)

    def sleep_until(self, stamp_ns):
        while self._left and self._left[0][1] + self._offset_ns <= stamp_ns:
            topic, came_ns, (_, message) = self._left.pop(0)
            super().sleep_until(came_ns + self._offset_ns)
            self.send(topic, message)
        super().sleep_until(stamp_ns)


class Looks:
    """A policy that keeps what it was shown."""

    def __init__(self, spec):
        self.spec = spec
        self.windows = []

    def reset(self):
        self.windows = []

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        self.windows.append(list(window))
        return Plan(np.repeat(window[-1].state["q"][None, None], self.spec.horizon, axis=1), np.zeros(1, np.float32))


def scripted(start_ns):
    """Messages of an arm, in the order in which they came: jittered, late, each stream at its own rate."""
    rng = np.random.default_rng(0)

    def stamps(rate_hz, jitter_ms):
        base = start_ns + (np.arange(round(4 * rate_hz)) * 1e9 / rate_hz).astype(np.int64)
        return [int(stamp + rng.integers(0, jitter_ms * MS)) for stamp in base]

    out = []
    for topic, make, times, late_ms in (
        ("/front", ros_bags.compressed, stamps(10, 4), 25),
        ("/wrist", ros_bags.image, stamps(25, 4), 8),
        ("/joints", lambda ns: ros_bags.joints(ns, names=("c", "a", "b")), stamps(100, 2), 1),
        ("/pose", ros_bags.pose, stamps(50, 2), 1),
        ("/command", lambda ns: ros_bags.floats([0.0, 0.0, 0.0]), stamps(10, 1), 0),
    ):
        out += [(topic, ns + late_ms * MS, make(ns)) for ns in times]
    return sorted(out, key=lambda one: one[1])


def opened(folder, messages):
    """A robot that heard the first message of each topic, and the clock along which the others come."""
    (folder / "arm.yaml").write_text(YAML)
    wire, offset_ns = Wire(), sure_offset_ns(None)
    heard = [one for one in messages if one[0] != "/command"]  # the robot's own word is ours to say, live
    clock = Replayed(wire, heard, offset_ns)
    LocalTopics(wire).subscribe("/command", "std_msgs/msg/Float64MultiArray")
    first = {topic: message for topic, _, (_, message) in reversed(heard)}
    ready = threading.Event()

    def say():
        while not ready.wait(0.01):
            for topic, message in first.items():
                clock.send(topic, message)

    saying = threading.Thread(target=say)
    saying.start()
    try:
        robot = RosRobot(load_config(folder / "arm.yaml"), clock, LocalTopics(wire))
    finally:
        ready.set()
        saying.join()
    robot._streams._offset_ns = clock.offset_ns = offset_ns
    return robot, clock


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The windows of a policy, live; the dataset that was recorded; the one that was imported; the clocks' distance."""
    start_ns = time.time_ns() // MS * MS
    monkeypatch.setattr(ros_bags, "START", start_ns)
    messages = scripted(start_ns)
    robot, clock = opened(tmp_path, messages)
    spec = PolicySpec(robot.spec.cameras, robot.spec.state, robot.spec.action, 10.0, n_obs=2, horizon=4, n_execute=1)
    policy = Looks(spec)
    with Recorder(tmp_path / "live.zarr", lossless=True, background=False) as recorder:
        clock.sleep_until(clock.now_ns() + 760 * MS)  # a tick comes well after a picture and all that belongs to it
        run_episode(
            robot, Chunked(policy), clock, SafetyLayer(SafetyLimits(), robot.spec), EpisodeMeta("look", "replay", 0),
            max_steps=STEPS, watchers=[recorder],
        )  # fmt: skip
    robot.close()
    bag = ros_bags.write_bag(tmp_path / "bag", messages)
    assert import_rosbag(bag, tmp_path / "bag.zarr", config=tmp_path / "arm.yaml", lossless=True) == 1
    return policy.windows, Dataset(tmp_path / "live.zarr"), Dataset(tmp_path / "bag.zarr"), clock.offset_ns


def test_what_a_policy_saw_live_is_what_the_recording_holds_to_the_bit(both):
    windows, recorded, _, _ = both
    assert len(windows) == STEPS
    arrays = load_arrays(recorded)
    sampler = WindowSampler(arrays, 2, 4)
    assert recorded.spec.cameras == {"front": CameraSpec(12, 16), "wrist": CameraSpec(12, 16)}
    assert recorded.spec.state["q"] == StateSpec(3, ("rad",))
    assert recorded.spec.action == ActionSpec("joint", ("a", "b", "c"), ("rad",))
    for k, window in enumerate(windows):
        offline = sampler.batch(np.array([k]))
        for name in ("q", "quat"):
            np.testing.assert_array_equal(offline["state"][name][0], np.stack([one.state[name] for one in window]))
        for name in ("front", "wrist"):
            np.testing.assert_array_equal(offline["images"][name][0], np.stack([one.images[name] for one in window]))


def test_what_a_policy_saw_live_is_what_the_import_of_the_bag_holds_to_the_bit(both):
    windows, _, imported, offset_ns = both
    (episode,) = imported
    stamps = episode.stamps_ns("step")
    seen = 0
    for window in windows:
        live = window[-1]
        (row,) = np.flatnonzero(stamps == live.stamp_ns - offset_ns)
        for name in ("q", "quat"):
            np.testing.assert_array_equal(episode.state(name)[row], live.state[name])
        for name in ("front", "wrist"):
            np.testing.assert_array_equal(episode.images(name, [int(row)])[0], live.images[name])
        seen += 1
    assert seen == STEPS
    q = np.stack([window[-1].state["q"] for window in windows])
    assert np.ptp(q, axis=0).min() > 0.3, "the arm moved meanwhile"
    t = np.array([window[-1].stamp_ns - windows[0][-1].stamp_ns for window in windows]) / 1e9
    np.testing.assert_allclose(q[:, 0] - q[0, 0], t, atol=1e-5)


def test_a_picture_is_decoded_once_however_often_it_is_read_and_is_nobody_elses(tmp_path, monkeypatch):
    from robopolicy_hardware.ros import robot as module

    decoded = []
    was = module._pixels
    monkeypatch.setattr(module, "_pixels", lambda message, name: decoded.append(name) or was(message, name))
    monkeypatch.setattr(ros_bags, "START", time.time_ns() // MS * MS)
    robot, clock = opened(tmp_path, scripted(ros_bags.START))
    try:
        clock.sleep_until(clock.now_ns() + 500 * MS)
        decoded.clear()
        first = robot.read()
        again = robot.read()
        assert first.image_stamps_ns == again.image_stamps_ns
        assert sorted(decoded) == ["front", "wrist"]
        assert first.encoded == again.encoded != {}
        first.images["front"][:] = 0
        assert again.images["front"].any()
        clock.sleep_until(clock.now_ns() + 110 * MS)
        assert robot.read().image_stamps_ns["front"] > first.image_stamps_ns["front"]
        assert len(decoded) == 4
    finally:
        robot.close()
