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
from robopolicy.types import EpisodeMeta, Observation, Step
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
class _Source:
    """The opened store, checked."""

    name: str
    action: Any  # zarr array (N, A)
    states: Mapping[str, Any]  # (N, ...) each
    cameras: Mapping[str, Any]  # (N, H, W, 3) each
    seconds: np.ndarray | None  # (N,) float64, if the store has time stamps
    ends: np.ndarray  # (E,) int64


def import_diffusion_policy(
    source: Path | str,
    destination: Path | str,
    *,
    rate_hz: float | None = None,
    round_to_float32: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Import a replay buffer into a new dataset, episode by episode; return the number of episodes.

    Killed half-way it leaves a dataset marked as incomplete, which nobody reads or appends to by mistake.

    Args:
        source: the zarr v2 folder.
        destination: the dataset to make; must not exist, or be empty.
        rate_hz: of the recording; None is what the store says, else 10. The stamps are nominal (step / rate) unless the store has ``data/timestamp``;
            each episode's ``extra.stamps`` says which.
        round_to_float32: accept float64 numbers that float32 cannot hold.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if the source has another layout, the destination is taken, or a bit would be lost.
        DiskFull: if there is no room; what was imported so far stays, marked as incomplete.
    """
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target} exists and is not empty; import into a new folder, or delete it first")
    store = _open(Path(source))
    spec = _spec(store, 10.0 if rate_hz is None else rate_hz)
    meta = _meta(store)
    starts = [0, *store.ends[:-1].tolist()]
    with DatasetWriter(target, spec, lossless=True, importing=str(source)) as writer:
        for done, (start, end) in enumerate(zip(starts, store.ends.tolist(), strict=True), 1):
            steps = _steps(store, slice(start, end), spec, round_to_float32)
            episode = writer.begin(meta)
            for step in steps:
                episode.add(step)
            episode.commit()
            if progress is not None:
                progress(done, len(starts))
        writer.imported()
    return len(starts)


def _open(path: Path) -> _Source:
    """Open the store read-only and sort its arrays.

    Raises:
        DatasetError: saying what is missing and what was expected.
    """
    if not (path / ".zgroup").is_file():
        raise DatasetError(f"{path}: no zarr v2 group; {_EXPECTED}")
    import zarr

    group: Any = zarr.open_group(str(path), mode="r", zarr_format=2)
    for needed in ("data/action", "meta/episode_ends"):
        if not (path / needed / ".zarray").is_file():
            raise DatasetError(f"{path}: no {needed}; {_EXPECTED}")
    ends = np.asarray(group["meta/episode_ends"][:]).astype(np.int64)
    arrays = dict(sorted(group["data"].arrays()))
    _require_lengths(path, arrays, ends)
    action, stamps = arrays.pop("action"), arrays.pop("timestamp", None)
    cameras = {name: array for name, array in arrays.items() if array.ndim == 4}
    for name, array in cameras.items():
        if array.shape[-1] != 3:
            raise DatasetError(f"{path}: data/{name} has shape {array.shape}; a camera is (N, H, W, 3)")
    states = {name: array for name, array in arrays.items() if name not in cameras}
    for name, array in {"action": action, **states}.items():
        if array.dtype.kind not in "fiu" or array.ndim > 3:
            raise DatasetError(f"{path}: data/{name} is {array.dtype} {array.shape}; a state is numbers (N, D)")
    return _Source(path.stem, action, states, cameras, None if stamps is None else np.asarray(stamps[:], float), ends)


def _require_lengths(path: Path, arrays: Mapping[str, Any], ends: np.ndarray) -> None:
    if ends.ndim != 1 or len(ends) == 0 or np.any(np.diff(ends, prepend=0) <= 0):
        raise DatasetError(f"{path}: meta/episode_ends must increase from above 0; {_EXPECTED}")
    for name, array in arrays.items():
        if array.ndim == 0 or array.shape[0] != ends[-1]:
            raise DatasetError(f"{path}: data/{name} has shape {array.shape}, but the episodes end at {ends[-1]}")


def _spec(store: _Source, rate_hz: float) -> PolicySpec:
    known = _UNITS | (_PUSHT_UNITS if _is_pusht(store) else {})
    dims = {name: int(np.prod(array.shape[1:], dtype=int)) for name, array in store.states.items()}
    dim = int(np.prod(store.action.shape[1:], dtype=int))
    if _is_pusht(store):
        action = ActionSpec("vector", ("x", "y"), ("px",))
    else:
        action = ActionSpec("vector", tuple(f"a{i}" for i in range(dim)), ("1",))
    return PolicySpec(
        cameras={_CAMERA_NAMES.get(k, k): CameraSpec(*map(int, a.shape[1:3])) for k, a in store.cameras.items()},
        state={name: StateSpec(size, known.get((name, size), ("1",))) for name, size in dims.items()},
        action=action,
        rate_hz=rate_hz,
    )


def _is_pusht(store: _Source) -> bool:
    """Whether these are the Push-T demonstrations: their names alone, ``state`` and ``action``, say nothing."""
    shapes = {name: array.shape[1:] for name, array in store.states.items()}
    return store.action.shape[1:] == (2,) and shapes.get("state") == (5,) and "keypoint" in shapes


def _meta(store: _Source) -> EpisodeMeta:
    stamps = "nominal: step / rate, the source has none" if store.seconds is None else "data/timestamp"
    name = "pusht" if _is_pusht(store) else store.name
    return EpisodeMeta(name, name, extra={"imported": f"diffusion_policy {store.name}", "stamps": stamps})


def _steps(store: _Source, rows: slice, spec: PolicySpec, rounding: bool) -> list[Step]:
    """Return the steps of one episode."""
    length = rows.stop - rows.start
    action = _float32("action", store.action, rows, rounding)
    state = {name: _float32(name, array, rows, rounding) for name, array in store.states.items()}
    images = {_CAMERA_NAMES.get(k, k): _uint8(k, array, rows) for k, array in store.cameras.items()}
    if store.seconds is None:
        stamps = [k * spec.period_ns for k in range(length)]
    else:
        stamps = np.round(store.seconds[rows] * 1e9).astype(np.int64).tolist()
    return [
        Step(
            Observation(
                stamp,
                {name: array[k] for name, array in state.items()},
                {name: array[k] for name, array in images.items()},
                dict.fromkeys(images, stamp),
            ),
            action[k],
            stamp,
            "human",
        )
        for k, stamp in enumerate(stamps)
    ]


def _float32(name: str, array: Any, rows: slice, rounding: bool) -> np.ndarray:
    """Return (T, D) float32, equal to the source unless ``rounding``."""
    values = np.asarray(array[rows]).reshape(rows.stop - rows.start, -1)
    exact = values.astype(np.float32)
    if not rounding and not np.array_equal(exact.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"):
        raise DatasetError(
            f"data/{name} is {values.dtype} and float32 cannot hold all of it exactly, from row {rows.start} on; "
            "import with round_to_float32 (--round) to accept the rounding"
        )
    return exact


def _uint8(name: str, array: Any, rows: slice) -> np.ndarray:
    """Return (T, H, W, 3) uint8, equal to the source."""
    values = np.asarray(array[rows])
    with np.errstate(invalid="ignore"):  # what does not fit becomes something else, and differs below
        exact = values.astype(np.uint8, copy=False)
    if not np.array_equal(exact, values):
        low, high = float(np.min(values)), float(np.max(values))
        raise DatasetError(
            f"data/{name} is {values.dtype} from {low:g} to {high:g}, rows {rows.start}..{rows.stop}: "
            "a camera holds whole numbers 0 to 255"
        )
    return exact
