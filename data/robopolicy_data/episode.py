"""One committed episode, read from its files; every block is verified, every array is the caller's own."""

import copy
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, UnknownCamera, UnknownName
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.blocks import read_array, read_block, require_like
from robopolicy_data.described import StreamTable, require_frames
from robopolicy_data.frames import FrameCodec
from robopolicy_data.layout import (
    DERIVED,
    EPISODES,
    MONITOR,
    align_path,
    camera_path,
    monitor_streams,
    shard_file,
    state_path,
    time_path,
)
from robopolicy_data.metadata import KEY, array_dict, json_in, meta_from_json, parse_json, read_bytes
from robopolicy_data.shard import ShardReader
from robopolicy_data.source import Source


class Episode:
    """A committed episode: T steps, and of each camera its own N frames.

    Args:
        source: the dataset's files.
        spec: the dataset's.
        number: of the episode.
        table: of the spec, if the caller has it already.
        attributes: of the episode, if a catalog holds them.

    Every method raises DatasetError, naming episode, stream and frame, if what it reads is missing or damaged.
    """

    def __init__(
        self,
        source: Source,
        spec: PolicySpec,
        number: int,
        *,
        table: StreamTable | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.number = number
        self._source, self._at = source, f"{EPISODES}/{number:06d}"
        self._spec = spec
        self._table = StreamTable(spec) if table is None else table
        self._shards: dict[str, tuple[FrameCodec, ShardReader]] = {}
        if attributes is not None:
            self.__dict__["_attributes"] = attributes  # in the place of the cached property

    @property
    def path(self) -> Path:
        """The episode's folder; DatasetError if the dataset is none but a zip or a URL."""
        if self._source.folder is None:
            raise DatasetError(f"{self._source.where} is no folder of this machine; copy or unzip it into one first")
        return self._source.folder / self._at

    @property
    def where(self) -> str:
        """Its dataset and number, for messages that may be of one dataset among many."""
        return f"{self._source.where}: episode {self.number}"

    @property
    def far(self) -> bool:
        """Whether it lies in a zip or behind a URL, not in a folder of this machine."""
        return self._source.folder is None

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        own = (json_in(self._source, f"{self._at}/zarr.json").get("attributes") or {}).get(KEY)
        if not isinstance(own, dict) or not isinstance(own.get("length"), int) or own["length"] < 1:
            where = f"{self._source.where}/{self._at}/zarr.json"
            raise DatasetError(f"episode {self.number}: {where} holds no attributes.{KEY}.length")
        return own

    @property
    def attributes(self) -> dict[str, Any]:
        """A copy of all that is said of the episode: length, uuid, recorded, frames, timing, drops, marks, meta."""
        return copy.deepcopy(self._attributes)

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
        """Return (T,) int64, robot clock: ``"step"`` (observation), ``"action"`` (due), a camera (the frame seen)."""
        if stream in self._spec.cameras:
            seen: np.ndarray = self.frame_stamps_ns(stream)[self.frame_rows(stream)]
            return seen
        if time_path(stream) not in self._table.streams:
            raise UnknownName("stream", stream, ("step", "action", *self._spec.cameras))
        return self._read(time_path(stream))

    def verdicts(self) -> dict[str, np.ndarray] | None:
        """Return the monitor's statistic, threshold, p_value, latency_s (T,) float64 and state (T,) uint8, or None.

        Earlier versions recorded no latency: there is none in what they wrote.
        """
        if not self._source.exists(f"{self._at}/{MONITOR}/zarr.json"):
            return None
        paths = [s.path for s in monitor_streams()]
        if not self._source.exists(f"{self._at}/{MONITOR}/latency_s/zarr.json"):
            paths.remove(f"{MONITOR}/latency_s")
        return {path.rpartition("/")[2]: self._read(path) for path in paths}

    def scores(self) -> dict[str, np.ndarray]:
        """Return each of the monitor's scores by its name, (T,) float64, NaN where a step has no verdict."""
        at = f"{self._at}/{MONITOR}/scores"
        if not self._source.exists(f"{at}/zarr.json"):
            return {}
        try:
            names = (json_in(self._source, f"{at}/zarr.json").get("attributes") or {}).get("names") or []
            values = read_array(self._source, at)
            if values.shape != (self.length, len(names)):
                raise DatasetError(f"shape {values.shape} for {self.length} steps and {len(names)} names")
        except DatasetError as error:
            raise DatasetError(f"episode {self.number}, {MONITOR}/scores: {error}") from error
        return {str(name): values[:, k].copy() for k, name in enumerate(names)}

    def derived_names(self) -> list[str]:
        """Return what tools have added, e.g. ``["monitor@1", "quality@1"]``."""
        return self._below(DERIVED)

    def derived(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays that a tool has added under ``name``, None if it has not."""
        path = f"{DERIVED}/{name}"
        if not self._source.exists(f"{self._at}/{path}/zarr.json"):
            return None
        try:
            return {part: read_array(self._source, f"{self._at}/{path}/{part}") for part in self._below(path)}
        except DatasetError as error:
            raise DatasetError(f"episode {self.number}, {path}: {error}") from error

    def derived_attributes(self, name: str) -> dict[str, Any]:
        """Return what a tool said beside its arrays; empty if it said nothing."""
        file = f"{self._at}/{DERIVED}/{name}/zarr.json"
        return dict(json_in(self._source, file).get("attributes") or {}) if self._source.exists(file) else {}

    def frame_count(self, camera: str) -> int:
        """Return how many frames N the camera has; UnknownCamera lists the valid ones."""
        self._require_camera(camera)
        if self._old:
            return self.length
        try:
            return int(self._attributes["frames"][camera])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"episode {self.number}: attributes.{KEY}.frames has no {camera!r}") from error

    def frame_rows(self, camera: str) -> np.ndarray:
        """Return which frame each step saw, (T,) int32."""
        self._require_camera(camera)
        if self._old:
            return np.arange(self.length, dtype=np.int32)
        rows = self._read(align_path(camera))
        if rows.min() < 0 or rows.max() >= self.frame_count(camera):
            raise DatasetError(
                f"episode {self.number}, {align_path(camera)}: frames {rows.min()} to {rows.max()}, "
                f"but the camera has {self.frame_count(camera)}"
            )
        return rows

    def frame_stamps_ns(self, camera: str) -> np.ndarray:
        """Return when each frame was taken, (N,) int64, robot clock."""
        self._require_camera(camera)
        return self._read(time_path(camera))

    def images(self, camera: str, rows: Any = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return what steps saw, (M, H, W, 3) uint8 RGB; of a depth camera (M, H, W) uint16 mm.

        Args:
            camera: UnknownCamera lists the valid ones.
            rows: which steps, as numpy indexes (integers, a slice); None is all of them.
            out: decoded into and returned, if given.
        """
        seen = self.frame_rows(camera)[slice(None) if rows is None else rows].reshape(-1)
        return self._decode(camera, seen, out)

    def frames(self, camera: str, rows: Any = None, *, out: np.ndarray | None = None) -> np.ndarray:
        """Return frames by their own numbers, as `images` does."""
        chosen = np.arange(self.frame_count(camera))[slice(None) if rows is None else rows].reshape(-1)
        return self._decode(camera, chosen, out)

    def shard(self, camera: str) -> tuple[ShardReader, FrameCodec]:
        """Return where the camera's encoded frames lie, and what decodes one, for who reads many at a time."""
        return self._shard(camera)

    def frame_sizes(self, camera: str) -> np.ndarray:
        """Return the bytes each frame takes on the disk, (N,) int64."""
        return self._shard(camera)[0].index[:, 1].astype(np.int64)

    def frame_bytes(self, camera: str, rows: Any = None) -> Iterator[bytes]:
        """Yield encoded frames by their own numbers, checksums verified; None is all, in order."""
        chosen = np.arange(self.frame_count(camera))[slice(None) if rows is None else rows].reshape(-1)
        return self._shard(camera)[0].read(chosen.tolist())

    @property
    def _old(self) -> bool:
        """Whether it is of format 1: one frame a step."""
        return str(self._attributes.get("version", "1.0")).startswith("1.")

    def _require_camera(self, camera: str) -> None:
        if camera not in self._spec.cameras:
            raise UnknownCamera("camera", camera, self._spec.cameras)

    def _decode(self, camera: str, frames: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """Decode frames, each run of the same one once."""
        shard, codec = self._shard(camera)
        size = self._spec.cameras[camera]
        if out is None:
            out = np.empty((len(frames), *size.shape), size.dtype)
        fresh = np.diff(frames, prepend=-1) != 0
        data = shard.read(frames[fresh].tolist())
        for i, frame in enumerate(frames.tolist()):
            try:
                if fresh[i]:
                    codec.decode(next(data), out[i])
                else:
                    out[i] = out[i - 1]
            except (ValueError, DatasetError) as error:
                where = f"episode {self.number}, {camera_path(self._spec, camera)}, frame {frame}"
                raise DatasetError(f"{where}: {error}") from error
        return out

    def _shard(self, camera: str) -> tuple[ShardReader, FrameCodec]:
        self._require_camera(camera)
        if camera not in self._shards:
            path, size, count = camera_path(self._spec, camera), self._spec.cameras[camera], self.frame_count(camera)
            try:
                codec = self._described(path, count, lambda found: require_frames(found, size, count))
                self._shards[camera] = codec, ShardReader(self._source, f"{self._at}/{path}/{shard_file(size)}", count)
            except DatasetError as error:
                raise DatasetError(f"episode {self.number}, {path}: {error}") from error
        codec, shard = self._shards[camera]
        return shard, codec

    def _read(self, path: str) -> np.ndarray:
        stream = self._table.streams[path]
        rows = self.length if stream.camera is None else self.frame_count(stream.camera)
        try:
            self._described(path, rows, lambda found: require_like(found, array_dict(stream, rows)))
            return read_block(self._source, f"{self._at}/{path}/{stream.chunk}", stream.shape(rows), stream.dtype)
        except DatasetError as error:
            raise DatasetError(f"episode {self.number}, {path}: {error}") from error

    def _described(self, path: str, rows: int, judge: Callable[[dict[str, Any]], Any]) -> Any:
        """Return what ``judge`` says of an array's zarr.json; one that equals the last judged is not parsed again."""
        file = f"{self._at}/{path}/zarr.json"
        raw, judged = read_bytes(self._source, file), self._table.judged.get((path, rows))
        if judged is None or judged[0] != raw:
            judged = self._table.judged[path, rows] = raw, judge(parse_json(raw, self._source, file))
        return judged[1]

    def _below(self, path: str) -> list[str]:
        """Return the names below a folder of the episode that are folders themselves."""
        if not self._source.exists(f"{self._at}/{path}/zarr.json"):
            return []
        names = (name for name in self._source.list(f"{self._at}/{path}") if name[:1] not in ("", "."))
        return sorted(name for name in names if self._source.exists(f"{self._at}/{path}/{name}/zarr.json"))
