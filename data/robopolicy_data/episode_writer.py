"""Writes one episode into a `.wip` folder and hands it over whole."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step
from robopolicy_data.files import crc32c, disk_full_as, sync_tree, write_file
from robopolicy_data.frames import FrameCodec
from robopolicy_data.journal import JournalWriter
from robopolicy_data.layout import (
    MONITOR,
    Stream,
    camera_path,
    groups,
    monitor_streams,
    streams,
)
from robopolicy_data.metadata import array_dict, episode_attributes, group_json, images_dict, now, software, to_bytes
from robopolicy_data.rows import picture, record, row_dtype
from robopolicy_data.shard import SHARD_FILE, ShardWriter


class EpisodeWriter:
    """An episode being recorded; made by `DatasetWriter.begin`.

    Args:
        wip: folder of unfinished episodes.
        spec: what every step must hold.
        meta: what is known beforehand.
        codec: of the camera frames.
        publish: moves the finished folder to its number and returns that.
        on_close: told when the episode is over, however it ended.
    """

    def __init__(
        self,
        wip: Path,
        spec: PolicySpec,
        meta: EpisodeMeta,
        codec: FrameCodec,
        publish: Callable[[Path], int],
        on_close: Callable[[], None],
    ) -> None:
        self._spec, self._codec, self._publish, self._on_close = spec, codec, publish, on_close
        self._meta = self._filled(meta)
        self._uuid, self._recorded, self._dtype = uuid4().hex, now(), row_dtype(spec)
        self._rows: list[bytes] = []
        self._folder = wip / self._uuid  # holds `journal` and `episode`, which is what will be renamed
        self._shards: dict[str, ShardWriter] = {}
        self._journal: JournalWriter | None = None
        self._open = True
        header = {**episode_attributes(self._meta, 0, self._uuid, self._recorded), "spec": spec.to_json()}
        try:
            with disk_full_as(lambda: f"cannot begin an episode in {wip.parent}; its committed episodes are untouched"):
                self._create(header)
        except BaseException:
            self._close_files()
            remove_folder(self._folder)
            raise

    def __len__(self) -> int:
        """Steps so far."""
        return len(self._rows)

    def add(self, step: Step) -> None:
        """Append one step: all of it, or nothing.

        Raises:
            ContractError: if a shape or dtype is not the spec's; the episode stays as it was.
            DiskFull: the steps before this one stay, and `commit` may be tried once there is room.
        """
        self._require_open()
        row = record(step, self._spec, self._dtype)
        frames = {name: self._codec.encode(picture(step, self._spec, name)) for name in self._shards}
        with disk_full_as(self._story):
            for name, frame in frames.items():
                row[camera_path(name)] = self._shards[name].append(frame)
            assert self._journal is not None
            self._journal.append(row)
        self._rows.append(row.tobytes())

    def commit(self, meta: EpisodeMeta | None = None) -> int:
        """Make the episode part of the dataset and return its number; until this returns it is invisible.

        Args:
            meta: what is known by now (success, score); None keeps what `begin` was given.

        Raises:
            ContractError: if there are no steps, or ``meta`` is not JSON; the episode stays open.
            DiskFull: the episode stays open; try again once there is room.
        """
        self._require_open()
        if not self._rows:
            raise ContractError("an episode of no steps cannot be committed; discard it")
        known = self._meta if meta is None else self._filled(meta)
        attributes = group_json(episode_attributes(known, len(self), self._uuid, self._recorded))
        episode = self._folder / "episode"
        with disk_full_as(self._story):
            self._write(episode, attributes)
            number = self._publish(episode)
        self._close()
        return number

    def discard(self) -> None:
        """Delete what was recorded; idempotent."""
        if self._open:
            self._close()

    def abandon(self) -> None:
        """Close without deleting: the next `DatasetWriter` puts it aside; idempotent."""
        if self._open:
            self._close(keep=True)

    def _filled(self, meta: EpisodeMeta) -> EpisodeMeta:
        return replace(meta, rate_hz=meta.rate_hz or self._spec.rate_hz, software=meta.software or software())

    def _create(self, header: dict[str, Any]) -> None:
        episode = self._folder / "episode"
        episode.mkdir(parents=True)
        for camera in self._spec.cameras:
            (episode / camera_path(camera)).mkdir(parents=True)
            self._shards[camera] = ShardWriter(episode / camera_path(camera) / SHARD_FILE)
        self._journal = JournalWriter(self._folder / "journal", header)

    def _write(self, episode: Path, attributes: bytes) -> None:
        """Finish the shards, write every other file of the episode, wait until all is on the disk."""
        table = np.frombuffer(b"".join(self._rows), self._dtype)  # (T,)
        for name, shard in self._shards.items():
            size = self._spec.cameras[name]
            shard.finish(table[camera_path(name)])
            shape = (len(table), size.height, size.width, 3)
            write_file(episode / camera_path(name) / "zarr.json", to_bytes(images_dict(self._codec, shape)))
        arrays = [*streams(self._spec), *(monitor_streams() if np.any(table[f"{MONITOR}/state"]) else ())]
        for stream in arrays:
            _write_array(episode / stream.path, stream, table[stream.path])
        for group in groups([*(s.path for s in arrays), *map(camera_path, self._shards)]):
            write_file(episode / group / "zarr.json", attributes if group == "" else group_json())
        sync_tree(episode)

    def _close(self, keep: bool = False) -> None:
        self._open = False
        self._close_files()
        if not keep:
            remove_folder(self._folder)
        self._on_close()

    def _close_files(self) -> None:
        for file in (self._journal, *self._shards.values()):
            if file is not None:
                file.close()

    def _require_open(self) -> None:
        if not self._open:
            raise ContractError("this episode is over; begin another")

    def _story(self) -> str:
        dataset, kept = self._folder.parent.parent, f"kept in {self._folder.parent.name}"
        return f"{dataset}: the episode stopped after {len(self)} steps ({kept}); the committed ones are untouched"


def remove_folder(folder: Path) -> None:
    """Delete a folder and all in it; what is already gone is fine."""
    shutil.rmtree(folder, ignore_errors=True)


def _write_array(folder: Path, stream: Stream, rows: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = np.ascontiguousarray(rows).tobytes()
    write_file(folder / stream.chunk, data, crc32c(data))
    write_file(folder / "zarr.json", to_bytes(array_dict(stream, len(rows))))
