"""Somebody's zarr v2 store, opened read-only by stock zarr: a folder or a zip; damage is one clear line."""

import itertools
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, MissingExtra

_EXTRA_CODECS = "imagecodecs_"  # numcodecs ids that the package imagecodecs brings


class Zarr2Store:
    """A zarr v2 group.

    Args:
        path: a folder with a ``.zgroup``, or a zip of one.
        expected: what was looked for, for messages.
        allow_missing: take chunks that are not there for zeros, as zarr does.

    Raises:
        DatasetError: if there is no such group, or it is damaged.
        MissingExtra: if an array is coded by imagecodecs, which is not installed.
    """

    def __init__(self, path: Path | str, expected: str, *, allow_missing: bool = False) -> None:
        import zarr

        self.path = Path(path)
        self.expected = expected
        self._allow_missing = allow_missing
        self._store: Any = None
        self._arrays: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            if not zipfile.is_zipfile(self.path):
                raise DatasetError(f"{self.path} is no zip, or a truncated one; {expected}")
            self._store = zarr.storage.ZipStore(self.path, mode="r")
        elif not (self.path / ".zgroup").is_file():
            raise DatasetError(f"{self.path}: no zarr v2 group; {expected}")
        try:
            self._group: Any = zarr.open_group(self._store or str(self.path), mode="r", zarr_format=2)
            self.names = self._names()
        except Exception as error:  # zarr has no one kind of error for a file that is no JSON, or half of one
            self.close()
            raise DatasetError(f"{self.path}: no readable zarr v2 group ({_short(error)}); {expected}") from error

    @property
    def attributes(self) -> dict[str, Any]:
        """The root's own."""
        return dict(self._group.attrs)

    def arrays(self, group: str) -> dict[str, Any]:
        """Return the zarr arrays right below a group, by name."""
        if group in self._arrays:
            return dict(self._arrays[group])
        _require_codecs(self, group)
        try:
            self._arrays[group] = dict(sorted(self._group[group].arrays())) if group in self._group else {}
            return dict(self._arrays[group])
        except Exception as error:
            raise DatasetError(f"{self.path}: {group} cannot be read ({_short(error)}); {self.expected}") from error

    def read(self, name: str, array: Any, start: int, stop: int) -> np.ndarray:
        """Return the rows ``start`` to ``stop`` of an array.

        Raises:
            DatasetError: naming the array and the rows, if a chunk is missing or damaged.
        """
        self._require_chunks(name, array, start, stop)
        try:
            return np.asarray(array[start:stop])
        except Exception as error:
            raise DatasetError(f"{self.path}: {name}, rows {start}..{stop}: damaged ({_short(error)})") from error

    def close(self) -> None:
        """Let a zip go."""
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> "Zarr2Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _names(self) -> frozenset[str]:
        """Every file of a zip; of a folder nothing, it is asked directly."""
        if self._store is None:
            return frozenset()
        with zipfile.ZipFile(self.path) as file:
            return frozenset(file.namelist())

    def _require_chunks(self, name: str, array: Any, start: int, stop: int) -> None:
        """Refuse a chunk that is not there: zarr would hand out its fill value without a word."""
        if self._allow_missing:
            return
        separator = getattr(array.metadata, "dimension_separator", ".")
        rows = array.chunks[0]
        first = range(start // rows, math.ceil(stop / rows))
        rest = [range(math.ceil(n / c)) for n, c in zip(array.shape[1:], array.chunks[1:], strict=True)]
        for place in itertools.product(first, *rest):
            key = f"{name}/{separator.join(map(str, place))}"
            if self._store is None and (self.path / key).is_file():
                _require_whole(self.path / key, array)
            elif key not in self.names:
                raise DatasetError(
                    f"{self.path}: chunk {key} is missing, the store is incomplete; if its writer leaves "
                    "chunks of zeros out, import with allow_missing (--allow-missing)"
                )


def _require_whole(file: Path, array: Any) -> None:
    """Refuse a truncated blosc chunk: the decoder believes the length in its header and reads past the end."""
    if getattr(array.metadata.compressor, "codec_id", "") != "blosc":
        return
    with open(file, "rb") as opened:
        head = opened.read(16)  # the last four: bytes of the chunk, little-endian
    size = file.stat().st_size
    if len(head) < 16 or int.from_bytes(head[12:], "little") != size:
        raise DatasetError(f"{file} is truncated: it has {size} bytes, which its header denies")


def require_lengths(where: object, arrays: Mapping[str, Any], total: int) -> None:
    """Refuse arrays that are not as long as the episodes; DatasetError naming the first."""
    for name, array in arrays.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise DatasetError(f"{where}: data/{name} has shape {array.shape}, but the episodes end at {total}")


def _require_codecs(store: Zarr2Store, group: str) -> None:
    """Register imagecodecs if an array needs it."""
    import json

    texts = []
    if store.names:
        with zipfile.ZipFile(store.path) as file:
            texts = [file.read(n) for n in store.names if n.startswith(f"{group}/") and n.endswith("/.zarray")]
    else:
        texts = [file.read_bytes() for file in sorted((store.path / group).glob("*/.zarray"))]
    for text in texts:
        try:
            codec = (json.loads(text).get("compressor") or {}).get("id", "")
        except (ValueError, AttributeError) as error:
            raise DatasetError(f"{store.path}: a .zarray below {group} is no JSON ({_short(error)})") from error
        if codec.startswith(_EXTRA_CODECS):
            try:
                from imagecodecs.numcodecs import register_codecs
            except ImportError:
                raise MissingExtra("imagecodecs", "convert") from None
            register_codecs(verbose=False)
            return


def _short(error: Exception) -> str:
    """The first line of what a library said."""
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
