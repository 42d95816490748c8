"""A writer of zarr version 2, into a folder or a stored zip: what stock zarr 2 and 3 open, one write a chunk."""

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

CHUNK_BYTES = 2e6  # what diffusion_policy aims at


class Zarr2Writer:
    """Writes groups and arrays below a root; everything is written once, in order.

    Args:
        path: a folder to make, or a file if ``zipped``.
        zipped: put everything into one zip, not compressed again.
    """

    def __init__(self, path: Path, *, zipped: bool = False) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) if zipped else None
        if not zipped:
            path.mkdir()

    def group(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Make a group; "" is the root."""
        prefix = f"{name}/" if name else ""
        self._put(f"{prefix}.zgroup", _json({"zarr_format": 2}))
        if attributes:
            self._put(f"{prefix}.zattrs", _json(attributes))

    def array(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
        blocks: Iterable[np.ndarray],
        *,
        chunk_rows: int | None = None,
        codec: Any = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an array chunked along its first axis only.

        Args:
            name: its path below the root.
            shape: (N, ...); N > 0.
            dtype: numpy's name of it.
            blocks: pieces of any length that make up the N rows.
            chunk_rows: rows of a chunk; None is about 2 MB, as diffusion_policy has it.
            codec: of numcodecs, or None for raw bytes.
            attributes: of the array.
        """
        kind = np.dtype(dtype).newbyteorder("<")
        rows = rows_of_chunk(shape, kind.itemsize) if chunk_rows is None else chunk_rows
        described = {
            "zarr_format": 2, "shape": list(shape), "chunks": [rows, *shape[1:]], "dtype": kind.str, "fill_value": 0,
            "order": "C", "filters": None, "compressor": None if codec is None else codec.get_config(),
        }  # fmt: skip
        self._put(f"{name}/.zarray", _json(described))
        if attributes:
            self._put(f"{name}/.zattrs", _json(attributes))
        tail = ".0" * (len(shape) - 1)
        count = 0
        for count, chunk in enumerate(_regrouped(blocks, rows, shape[1:], kind), 1):
            self._put(f"{name}/{count - 1}{tail}", chunk.tobytes() if codec is None else bytes(codec.encode(chunk)))
        assert count == math.ceil(shape[0] / rows), f"{name}: {count} chunks for {shape}"

    def close(self) -> None:
        """Finish; what was closed is whole."""
        if self._zip is not None:
            self._zip.close()

    def __enter__(self) -> "Zarr2Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, name: str, data: bytes) -> None:
        if self._zip is not None:
            self._zip.writestr(name, data)
            return
        file = self._path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def rows_of_chunk(shape: tuple[int, ...], itemsize: int) -> int:
    """Return how many rows make a chunk of about `CHUNK_BYTES`, at least one, at most all."""
    row_bytes = itemsize * math.prod(shape[1:])
    return max(1, min(shape[0], math.ceil(CHUNK_BYTES / row_bytes)))


def _regrouped(
    blocks: Iterable[np.ndarray], rows: int, inner: tuple[int, ...], dtype: np.dtype
) -> Iterable[np.ndarray]:
    """Whole chunks (rows, ...), the last one filled up with zeros."""
    chunk, held = np.zeros((rows, *inner), dtype), 0
    for block in blocks:
        taken = 0
        while taken < len(block):
            count = min(rows - held, len(block) - taken)
            chunk[held : held + count] = block[taken : taken + count]
            held, taken = held + count, taken + count
            if held == rows:
                yield chunk
                held = 0
    if held:
        chunk[held:] = 0
        yield chunk


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, indent=1, allow_nan=False).encode()
