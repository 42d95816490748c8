"""The last word on a command: finite, fresh, in the box, no faster than allowed. Not a certified safety function."""

import copy
import math
from collections import Counter
from typing import Any

import numpy as np

from robopolicy.errors import LateCommand, UnsafeCommand
from robopolicy.rotations import (
    matrix_to_rot6d,
    matrix_to_rotvec,
    quat_to_matrix,
    rot6d_to_matrix,
    rotvec_to_matrix,
)
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation
from robopolicy_hardware.cell import Links, with_chain
from robopolicy_hardware.kinematics import Chain
from robopolicy_hardware.reach import Reach
from robopolicy_hardware.safety_limits import SafetyLimits, arm_joints, limits_for, require_fit

__all__ = ["SafetyLayer", "SafetyLimits", "limits_for"]


LARGEST = float(np.finfo(np.float32).max)
PAUSE_S = 0.1  # without a command a watched robot holds where it is measured then
ROUNDED = 1e-6  # commands are float32: one that was limited before, as in a replay, passes


class SafetyLayer:
    """Limits each command about the one before it; satisfies ``robopolicy.interfaces.Safety``.

    In order: length and finite numbers, freshness of the observation and its pictures, the box, then the speed, step,
    turn and acceleration limits, which shorten the *whole* step by one factor: it keeps its direction (see `Reach`).
    With accelerations it slows down before the end of the box and before a goal that stands. Joint commands are slowed
    further until no link leaves the workspace or goes below the table (see `Links`). The step starts from the command
    sent before, after a stall from rest, or from the measured pose at the first command and after a pause of two
    periods and 0.1 s (a ``vector`` action has no measured counterpart: there the first command is taken as it comes).
    From outside the box the arm comes back at
    the limited speed.

    Args:
        limits: what is allowed.
        spec: of the robot: kind and length of its action, and its rate.
        chain: where the links are; wanted if the limits have a workspace or a table. Its ranges are the box if the
            limits have none.

    Raises:
        ContractError: if a limit has the wrong length for the action, a tool pose has no measured ``tool_pos``, or the
            chain is not that of the robot.
    """

    def __init__(self, limits: SafetyLimits, spec: PolicySpec, chain: Chain | None = None) -> None:
        require_fit(limits, spec)
        limits = with_chain(limits, spec, chain)
        self._limits = limits
        self._spec = spec
        self._links = None if chain is None or not limits.of_links else Links(chain, limits, spec)
        self._pose = spec.action.kind == "tool_pose"
        self.counts: Counter[str] = Counter()  # how often each limit acted: box, speed, workspace, refused
        self._axes: _Pose | _Numbers = (_Pose if self._pose else _Numbers)(spec, limits)
        self._sides = (np.zeros(0), np.zeros(0))
        if limits.low is not None and limits.high is not None:
            self._sides = (np.array(limits.low) + limits.margin, np.array(limits.high) - limits.margin)
        self.reset()

    def reset(self) -> None:
        """Forget the previous command; the next one starts from the measured pose."""
        self._previous: np.ndarray | None = None  # (A,) as sent
        self._previous_ns = 0
        self._rest()

    def going_on(self, previous: np.ndarray, velocity: np.ndarray, now_ns: int) -> "SafetyLayer":
        """Return a copy that goes on from another command than the last, for an action whose elements are its axes.

        Args:
            previous: (A,) in force at ``now_ns``.
            velocity: (A,) of it, per second.
            now_ns: robot clock.
        """
        ahead = copy.copy(self)  # what is remembered is replaced by `limit`, never changed in place
        ahead.counts = Counter()
        ahead._previous, ahead._previous_ns = np.array(previous, np.float64), now_ns
        ahead._velocity, ahead._goal = np.array(velocity, np.float64), ahead._previous
        return ahead

    def _rest(self) -> None:
        """It stands: the next step begins with no velocity."""
        self._velocity = np.zeros(self._axes.dim)
        self._goal: np.ndarray | None = None  # the command wanted before

    def limit(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        """Return the nearest allowed command (A,) float32 on the way to ``action``.

        Raises:
            UnsafeCommand: if it has the wrong length, a number is not finite or its rotation is degenerate.
            LateCommand: if the observation or one of its pictures is older than ``max_age_s``. Whichever it is, the
                reason is in the message and nothing may be sent.
        """
        wanted = self._accept(action, observation, now_ns)
        start, elapsed_s = self._start(observation, now_ns)
        turned = "tool_quat" in observation.state  # else the first rotation is taken as it comes
        if start is not None and not np.isfinite(start[:3] if self._pose and not turned else start).all():
            self._refuse("what is measured is not finite: there is nothing to start from")
        boxed = self._box(wanted)
        sent = boxed if start is None else self._toward(start, boxed, elapsed_s)
        self._previous, self._previous_ns = sent.copy(), now_ns
        return sent.astype(np.float32)

    def _accept(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        dim = self._spec.action.dim
        if np.shape(action) != (dim,):
            self._refuse(f"command has shape {np.shape(action)}; want ({dim},)")
        wanted = np.array(action, dtype=np.float64)
        sound = np.abs(wanted) <= LARGEST  # neither NaN, nor infinite as it will be sent
        if not sound.all():
            self._refuse(f"command is not finite: {self._spec.action.names[int(np.argmin(sound))]}")
        pictures = {f"frame of camera {name!r}": ns for name, ns in observation.image_stamps_ns.items()}
        for what, stamp_ns in {"observation": observation.stamp_ns, **pictures}.items():
            age_s = (now_ns - stamp_ns) / 1e9
            if abs(age_s) > self._limits.max_age_s:  # a stamp in the future is another clock's
                why = f"{what} is {age_s:.3f} s old; at most {self._limits.max_age_s:g} s is allowed"
                self._refuse(why, LateCommand)
        if self._pose:
            a, b, c, d, e, f = wanted[3:9].tolist()
            if math.hypot(b * f - c * e, c * d - a * f, a * e - b * d) < 1e-3:
                self._refuse("command's rotation is degenerate: its two columns must be independent")
        return wanted

    def _refuse(self, why: str, kind: type[UnsafeCommand] = UnsafeCommand) -> None:
        self.counts["refused"] += 1
        raise kind(why)

    def _start(self, observation: Observation, now_ns: int) -> tuple[np.ndarray | None, float]:
        """The command that this step starts from, or None if nothing is known, and the seconds it may use."""
        period_s = self._spec.period_ns / 1e9
        elapsed_s = (now_ns - self._previous_ns) / 1e9
        if self._previous is not None and elapsed_s <= 2 * period_s:
            return self._previous, min(elapsed_s, period_s)  # a late tick earns no larger step
        self._rest()
        if self._previous is not None and elapsed_s <= PAUSE_S:
            return self._previous, period_s  # a stall: the set-point stood where it was
        return self._measured(observation), period_s

    def _measured(self, observation: Observation) -> np.ndarray | None:
        if self._pose:
            pose = np.zeros(self._spec.action.dim)
            pose[:3] = observation.state["tool_pos"]
            if "tool_quat" in observation.state:
                pose[3:9] = matrix_to_rot6d(quat_to_matrix(observation.state["tool_quat"]))
            else:
                pose[3:9] = np.nan  # the first rotation is taken as it comes
            return pose
        joints = np.concatenate([observation.state.get(k, np.empty(0)) for k in ("q", "gripper")])
        return joints.astype(np.float64) if len(joints) == self._spec.action.dim else None

    def _box(self, wanted: np.ndarray) -> np.ndarray:
        boxed = wanted.copy()
        if self._limits.low is not None:
            part = slice(0, len(self._limits.low))
            boxed[part] = np.clip(boxed[part], *self._sides)
        if self._pose:
            boxed[9] = np.clip(boxed[9], 0.0, 1.0)
        self.counts["box"] += not np.array_equal(boxed, wanted)
        return boxed

    def _toward(self, start: np.ndarray, goal: np.ndarray, elapsed_s: float) -> np.ndarray:
        """Go from start towards goal, as far as the whole step may go in the time there was."""
        if elapsed_s <= 0:
            return start
        axes = self._axes
        step = axes.between(start, goal)
        goal_speed = np.zeros_like(step) if self._goal is None else axes.between(self._goal, goal) / elapsed_s
        room = axes.room(start, self._limits)
        velocity = axes.velocity(step, self._velocity, goal_speed, *room, elapsed_s)
        if self._links is not None:
            kept = self._links.slowed(start, velocity, self._velocity, elapsed_s)
            self.counts["workspace"] += kept is not velocity
            velocity = kept
        moved = velocity * elapsed_s
        self.counts["speed"] += bool(np.abs(moved - step).max() > ROUNDED)
        self._velocity, self._goal = velocity, goal
        return goal if np.array_equal(moved, step) else axes.along(start, goal, moved)


class _Numbers:
    """Each element of a command is an axis; a gripper closes at its own pace, and the arm does not wait for it."""

    def __init__(self, spec: PolicySpec, limits: SafetyLimits) -> None:
        self.dim = spec.action.dim
        arm = [spec.action.names.index(name) for name in arm_joints(spec)] if spec.action.kind == "joint" else []
        rest = [i for i in range(self.dim) if i not in arm]
        columns: list[Any] = [np.array(some) for some in (arm, rest) if some]
        self._parts = [
            (some, Reach(_array(limits.max_rate, some), (), _array(limits.max_accel, some), spec.period_ns / 1e9,
                         _array(limits.max_step, some)))
            for some in (columns if len(columns) > 1 else [slice(None)])
        ]  # fmt: skip

    def between(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return goal - start

    def along(self, start: np.ndarray, goal: np.ndarray, moved: np.ndarray) -> np.ndarray:
        return start + moved

    def room(self, start: np.ndarray, limits: SafetyLimits) -> tuple[np.ndarray, np.ndarray]:
        return _room(start, limits, self.dim)

    def velocity(self, *axes: Any) -> np.ndarray:
        *each, dt_s = axes
        found = np.zeros(self.dim)
        for some, reach in self._parts:
            step, before, *rest = (one[some] for one in each)
            if step.any() or before.any():
                found[some] = reach.velocity(step, before, *rest, dt_s)
        return found


class _Pose:
    """Axes of a tool pose: three of translation, three of turning about the base frame's; the gripper is as wanted."""

    dim = 6

    def __init__(self, spec: PolicySpec, limits: SafetyLimits) -> None:
        norms = ((slice(0, 3), limits.max_speed_m_s), (slice(3, 6), limits.max_turn_rad_s))
        each = 1 / np.sqrt(3)  # of an axis, so that the norm keeps the limit
        accel = [limits.max_accel_m_s2, limits.max_turn_accel_rad_s2]
        per_axis = np.repeat([np.inf if one is None else one * each for one in accel], 3)
        self._reach = Reach(
            None, tuple((axes, limit) for axes, limit in norms if limit is not None),
            None if np.all(np.isinf(per_axis)) else per_axis, spec.period_ns / 1e9,
            step_norm=None if limits.max_step is None else (slice(0, 3), limits.max_step[0]),
        )  # fmt: skip

    def between(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray:
        return np.concatenate([goal[:3] - start[:3], _turn(start, goal)])

    def along(self, start: np.ndarray, goal: np.ndarray, moved: np.ndarray) -> np.ndarray:
        began = start[3:9] if np.all(np.isfinite(start[3:9])) else goal[3:9]
        turned = rotvec_to_matrix(moved[3:]) @ rot6d_to_matrix(began)
        return np.concatenate([start[:3] + moved[:3], matrix_to_rot6d(turned), goal[9:]])

    def room(self, start: np.ndarray, limits: SafetyLimits) -> tuple[np.ndarray, np.ndarray]:
        return _room(start, limits, self.dim)

    def velocity(self, *axes: Any) -> np.ndarray:
        return self._reach.velocity(*axes)


def _turn(start: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The shortest turn (3,) rad about the base frame's axes; none from a rotation that is not known."""
    if not np.all(np.isfinite(start[3:9])):
        return np.zeros(3)
    return matrix_to_rotvec(rot6d_to_matrix(goal[3:9]) @ rot6d_to_matrix(start[3:9]).T)


def _room(start: np.ndarray, limits: SafetyLimits, dim: int) -> tuple[np.ndarray, np.ndarray]:
    below, above = np.full(dim, np.inf), np.full(dim, np.inf)
    if limits.low is not None and limits.high is not None:
        n = len(limits.low)
        below[:n] = np.maximum(start[:n] - limits.low - limits.margin, 0.0)
        above[:n] = np.maximum(limits.high - start[:n] - limits.margin, 0.0)
    return below, above


def _array(limit: tuple[float, ...] | None, columns: Any) -> np.ndarray | None:
    return None if limit is None else np.array(limit, np.float64)[columns]
