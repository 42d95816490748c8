"""The aligned twin in the loop: shadow of a real robot, in front of it, or alone from recorded starts."""

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from robopolicy.errors import SpecMismatch, StaleFrame, UnknownName, UnsafeCommand
from robopolicy.interfaces import Clock, Robot, Safety, Task
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Observation, Step
from sim_envs.aligned import AlignedTwin, require_followable
from sim_envs.arm import JOINTS
from sim_envs.observer_health import Health
from sim_envs.twin import Twin

APART = 0.35  # rad between a joint of the real arm and of the twin it tracks, at the same time: something is wrong
LOCK_S = 0.05  # a stop that cannot have the twin to itself by then stops the real arm alone
DIVERGED_S = 0.5  # that a twin may be called diverged while a policy acts on it: contradictions may resolve themselves


class Source(Protocol):
    """What sees objects beside the real robot, at its own pace, as `robopolicy_hardware.ros.watching.Group`."""

    trouble: str  # why nothing can be read now, or nothing

    def newest(self, now_ns: int) -> Observation | None:
        """Return the newest it saw, at its own instant; None if there is none of use."""
        ...

    def close(self) -> None:
        """Look no more; idempotent."""
        ...


class Shadow:
    """A `Watcher`: the policy drives the real robot, the twin follows what was seen and sent.

    Give the loop a rate of 50 Hz or more (``--control-rate``), or observe beside it: a slower one corrects more rarely.

    Args:
        aligned: the twin; its commands must be of the robot's kind to be of use, and are left out otherwise.
    """

    def __init__(self, aligned: AlignedTwin) -> None:
        self.aligned = aligned
        self._same_action = False

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Refuse a robot whose joints are not seen; raises SpecMismatch."""
        require_followable(spec)
        self._same_action = spec.action == self.aligned.twin.spec.action

    def on_step(self, step: Step) -> None:
        """Follow one step: up to its time, what was seen, what was sent."""
        self.aligned.advance(step.due_ns)
        self.aligned.observe(step.observation)
        if self._same_action:
            self.aligned.command(step.sent, step.due_ns)

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing more to follow."""

    def health(self) -> Mapping[str, Health]:
        """Return how each object stands, and ``"twin"``: the worst of them."""
        return self.aligned.health()


class TwinFirst:
    """A `Robot`: the policy acts on the twin and sees it, the real arm tracks the twin's joints.

    The real arm's encoders do not move the twin's arm; its objects and pictures correct the twin's objects. After a
    stop the twin starts again from where the real arm is, so nothing jumps. What limits the policy limits the twin's
    commands; what the real arm is sent is the twin's motion, which another safety layer limits, of the real arm's kind
    of command. This checks that the arm is near the twin, and ends when the twin has been diverged for longer than
    `DIVERGED_S`. A stop may come from another thread: of a call that hangs in the twin it stops the real arm alone.

    Args:
        aligned: the twin.
        real: commanded with joint positions, with or without a gripper as the last element, or with tool poses.
        clock: shared by all.
        lead_s: of the velocity feed-forward, of each joint (7,) or of all: about the real servo's lag plus its delay.
        apart: rad that a joint of the real arm may be from the twin's at the same time.
        sources: {object, or camera: what sees it} beside the real robot; one that is silent holds up nobody.
        safety: limits what the real arm is sent; None sends it as it is.

    Raises:
        SpecMismatch: if the real robot does not tell its joints or takes no such commands, or nothing tells where an
            object is: the policy would act on one that is only in the twin.
    """

    def __init__(
        self,
        aligned: AlignedTwin,
        real: Robot,
        clock: Clock,
        *,
        lead_s: float | np.ndarray = 0.0,
        apart: float = APART,
        sources: Mapping[str, Source] = MappingProxyType({}),
        safety: Safety | None = None,
    ) -> None:
        require_followable(real.spec)
        action = real.spec.action
        if action.kind not in ("joint", "tool_pose") or (action.kind == "joint" and action.dim not in (7, 8)):
            raise SpecMismatch(f"the real robot takes {action.kind} ({action.dim}); want joint (7 or 8) or tool_pose")
        for one in () if aligned.finds else aligned.objects:
            if one.name in sources:
                continue
            if f"{one.name} pose" not in real.spec.state and not all(n in real.spec.state for n in one.states):
                raise SpecMismatch(
                    f"nothing tells where {one.name} is: the real robot has no state {', '.join(one.states)}; it has "
                    f"{', '.join(real.spec.state)}"
                )
        self.aligned, self._real, self._clock = aligned, real, clock
        self._lead_s, self._apart, self._sources = lead_s, apart, dict(sources)
        self._safety = safety
        self._seen: Observation | None = None  # the newest of the real arm
        self._lock = threading.RLock()  # of the twin: its physics are of one thread at a time
        self._diverged_ns: int | None = None  # since when
        self.spec: PolicySpec = aligned.twin.spec
        self.real_spec: PolicySpec = real.spec
        self._stopped = False
        self.apart = 0.0  # rad, the largest distance of a joint at the last read

    def read(self) -> Observation:
        """Bring the twin to the present, correct its objects by what the real robot sees, and return the twin's view.

        Raises:
            StaleFrame: as the real robot raises it; and while an object was not measured yet.
            UnsafeCommand: if the real arm is too far from the twin it should track, or the twin is not to be believed;
                both are stopped by whoever runs.
        """
        seen = self._real.read()
        with self._lock:
            self._seen = seen
            return self._corrected(seen)

    def _corrected(self, seen: Observation) -> Observation:
        """Return the twin's view of the present, corrected by what the real robot and all beside it saw."""
        now_ns = self._clock.now_ns()
        self.aligned.advance(now_ns)
        self.aligned.observe(seen, arm=False)
        self.aligned.heard(seen.stamp_ns)
        for source in self._sources.values():
            if (found := source.newest(now_ns)) is not None:
                self.aligned.observe(found, arm=False)
        for name in self.aligned.unseen():
            why = "; ".join(f"{name}: {one.trouble}" for name, one in self._sources.items() if one.trouble)
            raise StaleFrame(f"{name} was not measured yet: where the twin has it is nowhere{why and f' ({why})'}")
        self._compare(seen)
        self._require_believed(now_ns)
        return self.aligned.read()

    def command(self, action: np.ndarray, due_ns: int) -> np.ndarray:
        """Command the twin, and send the real arm to where the twin's is; return what the twin took (A,).

        Raises:
            UnsafeCommand: as the twin, the safety layer and the real robot raise it.
        """
        with self._lock:
            if self._stopped:
                self._seen = self._real.read()
                self.aligned.meet(self._seen.state, self._clock.now_ns())
                if self._safety is not None:
                    self._safety.reset()
            sent = self.aligned.command(action, due_ns)
            tracked = self._tracked(sent)
            if self._safety is not None:
                seen = self._real.read() if self._seen is None else self._seen
                tracked = self._safety.limit(tracked, seen, self._clock.now_ns())
            self._real.command(tracked, due_ns)
            self._stopped = False
            return sent

    def stop(self, reason: str = "") -> np.ndarray:
        """Stop the real arm first, then the twin; return what the twin holds (A,)."""
        self._stopped = True
        self._real.stop(reason)
        if not self._lock.acquire(timeout=LOCK_S):  # another thread hangs in it; the next command starts it anew
            return self.aligned.set_point()
        try:
            return self.aligned.stop()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close both, and what sees beside them; idempotent."""
        self._real.close()
        for source in self._sources.values():
            source.close()
        self.aligned.close()

    def health(self) -> Mapping[str, Health]:
        """Return how each object stands, and ``"twin"``: the worst of them."""
        return self.aligned.health()

    @property
    def acted(self) -> dict[str, int]:
        """How often each limit acted on what the real arm was sent; of a safety layer that counts."""
        return {name: count for name, count in dict(getattr(self._safety, "counts", {})).items() if count}

    def _compare(self, seen: Observation) -> None:
        gap = np.abs(np.asarray(seen.state["q"]) - self.aligned.observer.joints_at(seen.stamp_ns)[0, : len(JOINTS)])
        self.apart = float(gap.max())
        if not self.apart <= self._apart:
            joint = JOINTS[int(np.argmax(gap))]
            raise UnsafeCommand(
                f"the real arm's {joint} is {self.apart:.2f} rad from the twin's; at most {self._apart:g} is allowed: "
                "does it follow its commands, or do its limits slow it down?"
            )

    def _require_believed(self, now_ns: int) -> None:
        why = self.health()["twin"].diverged
        if not why:
            self._diverged_ns = None
            return
        self._diverged_ns = now_ns if self._diverged_ns is None else self._diverged_ns
        if now_ns - self._diverged_ns > DIVERGED_S * 1e9:
            raise UnsafeCommand(f"the twin is not to be believed for {DIVERGED_S:g} s now: {why}")

    def _tracked(self, sent: np.ndarray) -> np.ndarray:
        """What sends the real arm to where the twin's is now."""
        state, action = self.aligned.twin.observed_state(), self._real.spec.action
        if action.kind == "tool_pose":
            return np.array([*state["tool_pos"], *matrix_to_rot6d(quat_to_matrix(state["tool_quat"])), sent[-1]])
        q = state["q"] + self._lead_s * state["dq"]
        return np.array([*q, sent[-1]]) if action.dim == len(JOINTS) + 1 else q


class OfflineTwin(Twin):
    """A twin whose starts are recorded states: ``reset(seed)`` is the start of that number.

    Args:
        task, clock, twin: as of `Twin`.
        starts: {number: (state, set-point in force or None)}, as `Twin.reset_to` takes them.
    """

    def __init__(
        self,
        task: Task,
        clock: Clock,
        starts: Mapping[int, tuple[Mapping[str, np.ndarray], np.ndarray | None]],
        **twin: Any,
    ) -> None:
        self._starts: Mapping[int, Any] = {}
        super().__init__(task, clock, **twin)
        self._starts = dict(starts)

    def reset(self, seed: int) -> None:
        """Put the world into the recorded start of that number; UnknownName lists those there are."""
        if not self._starts:
            super().reset(seed)
            return
        if seed not in self._starts:
            raise UnknownName("recorded start", str(seed), map(str, self._starts))
        state, set_point = self._starts[seed]
        self.reset_to(state, set_point=set_point)
