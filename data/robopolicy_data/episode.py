"""One committed episode, read from plain files; every block is verified, every array is the caller's own."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, UnknownCamera, UnknownName
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.files import crc32c
from robopolicy_data.frames import FrameCodec, frame_codec
from robopolicy_data.layout import (
    EPISODES,
    MONITOR,
    Stream,
    camera_path,
    monitor_streams,
    state_path,
    streams,
    time_path,
)
from robopolicy_data.metadata import KEY, array_dict, images_dict, meta_from_json, read_json
from robopolicy_data.shard import SHARD_FILE, ShardReader


class Episode:
    """A committed episode.

    Args:
        dataset: the dataset's folder.
        spec: the dataset's.
        number: of the episode.

    Every method raises DatasetError, naming episode, stream and frame, if what it reads is missing or damaged.
    """

    def __init__(self, dataset: Path, spec: PolicySpec, number: int) -> None:
        self.number = number
        self.path = dataset / EPISODES / f"{number:06d}"
        self._spec = spec
        self._streams = {s.path: s for s in (*streams(spec), *monitor_streams())}
        self._shards: dict[str, tuple[FrameCodec, ShardReader]] = {}

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        own = (read_json(self.path / "zarr.json").get("attributes") or {}).get(KEY)
        if not isinstance(own, dict) or not isinstance(own.get("length"), int) or own["length"] < 1:
            raise DatasetError(f"episode {self.number}: {self.path / 'zarr.json'} holds no attributes.{KEY}.length")
        return own

    @property
    def length(self) -> int:
        """Steps T."""
        return int(self._attributes["length"])

    @cached_property
    def meta(self) -> EpisodeMeta:
        """What is true of the whole episode."""
        try:
            return meta_from_json(self._attributes)
        except TypeError as error:
            raise DatasetError(f"episode {self.number}: {error}") from error

    def state(self, name: str) -> np.ndarray:
        """Return (T, D) float32 in the spec's units; UnknownName lists the valid ones."""
        if name not in self._spec.state:
            raise UnknownName("state", name, self._spec.state)
        return self._read(state_path(name))

    def action(self) -> np.ndarray:
        """Return the commands sent, (T, A) float32 in the spec's units."""
        return self._read("action/command")

    def sources(self) -> np.ndarray:
        """Return who commanded each step, (T,) uint8: an index into `layout.SOURCES`."""
        return self._read("action/source")

    def stamps_ns(self, stream: str) -> np.ndarray:
        """Return (T,) int64: ``"step"`` (observation), ``"action"`` (due) or a camera (capture), robot clock."""
        if time_path(stream) not in self._streams:
            raise UnknownName("stream", stream, ("step", "action", *self._spec.cameras))
        return self._read(time_path(stream))

    def verdicts(self) -> dict[str, np.ndarray] | None:
        """Return the monitor's statistic, threshold, p_value (T,) float64 and state (T,) uint8, or None."""
        if not (self.path / MONITOR).is_dir():
            return None
        return {s.path.rpartition("/")[2]: self._read(s.path) for s in monitor_streams()}

    def images(self, camera: str, rows: Any = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return (N, H, W, 3) uint8 RGB.

        Args:
            camera: UnknownCamera lists the valid ones.
            rows: which frames, as numpy indexes (integers, a slice); None is all of them.
            out: decoded into and returned, if given.
        """
        shard, codec = self._shard(camera)
        chosen = np.arange(self.length)[slice(None) if rows is None else rows].reshape(-1)
        size = self._spec.cameras[camera]
        if out is None:
            out = np.empty((len(chosen), size.height, size.width, 3), np.uint8)
        frames = shard.read(chosen.tolist())
        for place, row in zip(out, chosen.tolist(), strict=True):
            try:
                codec.decode(next(frames), place)
            except (ValueError, DatasetError) as error:
                raise DatasetError(f"episode {self.number}, {camera_path(camera)}, frame {row}: {error}") from error
        return out

    def frame_sizes(self, camera: str) -> np.ndarray:
        """Return the bytes each frame takes on the disk, (T,) int64."""
        return self._shard(camera)[0].index[:, 1].astype(np.int64)

    def frame_bytes(self, camera: str) -> Iterator[bytes]:
        """Yield the encoded frames in order, checksums verified."""
        return self._shard(camera)[0].read(range(self.length))

    def _shard(self, camera: str) -> tuple[ShardReader, FrameCodec]:
        if camera not in self._spec.cameras:
            raise UnknownCamera("camera", camera, self._spec.cameras)
        if camera not in self._shards:
            folder, size = self.path / camera_path(camera), self._spec.cameras[camera]
            try:
                found = read_json(folder / "zarr.json")
                codec = frame_codec(_inner_codecs(found))
                shape = (self.length, size.height, size.width, 3)
                _require_like(found, images_dict(codec, shape))
                self._shards[camera] = codec, ShardReader(folder / SHARD_FILE, self.length)
            except DatasetError as error:
                raise DatasetError(f"episode {self.number}, {camera_path(camera)}: {error}") from error
        codec, shard = self._shards[camera]
        return shard, codec

    def _read(self, path: str) -> np.ndarray:
        stream = self._streams[path]
        try:
            _require_like(read_json(self.path / path / "zarr.json"), array_dict(stream, self.length))
            return _read_block(self.path / path / stream.chunk, stream, self.length)
        except DatasetError as error:
            raise DatasetError(f"episode {self.number}, {path}: {error}") from error


def _read_block(file: Path, stream: Stream, length: int) -> np.ndarray:
    shape, dtype = stream.shape(length), np.dtype(stream.dtype)
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(f"{file.name} is missing") from error
    if len(data) != int(np.prod(shape)) * dtype.itemsize + 4:
        raise DatasetError(f"{file.name} has {len(data)} bytes, which is not {shape} {dtype} and a checksum")
    if crc32c(data[:-4]) != data[-4:]:
        raise DatasetError(f"{file.name} is damaged (CRC-32C)")
    return np.frombuffer(data[:-4], dtype.newbyteorder("<")).reshape(shape).astype(dtype)


def _inner_codecs(found: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        codecs = found["codecs"][0]["configuration"]["codecs"]
        if codecs[-1]["name"] == "crc32c":
            return list(codecs[:-1])
    except (KeyError, IndexError, TypeError):
        pass
    raise DatasetError("zarr.json describes no shard of checksummed frames")


def _require_like(found: dict[str, Any], want: dict[str, Any]) -> None:
    """Compare all of an array's zarr.json that says where its numbers lie."""
    for key in ("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs"):
        if found.get(key) != want[key]:
            raise DatasetError(f"zarr.json: {key} is {found.get(key)}, want {want[key]}")
