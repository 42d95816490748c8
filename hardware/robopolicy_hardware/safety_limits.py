"""What a command may be: limits, checked when they are made, and cautious ones for each kind of action."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.settings import keys, mapping, read_settings
from robopolicy.spec import PolicySpec
from robopolicy_hardware.supervisor import Watchdogs

WHAT = "the YAML file with the limits of the robot"


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
    margin: float = 0.0  # kept from every side of the box, in its units
    max_accel_m_s2: float | None = None  # tool pose, translation
    max_turn_accel_rad_s2: float | None = None  # tool pose, rotation
    max_accel: tuple[float, ...] | None = None  # (A,) action units per second^2; not for a tool pose
    workspace_low: tuple[float, ...] | None = None  # (3,) m, of every link of an arm that takes joint commands
    workspace_high: tuple[float, ...] | None = None
    table_m: float | None = None  # height of a plane that no link goes below
    links: tuple[str, ...] | None = None  # the bodies that this holds for; None is all that move
    mjcf: str | None = None  # the file that says where the links are

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("links", "mjcf"):
                continue
            if value is not None and not np.all(np.isfinite(value)):
                raise ContractError(f"safety limit {field.name} is {value}; it must be finite (None does not limit)")
            if value is not None and field.name.startswith("max_") and not np.all(np.asarray(value) > 0):
                raise ContractError(f"safety limit {field.name} is {value}; it must be positive")
        if (self.low is None) != (self.high is None):
            raise ContractError("safety box: give both low and high, or neither")
        if self.low is not None and self.high is not None and not _ordered(self.low, self.high, self.margin):
            within = f" by twice the margin of {self.margin:g}" if self.margin else ""
            raise ContractError(f"safety box: low {self.low} is not below high {self.high}{within} in every element")
        if (self.workspace_low is None) != (self.workspace_high is None):
            raise ContractError("safety workspace: give both workspace_low and workspace_high, or neither")
        low, high = self.workspace_low, self.workspace_high
        if low is not None and high is not None and not (len(low) == 3 and _ordered(low, high, 0.0)):
            raise ContractError(f"safety workspace: low {low}, high {high}; want three m each, low below high")
        if self.links is not None and not self.of_links:
            raise ContractError("safety links: they are to stay in a workspace or over a table; give one of these too")
        if self.margin < 0:
            raise ContractError(f"safety limit margin is {self.margin}; it must not be negative")

    @property
    def of_links(self) -> bool:
        """Whether something is asked of the links, so that it must be known where they are."""
        return self.workspace_low is not None or self.table_m is not None


def limits_for(spec: PolicySpec) -> SafetyLimits:
    """Return cautious limits for the spec's kind of action.

    A tool pose may move 0.5 m/s and turn 2 rad/s inside a table-top box in front of the base, changing these by
    10 m/s^2 and 40 rad/s^2; a joint 1.5 rad/s, by 7.5 rad/s^2, while its gripper closes in 50 ms. The scripted experts
    ask for up to 6 m/s^2 at 20 Hz; Franka publishes 13 m/s^2 for its tool, 7.5 rad/s^2 for its slowest joint. A
    ``vector`` is checked for length, finite numbers and freshness only, since nothing is known of its units: give
    `SafetyLimits` of your own to whatever such a robot can break.

    Raises:
        ContractError: if there are no cautious limits for the kind.
    """
    if spec.action.kind == "tool_pose":
        return SafetyLimits(
            low=(0.1, -0.6, 0.0), high=(0.9, 0.6, 0.9), max_speed_m_s=0.5, max_turn_rad_s=2.0,
            max_accel_m_s2=10.0, max_turn_accel_rad_s2=40.0,
        )  # fmt: skip
    if spec.action.kind == "joint":
        arm = [name in arm_joints(spec) for name in spec.action.names]
        rate, accel = ((1.5, 20.0), (7.5, 2000.0))  # of a joint, of a gripper
        return SafetyLimits(
            max_rate=tuple(rate[not one] for one in arm), max_accel=tuple(accel[not one] for one in arm)
        )
    if spec.action.kind == "vector":
        return SafetyLimits()
    raise ContractError(
        f"there are no default safety limits for {spec.action.kind!r} actions; "
        "give them explicitly: SafetyLayer(SafetyLimits(low=..., high=..., max_rate=...), spec)"
    )


def load_limits(path: Path | str, spec: PolicySpec) -> tuple[SafetyLimits, Watchdogs]:
    """Read the limits and watchdogs of a robot from a YAML file; keys are the fields of `SafetyLimits` and `Watchdogs`.

    What the file does not say is as `limits_for` has it; ``null`` is no such limit, and does not watch. The path
    ``mjcf`` is seen from the file's folder; the caller reads it (`sim_envs.chains.read_chain` of it and `arm_joints`)
    and gives `SafetyLayer` the chain.

    Raises:
        ConfigError: naming the file and the key that is unknown, makes no sense or does not fit the robot.
        MissingExtra: without ruamel.yaml.
    """

    def make(data: Any) -> tuple[SafetyLimits, Watchdogs]:
        told, watchdogs = _said(data)
        if told.get("mjcf") is not None:
            told["mjcf"] = str(Path(path).parent / told["mjcf"])
        limits = replace(limits_for(spec), **told)
        require_fit(limits, spec)
        return limits, watchdogs

    return read_settings(path, make, WHAT)


def look_at_limits(path: Path | str) -> Watchdogs:
    """Check all of a file of limits that can be checked before its robot is there, and return its watchdogs.

    Raises:
        ConfigError, MissingExtra: as `load_limits`.
    """

    def make(data: Any) -> Watchdogs:
        told, watchdogs = _said(data)
        half = {"low", "high"} - told.keys()  # of a box whose other half the robot may have
        SafetyLimits(**{name: value for name, value in told.items() if not half or name not in ("low", "high")})
        return watchdogs

    return read_settings(path, make, WHAT)


def _said(data: Any) -> tuple[dict[str, Any], Watchdogs]:
    """Return the limits that a file gives, and its watchdogs."""
    values = mapping(data, "the file")
    limited = {key: value for key, value in values.items() if key != "watchdogs"}
    told = _with_nulls(limited, SafetyLimits, "the file", "")
    return told, Watchdogs(**_with_nulls(values.get("watchdogs"), Watchdogs, "watchdogs", "watchdogs."))


def _with_nulls(data: Any, kind: Any, where: str, prefix: str) -> dict[str, Any]:
    """Return what `keys` does, and None where null was said and means something."""
    told, hints = keys(data, kind, where, prefix=prefix), get_type_hints(kind)
    for name in (key for key, value in mapping(data, where).items() if value is None):
        if type(None) in get_args(hints[name]):
            told[name] = None
        elif hints[name] is not str:
            raise ContractError(f"{prefix}{name} is null, and cannot be switched off; leave it out for its default")
    return told


def require_fit(limits: SafetyLimits, spec: PolicySpec) -> None:
    """Check that ``limits`` are those of a robot of ``spec``.

    Raises:
        ContractError: if one has the wrong length, or is of another kind of action, or what it starts from is not
            measured.
    """
    pose = spec.action.kind == "tool_pose"
    if pose and "tool_pos" not in spec.state:
        raise ContractError(f"safety: a tool pose is limited about 'tool_pos'; the robot has {sorted(spec.state)}")
    of_pose, of_axes = (
        ("max_speed_m_s", "max_turn_rad_s", "max_accel_m_s2", "max_turn_accel_rad_s2"),
        ("max_rate", "max_accel"),
    )
    wrong = [name for name in (of_axes if pose else of_pose) if getattr(limits, name) is not None]
    if spec.action.kind != "joint" and (limits.of_links or limits.mjcf is not None):
        raise ContractError(
            f"safety: workspace, table_m and mjcf are for joint actions; {spec.action.kind} actions take low and high"
        )
    if wrong:
        takes = ", ".join(of_pose if pose else of_axes)
        raise ContractError(f"safety: {spec.action.kind} actions take {takes}, not {wrong[0]}")
    moving = limits.max_rate or limits.max_step or limits.max_accel or limits.of_links
    if spec.action.kind == "joint" and moving and not _measures_joints(spec):
        raise ContractError(
            f"safety: joint limits start from the measured 'q' and 'gripper', {spec.action.dim} numbers together; "
            f"the robot has {sorted(f'{name} ({part.dim},)' for name, part in spec.state.items())}"
        )
    want = {"low": 3, "high": 3, "max_step": 1} if pose else {}
    for name in ("low", "high", "max_rate", "max_step", "max_accel"):
        value = getattr(limits, name)
        if value is not None and len(value) != want.get(name, spec.action.dim):
            raise ContractError(f"safety limit {name} has {len(value)} numbers; want {want.get(name, spec.action.dim)}")


def arm_joints(spec: PolicySpec) -> tuple[str, ...]:
    """Return the names of the joints that a ``joint`` action moves: all its elements but a gripper's opening."""
    units = spec.action.units if len(spec.action.units) == spec.action.dim else spec.action.units * spec.action.dim
    return tuple(name for name, unit in zip(spec.action.names, units, strict=True) if unit != "open")


def _measures_joints(spec: PolicySpec) -> bool:
    return sum(spec.state[name].dim for name in ("q", "gripper") if name in spec.state) == spec.action.dim


def _ordered(low: tuple[float, ...], high: tuple[float, ...], margin: float) -> bool:
    return len(low) == len(high) and all(a + margin < b - margin for a, b in zip(low, high, strict=True))
