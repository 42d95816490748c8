"""Our dataset as LeRobot's v3.0: parquet, mp4 and json that its LeRobotDataset loads from a folder."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, UnknownName
from robopolicy.spec import CameraSpec, PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.exporters import lerobot_layout as layout
from robopolicy_data.exporters import lerobot_stats as stats
from robopolicy_data.exporters.destination import chosen, fresh
from robopolicy_data.exporters.lerobot_tables import DataWriter, write_episodes, write_tasks
from robopolicy_data.exporters.lerobot_videos import CameraVideos, pictures
from robopolicy_data.metadata import software, to_bytes
from robopolicy_data.reader import Dataset
from robopolicy_data.videos import CODECS, CRF, rate_as_fraction

VIDEO_CHOICES = (*CODECS, "none")


def export_lerobot(
    dataset_path: Path | str,
    destination: Path | str,
    *,
    episodes: Sequence[int] | None = None,
    video: str = "libsvtav1",
    crf: int = CRF,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a LeRobot dataset v3.0 and return its number of episodes; it appears whole, or not at all.

    Numbers are equal bit for bit. A camera has one picture a step, the one that step saw: frames between two steps are
    left out. Stamps, sources, spec and meta go into columns and keys of our own, from which `import_lerobot` makes
    the same dataset again.

    Args:
        dataset_path: ours.
        destination: the folder to make; must not exist.
        episodes: positions in the dataset; None is all.
        video: ``libsvtav1`` (AV1, LeRobot's default), ``h264``, or ``none``: pictures in the parquet, JPEG bytes as
            they are and lossless ones as PNG. Depth is always 16-bit PNG. Videos are read back and compared;
            their PSNR is in ``info.json`` (`outcome`).
        crf: constant rate factor of the videos, 0 to 63 (h264: 51); smaller is better and bigger.
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if the destination exists, there is nothing to export, the source is damaged or holds NaN.
        UnknownName: if there is no such episode or codec.
        ContractError: if a camera has an odd side, which a video cannot hold, or the codec has no such crf.
        MissingExtra: without pyarrow, or PyAV for videos.
        DiskFull: if there is no room; nothing stays.
    """
    if video not in VIDEO_CHOICES:
        raise UnknownName("video codec", video, VIDEO_CHOICES)
    dataset = Dataset(dataset_path)
    wanted = chosen(dataset, episodes)
    with fresh(destination) as root, _Export(root, dataset.spec, video, crf) as export:
        for done, episode in enumerate(wanted, 1):
            export.add(episode)
            if progress is not None:
                progress(done, len(wanted))
        export.finish(str(dataset_path))
    return len(wanted)


def outcome(destination: Path | str) -> str:
    """Return one line on how near an export's videos are to its pictures and which frames it left out, or nothing."""
    said = json.loads((Path(destination) / layout.INFO).read_text())[layout.OWN]
    left = ", ".join(f"{camera} {count:,}" for camera, count in said["frames_left_out"].items() if count)
    return "; ".join(
        filter(None, [_video_errors(said["videos"]), left and f"frames that no step saw, left out: {left}"])
    )


def _video_errors(own: dict[str, Any]) -> str:
    parts = [
        f"{camera} {psnr['all']:.1f} (worst picture {psnr['worst']:.1f})" for camera, psnr in own["psnr_db"].items()
    ]
    return f"PSNR of the {own['codec']} videos, dB: {', '.join(parts)}" if parts else ""


class _Export:
    """What is known while episodes are added."""

    def __init__(self, root: Path, spec: PolicySpec, video: str, crf: int) -> None:
        self._root, self._spec, self._video, self._crf = root, spec, video, crf
        self._fps = float(rate_as_fraction(spec.rate_hz))  # as a video's clock holds it: stamps must match to 0.1 ms
        self._features = layout.features(spec, videos=video != "none")
        self._data = DataWriter(root, self._features)
        self._videos = {
            name: CameraVideos(root, layout.camera_key(name, camera), name, self._fps, video, crf)
            for name, camera in spec.cameras.items()
            if video != "none" and camera.kind == "colour"
        }
        self._rows: list[dict[str, Any]] = []  # of meta/episodes
        self._stats: list[dict[str, stats.Stats]] = []
        self._tasks: dict[str, int] = {}
        self._frames = 0
        self._left_out = dict.fromkeys(spec.cameras, 0)  # frames that no step saw

    def add(self, episode: Episode) -> None:
        """Write one episode."""
        number, meta, length = len(self._rows), episode.meta, episode.length
        task = self._tasks.setdefault(meta.task, len(self._tasks))
        columns = _numbers(episode, self._spec) | {
            "timestamp": (np.arange(length) / self._fps).astype(np.float32),
            "episode_index": np.full(length, number),
            "index": self._frames + np.arange(length),
            "task_index": np.full(length, task),
        }
        _require_finite(episode, columns)
        inline = {k: c for k, c in self._spec.cameras.items() if k not in self._videos}
        encoded = {layout.camera_key(k, c): _encoded(episode, k, c) for k, c in inline.items()}
        chunk, file = self._data.write(columns, encoded)
        row: dict[str, Any] = {"episode_index": number, "tasks": [meta.task], "length": length}
        row |= {"data/chunk_index": chunk, "data/file_index": file}
        row |= {"dataset_from_index": self._frames, "dataset_to_index": self._frames + length}
        for name, videos in self._videos.items():
            row |= videos.add(episode, self._spec.cameras[name].height, self._spec.cameras[name].width)
        own = _stats(episode, self._spec, columns)
        listed = {k: each for k, each in own.items() if not k.startswith(layout.DEPTH)}  # its tools want 3 channels
        row |= {f"stats/{k}/{name}": v for k, each in stats.to_plain(listed).items() for name, v in each.items()}
        row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
        row[layout.META] = to_bytes(asdict(meta)).decode()
        self._rows.append(row)
        self._stats.append(own)
        self._frames += length
        for name in self._left_out:
            self._left_out[name] += episode.frame_count(name) - len(np.unique(episode.frame_rows(name)))

    def finish(self, source: str) -> None:
        """Write what describes the whole."""
        self._data.close()
        for videos in self._videos.values():
            videos.close()
        (self._root / "meta").mkdir(exist_ok=True)
        write_episodes(self._root, self._rows)
        write_tasks(self._root, list(self._tasks))
        (self._root / layout.STATS).write_bytes(to_bytes(stats.to_plain(stats.of_all(self._stats)), indent=1))
        (self._root / layout.INFO).write_bytes(to_bytes(self._info(source), indent=1))

    def _info(self, source: str) -> dict[str, Any]:
        spec, fps = self._spec, int(self._fps) if self._fps.is_integer() else self._fps
        for name in self._videos:
            info = layout.video_info(spec.cameras[name], CODECS[self._video], fps)
            self._features[layout.camera_key(name, spec.cameras[name])]["info"] = info
        errors = {k: {"all": v.error.psnr_db, "worst": v.error.worst_psnr_db} for k, v in self._videos.items()}
        return {
            "codebase_version": layout.VERSION,
            "robot_type": json.loads(self._rows[0][layout.META])["robot"],
            "total_episodes": len(self._rows),
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": layout.CHUNK_FILES,
            "data_files_size_in_mb": layout.DATA_MB,
            "video_files_size_in_mb": layout.VIDEO_MB,
            "fps": fps,
            "splits": {"train": f"0:{len(self._rows)}"},
            "data_path": layout.DATA,
            "video_path": layout.VIDEO if self._videos else None,
            "features": self._features,
            layout.OWN: {
                "software": software(),
                "source": source,
                "frames_left_out": self._left_out,
                "videos": {"codec": self._video, "crf": self._crf, "psnr_db": errors},
            },
        }

    def __enter__(self) -> "_Export":
        return self

    def __exit__(self, *_: object) -> None:
        self._data.close()
        for videos in self._videos.values():
            videos.abandon()


def _require_finite(episode: Episode, columns: dict[str, np.ndarray]) -> None:
    """Refuse NaN and infinity, of which LeRobot's statistics cannot be made."""
    for key in {layout.STATE, layout.ACTION} & columns.keys():
        bad = np.flatnonzero(~np.isfinite(columns[key]).all(axis=1))
        if len(bad):
            raise DatasetError(
                f"{episode.where}: {key} holds NaN or infinity at step {bad[0]}, of which LeRobot's statistics cannot "
                "be made; trim the episode, or leave it out (--episodes)"
            )


def _numbers(episode: Episode, spec: PolicySpec) -> dict[str, np.ndarray]:
    """Return the episode's own columns, (T,) or (T, D)."""
    length = episode.length
    last = np.arange(length) == length - 1
    columns = {
        layout.ACTION: episode.action(),
        layout.DONE: last,
        layout.SUCCESS: last & (episode.meta.success is True),
        layout.SOURCE: episode.sources().astype(np.int64),
        layout.STEP_NS: episode.stamps_ns("step"),
        layout.ACTION_NS: episode.stamps_ns("action"),
        **{layout.camera_ns(name): episode.stamps_ns(name) for name in spec.cameras},
        "frame_index": np.arange(length),
    }
    if spec.state:
        columns[layout.STATE] = np.concatenate([episode.state(name) for name in spec.state], axis=1)
    return columns


def _encoded(episode: Episode, name: str, camera: CameraSpec) -> Iterator[bytes]:
    """Yield a file's bytes for each step's picture: the stored JPEG, else PNG."""
    import cv2

    rows = episode.frame_rows(name)
    if camera.kind == "colour" and next(episode.frame_bytes(name, [0]))[:2] == b"\xff\xd8":
        seen, data = -1, b""
        for row in rows.tolist():
            if row != seen:
                seen, data = row, next(episode.frame_bytes(name, [row]))
            yield data
        return
    for image in pictures(episode, name):
        shown = image[..., ::-1] if camera.kind == "colour" else image
        yield cv2.imencode(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _stats(episode: Episode, spec: PolicySpec, columns: dict[str, np.ndarray]) -> dict[str, stats.Stats]:
    rows = stats.chosen_rows(episode.length)
    found = {k: stats.of_numbers(values) for k, values in columns.items() if not k.startswith(layout.OWN)}
    return found | {
        layout.camera_key(name, camera): stats.of_pictures(episode.images(name, rows))
        for name, camera in spec.cameras.items()
    }
