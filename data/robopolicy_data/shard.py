"""A camera's shard: encoded frames one after the other, then the index, exactly as zarr's sharding codec lays it out.

frame 0, CRC-32C | frame 1, CRC-32C | ... | index: (offset, bytes) uint64 a frame | CRC-32C of the index; little-endian
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.files import AppendFile, crc32c


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
        path: the shard's file.
        length: frames it must hold.

    Raises:
        DatasetError: if the file is missing, or its index is damaged or points outside it.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._path = path
        size = 16 * length + 4
        try:
            with path.open("rb") as file:
                end = file.seek(0, os.SEEK_END) - size
                if end < 0:
                    raise DatasetError(f"{path} is too short for an index of {length} frames")
                file.seek(end)
                tail = file.read(size)
        except FileNotFoundError as error:
            raise DatasetError(f"{path} is missing") from error
        if crc32c(tail[:-4]) != tail[-4:]:
            raise DatasetError(f"{path}: the index of its {length} frames is damaged (CRC-32C)")
        self.index = np.frombuffer(tail[:-4], "<u8").reshape(length, 2)  # offset, bytes
        if np.any(self.index.sum(axis=1) > end) or np.any(self.index[:, 1] < 4):
            raise DatasetError(f"{path}: the index points outside the file")

    def read(self, rows: Iterable[int]) -> Iterator[bytes]:
        """Yield the encoded frames, without their checksums.

        Raises:
            DatasetError: naming the frame whose checksum does not fit.
        """
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for row in rows:
                offset, size = (int(x) for x in self.index[row])
                data = os.pread(fd, size, offset)
                if crc32c(data[:-4]) != data[-4:]:
                    raise DatasetError(f"frame {row} is damaged (CRC-32C)")
                yield data[:-4]
        finally:
            os.close(fd)
