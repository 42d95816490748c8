"""The last word on a command: finite, fresh, in the box, no faster than allowed. Not a certified safety function."""

import copy
import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

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
        self._margin = float(limits.margin)
        self._box = list(zip(_floats(limits.low or ()), _floats(limits.high or ()), strict=True))  # of the first axes
        self.reset()

    def reset(self) -> None:
        """Forget the previous command; the next one starts from the measured pose."""
        self._previous: list[float] | None = None  # (A,) as sent
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
        ahead._previous, ahead._previous_ns = _floats(previous), now_ns
        ahead._velocity, ahead._goal = _floats(velocity), ahead._previous
        return ahead

    def _rest(self) -> None:
        """It stands: the next step begins with no velocity."""
        self._velocity = [0.0] * self._axes.dim
        self._goal: list[float] | None = None  # the command wanted before

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
        if start is not None and not _finite(start[:3] if self._pose and not turned else start):
            self._refuse("what is measured is not finite: there is nothing to start from")
        boxed = self._boxed(wanted)
        sent = boxed if start is None else self._toward(start, boxed, elapsed_s)
        self._previous, self._previous_ns = sent, now_ns
        return np.array(sent, dtype=np.float32)

    def _accept(self, action: np.ndarray, observation: Observation, now_ns: int) -> list[float]:
        dim = self._spec.action.dim
        if np.shape(action) != (dim,):
            self._refuse(f"command has shape {np.shape(action)}; want ({dim},)")
        wanted = _floats(action)
        for name, value in zip(self._spec.action.names, wanted, strict=True):
            if not abs(value) <= LARGEST:  # not a number, or infinite as it will be sent
                self._refuse(f"command is not finite: {name}")
        self._require_fresh("observation", observation.stamp_ns, now_ns)
        for camera, stamp_ns in observation.image_stamps_ns.items():
            self._require_fresh(f"frame of camera {camera!r}", stamp_ns, now_ns)
        if self._pose:
            a, b, c, d, e, f = wanted[3:9]
            if math.hypot(b * f - c * e, c * d - a * f, a * e - b * d) < 1e-3:
                self._refuse("command's rotation is degenerate: its two columns must be independent")
        return wanted

    def _require_fresh(self, what: str, stamp_ns: int, now_ns: int) -> None:
        age_s = (now_ns - stamp_ns) / 1e9
        if not abs(age_s) <= self._limits.max_age_s:  # a stamp in the future is another clock's
            why = f"{what} is {age_s:.3f} s old; at most {self._limits.max_age_s:g} s is allowed"
            self._refuse(why, LateCommand)

    def _refuse(self, why: str, kind: type[UnsafeCommand] = UnsafeCommand) -> None:
        self.counts["refused"] += 1
        raise kind(why)

    def _start(self, observation: Observation, now_ns: int) -> tuple[list[float] | None, float]:
        """The command that this step starts from, or None if nothing is known, and the seconds it may use."""
        period_s = self._spec.period_ns / 1e9
        elapsed_s = float((now_ns - self._previous_ns) / 1e9)
        if self._previous is not None and elapsed_s <= 2 * period_s:
            return self._previous, min(elapsed_s, period_s)  # a late tick earns no larger step
        self._rest()
        if self._previous is not None and elapsed_s <= PAUSE_S:
            return self._previous, period_s  # a stall: the set-point stood where it was
        return self._measured(observation), period_s

    def _measured(self, observation: Observation) -> list[float] | None:
        if self._pose:
            pose = np.zeros(self._spec.action.dim)
            pose[:3] = observation.state["tool_pos"]
            if "tool_quat" in observation.state:
                pose[3:9] = matrix_to_rot6d(quat_to_matrix(observation.state["tool_quat"]))
            else:
                pose[3:9] = np.nan  # the first rotation is taken as it comes
            return _floats(pose)
        joints = np.concatenate([observation.state.get(k, np.empty(0)) for k in ("q", "gripper")])
        return _floats(joints) if len(joints) == self._spec.action.dim else None

    def _boxed(self, wanted: list[float]) -> list[float]:
        boxed = wanted.copy()
        for i, (low, high) in enumerate(self._box):
            boxed[i] = min(max(boxed[i], low + self._margin), high - self._margin)
        if self._pose:
            boxed[9] = min(max(boxed[9], 0.0), 1.0)
        self.counts["box"] += boxed != wanted
        return boxed

    def _toward(self, start: list[float], goal: list[float], elapsed_s: float) -> list[float]:
        """Go from start towards goal, as far as the whole step may go in the time there was."""
        if elapsed_s <= 0:
            return start
        axes = self._axes
        step = axes.between(start, goal)
        goal_speed = self._goal_speed(goal, elapsed_s)
        velocity = axes.velocity(step, self._velocity, goal_speed, *self._room(start), elapsed_s)
        if self._links is not None:
            velocity = self._among_links(self._links, start, velocity, elapsed_s)
        moved = [one * elapsed_s for one in velocity]
        self.counts["speed"] += any(abs(a - b) > ROUNDED for a, b in zip(moved, step, strict=True))
        self._velocity, self._goal = velocity, goal
        return goal if moved == step else axes.along(start, goal, moved)

    def _goal_speed(self, goal: list[float], elapsed_s: float) -> list[float]:
        """How fast the goal moves; only who brakes asks for it."""
        if self._goal is None or not self._axes.brakes:
            return [0.0] * self._axes.dim
        return [one / elapsed_s for one in self._axes.between(self._goal, goal)]

    def _room(self, start: list[float]) -> tuple[list[float], list[float]]:
        """From the start to the lower and the upper end of the box, less the margin, of each axis."""
        below, above = [math.inf] * self._axes.dim, [math.inf] * self._axes.dim
        for i, (low, high) in enumerate(self._box):
            below[i] = max(start[i] - low - self._margin, 0.0)
            above[i] = max(high - start[i] - self._margin, 0.0)
        return below, above

    def _among_links(self, links: Links, start: list[float], velocity: list[float], elapsed_s: float) -> list[float]:
        wanted = np.array(velocity)
        kept = links.slowed(np.array(start), wanted, np.array(self._velocity), elapsed_s)
        self.counts["workspace"] += kept is not wanted
        return velocity if kept is wanted else _floats(kept)


class _Numbers:
    """Each element of a command is an axis; a gripper closes at its own pace, and the arm does not wait for it."""

    def __init__(self, spec: PolicySpec, limits: SafetyLimits) -> None:
        self.dim = spec.action.dim
        self.brakes = limits.max_accel is not None
        arm = [spec.action.names.index(name) for name in arm_joints(spec)] if spec.action.kind == "joint" else []
        rest = [i for i in range(self.dim) if i not in arm]
        self._parts = [
            (some, Reach(_of(limits.max_rate, some), (), _of(limits.max_accel, some), spec.period_ns / 1e9,
                         _of(limits.max_step, some)))
            for some in (arm, rest) if some
        ]  # fmt: skip

    def between(self, start: list[float], goal: list[float]) -> list[float]:
        return [b - a for a, b in zip(start, goal, strict=True)]

    def along(self, start: list[float], goal: list[float], moved: list[float]) -> list[float]:
        return [a + b for a, b in zip(start, moved, strict=True)]

    def velocity(
        self, step: list[float], before: list[float], goal_speed: list[float], below: list[float], above: list[float],
        dt_s: float,
    ) -> list[float]:  # fmt: skip
        found = [0.0] * self.dim
        for some, reach in self._parts:
            ways, were, *rest = ([one[i] for i in some] for one in (step, before, goal_speed, below, above))
            if any(ways) or any(were):
                for i, one in zip(some, reach.velocity(ways, were, *rest, dt_s), strict=True):
                    found[i] = one
        return found


class _Pose:
    """Axes of a tool pose: three of translation, three of turning about the base frame's; the gripper is as wanted."""

    dim = 6

    def __init__(self, spec: PolicySpec, limits: SafetyLimits) -> None:
        norms = ((slice(0, 3), limits.max_speed_m_s), (slice(3, 6), limits.max_turn_rad_s))
        each = 1 / math.sqrt(3)  # of an axis, so that the norm keeps the limit
        accel = [limits.max_accel_m_s2, limits.max_turn_accel_rad_s2]
        self.brakes = any(one is not None for one in accel)
        per_axis = [math.inf if one is None else one * each for one in accel for _ in range(3)]
        self.velocity = Reach(
            None, tuple((axes, float(limit)) for axes, limit in norms if limit is not None),
            per_axis if self.brakes else None, spec.period_ns / 1e9,
            step_norm=None if limits.max_step is None else (slice(0, 3), float(limits.max_step[0])),
        ).velocity  # fmt: skip

    def between(self, start: list[float], goal: list[float]) -> list[float]:
        return [b - a for a, b in zip(start[:3], goal[:3], strict=True)] + _turn(start[3:9], goal[3:9])

    def along(self, start: list[float], goal: list[float], moved: list[float]) -> list[float]:
        began = start[3:9] if _finite(start[3:9]) else goal[3:9]
        turned = rotvec_to_matrix(np.array(moved[3:])).dot(_rotation(tuple(began)))
        place = [a + b for a, b in zip(start[:3], moved[:3], strict=True)]
        return place + _floats(matrix_to_rot6d(turned)) + goal[9:]


def _turn(start: list[float], goal: list[float]) -> list[float]:
    """The shortest turn (3,) rad about the base frame's axes; none from a rotation that is not known."""
    if start == goal or not _finite(start):
        return [0.0, 0.0, 0.0]
    return _floats(matrix_to_rotvec(_rotation(tuple(goal)).dot(_rotation(tuple(start)).T)))


@lru_cache(maxsize=16)  # where a step begins, its goal and the goal before are asked for again
def _rotation(rot6d: tuple[float, ...]) -> np.ndarray:
    """(3, 3), read-only."""
    matrix = rot6d_to_matrix(np.array(rot6d))
    matrix.setflags(write=False)
    return matrix


def _finite(values: list[float]) -> bool:
    return all(map(math.isfinite, values))


def _floats(values: Sequence[float] | np.ndarray) -> list[float]:
    """Plain floats, a list of their own: an element of an array is none, and slow."""
    found: list[float] = np.asarray(values, np.float64).tolist()
    return found


def _of(limit: tuple[float, ...] | None, some: list[int]) -> list[float] | None:
    return None if limit is None else [float(limit[i]) for i in some]
