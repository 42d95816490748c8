"""Rollouts as FIPER keeps them, a pickle an episode: read with the restricted reader, and written.

FIPER: Failure Prediction at Runtime for Generative Robot Policies, NeurIPS 2025; the layout is the one of its
published data: ``TASK/rollouts/{calibration,test}/*.pkl``.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import MonitorError
from robopolicy.monitor.layout import ActionLayout, Kind
from robopolicy.monitor.plain_pickle import load_plain
from robopolicy.monitor.whole import whole_folder
from robopolicy.types import Decision

SETS = {"calibration": ("calibration", "train"), "test": ("test",)}  # ours: names of the folder
IN_DISTRIBUTION = frozenset({"ca", "id", "calibration", "na"})  # of metadata's rollout_subtype
TASK_DT_S = {"sorting": 0.035, "stacking": 0.035, "push_t": 0.2, "pretzel": 0.2, "push_chair": 0.2}  # of the published
POSITIONS: tuple[tuple[str, Kind], ...] = (
    ("pos", "absolute"), ("vel", "velocity"), ("joint_pos", "absolute"), ("joint_vel", "velocity"),
)  # fmt: skip


@dataclass(frozen=True)
class FiperEpisode:
    """One rollout."""

    decisions: list[Decision]
    success: bool
    ood: bool  # made out of distribution on purpose
    name: str  # of its file, without the ending
    layout: ActionLayout
    task: str = ""
    subtype: str = ""  # in the data's own words: id, ood, ca, hh, eb, ...


def fiper_files(folder: str | Path) -> dict[str, list[Path]]:
    """Return the files of ``calibration`` and ``test``, in order of their names.

    Args:
        folder: of a task, or its ``rollouts``; a folder ``train`` counts as calibration.

    Raises:
        MonitorError: if there are none of either.
    """
    folder = Path(folder)
    root = folder / "rollouts" if (folder / "rollouts").is_dir() else folder
    found = {
        ours: sorted(file for name in names for file in (root / name).glob("*.pkl")) for ours, names in SETS.items()
    }
    if not any(found.values()):
        raise MonitorError(f"{folder} holds no FIPER rollouts; want {root}/calibration/*.pkl or {root}/test/*.pkl")
    return {ours: files for ours, files in found.items() if files}


def read_fiper(folder: str | Path, **options: Any) -> dict[str, list[FiperEpisode]]:
    """Return the episodes of ``calibration`` and ``test``; ``options`` are `read_fiper_episode`'s.

    All of them at once: `fiper_files` and `read_fiper_episode` read them one by one.

    Raises:
        MonitorError: as these do.
    """
    return {
        part: [read_fiper_episode(file, part=part, **options) for file in files]
        for part, files in fiper_files(folder).items()
    }


def read_fiper_episode(
    path: str | Path, *, part: str = "test", n_execute: int | None = None, dt_s: float | None = None
) -> FiperEpisode:
    """Read one rollout.

    Actions stay what they are: a velocity is not summed up, the layout says ``velocity``. Pictures are left out. The
    decisions are stamped by the rows executed before them, for the file's own ``timestamp`` has no known unit.

    Args:
        path: a pickle of ``{metadata, rollout}``, or of a list whose first element is the metadata.
        part: ``calibration`` or ``test``: what tells in distribution from out of it where the metadata do not.
        n_execute: rows of a chunk that were executed, for files that do not say.
        dt_s: between two rows, s; needed for files that do not say, unless the task is a published one.

    Raises:
        MonitorError: if the file is no such rollout, or would do more than hold data; one line with its name.
    """
    path = Path(path)
    metadata, steps = _split(load_plain(path), path)
    task = str(metadata.get("task", ""))
    execute = n_execute or _whole(metadata.get("action_execution_horizon"))
    dt = dt_s or _number(metadata.get("dt_s")) or TASK_DT_S.get(task)
    if not execute:
        raise MonitorError(f"{path} has no action_execution_horizon; say how many rows of a chunk were executed")
    if not dt or not np.isfinite(dt) or dt < 0:
        raise MonitorError(f"{path} does not say how long a row of a chunk lasts (dt_s); say it")
    if not steps:
        raise MonitorError(f"{path} has no steps in its rollout")
    decisions = list(_decisions(steps, execute, dt, path))
    layout = _layout(metadata, decisions[0].chunks.shape[2], dt, path)
    subtype = str(metadata.get("rollout_subtype") or {"calibration": "id"}.get(part, "ood"))
    success = _success(metadata, path)
    return FiperEpisode(decisions, success, subtype.lower() not in IN_DISTRIBUTION, path.stem, layout, task, subtype)


def write_fiper(episodes: Iterable[FiperEpisode], folder: str | Path, *, part: str = "test") -> list[Path]:
    """Write each episode to ``folder`` (of one set, such as ``TASK/rollouts/test``), a pickle each; return the files.

    The folder is replaced as a whole, if there was nothing but pickles in it.

    `read_fiper_episode` gives the same episode, bit for bit: what FIPER has no word for (stamps, aux, kinds of action)
    stands beside its own.

    Raises:
        MonitorError: if an episode has no decisions, or they differ in shape or are not numbered from 0; if two
            episodes have one name; if the folder holds something else.
    """
    folder = Path(folder)
    files: list[str] = []
    with whole_folder(folder, _only_pickles) as scratch:
        for number, episode in enumerate(episodes):
            name = f"{episode.name}.pkl"
            if name in files or Path(name).name != name:
                raise MonitorError(f"an episode called {episode.name!r}; want the name of a file, no two alike")
            data = {"metadata": _metadata(episode, number, part), "rollout": [_step(d) for d in episode.decisions]}
            (scratch / name).write_bytes(pickle.dumps(data, protocol=4))
            files.append(name)
    return [folder / name for name in files]


def _split(data: Any, path: Path) -> tuple[Mapping[str, Any], Sequence[Any]]:
    if isinstance(data, dict) and isinstance(data.get("rollout"), (list, tuple)):
        metadata, steps = data.get("metadata") or {}, data["rollout"]
    elif isinstance(data, list) and data and isinstance(data[0], dict) and data[0].get("metadata") is True:
        metadata, steps = data[0], data[1:]
    else:
        raise MonitorError(f"{path} is no FIPER rollout; want a dict of metadata and rollout, or a list of both")
    if not isinstance(metadata, dict) or not all(isinstance(step, dict) for step in steps):
        raise MonitorError(f"{path} is no FIPER rollout; its metadata and each of its steps should be a dict")
    return metadata, steps


def _decisions(steps: Sequence[Mapping[str, Any]], n_execute: int, dt_s: float, path: Path) -> Iterator[Decision]:
    first: tuple[Any, ...] = ()
    for t, step in enumerate(steps):
        where = f"{path}, step {t}"
        embedding = _array(step, "obs_embedding", 1, where)
        if step.get("action_pred") is None:
            chunks = _array(step, "action", 2, where)[None]
        else:
            chunks = _array(step, "action_pred", 3, where)
        shape = (embedding.shape, chunks.shape)
        if shape != (first := first or shape):
            raise MonitorError(f"{where}: embedding and chunks of {shape}, those before of {first}")
        if not 0 < n_execute <= chunks.shape[1]:
            raise MonitorError(f"{where}: {n_execute} rows executed of chunks of {chunks.shape[1]}")
        stamp_ns = _whole(step.get("stamp_ns"))
        if stamp_ns is None:
            stamp_ns = round(t * n_execute * dt_s * 1e9)
        yield Decision(t, stamp_ns, embedding, chunks, n_execute, _aux(step, where))


def _aux(step: Mapping[str, Any], where: str) -> dict[str, np.ndarray]:
    ours = step.get("aux")
    if isinstance(ours, dict) and all(isinstance(array, np.ndarray) for array in ours.values()):
        return ours
    named = {"state": "agent_pos", "state_embedding": "state_embedding"}
    return {name: _array(step, key, 1, where) for name, key in named.items() if step.get(key) is not None}


def _array(step: Mapping[str, Any], key: str, axes: int, where: str) -> np.ndarray:
    """Return an array float32 of ``axes`` axes; what is wrapped a robot each is unwrapped, if there is one robot."""
    value = _unwrapped(step.get(key), f"{where}: {key}")
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise MonitorError(f"{where}: {key} is no array of numbers: {error}") from error
    while array.ndim > axes and len(array) == 1:
        array = array[0]
    if array.ndim != axes or not array.size:
        raise MonitorError(f"{where}: {key} of shape {array.shape}; want {axes} axes, none of them empty")
    return array


def _unwrapped(value: Any, where: str) -> Any:
    if value is None:
        raise MonitorError(f"{where} is not there")
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], np.ndarray) and value[0].ndim:
        if len(value) > 1:
            raise MonitorError(f"{where} has {len(value)} parts, one a robot; rollouts of one robot are read")
        return value[0]
    return value


def _layout(metadata: Mapping[str, Any], dim: int, dt_s: float, path: Path) -> ActionLayout:
    mappings = metadata.get("action_mappings")
    mappings = mappings[0] if isinstance(mappings, (list, tuple)) and len(mappings) == 1 else mappings
    try:
        if isinstance(ours := metadata.get("action_layout"), dict):
            return ActionLayout.from_json(ours)
        given: Any = mappings or {}
        parts = {str(name): _indices(part) for name, part in given.items()}
        position, kind = next(((parts[name], k) for name, k in POSITIONS if parts.get(name)), ((), "plain"))
        rotation = parts.get("rpy") or parts.get("drpy") or ()
        return ActionLayout(dim, position, rotation, parts.get("gripper", ()), kind, dt_s)
    except (MonitorError, TypeError, ValueError, AttributeError) as error:
        raise MonitorError(f"{path}: action_mappings {mappings!s:.80} of {dim} elements: {error}") from error


def _indices(part: Any) -> tuple[int, ...]:
    return () if part is None else tuple(int(i) for i in np.ravel(part))


def _success(metadata: Mapping[str, Any], path: Path) -> bool:
    """The metadata's word, or else the file name's; a name that says nothing is taken for a success, as FIPER does."""
    if metadata.get("successful") is not None:
        return bool(metadata["successful"])
    name = path.stem.lower()
    if "success" in name or "_s_" in name:
        return True
    return not ("failure" in name or "_f_" in name)


def _only_pickles(folder: Path) -> bool:
    return all(file.suffix == ".pkl" for file in folder.iterdir())


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, np.integer)) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float, np.floating, np.integer)) else None


def _metadata(episode: FiperEpisode, number: int, part: str) -> dict[str, Any]:
    name, decisions = episode.name, episode.decisions
    if not decisions:
        raise MonitorError(f"episode {name} has no decisions")
    if [d.index for d in decisions] != list(range(len(decisions))):
        raise MonitorError(f"episode {name}: decisions are not numbered 0, 1, ...")
    shapes = {(d.chunks.shape, d.embedding.shape, d.n_execute) for d in decisions}
    if len(shapes) > 1:
        raise MonitorError(f"episode {name}: decisions differ: {' and '.join(map(str, sorted(shapes)))}")
    candidates, horizon, _ = decisions[0].chunks.shape
    layout = episode.layout
    position = {"absolute": "pos", "velocity": "vel"}.get(layout.kind)
    rotation = "rpy" if layout.kind == "absolute" else "drpy"
    named = {position: layout.position, rotation: layout.rotation if len(layout.rotation) == 3 else ()}
    subtype = episode.subtype
    if not subtype or (subtype.lower() not in IN_DISTRIBUTION) != episode.ood:
        subtype = "ood" if episode.ood else "id"
    return {
        "task": episode.task, "episode": number, "num_robots": 1, "num_steps": len(decisions),
        "successful": bool(episode.success), "rollout_type": part, "rollout_subtype": subtype,
        "action_prediction_horizon": horizon, "action_execution_horizon": int(decisions[0].n_execute),
        "action_batch_size": candidates,
        "action_mappings": {k: list(v) for k, v in {**named, "gripper": layout.gripper}.items() if k and v},
        "dt_s": layout.dt_s, "action_layout": {k: list(v) if isinstance(v, tuple) else v
                                               for k, v in layout.to_json().items()},
    }  # fmt: skip


def _step(decision: Decision) -> dict[str, Any]:
    chunks = np.asarray(decision.chunks, dtype=np.float32)
    aux = {name: np.asarray(array) for name, array in decision.aux.items()}
    if objects := [name for name, array in aux.items() if array.dtype.kind not in "biufcSU"]:
        raise MonitorError(f"aux {objects[0]} is of dtype {aux[objects[0]].dtype}; numbers and text are written")
    return {
        "action": chunks[0], "action_pred": chunks, "agent_pos": aux.get("state"),
        "obs_embedding": np.asarray(decision.embedding, dtype=np.float32),
        "timestamp": decision.stamp_ns / 1e9, "step": decision.index * decision.n_execute,
        "stamp_ns": int(decision.stamp_ns), "aux": aux,
    }  # fmt: skip
