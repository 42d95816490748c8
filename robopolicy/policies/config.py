"""The configuration of a diffusion policy: encoder x network x process x solver, and named presets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.nets_mlp import MlpConfig
from robopolicy.policies.process import ProcessConfig
from robopolicy.policies.solver import SolverConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig

NETS: dict[str, type[MlpConfig] | type[UnetConfig]] = {"mlp": MlpConfig, "unet1d": UnetConfig}


@dataclass(frozen=True)
class DiffusionConfig:
    """One member of each axis. A variant is ``dataclasses.replace(PRESETS["unet"], solver=...)``."""

    net: MlpConfig | UnetConfig = field(default_factory=MlpConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    process: ProcessConfig = field(default_factory=ProcessConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    lr: float = 1e-4  # peak learning rate that suits the network, unless the trainer is told another

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers; the network's kind is ``net.kind``."""
        kind = next(name for name, cls in NETS.items() if isinstance(self.net, cls))
        return {**asdict(self), "net": {"kind": kind, **asdict(self.net)}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "DiffusionConfig":
        """Rebuild what ``to_json`` gave.

        Raises:
            ContractError: if a key is missing or unknown.
            UnknownName: on a network, prediction or solver that does not exist.
        """
        try:
            net = dict(data["net"])
            kind = net.pop("kind")
            if kind not in NETS:
                raise UnknownName("network", kind, NETS)
            return cls(
                net=NETS[kind](**net),
                vision=VisionConfig(**data["vision"]),
                process=ProcessConfig(**data["process"]),
                solver=SolverConfig(**data["solver"]),
                lr=data["lr"],
            )
        except (KeyError, TypeError) as error:
            raise ContractError(f"not a DiffusionConfig: {error!r} in {sorted(data)}") from error


# All predict x0: short trainings of Push-T from its state scored far better with it than with eps, whichever the
# solver; and the noisiest level, where a trailing grid starts, holds nothing that eps could tell of x0.
X0 = ProcessConfig(prediction="x0")
PRESETS: dict[str, DiffusionConfig] = {
    # for CPUs: a thin encoder, and 8 steps, which score on Push-T as 16 do. Without dropout the score falls again
    # when a run goes on for more than some 100 epochs
    "mlp": DiffusionConfig(MlpConfig(dropout=0.1), VisionConfig(width=16), X0, SolverConfig(steps=8), lr=1e-3),
    "unet-small": DiffusionConfig(UnetConfig((64, 128, 256), step_dim=128), process=X0, lr=5e-4),
    "unet": DiffusionConfig(UnetConfig((256, 512, 1024), step_dim=256), process=X0, lr=1e-4),
}


def preset(name: str) -> DiffusionConfig:
    """Return the preset called ``name``.

    Raises:
        UnknownName: listing the presets.
    """
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name]
