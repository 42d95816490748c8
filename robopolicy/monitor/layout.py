"""Which elements of an action are a position, a rotation, a gripper: what a score may take a distance of."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from robopolicy.errors import MonitorError
from robopolicy.spec import PolicySpec

Kind = Literal["absolute", "delta", "velocity", "plain"]
KINDS: tuple[str, ...] = ("absolute", "delta", "velocity", "plain")


@dataclass(frozen=True)
class ActionLayout:
    """Elements of an action (A,) by meaning.

    Raises:
        MonitorError: if an index is negative or named twice, or the kind is unknown.
    """

    dim: int  # A
    position: tuple[int, ...] = ()  # end-effector position, m; or joints, rad, where there is no other
    rotation: tuple[int, ...] = ()
    gripper: tuple[int, ...] = ()
    kind: Kind = "plain"  # of the positions: where to be, how far to go in a step, or how fast
    dt_s: float = 1.0  # seconds between two rows of a chunk

    def __post_init__(self) -> None:
        named = (*self.position, *self.rotation, *self.gripper)
        if len(set(named)) < len(named) or any(not 0 <= i < self.dim for i in named):
            raise MonitorError(f"action layout {named}: want each of 0 to {self.dim - 1} once at most")
        if self.kind not in KINDS or not self.dt_s > 0:
            raise MonitorError(f"action layout: kind {self.kind!r}, dt {self.dt_s}; want one of {KINDS} and dt > 0")

    @classmethod
    def of(cls, spec: PolicySpec) -> "ActionLayout":
        """Read it off the spec of a policy.

        ``tool_pose`` and ``tool_delta`` begin with a position (3,) and end with a gripper; of a ``joint`` action the
        elements called gripper or finger are the gripper and the joints stand for the position; of anything else every
        element counts as position.
        """
        action, dt_s = spec.action, 1.0 / spec.rate_hz
        everything = range(action.dim)
        gripper = tuple(i for i in everything if any(word in action.names[i] for word in ("gripper", "finger")))
        rest = tuple(i for i in everything if i not in gripper)
        if action.kind in ("tool_pose", "tool_delta"):
            kind: Kind = "absolute" if action.kind == "tool_pose" else "delta"
            return cls(action.dim, rest[:3], rest[3:], gripper, kind, dt_s)
        return cls(action.dim, rest, (), gripper, "absolute" if action.kind == "joint" else "plain", dt_s)

    @property
    def moving(self) -> tuple[int, ...]:
        """Elements to take distances of: the position, or all but the gripper where there is none."""
        if self.position:
            return self.position
        return tuple(i for i in range(self.dim) if i not in self.gripper) or tuple(range(self.dim))

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ActionLayout":
        """Rebuild what ``to_json`` gave.

        Raises:
            MonitorError: if that is none.
        """
        try:
            return cls(**{name: tuple(part) if isinstance(part, list) else part for name, part in data.items()})
        except TypeError as error:
            raise MonitorError(f"not an action layout: {error}") from error
