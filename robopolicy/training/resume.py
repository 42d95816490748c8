"""Everything a run needs to go on exactly where it stopped, in one file of tensors with a JSON header."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopolicy.errors import CheckpointError
from robopolicy.training.average import Average
from robopolicy.training.checkpoint import (
    DIGEST,
    load_policy,
    read_train,
    require_keys,
    require_not_newer,
    tensor_digest,
)
from robopolicy.training.config import TrainConfig
from robopolicy.training.files import replace_file
from robopolicy.training.trainable import Trainable

RESUME = "resume.safetensors"


def save_state(
    folder: Path, policy: Trainable, optimizer: torch.optim.Optimizer, average: Average, cursor: Mapping[str, Any]
) -> None:
    """Write raw weights, averaged weights, optimiser moments and random state, replacing the file in one stroke.

    Args:
        folder: of the checkpoint.
        policy: with its raw weights.
        optimizer: AdamW.
        average: of the weights.
        cursor: where the run stands, JSON-able.
    """
    from safetensors.torch import save

    tensors = {f"raw.{name}": tensor for name, tensor in policy.state_dict().items()}
    for (name, parameter), value in zip(policy.named_parameters(), average.values, strict=True):
        tensors[f"ema.{name}"] = value
        moments = optimizer.state.get(parameter, {})  # none of a weight that is frozen
        tensors |= {f"adam.{key}.{name}": moment for key, moment in moments.items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    header = {**cursor, "ema_steps": average.steps}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, {"cursor": json.dumps(header), DIGEST: tensor_digest(tensors)})
    replace_file(folder / RESUME, content)


def load_state(folder: Path, policy: Trainable, optimizer: torch.optim.Optimizer, average: Average) -> dict[str, Any]:
    """Restore what `save_state` wrote, random state included, and return the cursor.

    Raises:
        CheckpointError: if there is nothing to resume, it is damaged, or it is of another policy.
    """
    tensors, cursor = _read(folder)
    raw = _part(tensors, "raw.")
    require_keys(policy.state_dict(), raw, f"{folder / RESUME}")
    policy.load_state_dict(raw)
    averaged = _part(tensors, "ema.")
    for (name, parameter), shadow in zip(policy.named_parameters(), average.values, strict=True):
        shadow.copy_(averaged[name])
        if f"adam.step.{name}" not in tensors:
            continue
        moments = {key: tensors[f"adam.{key}.{name}"].to(parameter.device) for key in ("exp_avg", "exp_avg_sq")}
        # Adam counts its steps on the CPU, except when fused, where the count lives beside the parameter
        fused = optimizer.defaults.get("fused")
        count = tensors[f"adam.step.{name}"].to(parameter.device if fused else "cpu")
        optimizer.state[parameter] = {"step": count, **moments}
    average.steps = cursor["ema_steps"]
    torch.set_rng_state(tensors["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return cursor


def plan_resume(folder: Path, config: TrainConfig, lr: float) -> str:
    """Return one line on where a run resumed in ``folder`` goes on; reads no tensors, and needs no data.

    Raises:
        CheckpointError: if there is nothing to resume, or ``config`` is of another run; a budget may only grow.
    """
    cursor = read_cursor(folder)
    require_same(folder, cursor, run_settings(config, lr))
    step, now = cursor["step"], run_budget(config)
    before = cursor.get("budget", now)  # an older version did not write it down
    spent = step >= _limit(now, "steps") or cursor["elapsed_s"] / 60 >= _limit(now, "max_minutes")
    if spent and _written(folder, step):
        raise CheckpointError(
            f"nothing to resume: the run is finished at step {step}; {folder} goes on only with a larger budget"
        )
    if any(_limit(now, key) < _limit(before, key) for key in now):
        raise CheckpointError(
            f"cannot resume {folder}: its budget was {_words(before)}, now {_words(now)}; a budget may only grow"
        )
    grown = f"; its budget was {_words(before)}, now {_words(now)}, which the learning rate follows"
    return f"going on at step {step:,}" + (grown if before != now else "")


def read_cursor(folder: Path) -> dict[str, Any]:
    """Return where the run in ``folder`` stands, without its tensors; raises CheckpointError as `load_state`."""
    return _read(folder, tensors=False)[1]


def require_same(folder: Path, cursor: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise CheckpointError naming what differs; what an older version did not write down is not compared."""
    for name, value in now.items():
        if name in cursor and cursor[name] != value:
            raise CheckpointError(f"cannot resume {folder}: its {name} was {cursor[name]}, now {value}")


def with_later_fields(cursor: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Return ``cursor`` with what a policy's configuration has got since it was written, at the defaults.

    Args:
        cursor: of `load_state`.
        config: of the policy; one that has no ``from_json`` is taken to have changed nothing.

    Raises:
        ContractError: if the configuration in the cursor is none that this version knows.
    """
    if "config" not in cursor or not hasattr(config, "from_json"):
        return dict(cursor)
    told = type(config).from_json(cursor["config"]).to_json()
    return {**cursor, "config": json.loads(json.dumps(told))}


def run_settings(config: TrainConfig, lr: float) -> dict[str, Any]:
    """Return the settings that make a run what it is; ``lr`` is the peak, of the policy or of ``config``."""
    settings: dict[str, Any] = {
        "seed": config.seed,
        "lr": lr,
        "warmup": config.warmup,
        "weight_decay": config.weight_decay,
        "clip_norm": config.clip_norm,
        "ema_power": config.ema_power,
    }
    return settings if config.precision == "auto" else {**settings, "precision": config.precision}


def run_identity(
    policy: Trainable, windows: Any, data: str, config: TrainConfig, lr: float, *, half: bool, batch_size: int
) -> dict[str, Any]:
    """Return what must not change between a run and its resumption: settings, data and policy.

    Args:
        policy: that is trained.
        windows: `DeviceWindows` or `HostWindows`.
        data: what they are known by, of `fingerprint`.
        config: how it is trained.
        lr: the peak.
        half: whether the networks run in bfloat16.
        batch_size: of all processes, as it turned out.
    """
    identity = {
        **run_settings(config, lr),
        "precision": "bfloat16" if half else "float32",
        "batch_size": batch_size,
        "windows": len(windows),
        "data": data,
        "spec": policy.spec.to_json(),
        "config": policy.config.to_json(),
        **windows.about,
    }
    told: dict[str, Any] = json.loads(json.dumps(identity))  # tuples as they will read back: lists
    return told


def fingerprint(action: np.ndarray) -> str:
    """Return words that tell the data whose actions are (N, A) from others."""
    return f"actions of crc32 {zlib.crc32(np.ascontiguousarray(action).data):08x}"


def run_budget(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that say when a run ends."""
    return {"steps": config.steps, "max_minutes": config.max_minutes}


def _limit(budget: Mapping[str, Any], key: str) -> float:
    return math.inf if budget[key] is None else budget[key]


def _words(budget: Mapping[str, Any]) -> str:
    units = (("steps", "steps"), ("max_minutes", "minutes"))
    return " or ".join(f"{budget[key]} {unit}" for key, unit in units if budget[key] is not None)


def _written(folder: Path, step: int) -> bool:
    """Whether the checkpoint of ``step`` is there and whole: a process may be killed before it writes the last one."""
    try:
        load_policy(folder)
        return bool(read_train(folder).get("steps") == step)
    except CheckpointError:
        return False


def _read(folder: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    path = folder / RESUME
    if not path.is_file():
        raise CheckpointError(f"nothing to resume: {path} does not exist; train without resume first")
    require_not_newer(folder)
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys() if tensors else ()  # safe_open is no mapping: it cannot be iterated over
            found, told = {key: file.get_tensor(key) for key in keys}, file.metadata()
            cursor = json.loads(told["cursor"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if found and told.get(DIGEST) not in (None, tensor_digest(found)):  # None: written before there were digests
        raise CheckpointError(f"{path} is damaged: its numbers are not those that were saved; train anew")
    return found, cursor


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
