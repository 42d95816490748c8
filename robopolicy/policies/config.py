"""The configuration of a diffusion policy: one member of each axis, and named presets."""

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from robopolicy.errors import ContractError, RobopolicyError, UnknownName
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.normaliser import METHODS, Method
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.ranges import require_positive
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig

Made = TypeVar("Made")
# Fields that checkpoints of the same format may lack: their default is what there was before.
LATER = {"sizes", "stages"}
SELECTORS: tuple[str, ...] = ("first", "past", "coherence", "medoid")


@dataclass(frozen=True)
class ScalingConfig:
    """How states and actions are scaled for the network, each dimension by itself."""

    action: Method = "minmax"  # range to [-1, 1]; mean 0, deviation 1; 1 % and 99 % to [-1, 1]; as they are
    state: Method = "minmax"  # the same for states
    per_step: bool = False  # statistics of each row of a chunk by itself, for relative actions

    def __post_init__(self) -> None:
        for method in (self.action, self.state):
            if method not in METHODS:
                raise UnknownName("normaliser", method, METHODS)


@dataclass(frozen=True)
class SelectorConfig:
    """Which of the drawn chunks is executed."""

    name: Literal["first", "past", "coherence", "medoid"] = "first"  # the first; nearest the past, or what runs; middle
    samples: int = 1  # chunks drawn to choose from

    def __post_init__(self) -> None:
        if self.name not in SELECTORS:
            raise UnknownName("selector", self.name, SELECTORS)
        if self.samples < 1:
            raise ContractError(f"selector: {self.samples} samples; want at least 1")


@dataclass(frozen=True)
class GoalConfig:
    """A goal that the policy is told: what an observation should look like in the end (BESO, Reuss et al. 2023)."""

    streams: tuple[str, ...]  # states and cameras that make up a goal
    source: Literal["end", "future"] = "future"  # the end of the episode, or any later step of it
    drop: float = 0.1  # share of the training samples whose goal is withheld, for guidance
    weight: float = 1.5  # of classifier-free guidance; 1 is the conditional policy, 0 the goal-free one

    def __post_init__(self) -> None:
        object.__setattr__(self, "streams", tuple(self.streams))
        if self.source not in ("end", "future"):
            raise UnknownName("goal source", self.source, ("end", "future"))
        if not self.streams or not 0 <= self.drop < 1:
            raise ContractError(f"goal: streams {self.streams}, drop {self.drop}; want a stream and 0 <= drop < 1")
        if not math.isfinite(self.weight):
            raise ContractError(f"goal: weight is {self.weight}; want a finite number")


@dataclass(frozen=True)
class RealTimeConfig:
    """Real-time chunking (Black et al. 2025): a new chunk agrees with what of the old one is played meanwhile."""

    beta: float = 5.0  # largest guidance weight
    jacobian: Literal["identity", "vjp"] = "identity"  # vjp goes through the network backwards, identity not at all
    schedule: Literal["exp", "linear", "ones"] = "exp"  # how agreement fades beyond the delay

    def __post_init__(self) -> None:
        require_positive("real_time", self, "beta")
        for name, valid in (("jacobian", ("identity", "vjp")), ("schedule", ("exp", "linear", "ones"))):
            if getattr(self, name) not in valid:
                raise UnknownName(name, getattr(self, name), valid)


@dataclass(frozen=True)
class DiffusionConfig:
    """One member of each axis. A variant is ``dataclasses.replace(PRESETS["unet"], solver=...)``."""

    net: MlpConfig | UnetConfig | TransformerConfig = field(default_factory=MlpConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    process: VPConfig | EDMConfig | FlowConfig | ConsistencyConfig = field(default_factory=VPConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    codec: Literal["auto", "plain", "tool_pose", "relative", "joint"] = "auto"  # what of a command is learnt
    scaling: ScalingConfig = field(default_factory=ScalingConfig)
    selector: SelectorConfig = field(default_factory=SelectorConfig)
    goal: GoalConfig | None = None
    real_time: RealTimeConfig | None = None
    past: int = 0  # rows before the newest observation that a chunk also holds: past-token prediction
    past_loss: bool = True  # whether the past rows are learnt, or only denoised along
    max_delay: int = 0  # training-time real-time chunking: up to so many first rows are given, clean
    lr: float = 1e-4  # peak learning rate that suits the network, unless the trainer is told another

    def __post_init__(self) -> None:
        require_positive("policy", self, "lr")
        if self.past < 0 or self.max_delay < 0:
            raise ContractError(f"policy: past {self.past}, max_delay {self.max_delay}; want neither below 0")

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers; where an axis has several members, ``kind`` names the one."""
        data: dict[str, Any] = to_plain(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "DiffusionConfig":
        """Rebuild what ``to_json`` gave.

        Raises:
            ContractError: if a key is missing or unknown, or a value is none that this version knows.
        """
        return rebuilt(cls, data)


def rebuilt(cls: type[Made], data: Mapping[str, Any]) -> Made:
    """Return the configuration ``cls`` that `to_plain` gave ``data`` of; raises ContractError as its ``from_json``."""
    try:
        made: Made = from_plain(cls, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, RobopolicyError):
            raise
        raise ContractError(f"not a {cls.__name__}: {error!r} in {sorted(data)}") from error
    return made


def to_plain(value: Any) -> Any:
    """Return a configuration as plain dicts, lists and numbers; ``kind`` names the member of an axis."""
    if not is_dataclass(value):
        return list(value) if isinstance(value, tuple) else value
    kind = {"kind": value.kind} if hasattr(value, "kind") else {}
    return {**kind, **{f.name: to_plain(getattr(value, f.name)) for f in fields(value)}}


def from_plain(cls: Any, data: Any, axis: str = "kind") -> Any:
    """Rebuild what `to_plain` gave of a dataclass or a union of them.

    Raises:
        TypeError, KeyError: if a field is unknown or missing.
        UnknownName: if ``kind`` names none of the union.
    """
    if data is None:
        return None
    data = dict(data)
    if isinstance(cls, types.UnionType):
        members = [member for member in typing.get_args(cls) if member is not type(None)]
        if len(members) > 1:
            kinds = {member.kind: member for member in members}
            kind = data.pop("kind")
            if kind not in kinds:
                raise UnknownName(axis, kind, kinds)
            cls = kinds[kind]
        else:
            cls = members[0]
    else:
        data.pop("kind", None)
    hints = typing.get_type_hints(cls)
    unknown = set(data) - {f.name for f in fields(cls)}
    if unknown:
        raise TypeError(f"unknown {sorted(unknown)}")
    missing = {f.name for f in fields(cls)} - set(data) - LATER
    if missing:
        raise KeyError(f"missing {sorted(missing)}")
    return cls(
        **{
            name: from_plain(hints[name], value, name) if _nested(hints[name]) else value
            for name, value in data.items()
        }
    )


def _nested(hint: Any) -> bool:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return any(is_dataclass(member) for member in members)


# All VP ones predict x0: short trainings of Push-T from its state scored far better with it than with eps, whatever
# the solver; and the noisiest level, where a trailing grid starts, holds nothing that eps could tell of x0.
X0 = VPConfig(prediction="x0")
FLOW, JUMPS = FlowConfig(), ConsistencyConfig()
# for CPUs: a thin encoder. Without dropout the score falls again when a run goes on for more than some 100 epochs
THIN, CPU = VisionConfig(width=16), MlpConfig(dropout=0.1)
BASE = UnetConfig((256, 512, 1024), step_dim=256)
PRESETS: dict[str, DiffusionConfig] = {
    "mlp": DiffusionConfig(CPU, THIN, X0, SolverConfig(steps=8), lr=1e-3),  # 8 steps score on Push-T as 16 do
    "mlp-flow": DiffusionConfig(CPU, THIN, FLOW, SolverConfig("euler", 5), lr=1e-3),
    "mlp-consistency": DiffusionConfig(CPU, THIN, JUMPS, SolverConfig("consistency", 2), lr=1e-3),
    "unet-small": DiffusionConfig(UnetConfig((64, 128, 256), step_dim=128), process=X0, lr=5e-4),
    "unet": DiffusionConfig(BASE, process=X0),
    "unet-large": DiffusionConfig(UnetConfig((512, 1024, 2048), step_dim=128), process=X0),
    "transformer-small": DiffusionConfig(TransformerConfig(128, depth=4), THIN, X0, SolverConfig(steps=8), lr=5e-4),
    "transformer": DiffusionConfig(TransformerConfig(dropout=0.1), process=X0),
    "edm": DiffusionConfig(TransformerConfig(depth=4, dropout=0.05), process=EDMConfig(), solver=SolverConfig(steps=3)),
    "flow": DiffusionConfig(BASE, process=FLOW, solver=SolverConfig("euler", 5)),
    "consistency": DiffusionConfig(BASE, process=JUMPS, solver=SolverConfig("consistency", 2)),
}
DESCRIPTIONS: dict[str, str] = {
    "mlp": "residual MLP, 8 steps: trains in minutes without a GPU",
    "mlp-flow": "the MLP with flow matching, 5 steps",
    "mlp-consistency": "the MLP with a consistency flow, 2 steps: the fastest on a CPU",
    "unet-small": "U-Net of 4 M parameters, 16 steps",
    "unet": "U-Net of 66 M, 16 steps: Diffusion Policy's for states; wants a GPU",
    "unet-large": "U-Net of 256 M, 16 steps: Diffusion Policy's for pictures; wants a large GPU",
    "transformer-small": "diffusion transformer of 2 M, 8 steps, for long contexts without a GPU",
    "transformer": "diffusion transformer of 12 M, 16 steps, for long contexts; wants a GPU",
    "edm": "transformer of 6 M with EDM, 3 steps, as BESO: --goal.streams tells it goals",
    "flow": "U-Net of 66 M with flow matching, 5 steps; wants a GPU",
    "consistency": "U-Net of 66 M with a consistency flow, 2 steps: the fastest on a GPU",
}


def preset(name: str) -> DiffusionConfig:
    """Return the preset called ``name``.

    Raises:
        UnknownName: listing the presets.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]
