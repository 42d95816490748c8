"""The loop: absolute deadlines, the order of things, and an end that nothing can take away."""

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import StaleFrame, UnsafeCommand
from robopolicy.loop import run_episode
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Command, EpisodeMeta
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits

SPEC = PolicySpec(state={"q": StateSpec(2, ("rad",))}, action=ActionSpec("vector", ("a", "b"), ("rad",)), rate_hz=30.0)
META = EpisodeMeta("reach", "mock", seed=3)


class Ramp:
    """An agent that commands 0, 1, 2, ..., and breaks at one of them."""

    decision = None

    def __init__(self, breaks_at: int | None = None, error: BaseException | None = None) -> None:
        self.breaks_at, self.error = breaks_at, error
        self.seeds: list[int] = []

    def reset(self, seed: int = 0) -> None:
        self.k = -1
        self.seeds.append(seed)

    def act(self, observation):
        self.k += 1
        if self.k == self.breaks_at:
            if self.error is not None:
                raise self.error
            return Command(np.array([np.nan, 0.0], np.float32), "policy")
        return Command(np.full(2, self.k, np.float32), "policy")


class Log:
    """A watcher that writes down what it is told."""

    def __init__(self) -> None:
        self.steps, self.ends = [], []

    def on_start(self, meta, spec):
        self.start = meta

    def on_step(self, step):
        self.steps.append(step)

    def on_end(self, meta):
        self.ends.append(meta)


class Broken(Log):
    def on_end(self, meta):
        raise ValueError("my disk is gone")


class Stops(MockRobot):
    """A mock that remembers why it was stopped."""

    def __init__(self, *args) -> None:
        self.reasons: list[str] = []
        super().__init__(*args)

    def stop(self, reason: str = "") -> np.ndarray:
        self.reasons.append(reason)
        return super().stop(reason)


def run(agent, watchers=(), **options):
    clock = SimClock(start_ns=123)
    robot = Stops(SPEC, clock)
    safety = SafetyLayer(SafetyLimits(), SPEC)
    try:
        return run_episode(robot, agent, clock, safety, META, watchers=watchers, **options), robot
    finally:
        run.robot = robot


def test_every_step_is_due_at_an_absolute_deadline_and_recorded_as_sent():
    log, agent = Log(), Ramp()
    meta, robot = run(agent, [log], max_steps=50)
    assert [step.due_ns for step in log.steps] == [123 + k * round(1e9 / 30) for k in range(50)]
    assert [step.sent[0] for step in log.steps] == list(range(50))
    assert agent.seeds == [3]
    assert log.start.rate_hz == meta.rate_hz == 30.0
    assert robot.reasons == ["end of episode"]


def test_done_ends_the_episode_before_another_command_and_finish_completes_the_meta():
    log = Log()
    meta, _ = run(
        Ramp(), [log], max_steps=50, done=lambda o: len(log.steps) == 7, finish=lambda m: replace(m, success=True)
    )
    assert len(log.steps) == 7
    assert log.ends == [meta]
    assert meta.success is True


def test_hold_stops_the_robot_and_records_what_holds():
    class Holds(Ramp):
        def act(self, observation):
            return Command(None, "hold", reason="because")

    log = Log()
    _, robot = run(Holds(), [log], max_steps=3)
    assert [step.source for step in log.steps] == ["hold"] * 3
    assert robot.reasons == ["because"] * 3 + ["end of episode"]
    np.testing.assert_array_equal(log.steps[2].sent, log.steps[0].sent)


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
def test_an_exception_stops_the_robot_and_loses_no_recorded_step(tmp_path, error):
    with Recorder(tmp_path / "d.zarr") as recorder, pytest.raises(type(error)):
        run(Ramp(4, error), [recorder], max_steps=50)
    assert type(error).__name__ in run.robot.reasons[0]
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.length == 4
    assert episode.meta.success is False
    assert type(error).__name__ in episode.meta.notes


def test_what_safety_refuses_ends_the_episode():
    log = Log()
    with pytest.raises(UnsafeCommand):
        run(Ramp(2), [log], max_steps=50)
    assert len(log.steps) == 2
    assert log.ends[0].success is False


def test_a_watcher_that_cannot_end_hides_neither_the_error_nor_the_end_from_the_others():
    log = Log()
    with pytest.raises(RuntimeError, match="it broke") as caught:
        run(Ramp(2, RuntimeError("it broke")), [Broken(), log], max_steps=50)
    assert "my disk is gone" in caught.value.__notes__[0]
    assert len(log.ends) == 1


class Gone(Stops):
    """A mock that cannot be stopped any more."""

    def stop(self, reason: str = "") -> np.ndarray:
        super().stop(reason)
        raise StaleFrame("nothing comes")


@pytest.mark.parametrize(("broken", "error"), [(RuntimeError("it broke"), "it broke"), (None, "nothing comes")])
def test_a_robot_that_cannot_be_stopped_hides_neither_the_error_nor_the_end(broken, error):
    log, clock = Log(), SimClock()
    robot = Gone(SPEC, clock)
    with pytest.raises((RuntimeError, StaleFrame), match=error) as caught:
        run_episode(robot, Ramp(2 if broken else 99, broken), clock, SafetyLayer(SafetyLimits(), SPEC), META,
                    max_steps=3, watchers=[log])  # fmt: skip
    assert "the robot could not be stopped: nothing comes" in caught.value.__notes__
    assert [end.success for end in log.ends] == [False]
    assert len(log.steps) == (2 if broken else 3)


class Stalls(SimClock):
    """Simulated time in which one step's work takes long."""

    def __init__(self, at_ns: int, for_ns: int) -> None:
        super().__init__()
        self.at_ns, self.for_ns = at_ns, for_ns

    def work(self) -> None:
        if self.now_ns() >= self.at_ns and self.for_ns:
            self.sleep_until(self.now_ns() + self.for_ns)
            self.for_ns = 0


@pytest.mark.parametrize(
    ("periods", "skipped"), [(0.9, 0), (1.5, 0), (2.5, 1), (20.2, 19)], ids=["in time", "late", "very late", "stall"]
)
def test_after_a_stall_the_loop_goes_on_with_the_present_tick(periods, skipped):
    clock = Stalls(5 * SPEC.period_ns, round(periods * SPEC.period_ns))

    class Slow(Ramp):
        def act(self, observation):
            clock.work()
            return super().act(observation)

    log = Log()
    robot, safety = MockRobot(SPEC, clock), SafetyLayer(SafetyLimits(max_age_s=10), SPEC)
    meta = run_episode(robot, Slow(), clock, safety, META, max_steps=10, watchers=[log])
    ticks = [step.due_ns // SPEC.period_ns for step in log.steps]
    assert ticks == [*range(6), *range(6 + skipped, 10 + skipped)]
    assert meta.extra.get("skipped_ticks", 0) == skipped


def test_work_within_a_period_delays_no_later_tick():
    clock = SimClock()

    class Works(Ramp):
        def act(self, observation):
            clock.sleep_until(clock.now_ns() + 2_000_000)  # relative sleeps would let these 2 ms add up
            return super().act(observation)

    log = Log()
    run_episode(
        MockRobot(SPEC, clock), Works(), clock, SafetyLayer(SafetyLimits(), SPEC), META, max_steps=40, watchers=[log]
    )
    assert [step.observation.stamp_ns for step in log.steps] == [k * SPEC.period_ns for k in range(40)]


def test_after_a_hold_the_next_command_goes_on_from_where_the_robot_is():
    """What was sent before the hold is not in force any more: the arm must not jump ahead to it."""
    spec = PolicySpec(state={"q": StateSpec(1, ("rad",))}, action=ActionSpec("joint", ("a",), ("rad",)), rate_hz=20.0)
    clock, log = SimClock(), Log()
    limits = SafetyLimits(max_rate=(1.0,))

    class Hesitates(Ramp):
        def act(self, observation):
            self.k = getattr(self, "k", -1) + 1
            return Command(None, "hold") if self.k == 10 else Command(np.float32([5.0]), "policy")

    run_episode(
        MockRobot(spec, clock, lag_s=0.5), Hesitates(), clock, SafetyLayer(limits, spec), META, max_steps=13,
        watchers=[log],
    )  # fmt: skip
    sent = np.array([step.sent[0] for step in log.steps])
    assert sent[9] - sent[10] > 0.1, "it held where it was, behind the command"
    assert sent[11] - sent[10] <= 0.05 + 0.02, "one step of 1 rad/s, from where it was by then"
