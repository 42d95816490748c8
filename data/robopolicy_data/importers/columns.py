"""One foreign episode as columns of T rows, written as an episode of ours; numbers are exact or refused."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.layout import SOURCES
from robopolicy_data.metadata import unfinished_import
from robopolicy_data.writer import DatasetWriter

BLOCK_BYTES = 128e6  # of pictures held at a time

Pictures = Callable[[int, int], np.ndarray]  # (first row, last row + 1) -> (n, H, W, 3) uint8 or (n, H, W) uint16


@dataclass(frozen=True)
class Columns:
    """An episode of T rows."""

    action: np.ndarray  # (T, A) float32
    state: Mapping[str, np.ndarray]  # {name: (T, D) float32}
    pictures: Mapping[str, Pictures] = field(default_factory=dict)
    step_ns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (T,)
    action_ns: np.ndarray | None = None  # (T,); None: the step's
    camera_ns: Mapping[str, np.ndarray] = field(default_factory=dict)  # {camera: (T,)}; what is missing: the step's
    sources: np.ndarray | None = None  # (T,) uint8, an index into `layout.SOURCES`; None: a person drove


def nominal_ns(length: int, rate_hz: float) -> np.ndarray:
    """Return the stamps (length,) int64 of a recording that has none: step / rate."""
    return np.arange(length, dtype=np.int64) * round(1e9 / rate_hz)


def write_columns(writer: DatasetWriter, meta: EpisodeMeta, columns: Columns) -> int:
    """Write one episode, a block of pictures at a time; return its number."""
    episode = writer.begin(meta)
    length = len(columns.action)
    row = sum(math.prod(c.shape) * np.dtype(c.dtype).itemsize for c in writer.spec.cameras.values())
    block = max(1, int(BLOCK_BYTES / max(row, 1)))
    for start in range(0, length, block):
        stop = min(start + block, length)
        images = {name: read(start, stop) for name, read in columns.pictures.items()}
        for k in range(start, stop):
            episode.add(_step(columns, k, {name: block[k - start] for name, block in images.items()}))
    return episode.commit()


def require_new(destination: Path | str) -> Path:
    """Return the destination of an import.

    Raises:
        DatasetError: if something is there.
    """
    target = Path(destination)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        half = _half_import(target)
        if half is not None:
            raise DatasetError(half)
        raise DatasetError(f"{target} exists and is not empty; import into a new folder, or delete it first")
    return target


def _half_import(target: Path) -> str | None:
    try:
        attributes = json.loads((target / "zarr.json").read_bytes())["attributes"]["robopolicy"]
    except (OSError, ValueError, KeyError, TypeError):  # whatever it is, it is none of ours
        return None
    return unfinished_import(attributes, target)


def exact_float32(what: str, values: np.ndarray, row: int, rounding: bool) -> np.ndarray:
    """Return (T, D) float32, equal to the source unless ``rounding``.

    Args:
        what: the array's name, for the message.
        values: (T, ...) numbers.
        row: of the first, in the whole array.
        rounding: accept what float32 cannot hold.

    Raises:
        DatasetError: if a bit would be lost.
    """
    flat = values.reshape(len(values), -1)
    with np.errstate(over="ignore"):
        exact: np.ndarray = flat.astype(np.float32)
    if not rounding and not np.array_equal(exact.astype(flat.dtype), flat, equal_nan=flat.dtype.kind == "f"):
        raise DatasetError(
            f"{what} is {flat.dtype} and float32 cannot hold all of it exactly, from row {row} on; "
            "import with round_to_float32 (--round) to accept the rounding"
        )
    return exact


def exact_uint8(what: str, values: np.ndarray, row: int) -> np.ndarray:
    """Return pictures as uint8, equal to the source.

    Raises:
        DatasetError: if they are not whole numbers 0 to 255.
    """
    with np.errstate(invalid="ignore"):  # what does not fit becomes something else, and differs below
        exact: np.ndarray = values.astype(np.uint8, copy=False)
    if not np.array_equal(exact, values):
        low, high = float(np.min(values)), float(np.max(values))
        raise DatasetError(
            f"{what} is {values.dtype} from {low:g} to {high:g}, rows {row}..{row + len(values)}: "
            "a camera holds whole numbers 0 to 255"
        )
    return exact


def _step(columns: Columns, k: int, images: Mapping[str, np.ndarray]) -> Step:
    stamp = int(columns.step_ns[k])
    stamps: dict[str, int] = {name: int(columns.camera_ns.get(name, columns.step_ns)[k]) for name in images}
    due = stamp if columns.action_ns is None else int(columns.action_ns[k])
    source: Any = "human" if columns.sources is None else SOURCES[int(columns.sources[k])]
    state = {name: values[k] for name, values in columns.state.items()}
    return Step(Observation(stamp, state, images, stamps), columns.action[k], due, source)


def require_ends(where: object, ends: np.ndarray, expected: str) -> Sequence[int]:
    """Return episode ends (E,) as numbers.

    Raises:
        DatasetError: unless they increase from above 0.
    """
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or len(ends) == 0 or np.any(np.diff(ends, prepend=0) <= 0):
        raise DatasetError(f"{where}: meta/episode_ends must increase from above 0; {expected}")
    numbers: list[int] = ends.tolist()
    return numbers
