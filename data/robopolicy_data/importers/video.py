"""Import videos of a person's hand, one a calibrated view, as an episode of a dataset of hands."""

import hashlib
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from robopolicy.errors import ContractError, DatasetError
from robopolicy.geometry.calibrations import read_cameras
from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.keypoints import Handedness
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.hands import HandDetector
from robopolicy_data.hands_episode import HandEpisode, HandRules, understand
from robopolicy_data.hands_grasp import contact_of
from robopolicy_data.hands_tracks import Found
from robopolicy_data.human import HAND, HumanEpisode, human_spec, write_human
from robopolicy_data.importers.columns import Pictures
from robopolicy_data.importers.video_files import Video, Views, open_views
from robopolicy_data.importers.video_masks import mask_gaps, moves, require_masks
from robopolicy_data.layout import require_names
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VideoImport:
    """What came of an import."""

    number: int  # of the episode
    rate_hz: float
    hand: HandEpisode


def import_video(
    videos: Mapping[str, Path],
    destination: Path | str,
    *,
    calibration: Path,
    task: str,
    rate_hz: float | None = None,
    rules: HandRules | None = None,
    masks: Mapping[str, Path] | None = None,
    operator: str = "",
    lossless: bool = False,
    detector: Callable[[], HandDetector] | None = None,
    progress: Progress | None = None,
    writing: Progress | None = None,
) -> VideoImport:
    """Append what a hand does in the videos to a dataset of hands, which is made if absent.

    Args:
        videos: {view: file}; their first pictures are of the same instant.
        destination: the dataset.
        calibration: a file of {view: {K, T_base_cam, distortion, size}}, YAML or JSON.
        task: in words.
        rate_hz: steps a second; None is the videos' own.
        rules: what is interpolated and what is refused.
        masks: {view: picture or video, white where the object is}; see `hands_grasp.grasp`.
        operator: who is seen.
        lossless: keep the pictures bit for bit (no JPEG).
        detector: makes one for each view; None is mediapipe's.
        progress: called with (pictures looked at, pictures in all).
        writing: likewise with (pictures written, pictures in all).

    Raises:
        DatasetError: if videos, cameras and masks do not fit together, the hand cannot be told from them, or they are
            an episode of the dataset already.
        ConfigError: if the calibration is no such file, or a view has no camera in it.
        SpecMismatch: if the dataset has other views, sizes or another rate.
        MissingExtra: without mediapipe, PyAV or ruamel.yaml.
    """
    if not videos:
        raise ContractError("no view; want at least one video")
    videos = dict(sorted(videos.items()))  # in whatever order they are told, they go into the same dataset
    cameras = read_cameras(calibration, list(videos), extra="human")
    views = open_views(videos, rate_hz)
    for view, video in views.videos.items():
        _require_size(calibration, view, cameras[view], video)
    require_masks(masks or {}, views)
    digests = {view: _digest(video.path) for view, video in views.videos.items()}
    _require_different(digests)
    rules = rules or HandRules()
    spec = human_spec({view: video.size for view, video in views.videos.items()}, views.rate_hz)
    _require_fits(destination, spec, digests, rules.hand)
    if detector is None:
        from robopolicy_data.hands_mediapipe import MediapipeHands as detector  # type: ignore[assignment]
    assert detector is not None
    found = {
        view: _detect(views, view, detector, _part(progress, i, len(videos))) for i, view in enumerate(views.videos)
    }
    touch = None
    if masks:
        touch = lambda landmarks, start, stop: contact_of(  # noqa: E731
            mask_gaps(masks, views, landmarks, start, stop), rules.grasp, moving=moves(masks)
        )
    hand = understand(found, cameras, views.rate_hz, rules, touch)
    chosen = {view: numbers[hand.start : hand.stop] for view, numbers in views.numbers.items()}
    episode = HumanEpisode(
        _counted({view: video.reader(chosen[view].tolist()) for view, video in views.videos.items()},
                 len(videos) * len(hand.grasp), writing),
        hand.keypoints, hand.grasp, cameras, views.rate_hz,
    )  # fmt: skip
    told = {
        "imported": "video",
        "videos": {view: video.path.name for view, video in views.videos.items()},
        "sha256": digests,
        "stamps": "nominal: step / rate",
        "hand": hand.to_json(),
        "rules": asdict(rules),
    }
    meta = EpisodeMeta(task, HAND, operator=operator, extra=told)
    return VideoImport(write_human(destination, episode, meta, lossless=lossless), views.rate_hz, hand)


def _require_size(calibration: Path, view: str, camera: Camera, video: Video) -> None:
    told = "x".join(map(str, video.size))
    if camera.size is None:
        raise DatasetError(f"{calibration}: view {view!r} has no size; want [{told.replace('x', ', ')}], as its video")
    if camera.size != video.size:
        want = "x".join(map(str, camera.size))
        raise DatasetError(
            f"{video.path} is {told} (height x width), but {calibration} calibrates view {view!r} for {want}; "
            "calibrate at the size that is recorded"
        )


def _require_fits(
    destination: Path | str, spec: PolicySpec, digests: Mapping[str, str], hand: Handedness | None
) -> None:
    """Refuse what could not be written after looking at all pictures, and what was written before."""
    require_names(spec)
    if not Path(destination).exists() or (Path(destination).is_dir() and not any(Path(destination).iterdir())):
        return
    DatasetWriter(destination, spec).close()
    for episode in Dataset(destination):
        told = episode.meta.extra
        if told.get("sha256") == digests and hand in (None, told["hand"]["handedness"]):  # else the other hand's
            delete = shlex.join(["robopolicy", "data", "delete", str(destination), str(episode.number)])
            raise DatasetError(
                f"these videos are episode {episode.number} of {destination} already; to import them anew: {delete}"
            )


def _require_different(digests: Mapping[str, str]) -> None:
    first: dict[str, str] = {}
    for view, digest in digests.items():
        if (other := first.setdefault(digest, view)) != view:
            raise DatasetError(f"views {other!r} and {view!r} are the same video; want one of each camera")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _detect(views: Views, view: str, make: Callable[[], HandDetector], progress: Progress | None) -> Found:
    found = []
    with closing(make()) as detector:
        for done, picture in enumerate(views.videos[view].pictures(views.numbers[view].tolist()), 1):
            found.append(detector.detect(picture))
            if progress is not None:
                progress(done, views.steps)
    return found


def _counted(readers: Mapping[str, Pictures], total: int, progress: Progress | None) -> Mapping[str, Pictures]:
    """Return the readers, which tell of each block that is asked of them."""
    done = 0

    def counted(read: Pictures) -> Pictures:
        def block(first: int, stop: int) -> np.ndarray:
            nonlocal done
            done += stop - first
            if progress is not None:
                progress(done, total)
            return read(first, stop)

        return block

    return {view: counted(read) for view, read in readers.items()}


def _part(progress: Progress | None, index: int, count: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(index * total + done, count * total)
