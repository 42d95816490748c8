"""A policy in real time: it plans beside the control loop, and the loop plays a smooth motion at its own rate."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from robopolicy.chunks import rows_after
from robopolicy.errors import UnknownName, UnsafeCommand
from robopolicy.inference import Inference
from robopolicy.interfaces import Clock, Policy
from robopolicy.measured import measured_action
from robopolicy.reactions import SlowTime
from robopolicy.trajectory import Motion, ensembled
from robopolicy.types import ActionChunk, Command, Decision, Observation, Plan

Seams = Literal["fade", "ensemble", "rtc", "none"]
SLOWER = 0.2  # weight of a new latency that is shorter than thought; a longer one counts at once
FIRST = "waiting for the first plan"


class RealTime:
    """An `Agent` whose policy plans by the way, at its own rate, while commands are given at the loop's.

    Row i of a chunk is due at the observation it answers + i / rate; late rows are never played. The loop plays the
    curve through them (`Curve`), and a new plan takes over where the motion is (`Motion`). Past the last row it holds.

    ========== ==========================================================================================
    seams      a new plan
    ========== ==========================================================================================
    fade       takes over at once, its offset from the running motion taken along and faded out
    ensemble   is averaged with what older plans say of the same instants (`ensembled`), then as fade
    rtc        was made to agree with the running motion, by a policy that can; then as fade
    none       takes over with its jump; and the policy knows nothing of the running motion: for comparison
    ========== ==========================================================================================

    It asks for a hold, with the reason, while nothing may be played: before the first plan, after a plan has been over
    for ``over_s``, and while one has been awaited for ``late_s``. The plan after it, and the first, begin at rest where
    the robot is measured, if that is known, as any other does where the motion is.

    Args:
        policy: asked from one place at a time, for windows at its own rate.
        clock: the loop's.
        inference: where it plans.
        n: candidate chunks a plan.
        generator: makes the random generator of an episode from its seed; None leaves it to the policy.
        fade_s: in which the offset of a new plan is faded out; None is what its rows to execute last.
        lead_s: how much earlier than it is due a command is given: what the robot takes to act on it.
        seams: how one plan follows another, see above.
        max_delay: steps of delay that the policy was trained for; None is any.
        over_s: how long the end of a plan that is over may be held as a command; None is for ever.
        late_s: how long a plan may take; None is for ever.

    Attributes:
        latency_s: what a plan is expected to take, from its newest observation to its first command.
        plans: that were played so far.
        late: plans that came when all their rows were over.

    Raises:
        UnknownName: if there are no such seams.
    """

    def __init__(
        self,
        policy: Policy,
        clock: Clock,
        inference: Inference,
        *,
        n: int = 1,
        generator: Callable[[int], Any] | None = None,
        fade_s: float | None = None,
        lead_s: float = 0.0,
        seams: Seams = "fade",
        max_delay: int | None = None,
        over_s: float | None = None,
        late_s: float | None = None,
    ) -> None:
        if seams not in get_args(Seams):
            raise UnknownName("seams", seams, get_args(Seams))
        self.decision: Decision | None = None
        self._time = SlowTime()
        self._policy, self._clock, self._inference, self._n = policy, clock, inference, n
        self._make_generator = generator
        spec = policy.spec
        self._period_ns = spec.period_ns
        self._fade_s = spec.n_execute * spec.period_ns / 1e9 if fade_s is None else fade_s
        self._fade_s = 0.0 if seams == "none" else self._fade_s
        self._seams = seams
        self._most_delay = min(spec.horizon - spec.n_execute, spec.horizon if max_delay is None else max_delay)
        self._over_s, self._late_s = over_s, late_s
        self._lead_ns = round(lead_s * 1e9)
        self.latency_s = 0.0
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Forget the episode; ``seed`` fixes the samples of the next one. What planning takes is remembered."""
        self._inference.drop()
        self._policy.reset()
        self._generator = self._make_generator(seed) if self._make_generator else None
        self._seen: deque[Observation] = deque()
        self._given: deque[tuple[int, np.ndarray]] = deque()  # commands, and when each was
        self._decisions = self.late = self.plans = 0
        self.decision = None
        self._time = SlowTime()
        self._forget_plan()

    def replan(self, history: Sequence[Observation]) -> None:
        """Forget the motion, not the episode: somebody else drove, and saw ``history`` (oldest first)."""
        self._inference.drop()
        self._time = SlowTime()
        self._seen = deque(history)
        self._given.clear()
        self._forget_plan()

    def close(self) -> None:
        """End the inference, and a policy that lives elsewhere; idempotent."""
        self._inference.close()
        getattr(self._policy, "close", lambda: None)()

    def act(self, observation: Observation) -> Command:
        """Return where the motion is now, or a hold before the first plan; never waits for a plan."""
        clock_ns, seen_ns = self._clock.now_ns(), observation.stamp_ns
        now_ns = self._time.at(clock_ns)
        if (own_ns := self._time.at(seen_ns)) != seen_ns:
            observation = replace(observation, stamp_ns=own_ns)
        self._see(observation)
        self.decision = self._collect(now_ns, clock_ns)
        if not self._inference.busy and observation.stamp_ns >= self._next_ns:
            self._begin(observation, clock_ns, seen_ns)
            self.decision = self.decision or self._collect(now_ns, clock_ns)
        if why := self._overdue(now_ns, clock_ns):
            self._motion, self._waiting = Motion(self._fade_s), why
        if not self._motion.started:
            return Command(None, "hold", reason=self._waiting)
        values = self._motion.at(now_ns + self._lead_ns)[0].astype(np.float32)
        self._given.append((now_ns, values))
        over = now_ns + self._lead_ns > self._motion.end_ns
        return Command(values, "policy", reason="the plan is over: holding its end" if over else "")

    def at_pace(self, pace: float, observation: Observation, command: Command) -> Command:
        """Let the motion go on at ``pace`` from now on; return the command of this step, which is where it is."""
        self._time.go(pace, self._clock.now_ns())
        return command

    def ahead(self, step_ns: int) -> tuple[ActionChunk, np.ndarray] | None:
        """Return the motion from the next step on to where it rests: points, and velocities (H, A) per second.

        Args:
            step_ns: between two points.

        Returns:
            None if there is no motion. What is ahead was made of the newest plan, so it is worth asking again when
            ``plans`` has changed.
        """
        if not self._motion.started:
            return None
        now_ns = self._clock.now_ns()  # at its own pace: a controller that takes whole motions is not slowed
        count = max(math.ceil((self._motion.rest_ns - self._lead_ns - now_ns) / step_ns), 1)
        stamps_ns = now_ns + step_ns * np.arange(1, count + 1, dtype=np.int64)
        points = [self._motion.at(int(stamp_ns) + self._lead_ns) for stamp_ns in stamps_ns]
        values, velocities = (np.stack(part) for part in zip(*points, strict=True))
        return ActionChunk(stamps_ns, values.astype(np.float32), self._made_ns), velocities

    def _overdue(self, now_ns: int, clock_ns: int) -> str:
        """Return why the motion must not go on, or nothing."""
        waited_s = (clock_ns - self._begun_ns) / 1e9
        if self._late_s is not None and self._inference.busy and waited_s > self._late_s:
            return f"a plan has been awaited for {waited_s:.2f} s; at most {self._late_s:g} s is allowed"
        over_s = (now_ns + self._lead_ns - self._motion.rest_ns) / 1e9
        if self._over_s is not None and self._motion.started and over_s > self._over_s:
            return (
                f"the plan has been over for {over_s:.2f} s, and no other came; at most {self._over_s:g} s is allowed"
            )
        return ""

    def _forget_plan(self) -> None:
        self._motion = Motion(self._fade_s)
        self._older: deque[ActionChunk] = deque(
            maxlen=math.ceil(self._policy.spec.horizon / self._policy.spec.n_execute)
        )
        self._waiting = FIRST
        self._begun_ns = 0
        self._next_ns: int = -1  # plan at the first observation not before it
        self._asked_ns = -1  # stamp of the observation that the plan in hand answers, in the motion's time
        self._answers_ns = -1  # the same, as the robot gave it
        self._judged_ns: int | None = None  # of the newest decision's plan, in the motion's time

    def _see(self, observation: Observation) -> None:
        self._seen.append(_sharing(observation, self._seen[-1]) if self._seen else observation)
        oldest_ns = observation.stamp_ns - self._policy.spec.n_obs * self._period_ns
        while len(self._seen) > 1 and self._seen[1].stamp_ns <= oldest_ns:
            self._seen.popleft()
        while self._given and self._given[0][0] < oldest_ns:
            self._given.popleft()

    def _collect(self, now_ns: int, clock_ns: int) -> Decision | None:
        done = self._inference.collect(clock_ns)
        if done is None:
            return None
        plan, asked_ns = done[0], self._asked_ns
        took_s = (now_ns - asked_ns) / 1e9
        self.latency_s += (took_s - self.latency_s) * (1.0 if took_s > self.latency_s else SLOWER)
        spec = self._policy.spec
        stamps_ns = asked_ns + self._period_ns * np.arange(spec.horizon, dtype=np.int64)
        if not np.all(np.isfinite(plan.chunks[0])):
            row, column = np.argwhere(~np.isfinite(plan.chunks[0]))[0]
            raise UnsafeCommand(
                f"a plan is not finite: {spec.action.names[column]} in row {row}; nothing of it is played"
            )
        if stamps_ns[-1] < now_ns:
            self.late += 1
        else:
            self._play(ActionChunk(stamps_ns, plan.chunks[0], asked_ns), now_ns)
        index, self._decisions = self._decisions, self._decisions + 1
        after, self._judged_ns = rows_after(self._judged_ns, asked_ns, spec), asked_ns
        return Decision(index, self._answers_ns, plan.features, plan.chunks, spec.n_execute, plan.aux, after)

    def _play(self, chunk: ActionChunk, now_ns: int) -> None:
        if self._seams == "ensemble":
            self._older.append(chunk)
            chunk = ensembled(chunk, list(self._older)[:-1])
        start = measured_action(self._seen[-1], self._policy.spec.action) if self._fade_s else None
        self._motion.put(chunk, now_ns + self._lead_ns, start)
        self._made_ns = chunk.made_ns
        self.plans += 1

    def _begin(self, observation: Observation, clock_ns: int, seen_ns: int) -> None:
        spec, stamp_ns = self._policy.spec, observation.stamp_ns
        window = [_nearest(self._seen, stamp_ns - k * self._period_ns) for k in range(spec.n_obs - 1, -1, -1)]
        told = self._motion.started and self._seams in ("fade", "rtc")
        previous = self._sampled(stamp_ns) if told else None
        delay = min(math.ceil(self.latency_s * 1e9 / self._period_ns), self._most_delay)
        executed, generator, n = self._executed(stamp_ns), self._generator, self._n

        def work() -> Plan:
            return self._policy.plan(
                window, n=n, previous=previous, delay_steps=delay if previous is not None else 0, executed=executed,
                generator=generator,
            )  # fmt: skip

        self._next_ns = stamp_ns + spec.n_execute * self._period_ns
        self._asked_ns, self._answers_ns, self._begun_ns = stamp_ns, seen_ns, clock_ns
        self._inference.begin(work, clock_ns)

    def _sampled(self, stamp_ns: int) -> np.ndarray:
        """Return the running motion at the rows of a plan of now, (H, A) float32."""
        rows = [self._motion.at(stamp_ns + k * self._period_ns)[0] for k in range(self._policy.spec.horizon)]
        return np.stack(rows).astype(np.float32)

    def _executed(self, stamp_ns: int) -> np.ndarray | None:
        """Return the commands at the steps before an observation, (K, A), oldest first, as far as they are known."""
        rows: list[np.ndarray] = []
        for k in range(1, self._policy.spec.n_obs):
            at_ns = stamp_ns - k * self._period_ns
            nearest = min(self._given, key=lambda one, at=at_ns: abs(one[0] - at), default=None)  # type: ignore[misc]
            if nearest is None or abs(nearest[0] - at_ns) > self._period_ns // 2:
                break
            rows.append(nearest[1])
        return np.stack(rows[::-1]) if rows else None


def _sharing(observation: Observation, before: Observation) -> Observation:
    """Return the observation with the pictures of the one before where they are the same: loops outrun cameras."""
    stamps = before.image_stamps_ns
    images = {
        name: before.images[name] if stamps.get(name) == observation.image_stamps_ns.get(name, -1) else image
        for name, image in observation.images.items()
    }
    return replace(observation, images=images, encoded={})


def _nearest(seen: Sequence[Observation], stamp_ns: int) -> Observation:
    return min(seen, key=lambda one: abs(one.stamp_ns - stamp_ns))
