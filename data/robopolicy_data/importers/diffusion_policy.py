"""Import diffusion_policy's zarr v2 replay buffer: ``data/<key>`` (N, ...) and ``meta/episode_ends`` (E,).

Everything is stored bit for bit: float32 as it is, pictures lossless; what would lose a bit is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.carried import KEY, Carried
from robopolicy_data.importers.columns import (
    Columns,
    exact_float32,
    exact_uint8,
    nominal_ns,
    require_ends,
    require_new,
    write_columns,
)
from robopolicy_data.importers.zarr2 import Zarr2Store, require_lengths
from robopolicy_data.writer import DatasetWriter

_EXPECTED = (
    "expected diffusion_policy's layout: a zarr v2 group with data/action (N, A), data/<key> (N, ...) "
    "and meta/episode_ends (E,)"
)
_CAMERA_NAMES = {"img": "image"}
_POSE = ("m", "m", "m", "rad", "rad", "rad")
_UNITS: dict[tuple[str, int], tuple[str, ...]] = {
    ("keypoint", 18): ("px",),
    ("robot_eef_pose", 6): _POSE,
    ("robot_eef_pose_vel", 6): ("m/s", "m/s", "m/s", "rad/s", "rad/s", "rad/s"),
    ("robot_joint", 6): ("rad",),
    ("robot_joint_vel", 6): ("rad/s",),
}
_PUSHT_UNITS = {("state", 5): ("px", "px", "px", "px", "rad_wrapped")}


@dataclass(frozen=True)
class Buffer:
    """The opened store, checked."""

    store: Zarr2Store
    name: str
    action: Any  # zarr array (N, A)
    states: Mapping[str, Any]  # {ours: (N, ...)}
    cameras: Mapping[str, Any]  # {ours: (N, H, W, 3) or, of a depth camera, (N, H, W)}
    keys: Mapping[str, str]  # {ours: its name in the store}
    seconds: np.ndarray | None  # (N,) float64, if the store has time stamps
    ends: tuple[int, ...]  # (E,)
    carried: Carried | None  # what our own exporter put beside it


def import_diffusion_policy(
    source: Path | str,
    destination: Path | str,
    *,
    rate_hz: float | None = None,
    round_to_float32: bool = False,
    allow_missing: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Import a replay buffer into a new dataset, episode by episode; return the number of episodes.

    Killed half-way it leaves a dataset marked as incomplete, which nobody reads or appends to by mistake. A buffer that
    `export_diffusion_policy` wrote comes back as it was: spec, names, stamps and the meta of every episode.

    Args:
        source: the zarr v2 folder, or a zip of one.
        destination: the dataset to make; must not exist, or be empty.
        rate_hz: of the recording; None is what the store or its stamps say, else 10. The stamps are nominal (step /
            rate) unless the store has ``data/timestamp``; each episode's ``extra.stamps`` says which.
        round_to_float32: accept float64 numbers that float32 cannot hold.
        allow_missing: take chunks that are not there for zeros.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if the source has another layout or is damaged, the destination is taken, or a bit would be lost.
        DiskFull: if there is no room; what was imported so far stays, marked as incomplete.
    """
    target = require_new(destination)
    with Zarr2Store(source, _EXPECTED, allow_missing=allow_missing) as store:
        buffer = _checked(store)
        spec = _spec(buffer, rate_hz)
        starts = (0, *buffer.ends[:-1])
        with DatasetWriter(target, spec, lossless=True, importing=str(source)) as writer:
            for number, (start, stop) in enumerate(zip(starts, buffer.ends, strict=True)):
                columns = _columns(buffer, start, stop, spec, round_to_float32)
                write_columns(writer, _meta(buffer, number), columns)
                if progress is not None:
                    progress(number + 1, len(starts))
            writer.imported()
    return len(starts)


def read_ends(store: Zarr2Store) -> tuple[int, ...]:
    """Return the episodes' ends; DatasetError if they are missing or make no sense."""
    arrays = store.arrays("meta")
    if "episode_ends" not in arrays:
        raise DatasetError(f"{store.path}: no meta/episode_ends; {store.expected}")
    array = arrays["episode_ends"]
    if array.ndim != 1:
        raise DatasetError(f"{store.path}: meta/episode_ends has shape {array.shape}; {store.expected}")
    ends = store.read("meta/episode_ends", array, 0, array.shape[0])
    return tuple(require_ends(store.path, ends, store.expected))


def carried_by(store: Zarr2Store, episodes: int) -> Carried | None:
    """Return what our exporter put beside a store, None if somebody else wrote it."""
    own = store.attributes.get(KEY)
    if own is None:
        return None
    carried = Carried(own, store.path)
    carried.require_fits(episodes, store.path)
    return carried


def _checked(store: Zarr2Store) -> Buffer:
    """Sort the arrays.

    Raises:
        DatasetError: saying what is missing and what was expected.
    """
    arrays = store.arrays("data")
    if "action" not in arrays:
        raise DatasetError(f"{store.path}: no data/action; {_EXPECTED}")
    ends = read_ends(store)
    require_lengths(store.path, arrays, ends[-1])
    carried = carried_by(store, len(ends))
    action, stamps = arrays.pop("action"), arrays.pop("timestamp", None)
    keys = {_CAMERA_NAMES.get(k, k) if a.ndim == 4 else k: k for k, a in arrays.items()}
    if carried is not None:
        keys = _carried_keys(store, carried, arrays)
    cameras = {name: arrays[k] for name, k in keys.items() if arrays[k].ndim == 4 or _is_depth(carried, name)}
    for name, array in cameras.items():
        if array.shape[-1] != 3 and not _is_depth(carried, name):
            raise DatasetError(f"{store.path}: data/{keys[name]} has shape {array.shape}; a camera is (N, H, W, 3)")
    states = {name: arrays[key] for name, key in keys.items() if name not in cameras}
    for name, array in {"action": action, **states}.items():
        if array.dtype.kind not in "fiu" or array.ndim > 3:
            raise DatasetError(
                f"{store.path}: data/{keys.get(name, name)} is {array.dtype} {array.shape}; a state is numbers (N, D)"
            )
    seconds = None if stamps is None else store.read("data/timestamp", stamps, 0, ends[-1]).astype(float).reshape(-1)
    if carried is None:
        _require_forward(store, seconds, ends)
    return Buffer(store, store.path.stem.removesuffix(".zarr"), action, states, cameras, keys, seconds, ends, carried)


def _carried_keys(store: Zarr2Store, carried: Carried, arrays: Mapping[str, Any]) -> dict[str, str]:
    for name, key in carried.names.items():
        if key not in arrays:
            raise DatasetError(f"{store.path}: data/{key} is missing; its {KEY} attributes say it is {name!r}")
    return {name: carried.names[name] for name in (*carried.spec.state, *carried.spec.cameras)}


def _is_depth(carried: Carried | None, name: str) -> bool:
    return carried is not None and name in carried.spec.cameras and carried.spec.cameras[name].kind == "depth"


def _require_forward(store: Zarr2Store, seconds: np.ndarray | None, ends: tuple[int, ...]) -> None:
    """Within an episode the stamps must increase: a stamp seen twice would be the same picture."""
    if seconds is None:
        return
    back = np.flatnonzero(np.diff(seconds) <= 0) + 1
    inside = back[~np.isin(back, ends)]
    if len(inside):
        row = int(inside[0])
        raise DatasetError(
            f"{store.path}: data/timestamp does not go forward at row {row}: {seconds[row]:.6f} s after "
            f"{seconds[row - 1]:.6f} s; does meta/episode_ends fit?"
        )


def _spec(buffer: Buffer, rate_hz: float | None) -> PolicySpec:
    if buffer.carried is not None:
        _require_spec(buffer, buffer.carried.spec)
        return buffer.carried.spec
    known = _UNITS | (_PUSHT_UNITS if _is_pusht(buffer) else {})
    dims = {name: int(np.prod(array.shape[1:], dtype=int)) for name, array in buffer.states.items()}
    dim = int(np.prod(buffer.action.shape[1:], dtype=int))
    if _is_pusht(buffer):
        action = ActionSpec("vector", ("x", "y"), ("px",))
    else:
        action = ActionSpec("vector", tuple(f"a{i}" for i in range(dim)), ("1",))
    return PolicySpec(
        cameras={name: CameraSpec(int(array.shape[1]), int(array.shape[2])) for name, array in buffer.cameras.items()},
        state={name: StateSpec(size, known.get((name, size), ("1",))) for name, size in dims.items()},
        action=action,
        rate_hz=rate_hz or _rate(buffer),
    )


def _rate(buffer: Buffer) -> float:
    """Steps a second by the store's own stamps, else 10."""
    if buffer.seconds is None:
        return 10.0
    inside = np.delete(np.diff(buffer.seconds), [end - 1 for end in buffer.ends[:-1]])
    return round(1 / float(np.median(inside)), 3) if len(inside) else 10.0


def _require_spec(buffer: Buffer, spec: PolicySpec) -> None:
    """The arrays must be what the attributes beside them say."""
    shapes = {name: (state.dim,) for name, state in spec.state.items()} | {k: c.shape for k, c in spec.cameras.items()}
    arrays = {**buffer.states, **buffer.cameras, "action": buffer.action}
    for name, shape in {**shapes, "action": (spec.action.dim,)}.items():
        if arrays[name].shape[1:] != shape:
            where = f"{buffer.store.path}: data/{buffer.keys.get(name, name)}"
            raise DatasetError(f"{where} has shape {arrays[name].shape}; its {KEY} attributes say (N, {shape})")


def _is_pusht(buffer: Buffer) -> bool:
    """Whether these are the Push-T demonstrations: their names alone, ``state`` and ``action``, say nothing."""
    shapes = {name: array.shape[1:] for name, array in buffer.states.items()}
    return buffer.action.shape[1:] == (2,) and shapes.get("state") == (5,) and "keypoint" in shapes


def _meta(buffer: Buffer, number: int) -> EpisodeMeta:
    if buffer.carried is not None:
        return buffer.carried.metas[number]
    stamps = "nominal: step / rate, the source has none" if buffer.seconds is None else "data/timestamp"
    name = "pusht" if _is_pusht(buffer) else buffer.name
    return EpisodeMeta(name, name, extra={"imported": f"diffusion_policy {buffer.name}", "stamps": stamps})


def _columns(buffer: Buffer, start: int, stop: int, spec: PolicySpec, rounding: bool) -> Columns:
    def numbers(key: str, array: Any) -> np.ndarray:
        values = buffer.store.read(f"data/{key}", array, start, stop)
        return exact_float32(f"data/{key}", values, start, rounding)

    def pictures(name: str, array: Any) -> Callable[[int, int], np.ndarray]:
        key = f"data/{buffer.keys[name]}"

        def read(first: int, end: int) -> np.ndarray:
            values = buffer.store.read(key, array, start + first, start + end)
            return values if spec.cameras[name].kind == "depth" else exact_uint8(key, values, start + first)

        return read

    if buffer.seconds is None:
        step_ns = nominal_ns(stop - start, spec.rate_hz)
    else:
        step_ns = np.round(buffer.seconds[start:stop] * 1e9).astype(np.int64)
    return Columns(
        action=numbers("action", buffer.action),
        state={name: numbers(buffer.keys[name], array) for name, array in buffer.states.items()},
        pictures={name: pictures(name, array) for name, array in buffer.cameras.items()},
        **({"step_ns": step_ns} if buffer.carried is None else carried_columns(buffer.store, spec, start, stop)),
    )


def carried_columns(store: Zarr2Store, spec: PolicySpec, start: int, stop: int) -> dict[str, Any]:
    """Return the stamps and sources of rows ``start`` to ``stop`` that our exporter kept below ``meta/robopolicy``."""
    group = f"meta/{KEY}"
    arrays = store.arrays(group)

    def column(name: str) -> np.ndarray:
        if name not in arrays:
            raise DatasetError(f"{store.path}: {group}/{name} is missing")
        return store.read(f"{group}/{name}", arrays[name], start, stop)

    return {
        "step_ns": column("time_step"),
        "action_ns": column("time_action"),
        "camera_ns": {name: column(f"time_{name}") for name in spec.cameras},
        "sources": column("source"),
    }
