"""Everything a run needs to go on exactly where it stopped, in one file of tensors with a JSON header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robopolicy.errors import CheckpointError
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.training.checkpoint import require_keys
from robopolicy.training.files import replace_file

RESUME = "resume.safetensors"


def save_state(
    folder: Path, policy: DiffusionPolicy, optimizer: torch.optim.Optimizer, ema: Any, cursor: Mapping[str, Any]
) -> None:
    """Write raw weights, averaged weights, optimiser moments and random state, replacing the file in one stroke.

    Args:
        folder: of the checkpoint.
        policy: with its raw weights.
        optimizer: AdamW.
        ema: ``diffusers.training_utils.EMAModel``.
        cursor: where the run stands, JSON-able.
    """
    from safetensors.torch import save

    tensors = {f"raw.{name}": tensor for name, tensor in policy.state_dict().items()}
    for (name, parameter), averaged in zip(policy.named_parameters(), ema.shadow_params, strict=True):
        tensors[f"ema.{name}"] = averaged
        tensors |= {f"adam.{key}.{name}": value for key, value in optimizer.state[parameter].items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    header = {**cursor, "ema_steps": ema.optimization_step}
    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"cursor": json.dumps(header)})
    replace_file(folder / RESUME, content)


def load_state(folder: Path, policy: DiffusionPolicy, optimizer: torch.optim.Optimizer, ema: Any) -> dict[str, Any]:
    """Restore what `save_state` wrote, random state included, and return the cursor.

    Raises:
        CheckpointError: if there is nothing to resume, it is damaged, or it is of another policy.
    """
    tensors, cursor = _read(folder / RESUME)
    raw = _part(tensors, "raw.")
    require_keys(policy.state_dict(), raw, f"{folder / RESUME}")
    policy.load_state_dict(raw)
    averaged = _part(tensors, "ema.")
    for (name, parameter), shadow in zip(policy.named_parameters(), ema.shadow_params, strict=True):
        shadow.copy_(averaged[name])
        moments = {key: tensors[f"adam.{key}.{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
        # Adam counts its steps on the CPU, except when fused, where the count lives beside the parameter
        fused = optimizer.defaults.get("fused")
        count = tensors[f"adam.step.{name}"].to(parameter.device if fused else "cpu")
        optimizer.state[parameter] = {"step": count, **moments}
    ema.optimization_step = cursor["ema_steps"]
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return cursor


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"nothing to resume: {path} does not exist; train without resume first")
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()  # safe_open is no mapping: it cannot be iterated over
            return {key: file.get_tensor(key) for key in keys}, json.loads(file.metadata()["cursor"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
