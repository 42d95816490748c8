"""Import videos of a person's hand, one a calibrated view, as an episode of a dataset of hands."""

import hashlib
import shlex
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from robopolicy.errors import ContractError, DatasetError, SpecMismatch, UnknownName
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
from robopolicy_data.metadata import writable_folder
from robopolicy_data.picture_sizes import RECORDED, as_option, can_become, sizes_of
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VideoImport:
    """What came of an import."""

    number: int  # of the episode
    rate_hz: float
    hand: HandEpisode  # its keypoints in px of the stored pictures; tracks and residuals in px of the videos
    shrunk: Mapping[str, tuple[int, int]]  # {view: (H, W) stored} of those whose videos are larger


def import_video(
    videos: Mapping[str, Path],
    destination: Path | str,
    *,
    calibration: Path,
    task: str,
    rate_hz: float | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
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
        sizes: {view: (H, W)} to which pictures are made smaller by area before they are stored, their calibration and
            keypoints with them; the hand is looked for in the whole ones. Views left out stay as they are.
        rules: what is interpolated and what is refused.
        masks: {view: picture or video, white where the object is}; see `hands_grasp.grasp`.
        operator: who is seen.
        lossless: keep the pictures bit for bit (no JPEG).
        detector: makes one for each view; None is mediapipe's.
        progress: called with (pictures looked at, pictures in all).
        writing: likewise with (pictures written, pictures in all).

    Raises:
        DatasetError: if the dataset cannot be written, videos, cameras and masks do not fit together, pictures would
            have to grow, the hand cannot be told from them, or they are an episode of the dataset already.
        UnknownName: if there is a size or a mask of no view.
        ConfigError: if the calibration is no such file, or a view has no camera in it.
        SpecMismatch: if the dataset has other views, sizes or another rate.
        MissingExtra: without mediapipe, PyAV or ruamel.yaml.
    """
    if not videos:
        raise ContractError("no view; want at least one video")
    _require_writable(writable_folder(destination))
    videos = dict(sorted(videos.items()))  # in whatever order they are told, they go into the same dataset
    cameras = read_cameras(calibration, list(videos), extra="human")
    views = open_views(videos, rate_hz)
    for view, video in views.videos.items():
        _require_size(calibration, view, cameras[view], video)
    stored = _stored(sizes or {}, views)
    require_masks(masks or {}, views)
    digests = {view: _digest(video.path) for view, video in views.videos.items()}
    _require_different(digests)
    rules = rules or HandRules()
    spec = human_spec(stored, views.rate_hz)
    _require_fits(destination, spec, digests, rules.hand, views)
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
    shrunk = {view: size for view, size in stored.items() if size != views.videos[view].size}
    points = {view: cameras[view].resized_pixels(seen, *stored[view]) for view, seen in hand.keypoints.items()}
    hand = replace(hand, keypoints=points)
    episode = HumanEpisode(
        _counted({view: video.reader(chosen[view].tolist(), stored[view]) for view, video in views.videos.items()},
                 len(videos) * len(hand.grasp), writing),
        points, hand.grasp, {view: camera.resized(*stored[view]) for view, camera in cameras.items()}, views.rate_hz,
    )  # fmt: skip
    told = {
        "imported": "video",
        "videos": {view: video.path.name for view, video in views.videos.items()},
        "sha256": digests,
        RECORDED: {view: list(video.size) for view, video in views.videos.items()},
        "stamps": "nominal: step / rate",
        "hand": hand.to_json(),
        "rules": asdict(rules),
    }
    meta = EpisodeMeta(task, HAND, operator=operator, extra=told)
    return VideoImport(write_human(destination, episode, meta, lossless=lossless), views.rate_hz, hand, shrunk)


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


def _stored(sizes: Mapping[str, tuple[int, int]], views: Views) -> dict[str, tuple[int, int]]:
    """Return {view: (H, W)} of the pictures that are stored."""
    for view, size in sizes.items():
        if view not in views.videos:
            raise UnknownName("view with a video to make smaller", view, views.videos)
        have = views.videos[view].size
        if not (1 <= size[0] <= have[0] and 1 <= size[1] <= have[1]):
            want, told = ("x".join(map(str, one)) for one in (size, have))
            raise DatasetError(
                f"--size {view}={want}: {views.videos[view].path} is {told}; want no more, and 1x1 at least"
            )
    return {view: sizes.get(view, video.size) for view, video in views.videos.items()}


def _require_writable(folder: Path) -> None:
    """Refuse a new dataset's folder that cannot be made or written to, by trying; what is made for it goes again."""
    missing: list[Path] = []
    try:
        if folder.exists() and any(folder.iterdir()):
            return  # a dataset's writer says
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder):
            pass
    except OSError as error:
        where = f": {error.filename}" if error.filename not in (None, str(folder)) else ""
        raise DatasetError(
            f"{folder} cannot be written ({error.strerror}{where}); name a dataset in a folder that can"
        ) from error
    finally:
        for one in missing:
            with suppress(OSError):  # it was not made, or something else is in it by now
                one.rmdir()


def _require_fits(
    destination: Path | str, spec: PolicySpec, digests: Mapping[str, str], hand: Handedness | None, views: Views
) -> None:
    """Refuse what could not be written after looking at all pictures, and what was written before."""
    require_names(spec)
    if not Path(destination).exists() or (Path(destination).is_dir() and not any(Path(destination).iterdir())):
        return
    try:
        DatasetWriter(destination, spec).close()
    except SpecMismatch as error:
        want = sizes_of(Dataset(destination).spec.cameras)
        if want == sizes_of(spec.cameras) or not can_become({view: v.size for view, v in views.videos.items()}, want):
            raise
        raise SpecMismatch(f"{error}; pictures are made smaller with {as_option(want)}") from error
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
