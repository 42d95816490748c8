"""Arrays in one block, numbers and CRC-32C: read back, and compared with what their zarr.json says."""

from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.files import crc32c, write_file
from robopolicy_data.metadata import block_dict, json_in, to_bytes
from robopolicy_data.source import Source

_DTYPES = ("bool", "float32", "float64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def read_block(source: Source, path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return the numbers of one block in a fresh array.

    Raises:
        DatasetError: if the file is missing, of another size, or damaged.
    """
    name = path.rpartition("/")[2]
    try:
        data = source.read(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{name} is missing") from error
    if len(data) != int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize + 4:
        raise DatasetError(f"{name} has {len(data)} bytes, which is not {shape} {dtype} and a checksum")
    if crc32c(data[:-4]) != data[-4:]:
        raise DatasetError(f"{name} is damaged (CRC-32C)")
    return np.frombuffer(data[:-4], np.dtype(dtype).newbyteorder("<")).reshape(shape).astype(dtype)


def require_like(found: dict[str, Any], want: dict[str, Any]) -> None:
    """Compare all of an array's zarr.json that says where its numbers lie; DatasetError naming what differs."""
    for key in ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs"):
        if found.get(key) != want[key]:
            raise DatasetError(f"zarr.json: {key} is {found.get(key)}, want {want[key]}")


def read_array(source: Source, path: str) -> np.ndarray:
    """Return an array that `write_array` made; DatasetError if it is not one or is damaged."""
    found = json_in(source, f"{path}/zarr.json")
    shape, dtype, name = found.get("shape"), found.get("data_type"), path.rpartition("/")[2]
    if not isinstance(shape, list) or dtype not in _DTYPES:
        raise DatasetError(f"{name}: zarr.json: shape {shape} of {dtype}")
    require_like(found, block_dict(tuple(shape), dtype, {}))
    if 0 in shape:
        return np.empty(shape, dtype)
    try:
        return read_block(source, f"{path}/{_chunk(len(shape))}", tuple(shape), dtype)
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}") from error


def write_array(folder: Path, values: np.ndarray, attributes: dict[str, Any] | None = None) -> None:
    """Write a whole array into a new folder, without a flush to the disk.

    Raises:
        DatasetError: if its dtype is not bool, integer, float32 or float64.
    """
    name = values.dtype.name
    if name not in _DTYPES:
        raise DatasetError(f"{folder.name}: {name} cannot be stored; want one of {', '.join(_DTYPES)}")
    folder.mkdir(parents=True)
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    if values.size:
        write_file(folder / _chunk(values.ndim), data, crc32c(data))
    write_file(folder / "zarr.json", to_bytes(block_dict(values.shape, name, attributes or {})))


def _chunk(dimensions: int) -> str:
    return ".".join(["c", *("0" for _ in range(dimensions))])
