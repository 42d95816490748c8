"""PolicySpec: what goes in and out of a policy, stored with every dataset, checkpoint and robot."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from robopolicy.errors import ContractError, SpecMismatch, UnknownCamera, UnknownName

ActionKind = Literal["joint", "tool_pose", "tool_delta", "tracks", "vector"]
ACTION_KINDS: tuple[str, ...] = ("joint", "tool_pose", "tool_delta", "tracks", "vector")


CameraKind = Literal["colour", "depth"]


@dataclass(frozen=True)
class CameraSpec:
    """One camera's picture size in pixels; ``colour`` is (H, W, 3) uint8 RGB, ``depth`` is (H, W) uint16 mm.

    Raises:
        ContractError: if the kind is neither.
    """

    height: int
    width: int
    kind: CameraKind = "colour"

    def __post_init__(self) -> None:
        if self.kind not in ("colour", "depth"):
            raise ContractError(f"camera kind is {self.kind!r}; want 'colour' or 'depth'")

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3) of a colour picture, (H, W) of a depth map."""
        return (self.height, self.width, 3) if self.kind == "colour" else (self.height, self.width)

    @property
    def dtype(self) -> str:
        """``"uint8"`` or ``"uint16"``."""
        return "uint8" if self.kind == "colour" else "uint16"


@dataclass(frozen=True)
class StateSpec:
    """One low-dimensional stream: its length and the unit of each element.

    The unit ``"rad"`` is a number to a policy; ``"rad_wrapped"`` is an angle modulo 2 pi, which a policy
    sees as (sin, cos); ``"quat"`` is part of a unit quaternion, which a policy sees unscaled: scaled to the range of
    the demonstrations, a tilt that is nearly constant there would be blown up to pure noise.
    """

    dim: int
    units: tuple[str, ...]  # one for all, or one for each element

    def __post_init__(self) -> None:
        if self.dim < 1 or len(self.units) not in (1, self.dim):
            raise ContractError(f"state: {len(self.units)} units for {self.dim} elements; give one or {self.dim}")

    @property
    def wrapped(self) -> tuple[bool, ...]:
        """Which of the ``dim`` elements are angles modulo 2 pi."""
        return tuple(unit == "rad_wrapped" for unit in self._each())

    @property
    def unscaled(self) -> tuple[bool, ...]:
        """Which of the ``dim`` elements belong to a unit quaternion."""
        return tuple(unit == "quat" for unit in self._each())

    def _each(self) -> tuple[str, ...]:
        return self.units * self.dim if len(self.units) == 1 else self.units


@dataclass(frozen=True)
class ActionSpec:
    """The command a robot takes.

    ``tool_pose`` is position (3, m), rotation (6: the first two columns of R_base_tool) and gripper
    (1, 0 closed .. 1 open); ``joint`` is joint positions in rad, gripper last; ``vector`` is anything else.
    """

    kind: ActionKind
    names: tuple[str, ...]  # one for each element
    units: tuple[str, ...]  # one for all, or one for each element

    def __post_init__(self) -> None:
        if self.kind not in ACTION_KINDS:
            raise UnknownName("action kind", self.kind, ACTION_KINDS)
        if not self.names or len(self.units) not in (1, len(self.names)):
            raise ContractError(f"action: {len(self.units)} units for {len(self.names)} names")

    @property
    def dim(self) -> int:
        """Number of elements A."""
        return len(self.names)


TOOL_POSE = ActionSpec(
    kind="tool_pose",
    names=("x", "y", "z", "r11", "r21", "r31", "r12", "r22", "r32", "gripper"),
    units=("m", "m", "m", "1", "1", "1", "1", "1", "1", "open"),
)


@dataclass(frozen=True)
class PolicySpec:
    """Cameras, states, action, rate and horizons. Robots and datasets leave the horizons at 1."""

    cameras: Mapping[str, CameraSpec] = field(default_factory=dict)
    state: Mapping[str, StateSpec] = field(default_factory=dict)
    action: ActionSpec = TOOL_POSE
    rate_hz: float = 20.0
    n_obs: int = 1  # observations the policy looks at, newest last
    horizon: int = 1  # rows of a chunk; row 0 belongs to the newest observation
    n_execute: int = 1  # rows played before planning anew

    def __post_init__(self) -> None:
        if not self.rate_hz > 0:
            raise ContractError(f"rate_hz is {self.rate_hz}; it must be positive")
        if not 1 <= self.n_execute <= self.horizon or self.n_obs < 1:
            raise ContractError(
                f"n_obs {self.n_obs}, n_execute {self.n_execute}, horizon {self.horizon}: "
                "want n_obs >= 1 and 1 <= n_execute <= horizon"
            )

    @property
    def period_ns(self) -> int:
        """Nanoseconds between two steps."""
        return round(1e9 / self.rate_hz)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PolicySpec":
        """Rebuild what ``to_json`` gave.

        Raises:
            ContractError: if a key is missing or unknown.
        """
        try:
            rest = {k: v for k, v in data.items() if k not in ("cameras", "state", "action")}
            action = data["action"]
            return cls(
                cameras={k: CameraSpec(**v) for k, v in data["cameras"].items()},
                state={k: StateSpec(v["dim"], tuple(v["units"])) for k, v in data["state"].items()},
                action=ActionSpec(action["kind"], tuple(action["names"]), tuple(action["units"])),
                **rest,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ContractError(f"not a PolicySpec: {error!r} in {sorted(data)}") from error

    def select(self, cameras: tuple[str, ...] | None = None, state: tuple[str, ...] | None = None) -> "PolicySpec":
        """Keep only the named cameras and states, in the order given (None keeps all).

        Raises:
            UnknownCamera, UnknownName: naming the valid ones.
        """
        for name in cameras or ():
            if name not in self.cameras:
                raise UnknownCamera("camera", name, self.cameras)
        for name in state or ():
            if name not in self.state:
                raise UnknownName("state", name, self.state)
        return replace(
            self,
            cameras=self.cameras if cameras is None else {k: self.cameras[k] for k in cameras},
            state=self.state if state is None else {k: self.state[k] for k in state},
        )

    def require_from(self, offer: "PolicySpec", *, needs: str, offers: str) -> None:
        """Check that ``offer`` (a robot or dataset) provides all that this spec asks for.

        Args:
            offer: what is on the other side.
            needs: who asks, for the message, e.g. ``"checkpoint runs/a"``.
            offers: who provides, for the message, e.g. ``"robot twin:lift"``.

        Raises:
            SpecMismatch: every difference, both sides printed.
        """
        wrong = [
            f"{kind} {name}: {needs} has {_show(want)}, {offers} has {_show(have.get(name))}"
            for kind, asked, have in (
                ("camera", self.cameras, offer.cameras),
                ("state", self.state, offer.state),
            )
            for name, want in asked.items()
            if have.get(name) != want
        ]
        if self.action != offer.action:
            wrong.append(f"action: {needs} has {_show(self.action)}, {offers} has {_show(offer.action)}")
        if abs(self.rate_hz - offer.rate_hz) > 1e-6:
            wrong.append(f"rate: {needs} has {self.rate_hz:g} Hz, {offers} has {offer.rate_hz:g} Hz")
        if wrong:
            raise SpecMismatch("; ".join(wrong))


def _show(part: CameraSpec | StateSpec | ActionSpec | None) -> str:
    if isinstance(part, CameraSpec):
        return f"{part.height}x{part.width}" + (" depth" if part.kind == "depth" else "")
    if isinstance(part, StateSpec):
        return f"({part.dim},) {'/'.join(part.units)}"
    if isinstance(part, ActionSpec):
        return f"{part.kind} ({part.dim},) [{' '.join(part.names)}]"
    return "none"
