"""Recordings that died before their commit: put aside, or rebuilt from journal and shards."""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy_data.columns import Columns
from robopolicy_data.episode_writer import BLOCK, remove_folder
from robopolicy_data.files import crc32c, sync_tree
from robopolicy_data.frames import DepthFrames, FrameCodec, JpegFrames, ZstdFrames
from robopolicy_data.journal import Journal, read_journal, read_scores
from robopolicy_data.layout import DERIVED, TRASH, align_path, camera_path, shard_file, streams
from robopolicy_data.metadata import KEY, episode_attributes, meta_from_json
from robopolicy_data.shard import ShardWriter
from robopolicy_data.skeleton import seal

_JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Interrupted:
    """A recording that was never committed, found when the dataset was opened for writing."""

    folder: Path  # where it lies now: below .trash, or among the episodes
    steps: int  # whole ones: in its journal, or in the episode
    task: str
    number: int | None = None  # of the episode it became
    reason: str = ""  # why it became none, or why that is shorter than the journal


def put_aside(folder: Path, reason: str = "") -> Interrupted:
    """Move what an earlier process left in ``.wip`` into ``.trash``."""
    place = folder.parent.parent / TRASH / folder.name
    if place != folder:
        place.parent.mkdir(exist_ok=True)
        os.rename(folder, place)
    try:
        journal = read_journal(place / "journal")
        return Interrupted(place, len(journal.rows), journal.header[KEY]["task"], reason=reason)
    except DatasetError as error:
        return Interrupted(place, 0, "unknown", reason=reason or str(error))


def rebuild(folder: Path, spec: PolicySpec) -> Interrupted:
    """Turn ``folder/episode`` into a complete episode, as long as its journal and the frames that are whole.

    It is on the disk when this returns, and may be begun again if it was interrupted. Success is False, the notes and
    ``attributes.recovered`` say what happened.

    Args:
        folder: holds `journal` and `episode`.
        spec: of the dataset.

    Raises:
        DatasetError: if the journal is damaged from its start, of another spec, or holds no whole step.
        DiskFull, OSError: if it cannot be written.
    """
    journal = read_journal(folder / "journal")
    if PolicySpec.from_json(journal.header["spec"]) != spec:
        raise DatasetError(f"{folder} was recorded with another spec than the dataset's")
    episode, told = folder / "episode", len(journal.rows)
    paths = {k: episode / camera_path(spec, k) / shard_file(c) for k, c in spec.cameras.items()}
    whole = {k: whole_steps(journal.rows, camera_path(spec, k), path) for k, path in paths.items()}
    steps = min(whole.values(), default=told)
    if not steps:
        raise DatasetError(f"{folder}: none of its {told} journaled steps has whole frames")
    reason = f"recovered {steps} of {told} journaled steps of an interrupted recording"
    if steps < told:
        reason += f"; the next frame of camera {min(whole, key=whole.__getitem__)!r} is not whole"
    _write(folder, spec, journal, steps, reason)
    return Interrupted(episode, steps, journal.header[KEY]["task"], reason=reason)


def whole_steps(rows: np.ndarray, path: str, shard: Path) -> int:
    """Return how many steps come before the first one that saw a frame whose bytes are not all there and right."""
    align = rows[align_path(path.rpartition("/")[2])]
    fresh = np.flatnonzero(np.diff(align, prepend=np.int32(-1)))
    try:
        with shard.open("rb") as file:
            for row in fresh.tolist():
                offset, size = (int(x) for x in rows[path][row])
                file.seek(offset)
                data = file.read(size)
                if len(data) < max(size, 4) or crc32c(data[:-4]) != data[-4:]:
                    return row
    except FileNotFoundError:
        return 0
    return len(rows)


def _write(folder: Path, spec: PolicySpec, journal: Journal, steps: int, reason: str) -> None:
    episode, own = folder / "episode", journal.header[KEY]
    remove_folder(folder / "index")
    for part in {*(stream.path for stream in streams(spec)), DERIVED}:  # what was cut is cut anew
        shutil.rmtree(episode / part, ignore_errors=True)
    meta = meta_from_json(own)
    meta = replace(meta, success=False, notes=f"{meta.notes} {reason}".strip())
    more: dict[str, Any] = {"drops": {}, "marks": [], "parent": None}
    recovered = {"steps": steps, "journaled": len(journal.rows), "reason": reason}
    attributes = episode_attributes(meta, steps, own["uuid"], own["recorded"], **more, recovered=recovered)
    columns, shards = Columns(episode, folder / "index", spec), {}
    try:
        columns.create()
        columns.scores = read_scores(folder)
        for start in range(0, steps, BLOCK):
            columns.add(journal.rows[start : min(start + BLOCK, steps)])
        codecs: dict[str, FrameCodec] = {}
        for name, camera in spec.cameras.items():
            path = episode / camera_path(spec, name) / shard_file(camera)
            shards[name] = ShardWriter(path, resume=path.stat().st_size)
            offset = int(journal.rows[camera_path(spec, name)][0][0])
            codecs[name] = _codec(camera, path, offset, journal.header)
        seal(episode, spec, attributes, columns, codecs, shards)
        sync_tree(episode)
    finally:
        columns.close()
        for shard in shards.values():
            shard.close()


def _codec(camera: CameraSpec, shard: Path, offset: int, header: Any) -> FrameCodec:
    """Return how the shard's first frame is coded."""
    if camera.kind == "depth":
        return DepthFrames()
    with shard.open("rb") as file:
        file.seek(offset)
        first = file.read(2)
    return JpegFrames(header.get("coding", {}).get("quality", 90)) if first == _JPEG else ZstdFrames()


def take_care(folder: Path, spec: PolicySpec, *, recover: bool) -> Interrupted | None:
    """Rebuild or put aside one folder of ``.wip``; None if it held nothing but the rest of a commit.

    What was rebuilt still has to be published; its ``folder`` is the episode.
    """
    if not (folder / "episode").is_dir():  # killed between the rename and the deletion of the journal
        remove_folder(folder)
        return None
    if not recover:
        return put_aside(folder)
    try:
        return rebuild(folder, spec)
    except (RobopolicyError, OSError) as error:
        return put_aside(folder, str(error))
