"""The last word on a command: finite, fresh, in the box, no faster than allowed. Not a certified safety function."""

from collections import Counter
from dataclasses import dataclass, fields

import numpy as np

from robopolicy.errors import ContractError, LateCommand, UnsafeCommand
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation


@dataclass(frozen=True)
class SafetyLimits:
    """What a command may be; None does not limit.

    Raises:
        ContractError: at construction, if a limit is not finite, not positive or not in order.
    """

    max_age_s: float = 0.2  # observation, or any of its pictures, older than this: nothing is sent
    low: tuple[float, ...] | None = None  # box: (3,) m of a tool pose, otherwise (A,) in the action's units
    high: tuple[float, ...] | None = None
    max_speed_m_s: float | None = None  # tool pose, translation
    max_turn_rad_s: float | None = None  # tool pose, rotation
    max_rate: tuple[float, ...] | None = None  # (A,) action units per second; not for a tool pose
    max_step: tuple[float, ...] | None = None  # (A,) action units per command; for a tool pose (1,) m

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not np.all(np.isfinite(value)):
                raise ContractError(f"safety limit {field.name} is {value}; it must be finite (None does not limit)")
            if value is not None and field.name.startswith("max_") and not np.all(np.asarray(value) > 0):
                raise ContractError(f"safety limit {field.name} is {value}; it must be positive")
        if (self.low is None) != (self.high is None):
            raise ContractError("safety box: give both low and high, or neither")
        if self.low is not None and self.high is not None and not _ordered(self.low, self.high):
            raise ContractError(f"safety box: low {self.low} is not below high {self.high} in every element")


def limits_for(spec: PolicySpec) -> SafetyLimits:
    """Return cautious limits for the spec's kind of action.

    A tool pose may move 0.5 m/s and turn 2 rad/s inside a table-top box in front of the base; a joint 1.5 rad/s. A
    ``vector`` is checked for length, finite numbers and freshness only, since nothing is known of its units: give
    `SafetyLimits` of your own to whatever such a robot can break.

    Raises:
        ContractError: if there are no cautious limits for the kind.
    """
    if spec.action.kind == "tool_pose":
        return SafetyLimits(low=(0.1, -0.6, 0.0), high=(0.9, 0.6, 0.9), max_speed_m_s=0.5, max_turn_rad_s=2.0)
    if spec.action.kind == "joint":
        return SafetyLimits(max_rate=(1.5,) * spec.action.dim)
    if spec.action.kind == "vector":
        return SafetyLimits()
    raise ContractError(
        f"there are no default safety limits for {spec.action.kind!r} actions; "
        "give them explicitly: SafetyLayer(SafetyLimits(low=..., high=..., max_rate=...), spec)"
    )


class SafetyLayer:
    """Limits each command about the one before it; satisfies ``robopolicy.interfaces.Safety``.

    In order: length and finite numbers, freshness of the observation and its pictures, the box, then the speed, step
    and turn limits, which shorten the *whole* step by one factor, so that it keeps its direction. The step starts from
    the command sent before, or from the measured pose at the first command and after a pause (a ``vector`` action has
    no measured counterpart: there the first command is taken as it comes). From outside the box the arm comes back at
    the limited speed.

    Args:
        limits: what is allowed.
        spec: of the robot: kind and length of its action, and its rate.

    Raises:
        ContractError: if a limit has the wrong length for the action, or a tool pose has no measured ``tool_pos``.
    """

    def __init__(self, limits: SafetyLimits, spec: PolicySpec) -> None:
        self._limits = limits
        self._spec = spec
        self._pose = spec.action.kind == "tool_pose"
        self.counts: Counter[str] = Counter()  # how often each limit acted: box, speed, refused
        _check_lengths(limits, spec)
        self.reset()

    def reset(self) -> None:
        """Forget the previous command; the next one starts from the measured pose."""
        self._previous: np.ndarray | None = None  # (A,) as sent
        self._previous_ns = 0

    def limit(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        """Return the nearest allowed command (A,) float32 on the way to ``action``.

        Raises:
            UnsafeCommand: if it has the wrong length, a number is not finite or its rotation is degenerate.
            LateCommand: if the observation or one of its pictures is older than ``max_age_s``. Whichever it is, the
                reason is in the message and nothing may be sent.
        """
        wanted = self._accept(action, observation, now_ns)
        start, elapsed_s = self._start(observation, now_ns)
        boxed = self._box(wanted)
        sent = boxed if start is None else self._toward(start, boxed, elapsed_s)
        self._previous, self._previous_ns = sent.copy(), now_ns
        return sent.astype(np.float32)

    def _accept(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        dim = self._spec.action.dim
        if np.shape(action) != (dim,):
            self._refuse(f"command has shape {np.shape(action)}; want ({dim},)")
        wanted = np.array(action, dtype=np.float64)
        if not np.all(np.isfinite(wanted)):
            self._refuse(f"command is not finite: {self._spec.action.names[int(np.argmin(np.isfinite(wanted)))]}")
        pictures = {f"frame of camera {name!r}": ns for name, ns in observation.image_stamps_ns.items()}
        for what, stamp_ns in {"observation": observation.stamp_ns, **pictures}.items():
            age_s = (now_ns - stamp_ns) / 1e9
            if abs(age_s) > self._limits.max_age_s:  # a stamp in the future is another clock's
                why = f"{what} is {age_s:.3f} s old; at most {self._limits.max_age_s:g} s is allowed"
                self._refuse(why, LateCommand)
        if self._pose:
            columns = wanted[3:9].reshape(2, 3)
            if np.linalg.norm(np.cross(columns[0], columns[1])) < 1e-3:
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
            boxed[part] = np.clip(boxed[part], self._limits.low, self._limits.high)
        if self._pose:
            boxed[9] = np.clip(boxed[9], 0.0, 1.0)
        self.counts["box"] += not np.array_equal(boxed, wanted)
        return boxed

    def _toward(self, start: np.ndarray, goal: np.ndarray, elapsed_s: float) -> np.ndarray:
        """Go from start to goal by the largest allowed fraction of the whole step."""
        if not self._pose:
            step = goal - start
            fraction = min(1.0, _ratio(self._limits.max_step, step), _ratio(self._limits.max_rate, step, elapsed_s))
            self.counts["speed"] += fraction < 1.0
            sent: np.ndarray = start + fraction * step
            return sent
        turn_from = start[3:9] if np.all(np.isfinite(start[3:9])) else goal[3:9]
        from_quat = matrix_to_quat(rot6d_to_matrix(turn_from))
        to_quat = matrix_to_quat(rot6d_to_matrix(goal[3:9]))
        step = goal[:3] - start[:3]
        distance, angle = np.array([np.linalg.norm(step)]), np.array([_angle(from_quat, to_quat)])
        fraction = min(
            1.0,
            _ratio(self._limits.max_step, distance),
            _ratio(_one(self._limits.max_speed_m_s), distance, elapsed_s),
            _ratio(_one(self._limits.max_turn_rad_s), angle, elapsed_s),
        )
        self.counts["speed"] += fraction < 1.0
        rotation = quat_to_matrix(_slerp(from_quat, to_quat, fraction))
        return np.concatenate([start[:3] + fraction * step, matrix_to_rot6d(rotation), goal[9:]])


def _check_lengths(limits: SafetyLimits, spec: PolicySpec) -> None:
    pose = spec.action.kind == "tool_pose"
    if pose and "tool_pos" not in spec.state:
        raise ContractError(f"safety: a tool pose is limited about 'tool_pos'; the robot has {sorted(spec.state)}")
    if pose and limits.max_rate is not None:
        raise ContractError("safety: a tool pose takes max_speed_m_s and max_turn_rad_s, not max_rate")
    if not pose and (limits.max_speed_m_s is not None or limits.max_turn_rad_s is not None):
        raise ContractError(f"safety: {spec.action.kind} actions take max_rate, not max_speed_m_s or max_turn_rad_s")
    if spec.action.kind == "joint" and (limits.max_rate or limits.max_step) and not _measures_joints(spec):
        raise ContractError(
            f"safety: joint limits start from the measured 'q' and 'gripper', {spec.action.dim} numbers together; "
            f"the robot has {sorted(f'{name} ({part.dim},)' for name, part in spec.state.items())}"
        )
    want = {"low": 3, "high": 3, "max_step": 1} if pose else {}
    for name in ("low", "high", "max_rate", "max_step"):
        value = getattr(limits, name)
        if value is not None and len(value) != want.get(name, spec.action.dim):
            raise ContractError(f"safety limit {name} has {len(value)} numbers; want {want.get(name, spec.action.dim)}")


def _measures_joints(spec: PolicySpec) -> bool:
    return sum(spec.state[name].dim for name in ("q", "gripper") if name in spec.state) == spec.action.dim


def _ordered(low: tuple[float, ...], high: tuple[float, ...]) -> bool:
    return len(low) == len(high) and all(a < b for a, b in zip(low, high, strict=True))


def _one(limit: float | None) -> tuple[float, ...] | None:
    return None if limit is None else (limit,)


def _ratio(limit: tuple[float, ...] | None, step: np.ndarray, elapsed_s: float = 1.0) -> float:
    """Largest fraction of ``step`` (D,) that stays within ``limit * elapsed_s`` in every element."""
    if limit is None:
        return 1.0
    allowed = np.asarray(limit) * elapsed_s
    return float(np.min(allowed / np.maximum(np.abs(step), np.maximum(allowed, 1e-12))))


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle in rad between two rotations given as unit quaternions; exact for small ones too."""
    b = b if np.dot(a, b) >= 0 else -b
    return float(4.0 * np.arctan2(np.linalg.norm(a - b), np.linalg.norm(a + b)))


def _slerp(a: np.ndarray, b: np.ndarray, fraction: float) -> np.ndarray:
    """The rotation ``fraction`` of the way along the geodesic (Shoemake 1985)."""
    b = b if np.dot(a, b) >= 0 else -b
    half = _angle(a, b) / 2
    if half < 1e-9:
        return b
    between: np.ndarray = (np.sin((1 - fraction) * half) * a + np.sin(fraction * half) * b) / np.sin(half)
    return between
