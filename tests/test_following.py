"""Whole motions to a trajectory controller: a fake one within the process, and the bytes over DDS."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
sys.path.insert(0, str(Path(__file__).parent))
import fake_trajectory_controller as fake
from fake_ros_arm import LOOPBACK

from robopolicy.errors import ConfigError, UnsafeCommand
from robopolicy.following import Following
from robopolicy.inference import Simulated
from robopolicy.loop import run_episode
from robopolicy.realtime import RealTime
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import RobotContract
from robopolicy.topics.config import load_config
from robopolicy.trajectory import Curve
from robopolicy.types import ActionChunk, EpisodeMeta, Plan
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.motion_limits import limit_motion
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.motions import BRAKE_S, Motions
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits
from robopolicy_hardware.supervisor import Supervised, Watchdogs

SPEC = PolicySpec(
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("a", "b", "gripper"), ("rad", "rad", "open")), rate_hz=10.0,
    n_obs=1, horizon=16, n_execute=8,
)  # fmt: skip
NONE = SafetyLimits()
TICK_NS, MS = 10_000_000, 1_000_000


def path(t):
    t = np.asarray(t)
    return np.stack([0.3 * np.sin(t), 0.2 * np.sin(0.7 * t), 0.5 + 0.5 * np.sin(t)], -1)


class Waver:
    """Plans a path from where the arm is, a little off it each time."""

    spec = SPEC

    def __init__(self, start_ns):
        self.start_ns, self.plans = start_ns, 0

    def reset(self):
        pass

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        self.plans += 1
        t = (window[-1].stamp_ns - self.start_ns) * 1e-9 + np.arange(SPEC.horizon) / SPEC.rate_hz
        off = generator.normal(0, 0.02, 3) * [1, 1, 0]
        off[:2] += window[-1].state["q"] - path(t[0])[:2]
        return Plan((path(t) + off)[None].astype(np.float32), np.zeros(3, np.float32))


class Rig:
    """A robot that takes motions, a fake controller, and a clock that both live by."""

    def __init__(self, folder, text=fake.YAML):
        (folder / "arm.yaml").write_text(text)
        wire = Wire()
        self.clock = fake.Stepped(wire)
        import threading

        going = threading.Event()
        saying = threading.Thread(target=lambda: [self.clock._say() for _ in iter(lambda: going.wait(0.01), True)])
        saying.start()
        try:
            self.robot = RosRobot(load_config(folder / "arm.yaml"), self.clock, LocalTopics(wire))
        finally:
            going.set()
            saying.join()

    def run(self, steps, limits=NONE, latency_s=0.1, wrap=lambda robot: robot):
        """Run an episode; return the policy, the agent, and when it began on the controller's track."""
        safety = SafetyLayer(limits, self.robot.spec)
        policy = Waver(self.clock.now_ns())
        agent = RealTime(policy, self.clock, Simulated(latency_s), generator=np.random.default_rng)
        robot = Following(wrap(self.robot), agent, lambda *motion: limit_motion(safety, *motion))
        self.steps = []
        run_episode(robot, agent, self.clock, safety, EpisodeMeta("wave", "fake", 0), max_steps=steps, watchers=[self])
        return policy, agent

    def on_start(self, meta, spec):
        pass

    def on_step(self, step):
        self.steps.append(step)

    def on_end(self, meta):
        pass


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.robot.close()


class TakesMotions(MockRobot):
    """A mock that takes motions, and remembers none."""

    def told(self):
        return None

    def follow(self, chunk, velocities):
        raise AssertionError("there is no plan to send")


class TestFollowing(RobotContract):
    def make(self, clock):
        spec = replace(SPEC, n_obs=1, horizon=1, n_execute=1)
        return Following(TakesMotions(spec, clock), SimpleNamespace(plans=0, ahead=lambda step_ns: None), None)


def moves(received):
    """The messages that are motions, neither one held point nor what brakes one."""
    return [one for one in received if len(one.points) > 1 and one.points[0].time_from_start.nanosec <= TICK_NS]


def accelerations(clock):
    """Velocity steps (N,) of the controller's track, rad/s in 2 ms, and which of them are within 10 ms of a message."""
    track, times = np.array(clock.track), np.array(clock.track_ns)
    steps = np.linalg.norm(np.diff(track, 2, axis=0), axis=1) / (fake.STEP_NS / 1e9)
    came = np.array([ns for ns, one in zip(clock.came_ns, clock.received, strict=True) if len(one.points) > 1])
    return steps, np.abs(times[1:-1, None] - came[1:]).min(axis=1) <= TICK_NS


def test_a_motion_is_sent_when_there_is_a_new_plan_and_not_at_each_tick(rig):
    policy, agent = rig.run(500)
    sent = moves(rig.clock.received)
    assert len(sent) == agent.plans == pytest.approx(6, abs=1)
    assert policy.plans >= len(sent)
    for one in sent:
        assert list(one.joint_names) == ["a", "b"]
        due = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in one.points]
        assert due[0] == pytest.approx(0.01, abs=0.002)
        np.testing.assert_allclose(np.diff(due), 0.01, atol=1e-9)
        assert all(len(point.velocities) == 2 for point in one.points)
        np.testing.assert_array_equal(one.points[-1].velocities, 0)
    assert len(rig.clock.fingers) >= 480, "the gripper has a topic of its own: a number each tick"
    assert np.ptp(rig.clock.fingers) > 0.02


@pytest.mark.parametrize("latency_s", [0.05, 0.2])
def test_what_the_controller_makes_of_it_is_as_smooth_at_a_new_plan_as_inside_one(rig, latency_s):
    rig.run(1000, latency_s=latency_s)
    steps, near = accelerations(rig.clock)
    assert np.ptp(np.array(rig.clock.track), axis=0).min() > 0.3, "it moved"
    assert near.sum() > 9 * 9
    assert steps[near].max() <= 1.2 * steps[~near].max()
    assert steps.max() < 0.01, "rad/s in 2 ms, from the first motion on"


def test_what_was_sent_is_what_the_controller_was_told(rig):
    rig.run(300)
    there = dict(zip(rig.clock.track_ns, rig.clock.track, strict=True))
    off = [np.abs(step.sent[:2] - there[step.due_ns]).max() for step in rig.steps if step.source == "policy"]
    assert len(off) > 280
    assert off[0] < 1e-3, "where it begins is not known to a tick"
    assert max(off[1:]) < 1e-5


def test_every_limit_acts_on_every_point_before_any_is_sent(rig):
    limits = SafetyLimits(
        max_rate=(0.1, 0.1, 5.0), low=(-0.1, -1.0, -1.0), high=(0.1, 1.0, 2.0), max_accel=(1.0, 1.0, 50.0)
    )
    rig.run(600, limits)
    assert len(moves(rig.clock.received)) >= 5
    for one in moves(rig.clock.received):
        points = np.array([point.positions for point in one.points])
        assert np.abs(points[:, 0]).max() <= 0.1 + 1e-6
        assert np.abs(np.diff(points, axis=0)).max() <= 0.1 * 0.01 + 1e-6
        speeds = np.array([point.velocities for point in one.points])
        assert np.abs(np.diff(speeds, axis=0)[:-1]).max() <= 1.0 * 0.01 * 1.5
        np.testing.assert_array_equal(speeds[-1], 0)
    track = np.array(rig.clock.track)
    assert np.abs(np.diff(track, axis=0)).max() <= 0.1 * 0.002 * 1.5
    assert track[:, 0].max() > 0.09, "it went as far as it may"


def test_a_loop_that_comes_late_hands_over_where_the_controller_is(rig):
    """Limits that act all the time, ticks of uneven length: no motion begins elsewhere than where the last one is."""
    rng = np.random.default_rng(0)
    rig.clock.late_ns = lambda: int(rng.integers(0, 8) * MS)
    rig.run(500, SafetyLimits(max_rate=(0.1, 0.1, 5.0), max_accel=(1.0, 1.0, 50.0)))
    assert len(moves(rig.clock.received)) >= 5
    assert np.ptp(np.array(rig.clock.track), axis=0).max() > 0.1
    speeds = np.diff(np.array(rig.clock.track)[::5], axis=0) / 0.01
    assert np.abs(speeds).max() <= 0.1 * 1.02
    assert np.abs(np.diff(speeds, axis=0)).max() <= 1.0 * 0.01 * 3, "between the points it is the controller's cubics"


def test_a_stop_brakes_and_then_holds(rig):
    rig.run(300)
    before = len(rig.clock.received)
    last = rig.clock.received[-1]
    assert last.points[0].time_from_start.nanosec > TICK_NS, "the end of an episode is a stop"
    assert last.points[-1].time_from_start.nanosec == pytest.approx(BRAKE_S * 1e9)
    track_at = len(rig.clock.track)
    held = rig.robot.stop()
    for _ in range(10):
        np.testing.assert_array_equal(rig.robot.stop("again"), held)
    assert len(rig.clock.received) == before, "sent again while it brakes, it would brake anew"
    rig.clock.sleep_until(rig.clock.now_ns() + 500 * MS)
    track = np.array(rig.clock.track[track_at - 200 :])
    speed = np.diff(track, axis=0) / 0.002
    assert np.abs(speed[-100:]).max() == 0
    assert np.abs(np.diff(speed, axis=0)).max() < 0.02, "no jerk where it began to brake"
    np.testing.assert_allclose(track[-1], held[:2], atol=1e-6)
    rig.robot.stop()
    assert len(rig.clock.received) == before + 1, "held: said again"
    rig.clock.sleep_until(rig.clock.now_ns() + 100 * MS)
    np.testing.assert_allclose(rig.clock.track[-1], held[:2], atol=1e-6)


@pytest.mark.parametrize("early_ms", [30, 60, 90, 150, 400])
def test_a_stop_goes_nowhere_that_the_motion_would_not_have(rig, early_ms):
    """A motion that ends at a wall brakes before it, at 5 rad/s^2: harder than a stop does."""
    stamps = rig.clock.now_ns() + TICK_NS * np.arange(1, 121, dtype=np.int64)
    t = (stamps - stamps[0]) * 1e-9
    to_go = np.maximum(t[-1] - t, 0.0)
    speed = np.minimum(1.0, 5.0 * to_go)  # rad/s; 5 rad/s^2 to rest
    way = 1.0 - np.where(to_go < 0.2, 2.5 * to_go**2, to_go - 0.1)
    values = np.stack([way - way[0], 0 * way, 0 * way], -1).astype(np.float32)
    wall = values[-1, 0]
    rig.robot.follow(ActionChunk(stamps, values, 0), np.stack([speed, 0 * way, 0 * way], -1))
    rig.clock.sleep_until(int(stamps[-1]) - early_ms * MS)
    before = len(rig.clock.track) - 5
    held = rig.robot.stop("a watchdog")
    rig.clock.sleep_until(rig.clock.now_ns() + 500 * MS)
    track = np.array(rig.clock.track)[before:, 0]
    assert track.max() <= wall + 1e-4
    assert np.diff(track).min() > -2e-5, "it never turns back"
    assert track[-1] == pytest.approx(held[0], abs=1e-6)
    assert np.abs(np.diff(track)).max() <= 1.0 * 0.002 * 1.01


def test_after_a_stop_in_mid_motion_the_motion_is_sent_again_from_where_the_arm_is(rig):
    stopped = []

    class Trips:
        def __init__(self, robot):
            self.robot, self.k = robot, 0

        def __getattr__(self, name):
            return getattr(self.robot, name)

        def command(self, action, due_ns):
            self.k += 1
            if self.k == 60:
                stopped.append(len(moves(rig.clock.received)))
                self.robot.stop("a watchdog")
                rig.clock.sleep_until(rig.clock.now_ns() + 400 * MS)
            return self.robot.command(action, due_ns)

    limits = SafetyLimits(max_rate=(0.5, 0.5, 5.0), max_accel=(5.0, 5.0, 100.0))
    rig.run(200, limits, wrap=Trips)
    sent = moves(rig.clock.received)
    assert len(sent) > stopped[0]
    assert np.abs(np.diff(rig.clock.track, axis=0)).max() <= 0.5 * 0.002 * 1.5


def test_what_is_no_motion_is_refused_and_nothing_is_sent(rig):
    now_ns = rig.clock.now_ns()
    stamps = now_ns + TICK_NS * np.arange(1, 4, dtype=np.int64)
    values, rest = np.zeros((3, 3), np.float32), np.zeros((3, 3))
    moving = rest.copy()
    moving[-1, 0] = 0.1
    for chunk, velocities, why in (
        (ActionChunk(stamps, np.full_like(values, np.nan), now_ns), rest, "motion is not finite"),
        (ActionChunk(stamps, values, now_ns), np.full_like(rest, np.inf), "motion is not finite"),
        (ActionChunk(stamps, values, now_ns), rest[:2], "want .H, 2. both"),
        (ActionChunk(stamps, values, now_ns), moving, "does not end at rest"),
        (ActionChunk(stamps - 10**9, values, now_ns), rest, "over before it begins"),
    ):
        with pytest.raises(UnsafeCommand, match=why):
            rig.robot.follow(chunk, velocities)
    assert rig.clock.received == []
    assert rig.robot.told() is None
    rig.robot.close()
    with pytest.raises(UnsafeCommand, match="the robot is closed"):
        rig.robot.follow(ActionChunk(stamps, values, now_ns), rest)


def test_a_watched_robot_passes_motions_on_unless_there_is_a_reason_not_to(rig):
    robot = Supervised(rig.robot, Watchdogs(silent_s=None))
    stamps = rig.clock.now_ns() + TICK_NS * np.arange(1, 4, dtype=np.int64)
    chunk = ActionChunk(stamps, np.zeros((3, 3), np.float32), 0)
    robot.follow(chunk, np.zeros((3, 3)))
    assert len(rig.clock.received) == 1
    np.testing.assert_allclose(robot.told(), [[0, 0, 0.5], [0, 0, 0]])
    robot.fault("it smells")
    assert robot.told() is None
    with pytest.raises(UnsafeCommand, match="fault: it smells"):
        robot.follow(chunk, np.zeros((3, 3)))
    assert len(moves(rig.clock.received)) == 1
    robot.close()


def test_a_file_that_sends_chunks_as_something_else_is_refused(tmp_path):
    text = fake.YAML.replace("type: trajectory_msgs/msg/JointTrajectory\n", "type: sensor_msgs/msg/JointState\n")
    (tmp_path / "arm.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"send: chunk wants type: trajectory_msgs/msg/JointTrajectory, not sensor_"):
        RosRobot(load_config(tmp_path / "arm.yaml"), fake.Stepped(Wire()), LocalTopics(Wire()))
    (tmp_path / "arm.yaml").write_text(fake.YAML.replace("send: chunk", "send: chunks"))
    with pytest.raises(ConfigError, match=r"action\.send"):
        load_config(tmp_path / "arm.yaml")


def test_a_motion_survives_the_wire(tmp_path):
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
    os.environ["CYCLONEDDS_URI"] = LOOPBACK
    from robopolicy_hardware.ros.dds import Topics

    domain = 20 + os.getpid() % 60
    (tmp_path / "arm.yaml").write_text(fake.YAML)
    motions = Motions(load_config(tmp_path / "arm.yaml").action, ("a", "b"))
    rows = np.cumsum(np.random.default_rng(0).normal(0, 0.1, (40, 2)), axis=0).astype(np.float32)
    chunk = ActionChunk(10**9 + TICK_NS * np.arange(40, dtype=np.int64), rows, 0)
    curve = Curve(chunk)
    velocities = np.stack([curve.at(int(ns))[1] for ns in chunk.stamps_ns])
    sent = motions.begin(chunk, velocities, 10**9 + 5 * TICK_NS)
    received, sender, receiver = [], Topics(domain), Topics(domain)
    try:
        publisher = sender.publisher("/arm_controller/joint_trajectory", fake.TRAJECTORY)
        receiver.subscribe(
            "/arm_controller/joint_trajectory", fake.TRAJECTORY, lambda one, came_ns: received.append(one)
        )
        deadline_s = time.monotonic() + 60
        while not received:
            assert time.monotonic() < deadline_s
            publisher.send(sent)
            time.sleep(0.02)
    finally:
        sender.close()
        receiver.close()
    came = received[0]
    assert len(came.points) == 34, "rows that are due now or were are not sent"
    np.testing.assert_array_equal([point.positions for point in came.points], rows[6:].astype(np.float64))
    np.testing.assert_array_equal([point.velocities for point in came.points], velocities[6:])
    due = [point.time_from_start.sec * 10**9 + point.time_from_start.nanosec for point in came.points]
    np.testing.assert_array_equal(due, TICK_NS * np.arange(1, 35))
    for k in range(34):  # between rows it is the curve that the policy's rows make
        at_ns = int(chunk.stamps_ns[5 + k]) + TICK_NS // 3 + TICK_NS
        np.testing.assert_allclose(motions.at(at_ns)[0], curve.at(at_ns)[0], atol=1e-9)
