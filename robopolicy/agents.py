"""Agents: wrappers of ``act`` and ``reset`` that turn a policy into something the loop can run.

``Guarded(Chunked(policy), monitor)`` is a guarded robot.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robopolicy.chunks import ChunkPlayer
from robopolicy.errors import ContractError
from robopolicy.interfaces import Agent, Monitor, Policy, Teleop
from robopolicy.types import ActionChunk, Command, Decision, Observation


class Chunked:
    """Plays a policy's chunks: plans, executes ``spec.n_execute`` rows, plans anew.

    Args:
        policy: asked for a plan each time the rows to execute have been played.
        n: candidate chunks to draw a plan (the monitor may need several).
        generator: makes the random generator of an episode from its seed; None leaves it to the policy.
        delay_steps: control steps that planning is taken to last: a plan of this observation takes effect so many steps
            later, the chunk before plays on meanwhile, and the policy is told. Before the first one the robot holds.

    Raises:
        ContractError: if a chunk is over before the next one takes effect.
    """

    def __init__(
        self, policy: Policy, *, n: int = 1, generator: Callable[[int], Any] | None = None, delay_steps: int = 0
    ) -> None:
        self.decision: Decision | None = None
        self._policy = policy
        self._n = n
        if not 0 <= delay_steps <= policy.spec.horizon - policy.spec.n_execute:
            raise ContractError(
                f"a delay of {delay_steps} steps and {policy.spec.n_execute} to execute make "
                f"{delay_steps + policy.spec.n_execute} rows; a chunk has {policy.spec.horizon}"
            )
        self._delay = delay_steps
        self._make_generator = generator
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Forget the episode; ``seed`` fixes the samples of the next one."""
        self._policy.reset()
        self._window: deque[Observation] = deque(maxlen=self._policy.spec.n_obs)
        self._player = ChunkPlayer(self._policy.spec.period_ns)
        self._generator = self._make_generator(seed) if self._make_generator else None
        self._coming: deque[tuple[int, ActionChunk]] = deque()  # plans, and the step from which each is in force
        self._executed: deque[np.ndarray] = deque(maxlen=max(self._policy.spec.n_obs - 1, 1))
        self._played = 0
        self._decisions = 0
        self.decision = None

    def replan(self, history: Sequence[Observation]) -> None:
        """Forget the running chunk, not the episode: somebody else drove, and saw ``history`` (oldest first)."""
        self._window = deque(history, maxlen=self._policy.spec.n_obs)
        self._player = ChunkPlayer(self._policy.spec.period_ns)
        self._coming.clear()
        self._executed.clear()  # what the other one commanded is not known here
        self._played = 0

    def act(self, observation: Observation) -> Command:
        """Return the row of the running chunk that is due now, planning first if it is time to; hold without one."""
        self._window.append(observation)
        while len(self._window) < self._policy.spec.n_obs:
            self._window.appendleft(observation)  # before the first step the world stood still
        self.decision = None
        if self._played % self._policy.spec.n_execute == 0:
            self.decision = self._plan(observation)
        while self._coming and self._coming[0][0] <= self._played:
            self._player.put(self._coming.popleft()[1])
        self._played += 1
        if not self._player.started:
            return Command(None, "hold", reason="waiting for the first plan")
        values = self._player.at(self._middle_ns(observation))
        self._executed.append(values)
        return Command(values, "policy")

    def _middle_ns(self, observation: Observation) -> int:
        """Half a period on: so a stamp a little before its tick does not play the row before."""
        return observation.stamp_ns + self._policy.spec.period_ns // 2

    def _plan(self, observation: Observation) -> Decision:
        spec = self._policy.spec
        previous = self._player.remaining(self._middle_ns(observation), spec.horizon)
        executed = np.stack(self._executed) if self._executed else None
        plan = self._policy.plan(
            list(self._window), n=self._n, previous=previous, executed=executed, generator=self._generator,
            delay_steps=self._delay if previous is not None else 0,
        )  # fmt: skip
        stamps_ns = observation.stamp_ns + spec.period_ns * np.arange(spec.horizon, dtype=np.int64)
        self._coming.append((self._played + self._delay, ActionChunk(stamps_ns, plan.chunks[0], observation.stamp_ns)))
        decision = Decision(self._decisions, observation.stamp_ns, plan.features, plan.chunks, spec.n_execute, plan.aux)
        self._decisions += 1
        return decision


class Guarded:
    """Holds the robot from the moment the monitor alarms until the episode is reset, or `rearm` is called.

    Args:
        agent: decides as long as all is well.
        monitor: judges each of its decisions *before* the first command of that decision is sent.
        on_alarm: ``"hold"``, or ``"log"`` to attach the verdict and carry on.
    """

    def __init__(self, agent: Agent, monitor: Monitor, *, on_alarm: str = "hold") -> None:
        self.decision: Decision | None = None
        self.inner = self._agent = agent
        self._monitor = monitor
        self._on_alarm = on_alarm
        self._held: Command | None = None

    def reset(self, seed: int = 0) -> None:
        """Re-arm: forget the alarm and the episode."""
        self._agent.reset(seed)
        self._monitor.reset()
        self.decision = None
        self._held = None

    def replan(self, history: Sequence[Observation]) -> None:
        """Forget the running chunk; what the monitor knows, and an alarm above all, stays."""
        replan = getattr(self._agent, "replan", None)
        if replan is not None:
            replan(history)

    def close(self) -> None:
        """Release what the agent within holds, a thread that plans; idempotent."""
        getattr(self._agent, "close", lambda: None)()

    def rearm(self) -> None:
        """Forget the alarm in mid-episode: a person has put right what it was about."""
        self._monitor.reset()
        self._held = None

    def act(self, observation: Observation) -> Command:
        """Return the agent's command with the verdict attached, or a hold once there was an alarm."""
        self.decision = None
        if self._held is not None:
            return self._held
        command = self._agent.act(observation)
        self.decision = self._agent.decision
        if self.decision is None:
            return command
        verdict = self._monitor.step(self.decision)
        if verdict.state == "alarm" and self._on_alarm == "hold":
            self._held = Command(None, "hold", reason=verdict.reason)
            return Command(None, "hold", verdict, verdict.reason)
        return Command(command.values, command.source, verdict, command.reason)


class Teleoperated:
    """A person drives; the loop cannot tell the difference."""

    def __init__(self, teleop: Teleop) -> None:
        self.decision: Decision | None = None
        self._teleop = teleop
        self._engaged = False

    def reset(self, seed: int = 0) -> None:
        """Engage anew at the next step."""
        self._engaged = False

    def act(self, observation: Observation) -> Command:
        """Return the person's newest command."""
        if not self._engaged:
            self._teleop.engage(observation, None)
            self._engaged = True
        return self._teleop.read(observation)
