"""Agents: wrappers of ``act`` and ``reset`` that turn a policy into something the loop can run.

``Guarded(Chunked(policy), monitor)`` is a guarded robot.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robopolicy.chunks import ChunkPlayer, rows_after
from robopolicy.errors import ContractError
from robopolicy.interfaces import Agent, Clock, Monitor, Policy, Teleop
from robopolicy.reactions import Reactions, Slowed, Trail, Way, flush, harder
from robopolicy.spec import PolicySpec
from robopolicy.types import ActionChunk, Command, Decision, EpisodeMeta, Observation, Step, Verdict

HISTORY = 16  # observations kept for an agent that plans anew


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
        self._planned_ns: int | None = None  # stamp of the newest plan that the next one goes on from
        self._decisions = 0
        self.decision = None

    def replan(self, history: Sequence[Observation]) -> None:
        """Forget the running chunk, not the episode: somebody else drove, and saw ``history`` (oldest first)."""
        self._window = deque(history, maxlen=self._policy.spec.n_obs)
        self._player = ChunkPlayer(self._policy.spec.period_ns)
        self._coming.clear()
        self._executed.clear()  # what the other one commanded is not known here
        self._played = 0
        self._planned_ns = None

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
        after = rows_after(self._planned_ns, observation.stamp_ns, spec)
        decision = Decision(
            self._decisions, observation.stamp_ns, plan.features, plan.chunks, spec.n_execute, plan.aux, after
        )
        self._decisions += 1
        self._planned_ns = observation.stamp_ns
        return decision


class Guarded:
    """Runs an agent as long as its monitor lets it; what the monitor says is answered by `Reactions`.

    A decision is judged *before* the first command of it is sent. What was answered by more than a line in the log
    lasts until ``reset`` or ``rearm``; by then nothing is left of the chunk that was running.

    Args:
        agent: decides as long as all is well.
        monitor: judges each of its decisions.
        on_alarm: `Reactions`, or the name of the one to an alarm.
        spec: of the robot; wanted to slow down and to retreat.
        clock: on which judging is timed, where the reactions have a deadline; simulated time does not pass meanwhile.

    Attributes:
        inner: the agent itself.
        reactions: to which state, and how.
        latched: the newest verdict that asks for a reaction, None before one and after ``rearm``.
        reaction: what it does now: ``"log"`` is nothing.
        hands_over: why the operator shall take over, "" if they need not; `Shared` asks for it.

    Raises:
        UnknownName: if there is no such reaction.
        ContractError: if the robot's commands do not allow it, or nothing says what they are.
    """

    def __init__(
        self,
        agent: Agent,
        monitor: Monitor,
        *,
        on_alarm: str | Reactions = "hold",
        spec: PolicySpec | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.decision: Decision | None = None
        self.inner = self._agent = agent
        self._monitor, self._clock = monitor, clock
        self.reactions = reactions = Reactions(on_alarm) if isinstance(on_alarm, str) else on_alarm
        self._trail: Trail | None = None
        if reactions.used & {"slow", "retreat"}:
            if spec is None:
                raise ContractError("to slow down or to retreat, say the robot's spec: Guarded(..., spec=robot.spec)")
            reactions.require(spec.action)
            self._trail = Trail(spec, reactions)
            if "slow" in reactions.used and not hasattr(agent, "at_pace"):
                self._agent = Slowed(agent, spec)
        self._seed = 0
        self._begin()

    def reset(self, seed: int = 0) -> None:
        """Re-arm: forget the alarm and the episode."""
        self._agent.reset(seed)
        self._monitor.reset()
        self.decision = None
        self._seed = seed
        if self._trail is not None:
            self._trail.reset()
        self._begin()

    def replan(self, history: Sequence[Observation]) -> None:
        """Forget the running chunk; what the monitor knows, and an alarm above all, stays."""
        self._history.clear()
        self._history.extend(history)
        if hasattr(self._agent, "replan"):
            self._agent.replan(history)
            self._pace = 1.0  # as a plan begins; the next step slows it again if it is to be slow

    def close(self) -> None:
        """Release what the agent within holds, a thread that plans; idempotent."""
        getattr(self.inner, "close", lambda: None)()

    def rearm(self) -> None:
        """Forget the alarm in mid-episode, and what was planned: a person has put right what it was about."""
        getattr(self._monitor, "acknowledge", self._monitor.reset)()
        history = list(self._history)
        self._begin()
        self._flush(history)

    def act(self, observation: Observation) -> Command:
        """Return the agent's command with the verdict attached, or what the reaction to a verdict is."""
        self.decision = None
        self._history.append(observation)
        if harder(self.reaction, "slow") != "slow":
            return self._react(observation, None)
        command = self._agent.act(observation)
        self.decision = self._agent.decision
        verdict = None if self.decision is None else self._judge(self.decision)
        if verdict is not None:
            self._answer(verdict, observation)
            if harder(self.reaction, "slow") != "slow":
                return self._react(observation, verdict)
            if verdict.state == "stale" and self.reactions.on_late == "hold":
                self._flush(list(self._history))
                return Command(None, "hold", verdict, verdict.reason)
        slow = self.reaction == "slow" or self._warned
        if (pace := self.reactions.speed if slow else 1.0) != self._pace:
            self._pace, command = pace, self._agent.at_pace(pace, observation, command)  # type: ignore[attr-defined]
        return command if verdict is None else replace(command, verdict=verdict)

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """As a watcher: nothing to note yet."""

    def on_step(self, step: Step) -> None:
        """As a watcher: note where the robot is, whoever drives, for a way back."""
        if self._trail is not None:
            self._trail.see(step)

    def on_end(self, meta: EpisodeMeta) -> None:
        """As a watcher: nothing to note any more."""

    def _begin(self) -> None:
        """All is well, as far as is known."""
        self.latched: Verdict | None = None
        self.reaction = "log"
        self.hands_over = ""
        self._why = ""
        self._warned = False
        self._way: Way | None = None
        self._pace = 1.0
        self._history: deque[Observation] = deque(maxlen=HISTORY)

    def _judge(self, decision: Decision) -> Verdict:
        """Return the monitor's verdict, ``stale`` if it came too late to be of use."""
        deadline_s, clock = self.reactions.deadline_s, self._clock
        if deadline_s is None or clock is None:
            return self._monitor.step(decision)
        began_ns = clock.now_ns()
        verdict = self._monitor.step(decision)
        took_s = (clock.now_ns() - began_ns) / 1e9
        if took_s <= deadline_s or verdict.acts:  # what is wrong is wrong, however late
            return verdict
        why = f"decision {decision.number}: judged in {took_s:.3f} s; at most {deadline_s:g} s is allowed"
        return replace(verdict, state="stale", latency_s=took_s, reason=why)

    def _answer(self, verdict: Verdict, observation: Observation) -> None:
        """Take up the reaction to a verdict, if it is harder than what is done already."""
        wanted = self.reactions.to(verdict.state)
        if verdict.state != "stale":  # what came late says nothing, nor that a warning is over
            self._warned = wanted == "slow" and not verdict.acts
        if not verdict.acts:
            return
        self.latched = verdict
        if harder(wanted, self.reaction) == self.reaction:
            return
        self.reaction, self._why = wanted, verdict.reason
        if wanted == "retreat" and self._trail is not None:
            self._way = self._trail.back(observation.stamp_ns)
        self.hands_over = (verdict.reason or verdict.state) if wanted == "handover" else ""

    def _react(self, observation: Observation, verdict: Verdict | None) -> Command:
        """Return the command of a reaction in which the agent has no say."""
        values = None if self._way is None else self._way.at(observation.stamp_ns)
        if values is not None:
            return Command(values, "policy", verdict, f"goes back: {self._why}")
        return Command(None, "hold", verdict, self._why, ends=self.reaction == "stop")

    def _flush(self, history: Sequence[Observation]) -> None:
        """Let the agent forget what it would have played."""
        self._pace = 1.0
        flush(self._agent, history, lambda: self._agent.reset(self._seed))


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
