"""The zarr.json files: groups, arrays, the dataset's and the episode's attributes."""

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import robopolicy
from robopolicy.errors import ContractError, DatasetError, NewerFormat
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.frames import FrameCodec
from robopolicy_data.layout import Stream
from robopolicy_data.source import URL, FolderSource, Source

FORMAT = "robopolicy-dataset"
VERSION = "2.0"  # major.minor: a reader takes this major and those before it, and ignores keys it does not know
KEY = "robopolicy"
_CRC: dict[str, Any] = {"name": "crc32c"}
_LITTLE: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}


def software() -> str:
    """Return this software and its version."""
    return f"robopolicy {robopolicy.__version__}"


def dataset_attributes(spec: PolicySpec, importing: str | None = None) -> dict[str, Any]:
    """Return the attributes of a new dataset's root group; ``importing`` names what it is being filled from."""
    own = {"format": FORMAT, "version": VERSION, "spec": spec.to_json(), "created": now(), "software": software()}
    return {KEY: own if importing is None else {**own, "importing": importing}}


def episode_attributes(meta: EpisodeMeta, length: int, uuid: str, recorded: str, **more: Any) -> dict[str, Any]:
    """Return the attributes of an episode's group; ``more`` is frames, timing, drops, marks, parent, recovered."""
    described = {f.name: getattr(meta, f.name) for f in fields(meta)}
    return {KEY: {"version": VERSION, "length": length, "uuid": uuid, "recorded": recorded, **described, **more}}


def meta_from_json(data: Mapping[str, Any]) -> EpisodeMeta:
    """Rebuild the meta of an episode; keys of a later minor version are ignored."""
    known = {f.name for f in fields(EpisodeMeta)}
    return EpisodeMeta(**{k: v for k, v in data.items() if k in known})


def group_json(attributes: Mapping[str, Any] | None = None) -> bytes:
    """Return a group's zarr.json.

    Raises:
        ContractError: if an attribute is neither JSON nor an array.
    """
    return to_bytes({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes or {})}, indent=1)


def array_dict(stream: Stream, rows: int) -> dict[str, Any]:
    """Return the zarr.json of a low-dimensional array: one block, little-endian, CRC-32C at its end."""
    dimensions = ["time" if stream.camera is None else "frame", *([] if stream.dim is None else ["element"])]
    return block_dict(stream.shape(rows), stream.dtype, dict(stream.attributes), dimensions)


def block_dict(
    shape: tuple[int, ...], dtype: str, attributes: dict[str, Any], dimensions: list[str] | None = None
) -> dict[str, Any]:
    """Return the zarr.json of an array in one block, little-endian, CRC-32C at its end."""
    codecs = [{"name": "bytes"} if np.dtype(dtype).itemsize == 1 else _LITTLE, _CRC]
    return _array(list(shape), dtype, codecs, attributes, dimensions)


def frames_dict(codec: FrameCodec, camera: CameraSpec, frames: int) -> dict[str, Any]:
    """Return the zarr.json of one camera (N, H, W, 3) or (N, H, W): one shard, one frame a chunk, index at the end."""
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, *camera.shape],
            "codecs": [*codec.to_json(), _CRC],
            "index_codecs": [_LITTLE, _CRC],
            "index_location": "end",
        },
    }
    dimensions = ["frame", "row", "column", "channel"][: 1 + len(camera.shape)]
    attributes = {"colour": "RGB"} if camera.kind == "colour" else {"units": ["mm"], "meaning": "0 where unknown"}
    return _array([frames, *camera.shape], camera.dtype, [sharding], attributes, dimensions)


def read_json(path: Path) -> dict[str, Any]:
    """Read one zarr.json.

    Raises:
        DatasetError: if it is missing or not a JSON object.
    """
    return json_in(FolderSource(path.parent), path.name)


def json_in(source: Source, path: str) -> dict[str, Any]:
    """Read one zarr.json of a source; raises as `read_json`."""
    return parse_json(read_bytes(source, path), source, path)


def read_bytes(source: Source, path: str) -> bytes:
    """Return a whole file; DatasetError if it is missing."""
    try:
        return source.read(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{source.where}/{path} is missing") from error


def parse_json(raw: bytes, source: Source, path: str) -> dict[str, Any]:
    """Return the JSON object in ``raw``, which came from ``path``; DatasetError if it is none."""
    try:
        data = json.loads(raw.decode())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{source.where}/{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise DatasetError(f"{source.where}/{path} is not a JSON object")
    return data


def read_root(place: Path | Source) -> dict[str, Any]:
    """Return the dataset's own attributes.

    Raises:
        DatasetError: if the folder is not a dataset, naming what was expected.
        NewerFormat: if its major version is beyond this reader's, naming both.
    """
    source = FolderSource(place) if isinstance(place, Path) else place
    expected = f"expected a folder with a zarr.json whose attributes.{KEY}.format is {FORMAT!r}"
    try:
        raw = source.read("zarr.json")
    except FileNotFoundError as error:
        old = source.exists(".zgroup")
        hint = "; it is a zarr v2 store: try robopolicy data import diffusion-policy" if old else ""
        raise DatasetError(f"{source.where} is not a robopolicy dataset: {expected}{hint}") from error
    own = (parse_json(raw, source, "zarr.json").get("attributes") or {}).get(KEY)
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        raise DatasetError(f"{source.where} is not a robopolicy dataset: {expected}")
    require_readable(str(own.get("version")), source.where)
    return own


def writable_folder(where: Path | str) -> Path:
    """Return the folder that ``where`` names, for writing; it need not exist.

    Raises:
        DatasetError: if it is a URL or a file, which are only read.
    """
    if URL.fullmatch(str(where)):
        raise DatasetError(f"{where} is an address, which is only read; record and edit in a folder, then upload it")
    if Path(where).is_file():
        raise DatasetError(f"{where} is a file, which is only read; a dataset to record into or to edit is a folder")
    return Path(where)


def unfinished_import(attributes: Mapping[str, Any], path: Path | str) -> str | None:
    """Return one line on an import that did not come to its end, None if there is none."""
    if "importing" not in attributes:
        return None
    return (
        f"{path}: the import of {attributes['importing']} was interrupted (or still runs), episodes are missing; "
        "delete it and import again"
    )


def require_imported(attributes: Mapping[str, Any], path: Path | str) -> None:
    """Refuse half an import, which looks like a smaller dataset.

    Raises:
        DatasetError: saying what to do.
    """
    if line := unfinished_import(attributes, path):
        raise DatasetError(line)


def require_readable(version: str, path: Path | str) -> None:
    """Compare the major versions."""
    major, dot, minor = version.partition(".")
    if not (dot and major.isdigit() and minor.isdigit()):
        raise DatasetError(f"{path}: format version is {version!r}; want major.minor such as {VERSION!r}")
    if int(major) > int(VERSION.partition(".")[0]):
        raise NewerFormat(
            f"{path} has format {version}, {software()} reads up to {VERSION}; install a newer robopolicy"
        )


def to_bytes(data: Any, *, indent: int | None = None) -> bytes:
    """Encode as JSON; arrays and numpy numbers become lists and numbers.

    Raises:
        ContractError: on anything else, or a number that is not finite.
    """
    try:
        return json.dumps(data, indent=indent, default=_plain, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ContractError(f"cannot be stored as JSON: {error}") from error


def now() -> str:
    """Return the wall time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _array(
    shape: list[int],
    dtype: str,
    codecs: list[dict[str, Any]],
    attributes: dict[str, Any],
    dimensions: list[str] | None = None,
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(n, 1) for n in shape]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": 0,
        "codecs": codecs,
        **({} if dimensions is None else {"dimension_names": dimensions}),
        "attributes": attributes,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
