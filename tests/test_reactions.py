"""What a guarded robot does when its monitor speaks: on the lift twin, through the loop and its limits."""

import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hands import Hand
from tiny_worlds import SPEC as POINT
from tiny_worlds import HomingPolicy, PointWorld

from robopolicy.agents import Chunked, Guarded
from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, UnknownName
from robopolicy.inference import Simulated
from robopolicy.loop import run_episode
from robopolicy.reactions import REACTIONS, Reactions, SlowTime, Trail, between, grippers, harder
from robopolicy.realtime import RealTime
from robopolicy.rotations import matrix_to_rotvec, rot6d_to_matrix, rotvec_to_matrix
from robopolicy.shared_control import Shared
from robopolicy.spec import TOOL_POSE, ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import AgentContract
from robopolicy.types import Command, EpisodeMeta, Observation, Plan, Step, Verdict
from robopolicy_hardware.safety import SafetyLayer, limits_for
from sim_envs.worlds import make_world


class Bent:
    """Plans 4 mm a step along a way with a corner, from where the tool is seen, with a gripper half closed."""

    spec = PolicySpec(
        state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",))},
        action=TOOL_POSE, n_obs=1, horizon=16, n_execute=8,
    )  # fmt: skip

    def __init__(self):
        self.plans = []

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        at, rows = window[-1].state["tool_pos"].astype(np.float64), []
        for _ in range(16):
            goal = np.array([0.5, 0.0, 0.30]) if at[1] > 0.02 or at[2] < 0.25 else np.array([0.5, -0.3, 0.30])
            way = goal - at
            at = at + way / max(np.linalg.norm(way), 1e-9) * min(np.linalg.norm(way), 0.004)
            rows.append([*at, 1, 0, 0, 0, -1, 0, 0.4])
        self.plans.append((window[-1].stamp_ns, np.array(rows, np.float32)))
        return Plan(np.array([rows], np.float32), np.zeros(2, np.float32))

    def reset(self):
        self.plans = []


class Says:
    """A monitor that says ``script[k]`` of the k-th decision since it was armed, and goes on saying it."""

    def __init__(self, script, *, tells=lambda: None):
        self.script, self.tells, self.acknowledged, self.seen = script, tells, 0, 0
        self.state = "nominal"

    def reset(self):
        self.seen, self.state = 0, "nominal"

    def acknowledge(self):
        self.acknowledged += 1
        self.state = "nominal"

    def step(self, decision):
        self.tells()
        self.state = self.script.get(self.seen, self.state)
        self.seen += 1
        return Verdict(decision.stamp_ns, {"a": 1.0}, 2.0, 1.0, 0.1, self.state, reason=f"it is {self.state}")


@dataclass
class Seen:
    """A watcher that keeps the steps, and does what it is told after one of them."""

    then: dict = field(default_factory=dict)
    steps: list = field(default_factory=list)

    def on_start(self, meta, spec):
        self.steps = []

    def on_step(self, step):
        self.steps.append(step)
        self.then.get(len(self.steps), lambda: None)()

    def on_end(self, meta):
        pass

    @property
    def sent(self):
        return np.array([step.sent for step in self.steps], np.float64)

    @property
    def at(self):
        return np.array([step.observation.state["tool_pos"] for step in self.steps], np.float64)

    @property
    def sources(self):
        return [step.source for step in self.steps]

    @property
    def states(self):
        return [None if step.verdict is None else step.verdict.state for step in self.steps]


BESIDE = {"in the loop": False, "beside it": True}


def guarded(reactions, script, *, beside=False, tells=lambda: None, clock=None):
    policy, clock = Bent(), clock or SimClock()
    agent = RealTime(policy, clock, Simulated(0.06)) if beside else Chunked(policy)
    spec = make_world("twin:lift", SimClock(), cameras=()).spec
    return Guarded(agent, Says(script, tells=tells), on_alarm=reactions, spec=spec, clock=clock), policy, clock


def drive(agent, clock, *, steps=120, then=()):
    """Run the lift twin; return what was seen and the meta."""
    world = make_world("twin:lift", clock, cameras=())
    world.reset(3)
    seen = Seen(dict(then))
    if isinstance(agent, Shared):
        agent.set_point = world.stop()
    meta = run_episode(
        world, agent, clock, SafetyLayer(limits_for(world.spec), world.spec), EpisodeMeta("t", "r", seed=3),
        max_steps=steps, watchers=[seen],
    )  # fmt: skip
    world.close()
    limits, period_s = limits_for(world.spec), world.spec.period_ns / 1e9
    moved = [
        np.linalg.norm(b.sent[:3] - a.sent[:3]) for a, b in pairwise(seen.steps) if "hold" not in (a.source, b.source)
    ]
    assert max(moved, default=0.0) <= limits.max_speed_m_s * period_s + 1e-6, "the limits had the last word"
    return seen, meta


class TestGuardedIsAnAgent(AgentContract):
    def make(self):
        return Guarded(Chunked(HomingPolicy()), Says({}), on_alarm="slow", spec=POINT), POINT


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_hold_stands_still_and_the_verdict_is_in_its_step(beside):
    agent, policy, clock = guarded("hold", {4: "alarm"}, beside=beside)
    seen, _ = drive(agent, clock)
    first = seen.states.index("alarm")
    assert set(seen.sources[first:]) == {"hold"}
    assert seen.sources[first - 1] == "policy"
    assert len(policy.plans) <= 6, "it is not asked any more"
    assert np.ptp(seen.at[first + 20 :], axis=0).max() < 5e-4, "m"
    assert (agent.reaction, agent.latched.state) == ("hold", "alarm")


def test_log_attaches_the_verdict_and_goes_on():
    agent, _, clock = guarded("log", {4: "alarm"})
    seen, _ = drive(agent, clock)
    assert "hold" not in seen.sources
    assert agent.latched.state == "alarm", "a person may still acknowledge it"


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_slow_goes_on_along_the_same_way_at_the_share_of_the_pace(beside):
    free, _ = drive((pair := guarded("log", {}, beside=beside))[0], pair[2])
    slow, _ = drive((pair := guarded(Reactions("slow", speed=0.5), {2: "alarm"}, beside=beside))[0], pair[2])
    first = slow.states.index("alarm")
    np.testing.assert_array_equal(slow.sent[:first], free.sent[:first])
    strides = np.linalg.norm(np.diff(slow.sent[first + 4 :, :3], axis=0), axis=1)
    normal = np.linalg.norm(np.diff(free.sent[first + 4 :, :3], axis=0), axis=1)
    assert np.median(strides) == pytest.approx(0.5 * np.median(normal), rel=0.15)
    assert strides.max() <= 0.75 * normal.max(), "in each step, not only in the mean"
    away = np.linalg.norm(slow.at[first:, None] - free.at[None], axis=2).min(axis=1)
    assert np.quantile(away, 0.9) < 0.01, "m from the way of the free one"
    assert "hold" not in slow.sources[first:]
    stamps = {step.observation.stamp_ns for step in slow.steps}
    assert {step.verdict.stamp_ns for step in slow.steps if step.verdict} <= stamps, "stamps are the robot's"


def test_a_warning_slows_while_it_lasts():
    script = {2: "warn", 4: "nominal"}
    seen, _ = drive((pair := guarded(Reactions("slow", speed=0.25), script))[0], pair[2], steps=160)
    judged = [k for k, state in enumerate(seen.states) if state]
    slow, after = judged[2], judged[4]
    assert after - slow == pytest.approx(2 * 8 / 0.25, abs=3), "two plans at a quarter of the pace"
    strides = np.linalg.norm(np.diff(seen.sent[:, :3], axis=0), axis=1)
    assert np.median(strides[slow + 2 : after]) == pytest.approx(0.25 * np.median(strides[after + 2 :]), rel=0.2)
    assert pair[0].latched is None


def test_retreat_goes_back_the_way_it_came_no_faster_than_allowed_and_ends_still():
    reactions = Reactions("retreat", retreat_s=2.0)
    seen, _ = drive((pair := guarded(reactions, {7: "alarm"}))[0], pair[2], steps=260)
    first = seen.states.index("alarm")
    back = [k for k in range(first, len(seen.steps)) if seen.sources[k] == "policy"]
    assert back == list(range(first, back[-1] + 1)), "then it holds for good"
    came, gone = seen.at[:first], seen.at[first : back[-1] + 1]
    away = np.linalg.norm(gone[:, None] - came[None], axis=2).min(axis=1)
    assert away.max() < 0.008, "m from the way it came: round the corner too"
    strides = np.linalg.norm(np.diff(seen.sent[first : back[-1], :3], axis=0), axis=1)
    assert strides.max() <= reactions.retreat_m_s / 20 + 1e-4, "m a step of 20 Hz"
    length = np.linalg.norm(np.diff(came[-40:], axis=0), axis=1).sum()  # of the last 2 s
    assert np.linalg.norm(np.diff(gone, axis=0), axis=1).sum() == pytest.approx(length, rel=0.15)
    np.testing.assert_allclose(gone[-1], came[-40], atol=0.008)
    np.testing.assert_allclose(seen.sent[first : back[-1], 9], 0.4, atol=1e-6)
    assert np.ptp(seen.at[back[-1] + 20 :], axis=0).max() < 5e-4, "m"


def test_a_retreat_of_a_policy_that_shares_control_knows_the_way_too():
    agent, _, clock = guarded("retreat", {7: "alarm"})
    spec = make_world("twin:lift", SimClock(), cameras=()).spec
    seen, _ = drive(Shared(agent, Hand(spec), spec), clock, steps=120)
    first = seen.states.index("alarm")
    np.testing.assert_allclose(seen.at[-1], seen.at[first - 40 : first].mean(axis=0), atol=0.06)
    assert set(seen.sources[first:-1]) >= {"policy"}


def test_a_retreat_without_a_way_holds():
    seen, _ = drive((pair := guarded("retreat", {0: "alarm"}))[0], pair[2], steps=20)
    assert set(seen.sources) == {"hold"}


def test_stop_ends_the_episode_with_its_reason():
    agent, _, clock = guarded("stop", {4: "alarm"})
    seen, meta = drive(agent, clock)
    assert seen.states[-1] == "alarm"
    assert seen.sources[-1] == "hold"
    assert len(seen.steps) == 33
    assert meta.notes == "it is alarm"


def test_handover_gives_the_robot_to_the_person_in_the_same_step_without_a_bump():
    agent, policy, clock = guarded("handover", {4: "alarm"})
    spec = make_world("twin:lift", SimClock(), cameras=()).spec
    hand = Hand(spec, move=(0.002, 0.0, 0.0))
    shared = Shared(agent, hand, spec)
    seen, _ = drive(shared, clock, then={60: shared.release})
    first = seen.states.index("alarm")
    assert first == 32
    assert seen.sources == ["policy"] * 32 + ["human"] * 28 + ["policy"] * 60
    strides = np.linalg.norm(np.diff(seen.sent[:, :3], axis=0), axis=1)
    assert strides[first - 1] <= 0.006, "m: from the command in force"
    assert shared.handed_over == ""
    assert agent.latched is None, "giving back acknowledges"
    assert policy.plans[5][0] == seen.steps[60].observation.stamp_ns, "and it plans anew"


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_after_rearming_nothing_of_the_old_chunk_is_sent(beside):
    agent, policy, clock = guarded("hold", {4: "alarm"}, beside=beside)
    wanted, act = [], agent.act
    agent.act = lambda observation: wanted.append(act(observation)) or wanted[-1]
    seen, _ = drive(agent, clock, then={50: agent.rearm})
    old = {stamp: rows for stamp, rows in policy.plans if stamp < seen.steps[50].observation.stamp_ns}
    new = [(stamp, rows) for stamp, rows in policy.plans if stamp not in old]
    assert new[0][0] == seen.steps[50].observation.stamp_ns
    again = next(k for k in range(50, 120) if seen.sources[k] == "policy")
    assert again == (50 if not beside else 52), "the latency of a plan"
    if beside:  # it begins where the arm stands
        np.testing.assert_allclose(wanted[again].values[:3], seen.at[again], atol=2e-3)
    else:
        np.testing.assert_array_equal(wanted[again].values, new[0][1][0])
    assert agent._monitor.acknowledged == 1
    assert (agent.reaction, agent.latched) == ("log", None)


def test_an_acknowledged_monitor_without_acknowledge_is_reset():
    class Plain:
        def __init__(self):
            self.resets = 0

        def reset(self):
            self.resets += 1

        def step(self, decision):
            return Verdict(0, {}, 0.0, 1.0, 1.0, "nominal")

    monitor = Plain()
    Guarded(Chunked(HomingPolicy()), monitor).rearm()
    assert monitor.resets == 1


@pytest.mark.parametrize(
    ("reactions", "state", "expected"),
    [
        (Reactions("log"), "overrun", "log"),
        (Reactions("log", on_overrun="stop"), "overrun", "stop"),
        (Reactions("log", on_overrun="stop"), "alarm", "log"),
        (Reactions("slow"), "overrun", "slow"),
        (Reactions("slow"), "warn", "slow"),
        (Reactions("hold"), "warn", "log"),
        (Reactions("log"), "fault", "hold"),
        (Reactions("slow"), "fault", "hold"),
        (Reactions("retreat"), "fault", "retreat"),
        (Reactions.never(), "fault", "log"),
        (Reactions("stop"), "uncalibrated", "log"),
        (Reactions("stop"), "stale", "hold"),
        (Reactions("stop", on_late="log"), "stale", "log"),
    ],
)
def test_which_state_asks_for_which_reaction(reactions, state, expected):
    assert reactions.to(state) == expected


def test_a_harder_reaction_takes_over_from_a_milder_one_and_never_back():
    agent, _, clock = guarded(Reactions("slow", on_overrun="stop"), {2: "alarm", 3: "overrun"})
    seen, meta = drive(agent, clock, steps=200)
    assert meta.notes == "it is overrun"
    assert "hold" not in seen.sources[:-1]
    assert [harder("log", name) for name in REACTIONS] == list(REACTIONS)
    agent, _, clock = guarded(Reactions("hold", on_overrun="log"), {2: "alarm", 3: "overrun"})
    assert set(drive(agent, clock)[0].sources[16:]) == {"hold"}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_a_late_verdict_fails_closed_until_one_is_in_time_and_nothing_it_judged_is_sent(beside):
    clock, late = SimClock(), {3, 4}
    monitor = Says({}, tells=lambda: monitor.seen in late and clock.sleep_until(clock.now_ns() + 120_000_000))
    agent, policy, _ = guarded(Reactions(deadline_s=0.05), {}, beside=beside, clock=clock)
    agent._monitor = monitor
    seen, _ = drive(agent, clock)
    stale = [k for k, state in enumerate(seen.states) if state == "stale"]
    assert len(stale) == 2
    for k, index in zip(stale, sorted(late), strict=True):
        assert seen.sources[k] == "hold"
        verdict = seen.steps[k].verdict
        assert verdict.latency_s == pytest.approx(0.12)
        assert verdict.reason == f"decision {index + 1}: judged in 0.120 s; at most 0.05 s is allowed"
    assert seen.sources[-1] == "policy", "it is not latched"
    again = next(k for k in range(stale[1], 120) if seen.sources[k] == "policy")
    began_ns, goes_ns = (seen.steps[k].observation.stamp_ns for k in (stale[1], again))
    assert any(began_ns < stamp_ns <= goes_ns for stamp_ns, _ in policy.plans), "planned anew before it moves"
    assert agent.latched is None


def test_a_late_verdict_that_fails_open_is_only_said():
    clock = SimClock()
    agent, _, _ = guarded(
        Reactions(on_late="log", deadline_s=0.05), {}, clock=clock,
        tells=lambda: clock.sleep_until(clock.now_ns() + 120_000_000),
    )  # fmt: skip
    seen, _ = drive(agent, clock, steps=40)
    assert set(seen.sources) == {"policy"}
    assert {state for state in seen.states if state} == {"stale"}


def test_an_alarm_is_an_alarm_however_late():
    clock = SimClock()
    agent, _, _ = guarded(
        Reactions(on_late="log", deadline_s=0.05), {2: "alarm"}, clock=clock,
        tells=lambda: clock.sleep_until(clock.now_ns() + 120_000_000),
    )  # fmt: skip
    seen, _ = drive(agent, clock, steps=60)
    assert "alarm" in seen.states
    assert seen.sources[-1] == "hold"


@pytest.mark.parametrize("kind", ["tool_delta", "vector", "joint"])
def test_slow_takes_a_part_of_each_command_of_any_kind(kind):
    action = ActionSpec(kind, ("x", "gripper"), ("m", "open"))
    spec = PolicySpec(state=POINT.state, action=action, rate_hz=10.0)

    class Steps:
        decision, asked = None, 0

        def reset(self, seed=0):
            self.asked = 0

        def act(self, observation):
            self.asked += 1
            return Command(np.float32([1.0 if kind == "tool_delta" else self.asked, 0.3]), "policy")

    agent = Guarded(Steps(), Says({}), on_alarm=Reactions("slow", speed=0.25), spec=spec)
    observations = [Observation(k * 100_000_000, {"point": np.zeros(2, np.float32)}) for k in range(14)]
    first = agent.act(observations[0])
    agent.reaction = "slow"
    values = np.array([first.values, *[agent.act(one).values for one in observations[1:13]]])
    each = np.full(12, 0.25) if kind == "tool_delta" else 1 + 0.25 * np.arange(1, 13)
    np.testing.assert_allclose(values[1:, 0], each, atol=1e-6)
    np.testing.assert_allclose(values[1:, 1], 0.3, atol=1e-6)
    assert agent.inner.asked == 4


def test_a_trail_of_numbers_goes_back_along_what_was_sent():
    clock = SimClock()
    world = PointWorld(clock)
    agent = Guarded(Chunked(HomingPolicy()), Says({3: "alarm"}), on_alarm="retreat", spec=POINT)
    sent = []

    class Keeps(Seen):
        def on_step(self, step):
            sent.append(step.sent)

    safety = SafetyLayer(limits_for(POINT), POINT)
    run_episode(world, agent, clock, safety, EpisodeMeta("t", "r"), max_steps=40, watchers=[Keeps()])
    came, gone = np.array(sent[:6], np.float64), np.array(sent[6:18], np.float64)
    assert np.linalg.norm(gone[-1] - came[0]) < 0.3 * np.linalg.norm(came[-1] - came[0])
    assert (np.diff(np.linalg.norm(gone, axis=1)) >= -1e-6).all()


def test_the_time_in_which_the_robot_stood_is_no_way():
    action = ActionSpec("joint", ("a", "gripper"), ("rad", "open"))
    spec = PolicySpec(
        state={"q": StateSpec(1, ("rad",)), "gripper": StateSpec(1, ("open",))}, action=action, rate_hz=10.0
    )
    ways = []
    for most in (10.0, 0.05):
        trail = Trail(spec, Reactions("retreat", retreat_s=1.0, retreat_rad_s=most))
        joints = [*(0.1 * k for k in range(5)), *[0.4] * 100, *(0.1 * k for k in range(5, 10)), *[0.9] * 100]
        for k, q in enumerate(joints):
            state = {"q": np.float32([q]), "gripper": np.float32([0.5])}
            trail.see(Step(Observation(k * 100_000_000, state), np.float32([q, 0.2]), 0, "policy"))
        ways.append(trail.back(0))
    way, slow = ways
    assert slow.at_s[-1] == pytest.approx(18.1, abs=0.2), "s: 0.9 rad at 0.05 rad/s, and a period"
    end_ns = int(way.at_s[-1] * 1e9)
    ends = way.at(end_ns)
    np.testing.assert_allclose(ends, [0.0, 0.2], atol=1e-6)
    assert way.at(end_ns + 1000) is None
    assert way.at_s[-1] == pytest.approx(2.1, abs=0.2), "s: at half the speed it came"


def test_half_way_of_a_pose_is_half_the_turn_and_all_of_the_gripper():
    start = np.array([0, 0, 0, 1, 0, 0, 0, 1, 0, 0.0])
    turned = rotvec_to_matrix(np.array([0, 0, 1.0]))
    stop = np.array([0.2, 0, 0, *turned[:, 0], *turned[:, 1], 1.0])
    half = between(start, stop, 0.5, TOOL_POSE)
    np.testing.assert_allclose(half[:3], [0.1, 0, 0])
    np.testing.assert_allclose(matrix_to_rotvec(rot6d_to_matrix(half[3:9])), [0, 0, 0.5], atol=1e-9)
    assert half[9] == 1.0
    assert grippers(TOOL_POSE).tolist() == [False] * 9 + [True]


def test_slow_time_never_jumps():
    time = SlowTime()
    assert time.at(7) == 7
    time.go(0.25, 1000)
    assert [time.at(now) for now in (900, 1000, 1400)] == [900, 1000, 1100]
    time.go(1.0, 1400)
    assert [time.at(now) for now in (1400, 1500)] == [1100, 1200]


def test_what_cannot_be_done_is_refused_at_the_start():
    agent, monitor = Chunked(HomingPolicy()), Says({})
    with pytest.raises(UnknownName, match="no reaction 'panic'; valid: handover, hold, log, retreat, slow, stop"):
        Guarded(agent, monitor, on_alarm="panic")
    for name in ("slow", "retreat"):
        with pytest.raises(ContractError, match="say the robot's spec"):
            Guarded(agent, monitor, on_alarm=name)
    deltas = PolicySpec(action=ActionSpec("tool_delta", ("x",), ("m",)))
    with pytest.raises(ContractError, match="tool_delta commands do not say where"):
        Guarded(agent, monitor, on_alarm="retreat", spec=deltas)
    for wrong in ({"speed": 1.0}, {"speed": 0.0}, {"deadline_s": -1.0}, {"retreat_m_s": np.inf}):
        with pytest.raises(ContractError, match=next(iter(wrong))):
            Reactions(**wrong)
    with pytest.raises(UnknownName, match="late verdict"):
        Reactions(on_late="stop")


class Keeps(Says):
    """Keeps the decisions that it judges."""

    def __init__(self, script, **more):
        super().__init__(script, **more)
        self.decisions = []

    def step(self, decision):
        self.decisions.append(decision)
        return super().step(decision)


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_a_decision_says_by_how_many_rows_it_leaves_the_chunk_before_however_slow(beside):
    agent, _, clock = guarded(Reactions("slow", speed=0.25), {}, beside=beside)
    agent._monitor = monitor = Keeps({2: "warn"})
    drive(agent, clock, steps=160)
    first, *others = monitor.decisions
    assert first.after == 0
    assert {decision.after for decision in others} == {8}, "rows, not time: at a quarter of the pace it takes 32 steps"
    assert others[3].stamp_ns - others[2].stamp_ns > 2 * 8 * agent._monitor.decisions[0].n_execute * 1e6


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_a_plan_made_anew_goes_on_from_none(beside):
    agent, _, clock = guarded("hold", {}, beside=beside)
    agent._monitor = monitor = Keeps({1: "alarm"})
    drive(agent, clock, steps=60, then={20: agent.rearm})
    assert [decision.after for decision in monitor.decisions][:4] == [0, 8, 0, 8]
    agent, _, clock = guarded("hold", {}, beside=beside)
    agent._monitor = monitor = Keeps({})
    drive(agent, clock, steps=40, then={10: lambda: agent.replan(list(agent._history))})
    assert [decision.after for decision in monitor.decisions].count(0) == 2, "the first, and that after somebody drove"


def test_a_late_verdict_does_not_end_a_warning():
    clock, late = SimClock(), {3, 4, 5}
    agent, _, _ = guarded(Reactions("slow", speed=0.25, on_late="log", deadline_s=0.05), {}, clock=clock)
    agent._monitor = monitor = Says(
        {2: "warn"}, tells=lambda: monitor.seen in late and clock.sleep_until(clock.now_ns() + 120_000_000)
    )
    seen, _ = drive(agent, clock, steps=160)
    warned, *stale = [k for k, state in enumerate(seen.states) if state in ("warn", "stale")]
    assert len(stale) >= 2
    assert seen.states[stale[0]] == "stale"
    assert stale[1] - stale[0] > 2 * 8, "steps: slow as before"
    assert stale[0] - warned > 2 * 8
