"""A checkpoint: a folder of weights.safetensors, spec.json, stats.json, train.json, and a card. Never a pickle."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robopolicy.errors import CheckpointError, RobopolicyError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.motion_track import MotionTrackPolicy
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.track_config import MotionTrackConfig
from robopolicy.policies.track_net import TrackNet
from robopolicy.spec import PolicySpec
from robopolicy.training.card import write_card
from robopolicy.training.files import replace_file

FORMAT = 2  # 1 had other networks and named no codec
WEIGHTS, SPEC, STATS, TRAIN = "weights.safetensors", "spec.json", "stats.json", "train.json"
DIGEST = "sha256"  # of the tensors, in the header of the weights
CONFIGS = {"diffusion": DiffusionConfig, "motion-track": MotionTrackConfig}

Policy = DiffusionPolicy | MotionTrackPolicy
Config = DiffusionConfig | MotionTrackConfig


def save_checkpoint(folder: str | Path, policy: Policy, *, train: Mapping[str, Any]) -> None:
    """Write ``policy`` as it is (a trainer hands in the averaged one), each file replaced in one stroke.

    The weights carry their own digest, in the same file, so a process killed between two files leaves no mismatch.

    Args:
        folder: created if it does not exist.
        policy: fitted; its normaliser is part of the weights, and repeated in stats.json for people.
        train: how it came about, JSON-able.

    Raises:
        CheckpointError: if its normaliser was never fitted.
        DiskFull: if there is no room; an older checkpoint in the folder stays whole.
    """
    from safetensors.torch import save

    if not policy.action.fitted:
        raise CheckpointError(f"checkpoint {folder}: the policy's normaliser was never fitted; call fit_normaliser")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"format": FORMAT, "policy": "diffusion", "spec": policy.spec.to_json(), "config": policy.config.to_json()}
    if isinstance(policy, MotionTrackPolicy):
        spec |= {"policy": "motion-track", **policy.told()}
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in policy.state_dict().items()}
    replace_file(folder / SPEC, _json(spec))
    replace_file(folder / STATS, _json(policy.stats()))
    replace_file(folder / WEIGHTS, save(weights, {DIGEST: tensor_digest(weights)}))
    replace_file(folder / TRAIN, _json(train))
    write_card(folder, policy, train)


def load_policy(folder: str | Path, device: str = "cpu", *, solver: SolverConfig | None = None) -> Any:
    """Return the `DiffusionPolicy` or `MotionTrackPolicy` of a checkpoint on ``device``, ready to plan.

    Args:
        folder: of the checkpoint.
        device: where it computes.
        solver: to plan with in place of the checkpoint's own.

    Raises:
        CheckpointError: if the folder is not a checkpoint, a file is missing or damaged, or weights do not fit.
        ContractError: if the policy's process cannot be solved by ``solver``.
    """
    folder = Path(folder)
    spec, config = _read(folder)
    if solver is not None:
        config = replace(config, solver=solver)
    weights = _read_weights(folder)
    policy = _built(folder, spec, config)
    require_keys(policy.state_dict(), weights, f"checkpoint {folder}: {WEIGHTS}")
    policy.load_state_dict(weights)
    return policy.to(device).eval()


def read_spec(folder: str | Path) -> PolicySpec:
    """Return a checkpoint's spec without reading its weights; raises CheckpointError as `load_policy`."""
    return _read(Path(folder))[0]


def read_config(folder: str | Path) -> Config:
    """Return a checkpoint's configuration without reading its weights; raises CheckpointError as `load_policy`."""
    return _read(Path(folder))[1]


def read_train(folder: str | Path) -> dict[str, Any]:
    """Return train.json of a checkpoint: steps, losses, data, versions; raises CheckpointError."""
    return _read_json(Path(folder), TRAIN)


def read_cameras(folder: str | Path) -> dict[str, Any]:
    """Return where the calibrated cameras of a checkpoint's training data stood, as `EpisodeMeta.cameras` has them.

    {} of a policy that goes by none; raises CheckpointError as `load_policy`.
    """
    _read(Path(folder))
    return dict(_read_json(Path(folder), SPEC).get("cameras", {}))


def checkpoint_sha(folder: str | Path) -> str:
    """Return the sha256, in hex, of all that decides how the policy acts: what a monitor was calibrated for.

    That is the weights (normalisers included) and spec.json: solver, its steps, horizons. Not how it was trained.

    Raises:
        CheckpointError: if there is none.
    """
    folder = Path(folder)
    _require_files(folder)
    with open(folder / WEIGHTS, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(_read_json(folder, SPEC), sort_keys=True).encode())
    return digest.hexdigest()


def require_keys(want: Mapping[str, torch.Tensor], have: Mapping[str, torch.Tensor], where: str) -> None:
    """Check that two sets of tensors have the same names and shapes.

    Raises:
        CheckpointError: naming the first few that do not fit.
    """
    wrong = [f"{k} is missing" for k in want if k not in have] + [f"{k} is unknown" for k in have if k not in want]
    wrong += [
        f"{k} is {tuple(have[k].shape)}, want {tuple(tensor.shape)}"
        for k, tensor in want.items()
        if k in have and have[k].shape != tensor.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{where} does not fit its spec: {'; '.join(wrong[:3])}{more}")


def require_not_newer(folder: Path) -> None:
    """Raise CheckpointError if a newer robopolicy wrote what is in ``folder``: to go on would overwrite it."""
    made = _read_json(folder, SPEC).get("format") if (folder / SPEC).is_file() else None
    if isinstance(made, int) and made > FORMAT:
        raise CheckpointError(
            f"checkpoint {folder} is of format {made}, which a newer robopolicy wrote; this version reads format "
            f"{FORMAT}: upgrade robopolicy"
        )


def _built(folder: Path, spec: PolicySpec, config: Config) -> Policy:
    """Return the policy before its weights."""
    if isinstance(config, DiffusionConfig):
        return DiffusionPolicy(spec, config)
    data = _read_json(folder, SPEC)
    try:
        return MotionTrackPolicy(TrackNet(PolicySpec.from_json(data["tracks"]), config), spec, data["cameras"])
    except (KeyError, TypeError, RobopolicyError) as error:
        raise CheckpointError(f"checkpoint {folder}: {SPEC} is damaged: {error}") from error


def _read(folder: Path) -> tuple[PolicySpec, Config]:
    if (folder / SPEC).is_file():
        _require_format(folder)  # before its files: another format may have others
    _require_files(folder)
    data, _, _ = [_read_json(folder, name) for name in (SPEC, STATS, TRAIN)]  # a damaged one is a damaged checkpoint
    try:
        return PolicySpec.from_json(data["spec"]), CONFIGS[data["policy"]].from_json(data["config"])
    except (KeyError, RobopolicyError) as error:
        raise CheckpointError(f"checkpoint {folder}: {SPEC} is damaged: {error}") from error


def _require_format(folder: Path) -> None:
    """Raise CheckpointError unless this version reads what is in ``folder``."""
    data = _read_json(folder, SPEC)
    made, policy = data.get("format"), data.get("policy")
    reads = f"this version reads format {FORMAT}"
    require_not_newer(folder)
    if isinstance(made, int) and made < FORMAT:
        raise CheckpointError(f"checkpoint {folder} is of an old format, {made}; {reads}: train it anew")
    if made != FORMAT or policy not in CONFIGS:
        raise CheckpointError(
            f"checkpoint {folder}: {SPEC} is format {made!r} of policy {policy!r}; {reads} of {' or '.join(CONFIGS)}"
        )


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            keys = file.keys()  # safe_open is no mapping: it cannot be iterated over
            weights = {key: file.get_tensor(key) for key in keys}
            want = (file.metadata() or {}).get(DIGEST)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"checkpoint {folder}: {WEIGHTS} is damaged: {error}") from error
    if want not in (None, tensor_digest(weights)):  # None: written before there were digests
        raise CheckpointError(f"checkpoint {folder}: {WEIGHTS} is damaged: its numbers are not those that were saved")
    return weights


def tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256, in hex, of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a checkpoint: no such folder")
    missing = [name for name in (SPEC, WEIGHTS, STATS, TRAIN) if not (folder / name).is_file()]
    if len(missing) == 4:
        raise CheckpointError(f"{folder} is not a checkpoint: it has none of {SPEC}, {WEIGHTS}, {STATS}, {TRAIN}")
    if missing:
        raise CheckpointError(f"checkpoint {folder} is incomplete: {', '.join(missing)} is missing")


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        data = json.loads((folder / name).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder}: cannot read {name}: {error}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"checkpoint {folder}: {name} holds no JSON object")
    return data


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1) + "\n").encode()
