"""A camera's shard: encoded frames one after the other, then the index, exactly as zarr's sharding codec lays it out.

frame 0, CRC-32C | frame 1, CRC-32C | ... | index: (offset, bytes) uint64 a frame | CRC-32C of the index; little-endian
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.files import AppendFile, crc32c
from robopolicy_data.source import Source


class ShardWriter:
    """Grows one shard frame by frame; until ``finish`` it is no shard."""

    def __init__(self, path: Path, *, resume: int | None = None) -> None:
        self.file = AppendFile(path, resume=resume)

    def append(self, frame: bytes) -> tuple[int, int]:
        """Append an encoded frame; return its offset and bytes, checksum included."""
        return self.file.append(frame, crc32c(frame)), len(frame) + 4

    def finish(self, index: bytes) -> None:
        """Append the index: (N, 2) little-endian uint64 of offset and bytes."""
        self.file.append(index, crc32c(index))

    def close(self) -> None:
        """Close; idempotent."""
        self.file.close()


class ShardReader:
    """Reads frames out of a finished shard, each verified.

    Args:
        source: the dataset's files.
        path: of the shard in it.
        length: frames it must hold.

    Attributes:
        index: (N, 2) uint64, where each frame begins and its bytes, checksum included.

    Raises:
        DatasetError: if the file is missing, or its index is damaged or points outside it.
    """

    def __init__(self, source: Source, path: str, length: int) -> None:
        self._source, self._path = source, path
        size = 16 * length + 4
        try:
            tail = source.read_range(path, -size, size)
            if len(tail) < size:
                raise DatasetError(f"{path} is too short for an index of {length} frames")
            if crc32c(tail[:-4]) != tail[-4:]:
                raise DatasetError(f"{path}: the index of its {length} frames is damaged (CRC-32C)")
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing") from error
        self.index = np.frombuffer(tail[:-4], "<u8").reshape(length, 2)
        if np.any(self.index[:, 1] < 4):
            raise DatasetError(f"{path}: the index points outside the file")

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        """Yield the encoded frames, without their checksums.

        Raises:
            DatasetError: naming the frame whose checksum does not fit.
        """
        for row in rows:
            offset, size = (int(x) for x in self.index[row])
            data = self.fetch(offset, size)
            if crc32c(data[:-4]) != data[-4:]:
                raise DatasetError(f"frame {row} is damaged (CRC-32C)")
            yield data[:-4]

    def fetch(self, offset: int, size: int) -> bytes:
        """Return a stretch of the file as it is, nothing verified.

        Raises:
            DatasetError: if the file ends before.
        """
        try:
            data = self._source.read_range(self._path, offset, size)
        except FileNotFoundError as error:
            raise DatasetError(f"{self._path} is missing") from error
        if len(data) != size:
            raise DatasetError(f"{self._path} ends after {len(data)} of {size} bytes from {offset}")
        return data

    def whole(self) -> bytes:
        """Return the frames, one after the other, as they are in the file; nothing verified."""
        return self.fetch(0, int(self.index.sum(axis=1).max(initial=0)))
