"""Export to robomimic's HDF5, as its SequenceDataset reads it."""

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, MissingExtra
from robopolicy.spec import PolicySpec
from robopolicy_data import carried
from robopolicy_data.episode import Episode
from robopolicy_data.exporters.destination import chosen, fresh
from robopolicy_data.reader import Dataset

DERIVED = "robomimic@1"  # where an import keeps what has no other place: states, rewards, dones
GYM_TYPE = 2  # of robomimic's EnvType: an environment it does not build itself
_BLOCK = 32  # frames decoded at a time


def export_robomimic(
    dataset_path: Path | str,
    destination: Path | str,
    *,
    episodes: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
    next_obs: bool = True,
) -> int:
    """Write a robomimic HDF5 file; return the number of episodes.

    ``data/demo_i``: ``actions`` as they are (robomimic wants -1..1 only to train), ``obs/<state>``,
    ``obs/<camera>_image`` (T, H, W, 3) uint8, ``obs/<camera>_depth`` (T, H, W, 1) uint16 mm, ``next_obs`` (of the last
    step: itself again), ``rewards`` 1 at the last step of a success, ``dones`` 1 at the last step, ``states``: what the
    dataset's import kept, else the low-dimensional states side by side (not a simulator's). ``mask/success`` and
    ``mask/failure`` name the demos so labelled; filters that an import found are kept. Spec, stamps and metas lie in
    ``robopolicy`` attributes and groups.

    Args:
        dataset_path: what to export.
        destination: the file to make.
        episodes: positions; None is all.
        progress: called with (episodes done, episodes in all).
        next_obs: write them; without, the file is half as big and needs ``load_next_obs=False``.

    Raises:
        DatasetError: if the destination exists, or two streams would get one name.
        MissingExtra: without h5py.
        DiskFull: if there is no room; nothing is left.
    """
    h5py = require_h5py()
    dataset = Dataset(dataset_path)
    spec, picked = dataset.spec, chosen(dataset, episodes)
    keys = keys_of(spec)
    with fresh(destination) as partial:
        _require_room(partial, picked, spec, next_obs)
        with h5py.File(partial, "w") as file:
            data = file.create_group("data")
            data.attrs["total"] = sum(episode.length for episode in picked)
            data.attrs["env_args"] = json.dumps(env_args(picked[0], spec))
            own = carried.attributes(spec, keys, [])  # the metas lie with their demos
            data.attrs[carried.KEY] = json.dumps(own)
            for number, episode in enumerate(picked):
                _write_demo(data.create_group(f"demo_{number}"), episode, spec, keys, next_obs)
                if progress is not None:
                    progress(number + 1, len(picked))
            _write_masks(file, picked)
    return len(picked)


def require_h5py() -> Any:
    """Return the module h5py; MissingExtra names the extra that brings it."""
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py", "convert") from None
    return h5py


def keys_of(spec: PolicySpec) -> dict[str, str]:
    """Return {camera or state: its key below ``obs``}.

    Raises:
        DatasetError: if two would have the same.
    """
    ending = {"colour": "_image", "depth": "_depth"}
    keys = {name: name.removesuffix(ending[c.kind]) + ending[c.kind] for name, c in spec.cameras.items()}
    clash = set(spec.state) & (set(keys) | set(keys.values()))
    clash |= {name for name, key in keys.items() if list(keys.values()).count(key) > 1}
    if clash:
        raise DatasetError(f"cannot export: {sorted(clash)} would share a key with another stream; rename them")
    return keys | {name: name for name in spec.state}


def env_args(episode: Episode, spec: PolicySpec) -> dict[str, Any]:
    """Return robomimic's description of the environment: what an import found, else this robot."""
    found = episode.meta.extra.get("env_args")
    if isinstance(found, dict):
        return dict(found)
    return {"env_name": episode.meta.robot, "type": GYM_TYPE, "env_kwargs": {"control_freq": spec.rate_hz}}


def _require_room(path: Path, picked: Sequence[Episode], spec: PolicySpec, next_obs: bool) -> None:
    """Ask the disk for all of the file's bytes beforehand: HDF5 that finds it full half-way brings the process down."""
    obs = sum(4 * state.dim for state in spec.state.values())
    obs += sum(math.prod(camera.shape) * np.dtype(camera.dtype).itemsize for camera in spec.cameras.values())
    row = obs * (2 if next_obs else 1) + 4 * spec.action.dim + 8 * (len(spec.cameras) + 4)
    total = sum(episode.length for episode in picked) * row + sum(_kept_bytes(episode) for episode in picked)
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, total)
    path.unlink()


def _kept_bytes(episode: Episode) -> int:
    return sum(array.nbytes for array in (episode.derived(DERIVED) or {}).values())


def _write_demo(demo: Any, episode: Episode, spec: PolicySpec, keys: dict[str, str], next_obs: bool) -> None:
    length, kept = episode.length, episode.derived(DERIVED) or {}
    demo.attrs["num_samples"] = length
    demo.attrs[carried.KEY] = json.dumps(carried.meta_json(episode.meta))
    if "model_file" in kept:
        demo.attrs["model_file"] = kept["model_file"].tobytes().decode()
    low = {name: episode.state(name) for name in spec.state}
    last = np.zeros(length, np.float64)
    last[-1] = 1
    demo["actions"] = episode.action()
    demo["rewards"] = kept.get("rewards", last * float(episode.meta.success is True))
    demo["dones"] = kept.get("dones", last.astype(np.int64))
    demo["states"] = kept.get("states", np.concatenate([*low.values(), np.zeros((length, 0), np.float32)], axis=1))
    groups = {"obs": demo.create_group("obs"), **({"next_obs": demo.create_group("next_obs")} if next_obs else {})}
    following = np.minimum(np.arange(length) + 1, length - 1)  # (T,)
    for name, values in low.items():
        for which, group in groups.items():
            group[keys[name]] = values if which == "obs" else values[following]
    for name, camera in spec.cameras.items():
        shape = camera.shape if camera.kind == "colour" else (*camera.shape, 1)
        made = {w: g.create_dataset(keys[name], (length, *shape), camera.dtype) for w, g in groups.items()}
        for start, block in _frames(episode, name):
            pictures = block.reshape(len(block), *shape)
            made["obs"][start : start + len(block)] = pictures
            if next_obs:
                first = 1 if start == 0 else 0  # row t of next_obs is row t + 1 of obs
                made["next_obs"][start + first - 1 : start + len(block) - 1] = pictures[first:]
                made["next_obs"][length - 1] = pictures[-1]
    own = demo.create_group(carried.KEY)
    own.attrs["kept"] = json.dumps(sorted(kept))
    for name, column in carried.columns(episode, spec).items():
        own[name] = column


def _write_masks(file: Any, picked: Sequence[Episode]) -> None:
    """Name the demos of every filter."""
    masks: dict[str, list[str]] = {}
    for number, episode in enumerate(picked):
        label = {True: "success", False: "failure"}.get(episode.meta.success)  # type: ignore[arg-type]
        found = episode.meta.extra.get("filters") or []
        for name in dict.fromkeys([*([label] if label else []), *found]):
            masks.setdefault(name, []).append(f"demo_{number}")
    for name, demos in masks.items():
        file[f"mask/{name}"] = np.array(demos, dtype="S")


def _frames(episode: Episode, camera: str) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, episode.length, _BLOCK):
        yield start, episode.images(camera, slice(start, start + _BLOCK))
