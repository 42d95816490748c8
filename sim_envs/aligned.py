"""A twin that is kept aligned with a real robot: commands, encoders and object poses in, where everything is out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch
from robopolicy.interfaces import Task
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation
from sim_envs.arm import FINGER_TRAVEL, FINGERS, JOINTS
from sim_envs.follower import Follower
from sim_envs.observer import Observer, ObserverSettings
from sim_envs.observer_health import Health, worst
from sim_envs.tracked import PoseMeasurement, measured, tracked_of
from sim_envs.twin import Twin

TICK_NS = 10_000_000  # of corrections: 100 Hz
GAP_NS = 2_000_000_000  # without a call after which time is not made up for
GRIP_SLACK = 0.001  # m by which a finger may differ from its encoder, so that the twin's grip keeps its force
UNTOLD_NS = 500_000_000  # without a command after which the twin's arm is driven by the encoders alone
LEAD_S = 0.02  # by which the twin's own joint references lag behind a set-point that moves
ARM_SILENT_S = 0.5  # without encoders after which the twin is called diverged
SQUEEZE = 0.1  # of the opening that a gripper is closed beyond where it is, when nobody says what it was told

Finder = Callable[[Observation], Iterable[PoseMeasurement]]


class AlignedTwin:
    """A `Twin` whose arm is where the encoders say and whose objects are where they were seen, at the present.

    Between measurements it goes by physics and by the commands that the real robot got. Not thread-safe.

    Args:
        task: what is on the table.
        start_ns: now, on the clock of all stamps and of the robot.
        cameras: drawn at each `read`; None is all.
        action: of the commands: ``"tool_pose"`` or ``"joint"``.
        settings: of the observer.
        mode: ``"observer"`` moves objects to the estimate at once; ``"follower"`` draws arm and objects there by
            forces: nothing ever jumps, at the price of a lag.
        finders: what else sees objects in an observation, as `sim_envs.markers.MarkerFinder`.
        prepare: told the compiled model, to give it other parameters.
        delay_s: from a command until the real arm begins to follow it.
        twin: further arguments of `Twin`.
    """

    def __init__(
        self,
        task: Task,
        start_ns: int = 0,
        *,
        cameras: tuple[str, ...] | None = (),
        action: str = "tool_pose",
        settings: ObserverSettings | None = None,
        mode: Literal["observer", "follower"] = "observer",
        finders: Sequence[Finder] = (),
        prepare: Callable[[Any], None] | None = None,
        delay_s: float = 0.0,
        **twin: Any,
    ) -> None:
        self._time, self._finders = SimClock(start_ns), tuple(finders)
        self.twin = Twin(task, self._time, cameras=cameras, action=action, **twin)
        if prepare is not None:
            prepare(self.twin.model)
        self.objects = tracked_of(task)
        joints = (*JOINTS, *FINGERS)
        self._follower = Follower(self.twin.model, self.twin.data, joints, self.objects) if mode == "follower" else None
        data = self.twin.data if self._follower is None else self._follower.target
        self.observer = Observer(self.twin.model, data, self.objects, joints, settings or ObserverSettings())
        self._slack = np.array([0.0] * len(JOINTS) + [GRIP_SLACK] * len(FINGERS))
        self.begun, self._delay_ns = False, round(delay_s * 1e9)
        self._told_ns: int | None = None  # when the newest command was due
        self._sent: np.ndarray | None = None
        self._arm_ns: int | None = None  # stamp of the newest encoders
        self._met: set[str] = set()  # objects that were measured since `begin`

    @property
    def finds(self) -> bool:
        """Whether anything but the robot's own streams sees objects."""
        return bool(self._finders)

    def unseen(self) -> list[str]:
        """Return the objects that were not measured since the start."""
        return [one.name for one in self.objects if one.name not in self._met]

    @property
    def now_ns(self) -> int:
        """How far the physics have come."""
        return self._time.now_ns()

    def begin(self, state: Mapping[str, np.ndarray], now_ns: int, set_point: np.ndarray | None = None) -> None:
        """Start anew where ``state`` says, as `Twin.reset_to`; objects it does not tell of stay where they are.

        Raises:
            SpecMismatch: if it does not tell where the joints are.
        """
        if "q" not in state:
            raise SpecMismatch(f"a twin follows joints: want state q ({len(JOINTS)}); there is {', '.join(state)}")
        known = {name: value for name, value in state.items() if name in self.twin.spec.state}
        present = {**self.twin.observed_state(), "dq": np.zeros(len(JOINTS)), **known}  # before time passes for it
        self._time.sleep_until(now_ns)
        self.twin.reset_to(present, set_point=set_point)
        if self._follower is not None:
            self._follower.begin()
        self.observer.reset()
        self.observer.note(self.now_ns)
        self.begun, self._told_ns = True, None if set_point is None else now_ns
        self._sent, self._arm_ns = set_point, now_ns
        self._met = {one.name for one in self.objects if all(name in known for name in one.states)}

    def meet(self, state: Mapping[str, np.ndarray], now_ns: int) -> None:
        """Put the twin's arm where ``state`` says, at rest, the grip as it was; what is believed of objects stays."""
        if not self.begun:
            self.begin(state, now_ns)
            return
        self.advance(now_ns)
        grip = float(self.twin.stop()[-1])
        arm = {name: state[name] for name in ("q", "gripper") if name in state}
        self.twin.reset_to({**self.twin.observed_state(), "dq": np.zeros(len(JOINTS)), **arm})
        if self._follower is not None:
            self._follower.begin()
        self.observer.rejoin()
        self.twin.command(self._going(np.asarray(state["q"]), np.zeros(len(JOINTS)), grip), now_ns)

    def command(self, values: np.ndarray, due_ns: int) -> np.ndarray:
        """Give the twin what the real robot got, (A,) from ``due_ns`` on; return it as it was taken.

        Raises:
            UnsafeCommand: as `Twin.command`.
        """
        self._sent = self.twin.command(values, due_ns + self._delay_ns)
        self._told_ns = max(due_ns, self.now_ns)
        return self._sent.copy()

    def stop(self) -> np.ndarray:
        """Stop the twin's arm, as the real one was; return what it holds (A,)."""
        self._sent, self._told_ns = self.twin.stop(), self.now_ns
        return self._sent.copy()

    def set_point(self) -> np.ndarray:
        """Return the command in force, (A,): the newest, or without any where the arm is."""
        if self._sent is not None:
            return self._sent.copy()
        state = self.twin.observed_state()
        return self._going(state["q"], np.zeros(len(JOINTS)), float(state["gripper"][0])).astype(np.float32)

    def joints(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where the arm's joints are believed to be now, q (7,) rad and dq (7,) rad/s."""
        q, dq = self.observer.joints_at(self.now_ns)[:, : len(JOINTS)]
        return q, dq

    def advance(self, now_ns: int) -> None:
        """Let the physics come up to ``now_ns``."""
        if now_ns - self.now_ns > GAP_NS:
            self._skip(now_ns)
        while (left_ns := now_ns - self.now_ns) > 0:
            if self._follower is not None:
                self._follower.pull()
            self._time.sleep_until(self.now_ns + min(left_ns, TICK_NS))
            stamp_ns = self.twin.advance()
            if self._follower is not None:
                self._follower.step()
            self.observer.note(stamp_ns)

    def observe(self, seen: Observation, *, arm: bool = True) -> None:
        """Correct by what a real robot observed: its joints, and its objects where a stream or a picture shows them.

        Args:
            seen: ``q`` (7,), and if there are ``dq`` (7,), ``gripper`` (1,) and the objects' streams.
            arm: False leaves the arm where it is, and goes by the objects only.

        Nothing is taken before the first joints.
        """
        if not self.begun:
            if "q" not in seen.state:
                return
            self.begin(seen.state, max(seen.stamp_ns, self.now_ns))
        if arm:
            self._encoders(seen)
        for one in self.objects:
            found = measured(one, seen.state, seen.stamp_ns)
            if found is not None:
                self.see(found)
        for finder in self._finders:
            for found in finder(seen):
                self.see(found)

    def heard(self, stamp_ns: int) -> None:
        """Note that the arm told of itself at ``stamp_ns``, though the twin does not follow it."""
        self._arm_ns = stamp_ns

    def see(self, found: PoseMeasurement) -> str:
        """Correct an object by one measurement; as `Observer.see`."""
        outcome = self.observer.see(found)
        if outcome in ("accepted", "restarted"):
            self._met.add(found.name)
        return outcome

    def read(self) -> Observation:
        """Return what the twin shows at the present, with the pictures of its cameras."""
        return self.twin.read()

    def health(self) -> Mapping[str, Health]:
        """Return how each object stands, and ``"twin"``: the worst of them."""
        each = dict(self.observer.health())
        all_of, age_s = worst(each), (self.now_ns - (self._arm_ns or 0)) / 1e9
        if self._arm_ns is None or age_s > ARM_SILENT_S:
            why = (
                "the arm was not measured yet"
                if self._arm_ns is None
                else f"the arm was not measured for {age_s:.1f} s"
            )
            all_of = replace(all_of, confidence=0.0, diverged="; ".join(filter(None, (why, all_of.diverged))))
        if self._follower is not None:
            all_of = replace(all_of, recoveries=all_of.recoveries + self._follower.recoveries)
        return {**each, "twin": all_of}

    def close(self) -> None:
        """Free the renderer; idempotent."""
        self.twin.close()

    def _skip(self, now_ns: int) -> None:
        """Let time pass without physics: what was believed stays, and is believed less from now on."""
        state = self.twin.observed_state()
        self._time.sleep_until(now_ns)
        self.twin.reset_to(state, set_point=self._sent)
        if self._follower is not None:
            self._follower.begin()
        self.observer.reset()
        self.observer.note(self.now_ns)

    def _encoders(self, seen: Observation) -> None:
        q, dq = seen.state["q"], seen.state.get("dq")
        if not all(np.isfinite(seen.state[name]).all() for name in ("q", "dq", "gripper") if name in seen.state):
            return  # the arm tells nothing: it goes by the commands, and is called unmeasured before long
        self._arm_ns = seen.stamp_ns
        slack = self._slack
        if "gripper" in seen.state:
            opening = float(seen.state["gripper"][0])
        else:
            opening, slack = 0.0, np.where(slack > 0, np.inf, 0.0)  # the fingers go by the commands alone
        fingers = [opening * FINGER_TRAVEL] * len(FINGERS)
        speeds = None if dq is None else np.array([*dq, 0.0, 0.0])
        self.observer.encoders(seen.stamp_ns, np.array([*q, *fingers]), speeds, slack)
        if self._told_ns is None or self.now_ns - self._told_ns > UNTOLD_NS:
            grip = opening if opening > 0.95 else max(0.0, opening - SQUEEZE)
            self.twin.command(self._going(q, np.zeros(len(JOINTS)) if dq is None else dq, grip), self.now_ns)

    def _going(self, q: np.ndarray, dq: np.ndarray, grip: float) -> np.ndarray:
        """The set-point that keeps the arm going as it does, (A,)."""
        if self.twin.spec.action.kind == "joint":
            return np.array([*(q + LEAD_S * dq), grip])
        state = self.twin.observed_state()
        return np.array([*state["tool_pos"], *matrix_to_rot6d(quat_to_matrix(state["tool_quat"])), grip])


def require_followable(spec: PolicySpec) -> None:
    """Refuse a robot that a twin cannot follow.

    Raises:
        SpecMismatch: naming what it lacks.
    """
    if "q" not in spec.state or spec.state["q"].dim != len(JOINTS):
        raise SpecMismatch(
            f"a twin follows joints: want state q ({len(JOINTS)}); the robot has {', '.join(spec.state)}"
        )
