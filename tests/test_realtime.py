import threading
import time

import numpy as np
import pytest

from robopolicy.agents import Guarded
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import ContractError, UnknownName, UnsafeCommand
from robopolicy.inference import Simulated, Threaded
from robopolicy.realtime import RealTime
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import AgentContract
from robopolicy.trajectory import OLDER, ensembled
from robopolicy.types import ActionChunk, Observation, Plan, Verdict

SPEC = PolicySpec(
    state={"pos": StateSpec(2, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m",)), rate_hz=10.0,
    n_obs=3, horizon=16, n_execute=8,
)  # fmt: skip
TICK_NS = 10_000_000  # 100 Hz


def path(t):
    return np.stack([0.3 * np.sin(t), 0.3 * np.cos(0.7 * np.asarray(t))], -1)


class Walker:
    """Follows a path, a little off it in every plan, and begins where the arm is, which lags its command."""

    spec = SPEC

    def __init__(self):
        self.asked, self.threads, self.wait = [], set(), lambda: None

    def reset(self):
        self.asked = []

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        self.threads.add(threading.current_thread().name)
        self.wait()
        self.asked.append((window, previous, delay_steps, executed))
        t = window[-1].stamp_ns * 1e-9 + np.arange(SPEC.horizon) / SPEC.rate_hz
        off = generator.normal(0, 0.01, 2) + window[-1].state["pos"] - path(t[0])
        return Plan((path(t) + off)[None].astype(np.float32), np.zeros(3, np.float32))


def drive(agent, clock, ticks, *, at=None):
    """Return the commands (T, 2), NaN where it held, and at which ticks a plan arrived."""
    at = path(0.0) if at is None else at
    commands, arrived, start_ns = [], [], clock.now_ns()
    for k in range(ticks):
        clock.sleep_until(start_ns + k * TICK_NS)
        command = agent.act(Observation(clock.now_ns(), {"pos": at.astype(np.float32)}))
        if command.values is not None:
            at = at + 0.15 * (command.values - at)
        commands.append(np.full(2, np.nan) if command.values is None else command.values)
        if agent.decision is not None:
            arrived.append(k)
    return np.array(commands), np.array(arrived)


@pytest.mark.parametrize("latency_s", [0.05, 0.1, 0.2])
def test_a_change_of_plan_is_no_larger_a_step_of_velocity_than_there_is_inside_one(latency_s):
    clock = SimClock()
    agent = RealTime(Walker(), clock, Simulated(latency_s), generator=np.random.default_rng)
    agent.reset(0)
    commands, arrived = drive(agent, clock, 3000)
    steps = np.linalg.norm(np.diff(commands, 2, axis=0), axis=1) / TICK_NS * 1e9
    seam = np.isin(np.arange(2, 3000), np.concatenate([arrived + k for k in (0, 1, 2)]))
    good = np.isfinite(steps)
    assert np.isnan(commands[:, 0]).sum() == pytest.approx(latency_s * 100, abs=1)  # before the first plan it holds
    assert len(arrived) == pytest.approx(30 / 0.8, abs=3)
    assert steps[seam & good].max() <= 1.2 * steps[~seam & good].max()
    assert agent.late == 0
    assert agent.latency_s == pytest.approx(latency_s, abs=0.011)


def test_the_policy_sees_its_own_rate_and_what_was_done_and_is_left():
    clock, policy = SimClock(10**9), Walker()
    agent = RealTime(policy, clock, Simulated(0.05), generator=np.random.default_rng)
    agent.reset(0)
    commands, _ = drive(agent, clock, 300)
    window, previous, delay_steps, executed = policy.asked[2]
    newest_ns = window[-1].stamp_ns
    assert [newest_ns - seen.stamp_ns for seen in window] == [200_000_000, 100_000_000, 0]
    assert delay_steps == 1
    tick = (newest_ns - 10**9) // TICK_NS
    assert previous.shape == (16, 2)
    np.testing.assert_allclose(previous[0], commands[tick], atol=1e-6)
    np.testing.assert_allclose(executed, commands[[tick - 20, tick - 10]], atol=1e-6)
    first = policy.asked[0]
    assert (first[1], first[2], first[3]) == (None, 0, None)
    assert [seen.stamp_ns for seen in first[0]] == [10**9] * 3  # before the first step the world stood still


def test_the_same_seed_is_the_same_motion():
    def run(seed):
        clock = SimClock()
        agent = RealTime(Walker(), clock, Simulated(0.1), generator=np.random.default_rng)
        agent.reset(seed)
        return drive(agent, clock, 200)[0]

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.allclose(run(1)[50:], run(2)[50:], atol=1e-4)


def test_a_plan_that_is_over_is_held_and_said():
    clock = SimClock()
    agent = RealTime(Walker(), clock, Simulated(0.1), generator=np.random.default_rng)
    agent.reset(0)
    drive(agent, clock, 50)
    agent._inference = Simulated(5.0)  # from now on planning takes for ever
    commands, _ = drive(agent, clock, 350)
    assert np.ptp(commands[-100:], axis=0).max() == 0
    command = agent.act(Observation(clock.now_ns(), {"pos": np.zeros(2, np.float32)}))
    assert (command.source, command.reason) == ("policy", "the plan is over: holding its end")


def test_a_plan_that_comes_after_all_its_rows_is_not_played():
    clock = SimClock()
    agent = RealTime(Walker(), clock, Simulated(2.0), generator=np.random.default_rng)
    agent.reset(0)
    commands, _ = drive(agent, clock, 450)
    assert agent.late == 2
    assert np.isnan(commands).all()


def test_the_control_thread_never_waits_for_a_plan():
    clock, policy, let_go = WallClock(), Walker(), threading.Event()
    policy.wait = let_go.wait
    agent = RealTime(policy, clock, Threaded(), generator=np.random.default_rng)

    def act():
        return agent.act(Observation(clock.now_ns(), {"pos": np.zeros(2, np.float32)}))

    try:
        agent.reset(0)
        assert [act().values for _ in range(50)] == [None] * 50  # it would never come back if it waited
        time.sleep(0.2)
        let_go.set()
        while act().values is None:
            time.sleep(0.001)
        assert policy.threads == {"inference_0"}
        assert agent.latency_s >= 0.2
        agent.reset(1)
        assert act().values is None
        agent.reset(2)  # in mid-plan: that plan belongs to nobody
        assert (agent.decision, agent._inference.busy) == (None, False)
    finally:
        let_go.set()
        agent.close()
        agent.close()


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop():
    class Broken(Walker):
        def plan(self, window, **options):
            raise ContractError("no such thing")

    agent = RealTime(Broken(), WallClock(), Threaded(), generator=np.random.default_rng)

    def until_it_fails():
        for _ in range(1000):
            agent.act(Observation(time.monotonic_ns(), {"pos": np.zeros(2, np.float32)}))
            time.sleep(0.01)

    try:
        with pytest.raises(ContractError, match="no such thing"):
            until_it_fails()
    finally:
        agent.close()


@pytest.mark.parametrize("make", [Threaded, Simulated])
def test_one_piece_of_work_at_a_time(make):
    inference = make()
    try:
        assert inference.collect(0) is None
        inference.begin(lambda: None, 0)
        assert inference.busy
        with pytest.raises(ContractError, match="busy; collect what was begun first"):
            inference.begin(lambda: 1, 0)
        while (done := inference.collect(0)) is None:
            time.sleep(0.001)
        assert done == (None,)
        assert not inference.busy
    finally:
        inference.close()
    with pytest.raises(ContractError, match="want a finite time, 0 or more"):
        Simulated(float("nan"))


def velocity_steps(commands, arrived):
    """Return the largest step of the velocity at changes of plan and inside plans, m/s."""
    steps = np.linalg.norm(np.diff(commands, 2, axis=0), axis=1) / TICK_NS * 1e9
    seam = np.isin(np.arange(2, len(commands)), np.add.outer(arrived, [0, 1, 2]))
    good = np.isfinite(steps)
    return steps[seam & good].max(), steps[~seam & good].max()


@pytest.mark.parametrize(("seams", "smooth"), [("fade", True), ("ensemble", True), ("rtc", True), ("none", False)])
def test_seams_of_every_kind_but_none_are_smooth(seams, smooth):
    clock, policy = SimClock(10**9), Walker()
    agent = RealTime(policy, clock, Simulated(0.1), generator=np.random.default_rng, seams=seams)
    agent.reset(0)
    at, inside = velocity_steps(*drive(agent, clock, 2000))
    assert (at <= 1.2 * inside) == smooth
    told = [previous is not None for _, previous, *_ in policy.asked[1:]]
    assert told == [seams in ("fade", "rtc")] * len(told), "whether the policy knows of the running motion"
    delays = {delay for *_, delay, _ in policy.asked[1:]}
    assert delays == ({1} if seams in ("fade", "rtc") else {0})


class TestRealTimeAgent(AgentContract):
    def make(self):
        class Still(Walker):
            def plan(self, window, **options):
                rows = np.repeat(window[-1].state["pos"][None, None], SPEC.horizon, axis=1)
                return Plan(rows, np.zeros(1, np.float32))

        return RealTime(Still(), SimClock(), Simulated()), SPEC


def test_pictures_that_did_not_change_are_kept_once():
    clock = SimClock()
    agent = RealTime(Walker(), clock, Simulated(0.1), generator=np.random.default_rng)
    agent.reset(0)
    for k in range(30):
        clock.sleep_until(k * TICK_NS)
        picture_ns = k // 3 * 3 * TICK_NS
        image = np.full((4, 4, 3), k // 3, np.uint8)
        agent.act(Observation(clock.now_ns(), {"pos": path(0.0)}, {"front": image}, {"front": picture_ns}))
    assert len({id(one.images["front"]) for one in agent._seen}) == len(
        {one.image_stamps_ns["front"] for one in agent._seen}
    )
    assert all(int(one.images["front"][0, 0, 0]) * 3 * TICK_NS == one.image_stamps_ns["front"] for one in agent._seen)


def test_seams_that_do_not_exist_are_named():
    with pytest.raises(UnknownName, match="no seams 'glue'; valid: ensemble, fade, none, rtc"):
        RealTime(Walker(), SimClock(), Simulated(), seams="glue")


def test_an_ensemble_weighs_as_act_does_and_lets_go_of_what_ends():
    stamps = 100 * np.arange(5, dtype=np.int64)

    def chunk(start, value):
        return ActionChunk(start + stamps, np.full((5, 1), value, np.float32), start)

    mean = ensembled(chunk(200, 3.0), [chunk(-300, 50.0), chunk(0, 1.0), chunk(100, 2.0)])
    w0, w1, w2 = np.exp(-OLDER * np.arange(3))
    a, b = w0 * np.array([1, 0.5, 0, 0, 0]), w1 * np.array([1, 2 / 3, 1 / 3, 0, 0])  # the first one is over
    want = (a * 1.0 + b * 2.0 + w2 * 3.0) / (a + b + w2)
    np.testing.assert_allclose(mean.values[:, 0], want, atol=1e-6)
    np.testing.assert_array_equal(mean.stamps_ns, 200 + stamps)
    assert mean.made_ns == 200


def test_a_plan_that_is_over_for_long_is_a_hold_and_the_next_one_begins_anew():
    clock, inference = SimClock(10**9), Simulated(0.1)
    agent = RealTime(Walker(), clock, inference, generator=np.random.default_rng, over_s=0.5)
    agent.reset(0)
    drive(agent, clock, 50)
    inference._latency_ns = 4 * 10**9  # one plan takes very long
    commands, arrived = drive(agent, clock, 250)
    over = np.isnan(commands[:, 0])
    assert over[-1]
    assert over.sum() == pytest.approx(100, abs=3), "from 2 s on: its rows last 1.5 s"
    command = agent.act(Observation(clock.now_ns(), {"pos": np.zeros(2, np.float32)}))
    assert (command.values, command.source) == (None, "hold")
    assert command.reason.startswith("the plan has been over for 0.5")
    assert command.reason.endswith("and no other came; at most 0.5 s is allowed")
    inference._latency_ns = 10**8
    commands, arrived = drive(agent, clock, 400)
    assert len(arrived) >= 2
    assert np.isfinite(commands[-1]).all()


def test_a_plan_that_is_awaited_for_long_is_a_hold_with_its_reason():
    clock, inference = SimClock(10**9), Simulated(0.1)
    agent = RealTime(Walker(), clock, inference, generator=np.random.default_rng, late_s=0.6)
    agent.reset(0)
    drive(agent, clock, 75)
    inference._latency_ns = 10**10
    commands, _ = drive(agent, clock, 100)  # asked for at 0.8 s, the rows last until 1.5 s or more
    held = np.flatnonzero(np.isnan(commands[:, 0]))
    assert held[0] == pytest.approx(5 + 60, abs=8)
    command = agent.act(Observation(clock.now_ns(), {"pos": np.zeros(2, np.float32)}))
    assert command.source == "hold"
    assert command.reason.startswith("a plan has been awaited for 0.")
    assert "at most 0.6 s is allowed" in command.reason


def test_a_plan_that_is_not_finite_is_never_played():
    class Sick(Walker):
        def plan(self, window, **options):
            plan = super().plan(window, **options)
            if len(self.asked) == 2:
                plan.chunks[0, 3, 1] = np.nan
            return plan

    clock = SimClock()
    agent = RealTime(Sick(), clock, Simulated(0.1), generator=np.random.default_rng)
    agent.reset(0)
    with pytest.raises(UnsafeCommand, match="a plan is not finite: y in row 3; nothing of it is played"):
        drive(agent, clock, 200)
    assert agent.plans == 1


def test_the_first_motion_begins_at_rest_where_the_arm_is():
    class Joints(Walker):
        spec = PolicySpec(
            state={"q": StateSpec(2, ("rad",))}, action=ActionSpec("joint", ("a", "b"), ("rad",)), rate_hz=10.0,
            n_obs=1, horizon=16, n_execute=8,
        )  # fmt: skip

        def plan(self, window, **options):
            return Plan(np.full((1, 16, 2), 0.7, np.float32), np.zeros(1, np.float32))

    clock = SimClock()
    agent = RealTime(Joints(), clock, Simulated(0.1))
    agent.reset(0)
    commands = []
    for k in range(150):
        clock.sleep_until(k * TICK_NS)
        command = agent.act(Observation(clock.now_ns(), {"q": np.float32([0.2, 0.3])}))
        commands.append(np.full(2, np.nan) if command.values is None else command.values)
    moved = np.array(commands)[10:]
    np.testing.assert_allclose(moved[0], [0.2, 0.3], atol=1e-6)
    assert np.abs(moved[1] - moved[0]).max() < 1e-3
    np.testing.assert_allclose(moved[85], 0.7, atol=1e-6)


def test_what_is_ahead_is_the_motion_and_ends_at_rest():
    clock = SimClock(10**9)
    agent = RealTime(Walker(), clock, Simulated(0.1), generator=np.random.default_rng)
    agent.reset(0)
    assert agent.ahead(TICK_NS) is None
    drive(agent, clock, 30)
    chunk, velocities = agent.ahead(TICK_NS)
    assert agent.plans == 1
    assert chunk.stamps_ns[0] == clock.now_ns() + TICK_NS
    np.testing.assert_array_equal(velocities[-1], 0)
    np.testing.assert_allclose(velocities[1:-1], np.gradient(chunk.values, 0.01, axis=0)[1:-1], atol=0.05)
    commands, _ = drive(agent, clock, 20)
    np.testing.assert_allclose(commands[1:], chunk.values[: len(commands) - 1], atol=1e-6)


def test_a_policy_is_told_of_no_longer_a_delay_than_it_was_trained_for():
    clock, policy = SimClock(), Walker()
    agent = RealTime(policy, clock, Simulated(0.6), generator=np.random.default_rng, max_delay=3)
    agent.reset(0)
    drive(agent, clock, 500)
    assert {delay for _, _, delay, _ in policy.asked} == {0, 3}


class Judge:
    """A monitor that alarms at its third decision."""

    def __init__(self):
        self.indices = []

    def reset(self):
        self.indices = []

    def step(self, decision):
        self.indices.append(decision.index)
        state = "alarm" if len(self.indices) == 3 else "nominal"
        return Verdict(decision.stamp_ns, {}, 1.0, 0.5, 0.1, state, reason="it is lost")


def test_a_monitor_hears_of_each_plan_once_before_any_of_it_is_played_and_its_alarm_holds():
    clock, policy, judge = SimClock(), Walker(), Judge()
    agent = Guarded(RealTime(policy, clock, Simulated(0.1), generator=np.random.default_rng), judge)
    agent.reset(0)
    commands, arrived = drive(agent, clock, 400)
    assert judge.indices == [0, 1, 2]
    assert len(arrived) == 3
    np.testing.assert_array_equal(np.diff(arrived), 80)
    assert np.isfinite(commands[arrived[0] : arrived[2]]).all()
    assert np.isnan(commands[arrived[2] :]).all(), "not a row of the plan that it alarmed at"
    command = agent.act(Observation(clock.now_ns(), {"pos": np.zeros(2, np.float32)}))
    assert (command.source, command.reason) == ("hold", "it is lost")
    agent.rearm()
    agent.replan([])
    commands, _ = drive(agent, clock, 100)
    assert np.isfinite(commands[-1]).all(), "put right, it plans anew"
