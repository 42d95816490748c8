"""A dataset for the Rerun viewer: each episode a recording with its pictures, curves, driver and outcome."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, MissingExtra
from robopolicy.spec import PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.files import disk_full_as
from robopolicy_data.layout import SOURCES
from robopolicy_data.reader import Dataset
from robopolicy_data.view.page import choose

AT_ONCE = 64  # raw frames in memory
MM_A_METRE = 1000.0


def to_rerun(
    path: Path | str,
    out: Path | None = None,
    *,
    episodes: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write episodes as Rerun recordings, or send them to a Rerun viewer, which is started if none runs.

    The timeline ``time`` is the seconds since an episode's first step, ``step`` its steps. JPEG goes as it is.

    Args:
        path: the dataset.
        out: a file name ending in .rrd; with several episodes ``name-000003.rrd`` and so on. None is the viewer.
        episodes: their numbers; None is all.
        progress: called with (episodes done, episodes in all).

    Returns:
        The files written, none for the viewer.

    Raises:
        MissingExtra: if rerun-sdk is not installed.
        DatasetError: if there is no such dataset or episode, something is damaged, or ``out`` is no .rrd.
        DiskFull: if there is no room.
    """
    try:
        import rerun as rr
    except ImportError as error:
        raise MissingExtra("rerun-sdk", "view") from error

    dataset = Dataset(path)
    chosen = choose(dataset, episodes)
    if not chosen:
        raise DatasetError(f"{path}: there are no episodes to look at")
    if out is not None and out.suffix != ".rrd":
        raise DatasetError(f"{out} is no .rrd file; name one that ends so")
    files: list[Path] = []
    for done, episode in enumerate(chosen, 1):
        name = Path(dataset.where).name
        stream = rr.RecordingStream(re.sub(r"[^A-Za-z0-9_-]", "-", name), recording_id=f"{name} {episode.number:06d}")
        if out is None and done == 1:
            stream.spawn()
        elif out is None:
            stream.connect_grpc()
        else:
            files.append(out if len(chosen) == 1 else out.with_name(f"{out.stem}-{episode.number:06d}.rrd"))
            files[-1].parent.mkdir(parents=True, exist_ok=True)
            stream.save(files[-1])
        with disk_full_as(lambda: f"cannot write {out}"):
            _send(rr, stream, episode, dataset.spec)
            stream.flush()
            stream.disconnect()
        if progress is not None:
            progress(done, len(chosen))
    return files


def _send(rr: Any, stream: Any, episode: Episode, spec: PolicySpec) -> None:
    start = int(episode.stamps_ns("step")[0])
    stamps = episode.stamps_ns("step")
    indexes = [
        rr.TimeColumn("time", duration=(stamps - start).astype("timedelta64[ns]")),
        rr.TimeColumn("step", sequence=np.arange(len(stamps))),
    ]
    stream.send_recording_name(f"episode {episode.number}")
    success = {True: "success", False: "failure", None: "unlabelled"}[episode.meta.success]
    stream.log("outcome", rr.TextDocument(_words(episode, success), media_type="text/markdown"), static=True)
    stream.send_property("success", rr.AnyValues(success=success))
    curves = {**{f"state/{name}": episode.state(name) for name in spec.state}, "action": episode.action()}
    for name, values in curves.items():
        labels = list(spec.action.names) if name == "action" else [f"{name}[{i}]" for i in range(values.shape[1])]
        stream.log(name, rr.SeriesLines(names=labels), static=True)
        stream.send_columns(name, indexes=indexes, columns=rr.Scalars.columns(scalars=values.astype(np.float64)))
    sources = episode.sources().astype(np.float64)[:, None]
    stream.log("driver", rr.SeriesLines(names=[" ".join(f"{i} {s}" for i, s in enumerate(SOURCES))]), static=True)
    stream.send_columns("driver", indexes=indexes, columns=rr.Scalars.columns(scalars=sources))
    verdicts = episode.verdicts()
    if verdicts is not None:
        judged = np.stack([verdicts["statistic"], verdicts["threshold"]], axis=1)
        stream.log("monitor", rr.SeriesLines(names=["statistic", "threshold"]), static=True)
        stream.send_columns("monitor", indexes=indexes, columns=rr.Scalars.columns(scalars=judged))
    for camera in spec.cameras:
        _send_camera(rr, stream, episode, camera, spec.cameras[camera].kind, start)


def _send_camera(rr: Any, stream: Any, episode: Episode, camera: str, kind: str, start: int) -> None:
    stamps = (episode.frame_stamps_ns(camera) - start).astype("timedelta64[ns]")
    for first in range(0, len(stamps), AT_ONCE):
        rows = np.arange(first, min(first + AT_ONCE, len(stamps)))
        time = [rr.TimeColumn("time", duration=stamps[rows])]
        blobs = list(episode.frame_bytes(camera, rows))
        if kind == "colour" and blobs[0].startswith(b"\xff\xd8"):
            columns = rr.EncodedImage.columns(blob=blobs, media_type=["image/jpeg"] * len(blobs))
            stream.send_columns(f"camera/{camera}", indexes=time, columns=columns)
            continue
        for stamp, frame in zip(stamps[rows], episode.frames(camera, rows), strict=True):
            stream.set_time("time", duration=stamp)
            picture = rr.Image(frame) if kind == "colour" else rr.DepthImage(frame, meter=MM_A_METRE)
            stream.log(f"camera/{camera}", picture)
        stream.reset_time()


def _words(episode: Episode, success: str) -> str:
    meta = episode.meta
    facts = {"task": meta.task, "robot": meta.robot, "operator": meta.operator, "seed": meta.seed, "notes": meta.notes}
    lines = [f"- {key}: {value}" for key, value in facts.items() if value not in ("", None)]
    return "\n".join([f"# Episode {episode.number}: {success}", "", *lines])
