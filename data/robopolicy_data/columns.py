"""Journal records cut into the episode's arrays, block by block, so that a long recording takes no memory."""

import os
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy_data.files import AppendFile
from robopolicy_data.layout import (
    MONITOR,
    Stream,
    align_path,
    camera_path,
    monitor_streams,
    scores_stream,
    streams,
    time_path,
)
from robopolicy_data.timing import Periods, timing


class Column:
    """The one file of an array: its rows, and once it is finished their CRC-32C."""

    def __init__(self, path: Path | str, row_bytes: int) -> None:
        self.file = AppendFile(path)
        self._row_bytes = row_bytes
        self._crcs = {0: 0}  # of the first so many bytes; two, so that an append taken back leaves the right one
        self._finished = False

    @property
    def rows(self) -> int:
        """How many there are."""
        return (self.file.size - 4 * self._finished) // self._row_bytes

    def append(self, rows: np.ndarray) -> None:
        """Append rows (N, ...): all, or none."""
        if self._finished:
            self.file.cut(self.file.size - 4)
            self._finished = False
        data, size = np.ascontiguousarray(rows).tobytes(), self.file.size
        crc = self._crcs[size]
        self._crcs = {size: crc, size + len(data): google_crc32c.extend(crc, data)}
        self.file.append(data)

    def finish(self) -> None:
        """Append the checksum; idempotent, and undone by another `append`."""
        if not self._finished:
            self.file.append(self._crcs[self.file.size].to_bytes(4, "little"))
            self._finished = True

    def read(self) -> bytes:
        """Return the rows."""
        return self.file.read()[: self.rows * self._row_bytes]


class Columns:
    """All arrays of numbers of an episode, and the index of each shard.

    Args:
        episode: the episode's folder.
        index: where the growing indexes lie; no part of the episode.
        spec: of the dataset.

    Attributes:
        rows: steps cut so far.
        frames: of each camera, likewise.
        scores: names of the monitor's, once they are known.
    """

    def __init__(self, episode: Path, index: Path, spec: PolicySpec) -> None:
        self.rows, self.scores = 0, ()
        self.frames = dict.fromkeys(spec.cameras, 0)
        self._episode, self._index, self._spec = episode, index, spec
        self._columns: dict[str, Column] = {}
        self._indexes: dict[str, Column] = {}
        self._streams, self._judged = list(streams(spec)), False
        self._scored = False
        self._periods = {name: Periods() for name in ("step", "action", *spec.cameras)}

    def create(self) -> None:
        """Make the files, so that they are there, and on the disk, before they are needed; then `close` is owed."""
        for stream in self._streams:
            self._make(stream)
        self._index.mkdir(parents=True, exist_ok=True)
        for name in self._spec.cameras:
            self._indexes[name] = Column(self._index / name, 16)

    def add(self, block: np.ndarray) -> None:
        """Append records (N,) of `rows.row_dtype`; after a failure add the same ones again, and what follows them."""
        fresh = {
            name: np.flatnonzero(np.diff(block[align_path(name)], prepend=np.int32(count - 1)))
            for name, count in self.frames.items()
        }
        if not self._judged and np.any(block[f"{MONITOR}/state"]):
            for stream in monitor_streams():
                self._make(stream)
            self._streams += monitor_streams()
            self._judged = True
        if self.scores and not self._scored:
            self._make(scores_stream(self.scores))
            self._streams.append(scores_stream(self.scores))
            self._scored = True
        for stream in self._streams:
            if stream.camera is None:
                rows = block[stream.path]
                self._extend(stream, self.rows, rows if stream.dim is None else rows[:, : stream.dim])
            else:
                self._extend(stream, self.frames[stream.camera], block[stream.path][fresh[stream.camera]])
        for name, rows in fresh.items():
            places = block[camera_path(self._spec, name)][rows]
            _extend(self._indexes[name], self.frames[name], places)
        self.rows += len(block)
        for name, rows in fresh.items():
            self.frames[name] += len(rows)
        for name, periods in self._periods.items():
            stamps = block[time_path(name)]
            periods.add(stamps[fresh[name]] if name in fresh else stamps)

    def finish(self) -> list[tuple[Stream, int]]:
        """Write each array's checksum; return the arrays and how many rows each has."""
        for stream in self._streams:
            self._columns[stream.path].finish()
        return [(one, self.rows if one.camera is None else self.frames[one.camera]) for one in self._streams]

    def index(self, camera: str) -> bytes:
        """Return the index of a camera's shard: (N, 2) little-endian uint64 of offset and bytes."""
        return self._indexes[camera].read()

    def timing(self) -> dict[str, dict[str, float]]:
        """Return the achieved rate and the jitter of ``step``, ``action`` and each camera; at once, however long."""
        return timing(self._periods)

    def files(self) -> Iterator[AppendFile]:
        """Yield the files of the arrays; those of the indexes need no flush, since they can be had from the journal."""
        return (column.file for column in self._columns.values())

    def close(self) -> None:
        """Close the files; idempotent."""
        for column in (*self._columns.values(), *self._indexes.values()):
            column.file.close()

    def _make(self, stream: Stream) -> None:
        if stream.path not in self._columns:  # a failed attempt may have come so far
            folder, row_bytes = f"{self._episode}/{stream.path}", np.dtype(stream.dtype).itemsize * (stream.dim or 1)
            os.makedirs(folder, exist_ok=True)
            self._columns[stream.path] = Column(f"{folder}/{stream.chunk}", row_bytes)

    def _extend(self, stream: Stream, done: int, rows: np.ndarray) -> None:
        column = self._columns[stream.path]
        if column.rows < done:  # nobody had judged so far
            empty = np.nan if stream.dtype == "float64" else 0
            column.append(np.full(stream.shape(done - column.rows), empty, stream.dtype))
        _extend(column, done, rows)


def _extend(column: Column, done: int, rows: np.ndarray) -> None:
    """Append what is not there yet of ``rows``, the first of which is row ``done`` of the column."""
    column.append(rows[column.rows - done :])
