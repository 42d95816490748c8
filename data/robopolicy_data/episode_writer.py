"""Writes one episode into a `.wip` folder and hands it over whole."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step
from robopolicy_data.camera_writer import CameraWriter
from robopolicy_data.columns import Columns
from robopolicy_data.files import AppendFile, disk_full_as, replace_durable
from robopolicy_data.frames import Coding
from robopolicy_data.journal import SCORES, JournalWriter, journal_header
from robopolicy_data.layout import camera_path, shard_file
from robopolicy_data.metadata import episode_attributes, now, software, to_bytes
from robopolicy_data.rows import fill, point, require_forward, row_dtype, scores_of
from robopolicy_data.skeleton import lay_out, seal
from robopolicy_data.syncing import Syncing

BLOCK = 512  # steps held in memory before they are cut into the arrays


class EpisodeWriter:
    """An episode being recorded; made by `DatasetWriter.begin`.

    Memory does not grow with its length: frames go to the shards, numbers to the journal and, block by block, to the
    arrays; all of them, and first of all the folders, are flushed to the disk in the background.

    Args:
        wip: folder of unfinished episodes.
        spec: what every step must hold.
        meta: what is known beforehand.
        coding: of the camera frames.
        publish: moves the finished folder to its number and returns that.
        on_close: told when the episode is over, however it ended, with the folder to delete, or None if it stays.
        pool: the threads that flush.
    """

    def __init__(
        self,
        wip: Path,
        spec: PolicySpec,
        meta: EpisodeMeta,
        coding: Coding,
        publish: Callable[[Path], int],
        on_close: Callable[[Path | None], None],
        pool: Executor,
    ) -> None:
        self._spec, self._coding, self._publish, self._on_close = spec, coding, publish, on_close
        self._meta = self._filled(meta)
        self._uuid, self._recorded = uuid4().hex, now()
        self._block = np.zeros(BLOCK, row_dtype(spec))
        self._held = 0  # rows of the block in use
        self._last: np.ndarray | None = None  # the newest row
        self._folder = wip / self._uuid  # holds `journal`, `index`, and `episode`, which is what will be renamed
        self._laid_out: frozenset[str] = frozenset()
        self._columns = Columns(self._folder / "episode", self._folder / "index", spec)
        self._cameras: dict[str, CameraWriter] = {}
        self._journal: JournalWriter | None = None
        self._syncing = Syncing(pool)
        self._open = True
        header = journal_header(self._meta, self._uuid, self._recorded, spec, coding)
        try:
            with disk_full_as(lambda: f"cannot begin an episode in {wip.parent}; its committed episodes are untouched"):
                self._create(header)
        except BaseException:
            self._close_files()
            remove_folder(self._folder)
            raise

    def __len__(self) -> int:
        """Steps so far."""
        return self._columns.rows + self._held

    @property
    def torn(self) -> dict[str, int]:
        """Frames of each camera that came so torn that nobody can decode them; only those that had such."""
        return {name: camera.torn for name, camera in self._cameras.items() if camera.torn}

    def add(self, step: Step) -> None:
        """Append one step: all of it, or nothing. A JPEG that lost its header costs that frame, and is counted.

        Raises:
            ContractError: if a shape or dtype is not the spec's, or a stream goes back in time; the episode stays as
                it was.
            DiskFull: the steps before this one stay, and `commit` may be tried once there is room.
            OSError: if an earlier flush to the disk failed; the episode cannot be committed, only recovered.
        """
        self._require_open()
        with disk_full_as(self._story):
            self._syncing.require_good()
        if self._held == BLOCK:
            self._cut()
        row, seen = self._block[self._held : self._held + 1][0], step.observation
        scores = scores_of(step, self._columns.scores)
        fill(row, step, self._spec, scores)
        require_forward(row, self._last)
        new = {name: made for name, camera in self._cameras.items() if (made := camera.encode(seen)) is not None}
        with disk_full_as(self._story):
            if scores != self._columns.scores:  # a monitor's first word
                replace_durable(self._folder / SCORES, to_bytes(list(scores)))
                self._columns.scores = scores
            places = {name: self._cameras[name].append(data) for name, (_, data) in new.items()}
            for name, camera in self._cameras.items():
                frame = camera.frames if name in new else camera.frames - 1
                stamp_ns = camera.stamp(seen) if name in new else camera.stamp_ns
                point(row, self._spec, name, frame, stamp_ns, places.get(name, camera.place))
            assert self._journal is not None
            self._journal.append(row)
        for name, (codec, _) in new.items():
            self._cameras[name].accept(codec, self._cameras[name].stamp(seen), places[name])
        self._last = row.copy()
        self._held += 1
        self._syncing.wrote(row.nbytes + sum(size for _, size in places.values()), self._files())

    def commit(
        self,
        meta: EpisodeMeta | None = None,
        *,
        drops: Mapping[str, Any] | None = None,
        marks: Sequence[Mapping[str, Any]] = (),
        parent: Mapping[str, Any] | None = None,
    ) -> int:
        """Make the episode part of the dataset and return its number; until this returns it is invisible.

        Args:
            meta: what is known by now (success, score); None keeps what `begin` was given.
            drops: what a recorder could not take, if anything.
            marks: instants that somebody marked, ``{"stamp_ns", "name"}``.
            parent: what it was made from, if not recorded.

        Raises:
            ContractError: if there are no steps, or ``meta`` is not JSON; the episode stays open.
            DiskFull: the episode stays open; try again once there is room.
            OSError: if a flush to the disk failed: abandon it, and recover what is whole.
        """
        self._require_open()
        if not len(self):
            raise ContractError("an episode of no steps cannot be committed; discard it")
        known = self._meta if meta is None else self._filled(meta)
        lost = {**(drops or {}), **({"frames": self.torn} if self.torn else {})}
        more = {"drops": lost, "marks": list(marks), "parent": parent}
        to_bytes(episode_attributes(known, len(self), self._uuid, self._recorded, **more))  # refuses what is no JSON
        with disk_full_as(self._story):
            self._syncing.require_good()
            self._cut()
            attributes = episode_attributes(known, len(self), self._uuid, self._recorded, **more)
            codecs = {name: camera.codec for name, camera in self._cameras.items()}
            shards = {name: camera.shard for name, camera in self._cameras.items()}
            episode = self._folder / "episode"
            written = seal(episode, self._spec, attributes, self._columns, codecs, shards, self._laid_out)
            self._syncing.flush([*(shard.file for shard in shards.values()), *self._columns.files()], written)
            self._syncing.require_good(wait=True)
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
        self._folder.mkdir(parents=True)
        self._journal = JournalWriter(self._folder / "journal", header)  # first: it says what the rest is
        laid_out = lay_out(episode, self._spec, self._coding)
        for name, camera in self._spec.cameras.items():
            shard = episode / camera_path(self._spec, name) / shard_file(camera)
            self._cameras[name] = CameraWriter(name, camera, self._coding, shard)
        self._columns.create()
        self._laid_out = frozenset(laid_out)
        inside = [f"{episode}/{path}/{name}" for path in laid_out for name in ("zarr.json", ".")]
        wip = self._folder.parent
        self._syncing.flush(self._files(), [wip.parent, wip, self._folder, *inside])

    def _cut(self) -> None:
        """Cut the steps in memory into the arrays."""
        if self._held:
            with disk_full_as(self._story):
                self._columns.add(self._block[: self._held])
            self._held = 0

    def _files(self) -> Iterator[AppendFile]:
        assert self._journal is not None
        shards = (camera.shard.file for camera in self._cameras.values())
        return chain([self._journal.file], shards, self._columns.files())

    def _close(self, keep: bool = False) -> None:
        self._open = False
        self._close_files()
        self._on_close(None if keep else self._folder)

    def _close_files(self) -> None:
        self._syncing.close()
        self._columns.close()
        for camera in self._cameras.values():
            camera.shard.close()
        if self._journal is not None:
            self._journal.close()

    def _require_open(self) -> None:
        if not self._open:
            raise ContractError("this episode is over; begin another")

    def _story(self) -> str:
        dataset, kept = self._folder.parent.parent, f"kept in {self._folder.parent.name}"
        return f"{dataset}: the episode stopped after {len(self)} steps ({kept}); the committed ones are untouched"


def remove_folder(folder: Path) -> None:
    """Delete a folder and all in it; what is already gone is fine."""
    shutil.rmtree(folder, ignore_errors=True)
