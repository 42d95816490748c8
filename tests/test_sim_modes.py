"""The aligned twin in the loop: shadow, twin first, offline; the same loop as always."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, SpecMismatch, StaleFrame, UnknownName, UnsafeCommand, UsageError
from robopolicy.interfaces import Environment, Robot
from robopolicy.loop import run_episode
from robopolicy.spec import PolicySpec, StateSpec
from robopolicy.testing import EnvironmentContract, RobotContract
from robopolicy.types import Command, EpisodeMeta, Observation, Step
from sim_envs.aligned import AlignedTwin
from sim_envs.experts import make_expert
from sim_envs.imperfections import Imperfect, Imperfections
from sim_envs.modes import OfflineTwin, Shadow, TwinFirst
from sim_envs.tasks import make_task
from sim_envs.tracked import PoseMeasurement, Tracked, measured, place_objects, tracked_of
from sim_envs.twin import Twin

sys.path.insert(0, str(Path(__file__).parent))
from aligning import Camera, follow, hidden
from twin_parts import make_safety

START = {
    "q": np.array([0.1, -0.1, 0.0, -2.5, 0.0, 2.4, 0.8], np.float32),
    "gripper": np.array([0.5], np.float32),
    "cube_pos": np.array([0.5, 0.05, 0.02], np.float32),
    "cube_quat": np.array([1.0, 0, 0, 0], np.float32),
}


class Still:
    """An agent that holds."""

    decision = None

    def act(self, observation):
        return Command(None, "hold")

    def reset(self, seed=0):
        pass


def twin(clock, **more):
    return Twin(make_task("lift"), clock, **{"cameras": (), "rate_hz": 50.0, **more})


def starts(count=10):
    return {i: ({**START, "cube_pos": START["cube_pos"] + np.float32([0, 0.01 * i, 0])}, None) for i in range(count)}


class TestOffline(EnvironmentContract):
    def make(self, clock):
        return OfflineTwin(make_task("lift"), clock, starts(), cameras=())


class TestTwinFirst(RobotContract):
    def make(self, clock):
        real = twin(clock, action="joint")
        first = TwinFirst(AlignedTwin(make_task("lift"), clock.now_ns(), rate_hz=50.0), real, clock)
        first.read()
        return first


class TestTwinFirstWithLimitsOfTheArm(RobotContract):
    def make(self, clock):
        real = twin(clock, action="joint")
        aligned = AlignedTwin(make_task("lift"), clock.now_ns(), rate_hz=50.0)
        first = TwinFirst(aligned, real, clock, safety=make_safety(real.spec))
        first.read()
        return first


class TestTwinFirstOfToolPoses(RobotContract):
    def make(self, clock):
        first = TwinFirst(AlignedTwin(make_task("lift"), clock.now_ns(), rate_hz=50.0), twin(clock), clock)
        first.read()
        return first


@pytest.mark.parametrize("seed", [0, 3])
def test_a_shadow_follows_the_robot_that_the_policy_drives(seed):
    clock = SimClock()
    real = hidden("lift", clock)
    real.spec = replace(real.spec, rate_hz=50.0)
    real.reset(seed)
    shadow = Shadow(AlignedTwin(make_task("lift")))
    expert = make_expert("lift", real.spec)
    meta = run_episode(real, expert, clock, make_safety(real.spec), EpisodeMeta("lift", "twin", seed), max_steps=300,
                       watchers=[shadow], done=lambda _: real.success())  # fmt: skip
    assert real.success()
    assert meta.success is None
    shadow.aligned.advance(clock.now_ns())
    assert shadow.aligned.twin.success(), "it saw the cube go up"
    there, here = real.read().state, shadow.aligned.read().state
    np.testing.assert_allclose(here["cube_pos"], there["cube_pos"], atol=4e-3)
    np.testing.assert_allclose(here["q"], there["q"], atol=2e-3)
    health = shadow.health()["twin"]
    assert health.confidence > 0.5
    assert (health.restarts, health.recoveries, health.diverged) == (0, 0, "")


def test_a_shadow_refuses_a_robot_whose_joints_are_not_seen():
    shadow = Shadow(AlignedTwin(make_task("lift")))
    with pytest.raises(SpecMismatch, match=r"want state q \(7\); the robot has tool_pos"):
        shadow.on_start(EpisodeMeta("", ""), PolicySpec(state={"tool_pos": StateSpec(3, ("m",))}))


def test_an_arm_that_tells_nothing_is_said_and_confidence_is_gone():
    clock = SimClock()
    real = twin(clock)
    shadow = Shadow(AlignedTwin(make_task("lift")))
    assert shadow.health()["twin"].diverged.startswith("the arm was not measured yet")
    seen = real.read()
    shadow.on_step(Step(seen, real.stop(), 0, "hold"))
    assert shadow.health()["twin"].diverged == ""
    shadow.aligned.advance(1_000_000_000)
    assert shadow.health()["twin"].diverged.startswith("the arm was not measured for 1.0 s")
    assert shadow.health()["twin"].confidence == 0.0


@pytest.mark.parametrize("action", ["joint", "tool_pose"])
@pytest.mark.parametrize("name", ["q", "dq", "gripper"])
def test_encoders_that_tell_no_numbers_are_none(action, name):
    clock = SimClock()
    real, aligned = twin(clock, action=action), AlignedTwin(make_task("lift"), action=action)
    for tick in range(200):
        clock.sleep_until(tick * 10_000_000)
        aligned.advance(clock.now_ns())
        seen = real.read()
        if tick > 50:
            seen = replace(seen, state={**seen.state, name: np.full_like(seen.state[name], np.nan)})
        aligned.observe(seen)
    assert all(np.isfinite(values).all() for values in aligned.read().state.values())
    assert "the arm was not measured for 1." in aligned.health()["twin"].diverged
    assert aligned.health()["twin"].confidence == 0.0


def test_a_pause_of_an_hour_is_not_made_up_for():
    aligned = AlignedTwin(make_task("lift"))
    aligned.begin(START, 0)
    before = aligned.read().state
    aligned.advance(3_600_000_000_000)
    assert aligned.now_ns == 3_600_000_000_000
    np.testing.assert_allclose(aligned.read().state["cube_pos"], before["cube_pos"], atol=1e-3)


def test_without_commands_it_goes_by_the_encoders():
    clock = SimClock()
    real = twin(clock, action="joint")
    real.reset(2)
    aligned = AlignedTwin(make_task("lift"), action="joint")
    goal = real.stop() + np.float32([0.3, 0, 0, 0, 0, 0, 0, 0])
    real.command(goal, 0)
    for _ in range(100):
        clock.sleep_until(clock.now_ns() + 10_000_000)
        seen = real.read()
        aligned.advance(clock.now_ns())
        aligned.observe(seen)
    np.testing.assert_allclose(aligned.joints()[0], real.read().state["q"], atol=1e-4)
    assert abs(aligned.joints()[0][0] - goal[0]) < 0.01
    np.testing.assert_allclose(aligned.read().state["gripper"], real.read().state["gripper"], atol=0.03)


@pytest.mark.parametrize("without", ["dq", "gripper"])
def test_a_stream_that_the_robot_does_not_have_is_missing_and_not_zero(without):
    clock = SimClock()
    real = twin(clock)
    real.reset(1)
    aligned = AlignedTwin(make_task("lift"))
    goal = real.stop() + np.float32([0, 0.3, 0, 0, 0, 0, 0, 0, 0, -0.5])
    for tick in range(25):
        clock.sleep_until(tick * 10_000_000)
        seen = real.read()
        aligned.advance(clock.now_ns())
        aligned.observe(replace(seen, state={k: v for k, v in seen.state.items() if k != without}))
        real.command(goal, clock.now_ns())
        aligned.command(goal, clock.now_ns())
    assert np.abs(real.read().state["dq"]).max() > 0.1
    np.testing.assert_allclose(aligned.read().state["dq"], real.read().state["dq"], atol=0.02)
    np.testing.assert_allclose(aligned.read().state["gripper"], real.read().state["gripper"], atol=0.05)


def test_a_command_that_nobody_repeats_gives_way_to_the_encoders():
    clock = SimClock()
    real = twin(clock, action="joint")
    aligned = AlignedTwin(make_task("lift"), action="joint")
    seen = real.read()
    aligned.observe(seen)
    aligned.command(real.stop() + np.float32([0.8, 0, 0, 0, 0, 0, 0, 0]), 0)  # but the arm stays where it is
    for tick in range(1, 150):
        clock.sleep_until(tick * 10_000_000)
        aligned.advance(clock.now_ns())
        aligned.observe(real.read())
    aligned.advance(clock.now_ns() + 10_000_000)
    np.testing.assert_allclose(aligned.joints()[0], real.read().state["q"], atol=2e-4)


def test_a_command_moves_the_following_twin_as_late_as_it_moves_the_arm():
    moved = {}
    for delay_s in (0.0, 0.2):
        aligned = AlignedTwin(make_task("lift"), rate_hz=50.0, delay_s=delay_s)
        aligned.begin(START, 0)
        before = aligned.read().state["tool_pos"]
        goal = aligned.set_point()
        goal[2] += 0.05
        aligned.command(goal, 0)
        aligned.advance(150_000_000)
        early = aligned.read().state["tool_pos"][2] - before[2]
        aligned.advance(500_000_000)
        moved[delay_s] = early, aligned.read().state["tool_pos"][2] - before[2]
        aligned.close()
    assert moved[0.0][0] > 5e-3
    assert abs(moved[0.2][0]) < 1e-3
    assert moved[0.2][1] > 0.02


def test_follower_never_jumps():
    first = follow("pusht", 1, Camera(), max_s=6.0)
    second = follow("pusht", 1, Camera(), max_s=6.0, mode="follower")
    assert second.largest_step_m < 0.0035, "at most 0.22 m/s is commanded: 2.2 mm in 10 ms"
    assert np.sqrt(np.mean(second.twin[:, 0] ** 2)) < 2.5 * np.sqrt(np.mean(first.twin[:, 0] ** 2))


def test_a_follower_is_drawn_to_where_the_object_was_seen_against_friction():
    aligned = AlignedTwin(make_task("pusht"), mode="follower")
    start = {**aligned.read().state, "block": np.array([0.55, 0.15, 1.0], np.float32)}
    aligned.begin(start, 0)
    seen, steps = {**start, "block": start["block"] + np.float32([0.004, 0, 0.05])}, []
    for tick in range(1, 200):
        aligned.advance(tick * 10_000_000)
        aligned.observe(Observation(tick * 10_000_000, seen))
        steps.append(aligned.read().state["block"])
    moved = np.abs(np.diff(np.array(steps), axis=0)).max(axis=0)
    np.testing.assert_allclose(steps[-1][:2], seen["block"][:2], atol=1e-3)
    assert steps[-1][2] == pytest.approx(seen["block"][2], abs=0.015)
    assert moved[0] < 1e-3


@pytest.mark.parametrize("action", ["joint", "tool_pose"])
def test_the_real_arm_does_the_task_that_the_policy_does_in_the_twin(action):
    clock = SimClock()
    real = twin(clock, action=action)
    real.reset(0)
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), real, clock)
    apart = []

    def done(_):
        apart.append(first.apart)
        return real.success()

    run_episode(first, make_expert("lift", first.spec), clock, make_safety(first.spec), EpisodeMeta("", "", 0),
                max_steps=300, done=done)  # fmt: skip
    assert real.success()
    assert 0 < max(apart) < 0.12
    assert isinstance(first, Robot)
    assert not isinstance(first, Environment)


class Sweeping:
    """An agent that asks for both sides of the table in turn, close to the arm's foot."""

    decision = None

    def act(self, observation):
        side = 0.55 * np.sign(np.sin(1.5e-9 * observation.stamp_ns + 0.1))
        return Command(np.array([0.1, side, 0.05, 1, 0, 0, 0, -1, 0, 1], np.float32), "policy")

    def reset(self, seed=0):
        pass


class Noting(Twin):
    """A twin that keeps what it was commanded, and when."""

    def command(self, action, due_ns):
        self.told = [*getattr(self, "told", []), (self._clock.now_ns(), np.array(action, np.float64))]
        return super().command(action, due_ns)


@pytest.mark.parametrize("limited", [True, False])
def test_what_the_real_arm_is_sent_keeps_the_arms_limits_whatever_the_twins_joints_do(limited):
    clock = SimClock()
    real = Noting(make_task("lift"), clock, cameras=(), rate_hz=50.0, action="joint")
    real.reset(0)
    safety = make_safety(real.spec) if limited else None
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), real, clock, safety=safety)
    with pytest.raises(UnsafeCommand, match="rad from the twin's"):
        run_episode(first, Sweeping(), clock, make_safety(first.spec), EpisodeMeta("", "", 0), max_steps=300)
    stamps, sent = np.array([ns for ns, _ in real.told]) / 1e9, np.array([q[:7] for _, q in real.told])
    rates = np.diff(sent, axis=0) / np.diff(stamps)[:, None]
    gains = np.diff(rates, axis=0) / np.diff(stamps)[1:, None]
    assert len(sent) > 20
    assert ("speed" in first.acted) == limited
    if limited:
        assert (np.abs(rates).max(), np.abs(gains).max()) <= (1.5 + 1e-3, 7.5 + 0.05)
    else:
        assert np.abs(rates).max() > 3.0, "or the test says nothing"


def test_a_stop_while_the_twin_hangs_stops_the_real_arm_and_leaves_the_twin_to_the_one_that_hangs():
    clock = SimClock()
    real = twin(clock, action="joint")
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), real, clock)
    first.read()
    first.command(first.stop(), 0)
    inside, over, called = threading.Event(), threading.Event(), []

    def hang(now_ns):
        inside.set()
        over.wait(30)

    advance, stop, hold = first.aligned.advance, first.aligned.stop, real.stop
    first.aligned.advance = hang
    first.aligned.stop = lambda: called.append("twin") or stop()
    real.stop = lambda reason="": called.append("arm") or hold(reason)
    thread = threading.Thread(target=first.read)
    thread.start()
    try:
        assert inside.wait(30)
        held = first.stop("late")
        assert called == ["arm"]
        assert held.shape == (first.spec.action.dim,)
    finally:
        over.set()
        thread.join()
    first.aligned.advance = advance
    first.stop("again")
    assert called == ["arm", "arm", "twin"]


def test_a_real_arm_that_does_not_follow_is_noticed():
    clock = SimClock()
    real = twin(clock, action="joint")
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), real, clock)
    first.read()
    goal = first.stop()
    goal[1] -= 0.3
    real.command = lambda values, due_ns: values  # a cable came off

    def go_on():
        for _ in range(100):
            first.command(goal, clock.now_ns())
            clock.sleep_until(clock.now_ns() + 20_000_000)
            first.read()

    with pytest.raises(UnsafeCommand, match=r"the real arm's joint\d is 0\.\d+ rad from the twin's; at most 0\.35"):
        go_on()


def test_after_a_stop_nothing_jumps():
    clock = SimClock()
    real = twin(clock, action="joint")
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), real, clock)
    first.read()
    goal = first.stop()
    goal[1] += 0.1
    for _ in range(15):
        first.command(goal, clock.now_ns())
        clock.sleep_until(clock.now_ns() + 20_000_000)
        first.read()
    first.stop("enough")
    real.reset(9)  # somebody moved the arm by hand
    here = real.read().state["q"]
    for _ in range(5):
        clock.sleep_until(clock.now_ns() + 20_000_000)
    sent = []
    taken, real.command = real.command, lambda values, due_ns: sent.append(values) or taken(values, due_ns)
    first.command(first.aligned.twin.stop(), clock.now_ns())
    np.testing.assert_allclose(sent[0][:7], here, atol=1e-3)


def test_a_robot_with_other_commands_cannot_track():
    clock = SimClock()
    real = twin(clock)
    real.spec = replace(real.spec, action=replace(real.spec.action, kind="vector"))
    with pytest.raises(SpecMismatch, match=r"takes vector \(10\); want joint \(7 or 8\) or tool_pose"):
        TwinFirst(AlignedTwin(make_task("lift")), real, clock)


class Partly(Twin):
    """A robot that does not tell where the cube is."""

    def __init__(self, clock):
        super().__init__(make_task("lift"), clock, cameras=(), rate_hz=50.0, action="joint")
        self.spec = replace(self.spec, state={k: v for k, v in self.spec.state.items() if "cube" not in k})

    def read(self):
        seen = super().read()
        return replace(seen, state={name: seen.state[name] for name in self.spec.state})


def test_no_policy_acts_on_an_object_that_is_only_in_the_twin():
    clock = SimClock()
    with pytest.raises(SpecMismatch, match="nothing tells where cube is: the real robot has no state cube_pos, cube_q"):
        TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), Partly(clock), clock)
    told = []
    aligned = AlignedTwin(make_task("lift"), rate_hz=50.0, finders=[lambda seen: told])
    first = TwinFirst(aligned, Partly(clock), clock)
    with pytest.raises(StaleFrame, match="cube was not measured yet"):
        first.read()
    clock.sleep_until(20_000_000)
    told.append(PoseMeasurement("cube", 20_000_000, np.array([0.5, 0.1, 0.02]), np.array([1.0, 0, 0, 0])))
    np.testing.assert_allclose(first.read().state["cube_pos"], [0.5, 0.1, 0.02], atol=2e-3)
    told.clear()  # covered by the hand: physics carries it
    clock.sleep_until(10_000_000_000)  # and after a pause it is still what was seen
    np.testing.assert_allclose(first.read().state["cube_pos"], [0.5, 0.1, 0.02], atol=2e-3)


class Eye:
    """A source that sees the cube where it is told, or nothing."""

    def __init__(self, cube=None):
        self.cube, self.trouble, self.closed = cube, "nothing comes on /cube_pose", 0

    def newest(self, now_ns):
        return None if self.cube is None else Observation(now_ns, {"cube pose": np.array([*self.cube, 1.0, 0, 0, 0])})

    def close(self):
        self.closed += 1


def test_what_sees_an_object_beside_the_robot_holds_up_nobody():
    clock, eye = SimClock(), Eye()
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), Partly(clock), clock, sources={"cube": eye})
    with pytest.raises(StaleFrame, match=r"cube was not measured yet: .* \(cube: nothing comes on /cube_pose\)"):
        first.read()
    clock.sleep_until(20_000_000)
    eye.cube = (0.5, 0.1, 0.02)
    np.testing.assert_allclose(first.read().state["cube_pos"], eye.cube, atol=2e-3)
    eye.cube = None
    clock.sleep_until(500_000_000)
    np.testing.assert_allclose(first.read().state["cube_pos"], [0.5, 0.1, 0.02], atol=2e-3)
    first.close()
    assert eye.closed == 1


def test_a_policy_does_not_act_on_a_twin_that_is_not_to_be_believed():
    """A cube that is seen elsewhere each time: every pose contradicts the twin, and none the others' history."""
    clock, eye = SimClock(), Eye((0.5, 0.1, 0.02))
    first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), Partly(clock), clock, sources={"cube": eye})
    places, rng = [], np.random.default_rng(0)

    def go_on(steps):
        for _ in range(steps):
            clock.sleep_until(clock.now_ns() + 20_000_000)
            places.append(first.read().state["cube_pos"])

    go_on(50)
    assert first.health()["twin"].diverged == ""
    eye.cube = None  # unseen for two seconds: diverged after one, and half a second later that is the end
    begun_ns = clock.now_ns()
    with pytest.raises(
        UnsafeCommand, match=r"the twin is not to be believed for 0\.5 s now: cube: not measured for 1\.5"
    ):
        go_on(100)
    assert 1.4e9 < clock.now_ns() - begun_ns < 1.7e9
    with pytest.raises(UnsafeCommand, match="not to be believed"):
        go_on(1)
    eye.cube = (0.5, 0.1, 0.02)
    go_on(10)  # seen again

    def contradicted():
        for _ in range(100):
            eye.cube = (*rng.uniform([0.3, -0.2], [0.7, 0.2]), 0.02)
            go_on(1)

    with pytest.raises(UnsafeCommand, match=r"not to be believed for .*(contradict the twin|standard deviations off)"):
        contradicted()


def test_an_arm_whose_lag_is_known_is_sent_ahead_and_is_nearer():
    apart = []
    for lead_s in (0.0, np.full(7, 0.11)):  # 60 ms on the way, about 50 ms in the servos
        clock = SimClock()
        late = Imperfections(command_latency_s=0.06)
        real = Imperfect(twin(clock, action="joint"), late, clock, np.random.default_rng(0))
        real.reset(0)
        first = TwinFirst(AlignedTwin(make_task("lift"), rate_hz=50.0), real, clock, lead_s=lead_s)
        first.read()
        goal, seen = first.stop(), []
        for k in range(60):
            goal[1] += 0.006 * np.cos(k / 10)
            first.command(goal, clock.now_ns())
            clock.sleep_until(clock.now_ns() + 20_000_000)
            first.read()
            seen.append(first.apart)
        apart.append(np.mean(seen))
    assert apart[1] < 0.5 * apart[0]


def test_recorded_starts_by_number_and_other_numbers_are_refused():
    world = OfflineTwin(make_task("lift"), SimClock(), starts(2), cameras=())
    world.reset(1)
    np.testing.assert_allclose(world.read().state["cube_pos"], [0.5, 0.06, 0.02], atol=1e-6)
    np.testing.assert_allclose(world.read().state["q"], START["q"], atol=1e-6)
    with pytest.raises(UnknownName, match="no recorded start '2'; valid: 0, 1"):
        world.reset(2)


def test_a_start_in_the_middle_of_a_grasp_keeps_the_cube():
    clock = SimClock()
    real = twin(clock, rate_hz=20.0)
    real.reset(0)
    expert, held = make_expert("lift", real.spec), []
    for _ in range(120):
        seen = real.read()
        if seen.state["cube_pos"][2] > 0.05:
            break
        held.append(real.command(expert.act(seen).values, clock.now_ns()))
        clock.sleep_until(clock.now_ns() + 50_000_000)
    height = {}
    for name, set_point in (("with", held[-1]), ("without", None)):
        world = OfflineTwin(make_task("lift"), SimClock(), {0: (seen.state, set_point)}, cameras=())
        world.reset(0)
        world._clock.sleep_until(1_000_000_000)
        height[name] = float(world.read().state["cube_pos"][2])
    assert height["with"] > 0.05


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"q": None}, r"state wants 7 finite number\(s\) q; it has None"),
        ({"q": np.zeros(6)}, r"state wants 7 finite number\(s\) q"),
        ({"q": np.full(7, np.nan)}, r"state wants 7 finite number\(s\) q"),
        ({"gripper": None}, r"state wants 1 finite number\(s\) gripper"),
        ({"cube_pos": None}, "state has no cube_pos and cube_quat, the pose of cube"),
        ({"cube_quat": np.zeros(4)}, "is no pose"),
        ({"cube_quat": np.zeros(3)}, "hold 6 numbers; want a position"),
    ],
)
def test_what_is_no_state_is_refused(change, says):
    state = {name: value for name, value in {**START, **change}.items() if value is not None}
    with pytest.raises(ContractError, match=says):
        twin(SimClock()).reset_to(state)


def test_objects_are_found_in_states_and_topics():
    (block,) = tracked_of(make_task("pusht"))
    found = measured(block, {"block": np.array([0.1, 0.2, np.pi])}, 5)
    np.testing.assert_allclose(found.position, [0.1, 0.2, 0.015])
    np.testing.assert_allclose(np.abs(found.quat), [0, 0, 0, 1], atol=1e-12)
    assert (found.planar, found.stamp_ns) == (True, 5)
    assert measured(block, {"other": np.zeros(3)}, 0) is None
    told = measured(block, {"block pose": np.array([1, 2, 3, 1, 0, 0, 0])}, 0)
    np.testing.assert_array_equal(told.position, [1, 2, 3])
    with pytest.raises(UsageError, match="task Still has no tracked objects"):
        tracked_of(Still())
    assert not Tracked("cube", ("cube_pos", "cube_quat")).planar


def test_a_placed_object_is_at_rest_and_its_quaternion_is_one():
    world = twin(SimClock())
    world.data.joint("cube").qvel = 1.0
    place_objects(world.data, tracked_of(make_task("lift")), {**START, "cube_quat": np.array([1.2, 0, 0, 0])})
    assert not world.data.joint("cube").qvel.any()
    assert np.linalg.norm(world.data.joint("cube").qpos[3:]) == pytest.approx(1.0)
