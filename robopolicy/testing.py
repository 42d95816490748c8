"""Contract tests for everyone's robots, clocks, tasks, policies, scores, agents and watchers.

Subclass one in your own tests and say how to make the thing; pytest does the rest::

    from robopolicy.testing import RobotContract

    class TestMyArm(RobotContract):
        def make(self, clock):
            return MyArm("192.168.0.2", clock)
"""

from typing import Any

import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of, modes_of
from robopolicy.clock import SimClock
from robopolicy.errors import RobopolicyError, UnsafeCommand
from robopolicy.interfaces import Clock, Environment, Robot, Safety, Task, Teleop, Watcher
from robopolicy.spec import PolicySpec
from robopolicy.testing_policies import (
    AgentContract,
    MonitorContract,
    PolicyContract,
    ScoreContract,
    random_observation,
)
from robopolicy.types import EpisodeMeta, Observation, Status, Step

__all__ = [
    "AgentContract",
    "ClockContract",
    "EnvironmentContract",
    "MonitorContract",
    "PolicyContract",
    "RobotContract",
    "SafetyContract",
    "ScoreContract",
    "TaskContract",
    "TeleopContract",
    "WatcherContract",
    "check_observation",
    "random_observation",
]


def check_observation(observation: Observation, spec: PolicySpec) -> None:
    """Assert that an observation is exactly what ``spec`` promises: names, shapes, dtypes, finite, stamped."""
    assert isinstance(observation.stamp_ns, int)
    assert set(observation.state) == set(spec.state)
    for name, stream in spec.state.items():
        value = observation.state[name]
        assert value.dtype == np.float32, f"state {name}: {value.dtype}"
        assert value.shape == (stream.dim,), f"state {name}: {value.shape}"
        assert np.isfinite(value).all(), f"state {name}: {value}"
    assert set(observation.images) == set(spec.cameras) == set(observation.image_stamps_ns)
    for name, camera in spec.cameras.items():
        image = observation.images[name]
        assert image.dtype == camera.dtype
        assert image.shape == camera.shape, f"camera {name}: {image.shape}"
        # of several cameras the others give their nearest picture, which may be a little later
        assert observation.image_stamps_ns[name] <= observation.stamp_ns + spec.period_ns


class ClockContract:
    """Time never goes back and a sleep ends no earlier than asked."""

    def make(self) -> Clock:
        """Return a fresh clock."""
        raise NotImplementedError

    def test_is_a_clock(self) -> None:
        assert isinstance(self.make(), Clock)

    def test_sleep_reaches_its_deadline(self) -> None:
        clock = self.make()
        deadline_ns = clock.now_ns() + 2_000_000
        clock.sleep_until(deadline_ns)
        assert clock.now_ns() >= deadline_ns

    def test_never_goes_back(self) -> None:
        clock = self.make()
        before_ns = clock.now_ns()
        clock.sleep_until(before_ns - 1_000_000_000)
        assert clock.now_ns() >= before_ns
        assert isinstance(clock.now_ns(), int)


class RobotContract:
    """A robot observes what its spec says, says what it sent, refuses nonsense and can always be stopped."""

    def make(self, clock: Clock) -> Robot:
        """Return a robot that lives by ``clock``, ready to read."""
        raise NotImplementedError

    def clock(self) -> Clock:
        """Return the clock to test with; override for hardware."""
        return SimClock()

    @pytest.fixture
    def running(self) -> Any:
        """A clock and a robot on it, closed afterwards."""
        clock = self.clock()
        robot = self.make(clock)
        yield clock, robot
        robot.close()

    def tick(self, clock: Clock, robot: Robot, steps: int = 1) -> Observation:
        """Let ``steps`` periods pass and read."""
        for _ in range(steps):
            clock.sleep_until(clock.now_ns() + robot.spec.period_ns)
            observation = robot.read()
        return observation

    def test_is_a_robot(self, running: Any) -> None:
        assert isinstance(running[1], Robot)
        assert (running[1].spec.n_obs, running[1].spec.horizon, running[1].spec.n_execute) == (1, 1, 1)

    def test_observation_is_what_the_spec_says(self, running: Any) -> None:
        clock, robot = running
        check_observation(self.tick(clock, robot), robot.spec)

    def test_stamps_increase_and_are_not_in_the_future(self, running: Any) -> None:
        clock, robot = running
        first, second = self.tick(clock, robot), self.tick(clock, robot)
        assert first.stamp_ns < second.stamp_ns <= clock.now_ns()

    def test_arrays_are_fresh(self, running: Any) -> None:
        clock, robot = running
        first = self.tick(clock, robot)
        kept = {name: value.copy() for name, value in first.state.items()}
        images = {name: value.copy() for name, value in first.images.items()}
        self.tick(clock, robot, 2)
        for name, value in kept.items():
            np.testing.assert_array_equal(first.state[name], value)
        for name, image in images.items():
            np.testing.assert_array_equal(first.images[name], image)

    def test_command_returns_what_was_sent(self, running: Any) -> None:
        clock, robot = running
        self.tick(clock, robot)
        hold = robot.stop()
        sent = robot.command(hold, clock.now_ns())
        assert sent.shape == (robot.spec.action.dim,)
        assert sent.dtype == np.float32
        np.testing.assert_allclose(sent, hold, atol=1e-5)
        assert not np.shares_memory(sent, hold)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_refuses_what_is_not_finite(self, running: Any, bad: float) -> None:
        clock, robot = running
        self.tick(clock, robot)
        action = robot.stop()
        action[0] = bad
        with pytest.raises(UnsafeCommand):
            robot.command(action, clock.now_ns())
        check_observation(self.tick(clock, robot), robot.spec)

    def test_refuses_a_wrong_length(self, running: Any) -> None:
        clock, robot = running
        self.tick(clock, robot)
        with pytest.raises(UnsafeCommand, match=str(robot.spec.action.dim)):
            robot.command(np.zeros(robot.spec.action.dim + 1, np.float32), clock.now_ns())

    def test_stop_is_idempotent_and_holds(self, running: Any) -> None:
        clock, robot = running
        self.tick(clock, robot)
        first = robot.stop("a reason")
        assert first.shape == (robot.spec.action.dim,)
        assert np.isfinite(first).all()
        np.testing.assert_allclose(robot.stop(), first, atol=1e-3)

    def test_close_is_idempotent(self) -> None:
        robot = self.make(self.clock())
        robot.close()
        robot.close()


class EnvironmentContract(RobotContract):
    """A simulated robot: the same seed gives the same episode, another seed another one."""

    def make(self, clock: Clock) -> Any:
        """Return a robot that is also an environment."""
        raise NotImplementedError

    def rollout(self, seed: int, steps: int = 8) -> list[Observation]:
        """Reset with ``seed`` and read ``steps`` observations while holding still."""
        clock = SimClock()
        robot = self.make(clock)
        robot.reset(seed)
        hold = robot.stop()
        observations = []
        for _ in range(steps):
            observations.append(robot.read())
            robot.command(hold, clock.now_ns())
            clock.sleep_until(clock.now_ns() + robot.spec.period_ns)
        robot.close()
        return observations

    def test_is_an_environment(self, running: Any) -> None:
        assert isinstance(running[1], Environment)
        assert running[1].max_steps > 0
        assert running[1].instruction

    def test_same_seed_same_episode(self) -> None:
        for first, second in zip(self.rollout(7), self.rollout(7), strict=True):
            assert first.stamp_ns == second.stamp_ns
            for name, value in first.state.items():
                np.testing.assert_array_equal(value, second.state[name])
            for name, image in first.images.items():
                np.testing.assert_array_equal(image, second.images[name])

    def test_reset_twice_on_one_object_gives_the_same_start(self) -> None:
        robot = self.make(SimClock())
        robot.reset(3)
        first = robot.read()
        robot.reset(4)
        other = robot.read()
        robot.reset(3)
        again = robot.read()
        robot.close()
        for name, value in first.state.items():
            np.testing.assert_array_equal(value, again.state[name])
        assert any(not np.array_equal(first.state[name], other.state[name]) for name in first.state)

    def test_start_is_not_success_and_score_is_a_fraction(self, running: Any) -> None:
        robot = running[1]
        robot.reset(0)
        robot.read()
        assert robot.success() is False
        assert 0.0 <= robot.score() <= 1.0

    def test_what_it_says_of_modes_and_failures_is_of_its_own_list_and_forgotten_at_a_reset(self, running: Any) -> None:
        robot, said = running[1], []
        for _ in range(2):
            robot.reset(0)
            robot.read()
            said.append((mode_of(robot), failure_of(robot)))
        assert said[0] == said[1]
        assert len(set(modes_of(robot))) == len(modes_of(robot))


class TaskContract:
    """A MuJoCo task builds a scene and says what it needs."""

    def make(self) -> Task:
        """Return a fresh task."""
        raise NotImplementedError

    def test_is_a_task(self) -> None:
        task = self.make()
        assert isinstance(task, Task)
        assert task.max_steps > 0
        assert task.instruction

    def test_builds_twice(self) -> None:
        task = self.make()
        assert task.build() is not None
        assert task.build() is not task.build()


class TeleopContract:
    """A teleoperator never blocks, holds when nobody is there, and engages without a bump."""

    def make(self) -> tuple[Teleop, PolicySpec]:
        """Return a teleoperator that nobody touches, and the spec of the robot it drives."""
        raise NotImplementedError

    def observe(self, spec: PolicySpec) -> Observation:
        """Return what the robot sees; override if the device needs a sensible pose."""
        return random_observation(spec, np.random.default_rng(0), stamp_ns=1)

    def test_untouched_it_holds_or_stays(self) -> None:
        teleop, spec = self.make()
        try:
            assert isinstance(teleop, Teleop)
            seen = self.observe(spec)
            teleop.engage(seen, None)
            commands = [teleop.read(seen) for _ in range(3)]
            assert list(teleop.events()) == []
            for command in commands:
                assert command.source in ("human", "hold")
                assert (command.values is None) == (command.source == "hold")
            sent = [command.values for command in commands if command.values is not None]
            for values in sent:
                assert values.shape == (spec.action.dim,)
                np.testing.assert_allclose(values, sent[0], atol=1e-5)
        finally:
            teleop.close()
            teleop.close()

    def test_shows_every_phase(self) -> None:
        teleop, _ = self.make()
        try:
            for phase in ("waiting", "recording", "paused", "saving"):
                teleop.show(Status(phase, 0, 1))  # type: ignore[arg-type]
        finally:
            teleop.close()


class SafetyContract:
    """A safety layer passes finite commands of the right length and refuses the rest."""

    def make(self) -> tuple[Safety, PolicySpec, np.ndarray]:
        """Return a layer, the spec it guards, and an action that is allowed."""
        raise NotImplementedError

    def test_limits(self) -> None:
        safety, spec, allowed = self.make()
        assert isinstance(safety, Safety)
        observation = random_observation(spec, np.random.default_rng(0), stamp_ns=1)
        safety.reset()
        assert safety.limit(allowed, observation, 1).shape == (spec.action.dim,)
        for bad in (np.full(spec.action.dim, np.nan, np.float32), np.zeros(spec.action.dim + 1, np.float32)):
            with pytest.raises(UnsafeCommand):
                safety.limit(bad, observation, 1)


class WatcherContract:
    """A watcher takes a whole episode, and a second one after it."""

    def make(self, spec: PolicySpec) -> Watcher:
        """Return a watcher for episodes of ``spec``."""
        raise NotImplementedError

    def spec(self) -> PolicySpec:
        """Return the spec of the episodes it is shown."""
        return PolicySpec()

    def test_takes_episodes(self) -> None:
        spec = self.spec()
        watcher = self.make(spec)
        assert isinstance(watcher, Watcher)
        rng = np.random.default_rng(0)
        for number in range(2):
            meta = EpisodeMeta(task="t", robot="r", seed=number, rate_hz=spec.rate_hz)
            watcher.on_start(meta, spec)
            for k in range(4):
                stamp_ns = k * spec.period_ns
                sent = rng.standard_normal(spec.action.dim).astype(np.float32)
                watcher.on_step(Step(random_observation(spec, rng, stamp_ns), sent, stamp_ns, "policy"))
            try:
                watcher.on_end(meta)
            except RobopolicyError as error:
                pytest.fail(f"a good episode was refused: {error}")
