import threading
import time

import numpy as np
import pytest

from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import ContractError
from robopolicy.inference import Simulated, Threaded
from robopolicy.realtime import RealTime
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, Plan

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
