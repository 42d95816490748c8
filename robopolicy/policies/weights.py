"""Weights trained elsewhere: torchvision's ResNet-18 state dicts, for the camera encoders."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from robopolicy.errors import ContractError
from robopolicy.policies.encoder import ObservationEncoder
from robopolicy.policies.vision import STAGES

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in 0..1, as torchvision trained
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Taken:
    """What of a file went into the encoders."""

    used: int  # tensors: convolutions, and scale and shift of the norms
    unused: tuple[str, ...]  # tensors of the file that GroupNorm and a policy have no use for

    def __str__(self) -> str:
        statistics = sum(name.endswith(STATISTICS) for name in self.unused)
        left = sum(name.startswith(STAGES) and not name.endswith(STATISTICS) for name in self.unused)
        return (
            f"{self.used} tensors taken; not used: {statistics} batch statistics, "
            f"{len(self.unused) - statistics - left} of the classifier"
            + (f", {left} of the stages that the encoder leaves out" if left else "")
        )


def take_resnet18(encoder: ObservationEncoder, path: str | Path) -> Taken:
    """Load a torchvision-format ResNet-18 into every camera's encoder, which then scales pixels as ImageNet's.

    Convolutions and the norms' scale and shift are taken. Running means and variances are not: GroupNorm takes its
    statistics from each picture, so the first training steps have to make up for the difference.

    Args:
        encoder: of a policy with cameras and ``VisionConfig(width=64)``.
        path: a ``.safetensors`` or a ``.pth`` / ``.pt`` state dict; of the latter nothing but tensors is unpickled.

    Raises:
        ContractError: if there is no such file, it is no state dict of a ResNet-18, or of another width, or the
            encoder sees no camera.
    """
    if not encoder.camera_names:
        raise ContractError(f"weights {path}: the policy sees no camera; name its cameras")
    given = _read(Path(path))
    nets = [camera.net for camera in encoder.cameras]
    want: dict[str, Tensor] = nets[0].state_dict()  # type: ignore[operator, union-attr]
    unused = tuple(name for name in given if name not in want)
    _require_resnet18(path, given, want, unused)
    for camera in encoder.cameras:
        camera.net.load_state_dict({name: given[name] for name in want})  # type: ignore[operator, union-attr]
        camera.mean.copy_(torch.tensor(IMAGENET_MEAN))  # type: ignore[operator, union-attr]
        camera.std.copy_(torch.tensor(IMAGENET_STD))  # type: ignore[operator, union-attr]
    return Taken(len(want), unused)


def _require_resnet18(
    path: str | Path, given: Mapping[str, Tensor], want: Mapping[str, Tensor], unused: tuple[str, ...]
) -> None:
    missing = [name for name in want if name not in given]
    left_out = tuple(stage for stage in STAGES if not any(name.startswith(stage) for name in want))
    strange = [name for name in unused if not name.startswith(("fc.", *left_out)) and not name.endswith(STATISTICS)]
    if missing or strange:
        problem = f"it lacks {missing[0]}" if missing else f"it also has {strange[0]}"
        raise ContractError(f"weights {path}: not a torchvision ResNet-18, {problem} ({len(given)} tensors)")
    for name, tensor in want.items():
        if given[name].shape != tensor.shape:
            raise ContractError(
                f"weights {path}: {name} is {tuple(given[name].shape)}, the encoder's is {tuple(tensor.shape)}; "
                f"want a ResNet-18 and a vision width of 64, not {len(want['bn1.weight'])}"
            )


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ContractError(f"weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            read = load_file(path)
        else:
            read = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each raise their own
        reason = str(error).strip().splitlines()[0].split(". ")[0] if str(error).strip() else type(error).__name__
        raise ContractError(f"weights {path}: neither safetensors nor a state dict of tensors: {reason}") from error
    if not isinstance(read, Mapping) or not all(isinstance(value, Tensor) for value in read.values()):
        raise ContractError(f"weights {path}: not a state dict, {{name: tensor}}")
    return dict(read)
