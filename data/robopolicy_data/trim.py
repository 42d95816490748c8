"""A part of an episode as an episode of its own; the bytes of its frames are copied as they are."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from robopolicy.errors import ContractError, DatasetError
from robopolicy_data.files import crc32c, sync_tree, write_file
from robopolicy_data.history import Edit, Move, editing, own_attributes, trash_place
from robopolicy_data.layout import MONITOR, TRASH
from robopolicy_data.metadata import KEY, group_json, read_json, to_bytes
from robopolicy_data.numbers import require_episodes
from robopolicy_data.reader import Dataset
from robopolicy_data.shard import ShardReader, ShardWriter
from robopolicy_data.source import open_source
from robopolicy_data.timing import periods, timing

IDLE = "quality@1"


def trim(path: Path | str, number: int, start: int, stop: int) -> tuple[int, Edit]:
    """Replace an episode by its steps ``start`` to ``stop`` (excluded), and return the new one's number and the edit.

    The old one goes to the trash, its number is not used again, and `undo` changes them back. Readers see either of
    the two at every instant. What `derived/` holds is dropped, but for the monitor's verdicts, which cannot be computed
    again.

    Raises:
        ContractError: if that is not a part of the episode, or all of it.
        DatasetError: if there is no such episode, or it is damaged.
        DatasetBusy: if the dataset is being written.
        DiskFull: if there is no room; the episode stays.
    """
    with editing(path) as history:
        old = history.episode(number)
        own = own_attributes(old)
        length = int(own["length"])
        if (start, stop) == (0, length):
            raise ContractError(f"episode {number} has {length} steps; {start}:{stop} is all of them, nothing to trim")
        if not 0 <= start < stop <= length:
            raise ContractError(
                f"episode {number} has {length} steps, {start}:{stop} is no part of them: 0 <= start < stop <= {length}"
            )
        new = history.lock.next_number
        place = f"{TRASH}/cut-{uuid4().hex}"
        try:
            cut(old, history.root / place, start, stop, parent={"number": number, "uuid": own.get("uuid")})
        except BaseException:
            shutil.rmtree(history.root / place, ignore_errors=True)
            raise
        history.lock.remember(new + 1)
        words = f"trimmed episode {number} to its steps {start} to {stop - 1}, which are episode {new}"
        moves = {"adds": (Move(new, place),), "removes": (Move(number, trash_place(number)),)}
        edit = history.begin("trim", words, **moves)
        history.carry_out(edit)
    return new, edit


def active_steps(path: Path | str, number: int) -> tuple[int, int]:
    """Return the steps (start, stop) of an episode without its idle head and tail, as the quality marks say.

    Raises:
        DatasetError: if there are no marks, naming the command that makes them, or if all of it is idle.
    """
    dataset = Dataset(path)
    numbers = [episode.number for episode in dataset]
    require_episodes([number], numbers, path)
    marks = dataset[numbers.index(number)].derived(IDLE)
    if marks is None or "idle" not in marks:
        raise DatasetError(f"episode {number} has no idle marks; make them: robopolicy data quality {path} --write")
    busy = np.flatnonzero(~marks["idle"].astype(bool))
    if not len(busy):
        raise DatasetError(f"episode {number} is idle from its first step to its last; delete it instead")
    return int(busy[0]), int(busy[-1]) + 1


def steps_of_seconds(path: Path | str, number: int, start_s: float | None, stop_s: float | None) -> tuple[int, int]:
    """Return the steps (start, stop) that lie between two times, counted from the episode's first step.

    Raises:
        DatasetError: if there is no such episode.
    """
    dataset = Dataset(path)
    numbers = [episode.number for episode in dataset]
    require_episodes([number], numbers, path)
    stamps = dataset[numbers.index(number)].stamps_ns("step")
    since = (stamps - stamps[0]) / 1e9
    low = 0 if start_s is None else int(np.searchsorted(since, start_s - 1e-9))
    return low, len(since) if stop_s is None else int(np.searchsorted(since, stop_s - 1e-9))


def cut(source: Path, target: Path, start: int, stop: int, parent: Mapping[str, Any]) -> None:
    """Write the steps ``start`` to ``stop`` of an episode's folder as another folder, durably, of either format.

    Raises:
        DatasetError: if something is damaged or of an unknown layout.
    """
    own = own_attributes(source)
    arrays = [p.parent.relative_to(source) for p in sorted(source.rglob("zarr.json")) if _is_array(p)]
    cameras = {p.name: p for p in arrays if p.parts[:2] in (("obs", "cam"), ("obs", "depth"))}
    seen = {name: _frames_seen(source, name, start, stop) for name in cameras}
    for array in arrays:
        if array.parts[0] == "derived" and not array.is_relative_to(MONITOR):
            continue
        first, last = start, stop
        if array in cameras.values():
            _cut_frames(source / array, target / array, *seen[array.name])
            continue
        if array.parts[0] == "time" and array.name in seen:
            first, last = seen[array.name]
        shift = seen[array.name][0] if array.parts[0] == "align" else 0
        _cut_rows(source / array, target / array, first, last, shift)
    for folder in [target, *(p for p in target.rglob("*") if p.is_dir())]:
        if not (folder / "zarr.json").exists():
            write_file(folder / "zarr.json", group_json())
    frames = {name: b - a for name, (a, b) in seen.items()}
    attributes = _attributes(own, _rows(target / "time/step"), frames, {**parent, "start": start, "stop": stop})
    write_file(target / "zarr.json", group_json({KEY: {**attributes, **_timing(target, seen)}}))
    sync_tree(target)


def _frames_seen(source: Path, camera: str, start: int, stop: int) -> tuple[int, int]:
    """Return the camera's frames (first, last + 1) that the steps saw; in format 1 each step has its own."""
    folder = source / "align" / camera
    if not folder.is_dir():
        return start, stop
    seen = _rows(folder)[start:stop]
    return int(seen.min()), int(seen.max()) + 1


def _cut_frames(source: Path, target: Path, first: int, last: int) -> None:
    found = read_json(source / "zarr.json")
    (shard,) = source.glob("c.*")
    target.mkdir(parents=True)
    writer = ShardWriter(target / shard.name)
    places = [
        writer.append(frame)
        for frame in ShardReader(open_source(shard.parent), shard.name, found["shape"][0]).read(range(first, last))
    ]
    writer.finish(np.array(places, "<u8").tobytes())
    writer.close()
    _write_shape(target, found, last - first)


def _cut_rows(source: Path, target: Path, first: int, last: int, shift: int) -> None:
    found = read_json(source / "zarr.json")
    rows = _rows(source)[first:last]
    data = np.ascontiguousarray(rows - rows.dtype.type(shift) if shift else rows).tobytes()
    target.mkdir(parents=True)
    write_file(target / _block(source).name, data, crc32c(data))
    _write_shape(target, found, last - first)


def _write_shape(target: Path, found: dict[str, Any], rows: int) -> None:
    """Write an array's zarr.json with another number of rows, all in one block."""
    found["shape"][0] = found["chunk_grid"]["configuration"]["chunk_shape"][0] = rows
    write_file(target / "zarr.json", to_bytes(found))


def _rows(array: Path) -> np.ndarray:
    """Return all of a low-dimensional array."""
    found, data = read_json(array / "zarr.json"), _block(array).read_bytes()
    if crc32c(data[:-4]) != data[-4:]:
        raise DatasetError(f"{array} is damaged (CRC-32C)")
    return np.frombuffer(data[:-4], np.dtype(found["data_type"]).newbyteorder("<")).reshape(found["shape"])


def _block(array: Path) -> Path:
    blocks = list(array.glob("c.*"))
    if len(blocks) != 1:
        raise DatasetError(f"{array} has {len(blocks)} blocks; this version cuts arrays of one")
    return blocks[0]


def _is_array(file: Path) -> bool:
    return read_json(file).get("node_type") == "array"


def _attributes(
    own: Mapping[str, Any], stamps_ns: np.ndarray, frames: Mapping[str, int], parent: Mapping[str, Any]
) -> dict[str, Any]:
    changed = {**own, "length": len(stamps_ns), "uuid": uuid4().hex, "parent": dict(parent)}
    if "marks" in own:
        first, last = int(stamps_ns[0]), int(stamps_ns[-1])
        changed["marks"] = [mark for mark in own["marks"] if _within(mark, first, last)]
    if "frames" in own:
        changed["frames"] = dict(frames)
    return changed


def _within(mark: Any, first_ns: int, last_ns: int) -> bool:
    """Whether a mark lies in what is kept, be it in part; one without a time is of the whole episode."""
    if not isinstance(mark, Mapping) or not isinstance(mark.get("stamp_ns"), int):
        return True
    return bool(mark["stamp_ns"] <= last_ns and mark.get("until_ns", mark["stamp_ns"]) >= first_ns)


def _timing(target: Path, cameras: Mapping[str, Any]) -> dict[str, Any]:
    names = ["step", "action", *cameras]
    return {"timing": timing({name: periods(_rows(target / "time" / name)) for name in names})}
