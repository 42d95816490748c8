"""Masks of the object in the views: a picture for all steps, or a video with one a step."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from robopolicy.errors import DatasetError, UnknownName
from robopolicy_data.importers.video_files import Video, Views

PICTURES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")
WHITE = 127  # above it a pixel is of the object


def require_masks(masks: Mapping[str, Path], views: Views) -> None:
    """Refuse masks that do not fit, before anything long is begun.

    Raises:
        UnknownName: if a view has no video.
        DatasetError: if a mask is unreadable, empty, or of another size or length than its video.
    """
    for view, path in masks.items():
        if view not in views.videos:
            raise UnknownName("view with a video for the mask", view, views.videos)
        next(_fields(path, views, view, 0, 1))


def mask_gaps(
    masks: Mapping[str, Path], views: Views, landmarks: Mapping[str, np.ndarray], start: int, stop: int
) -> dict[str, np.ndarray]:
    """Return how far landmarks are from the object, {view: (T, 21)} px, infinite outside the picture; of good masks.

    Args:
        masks: {view: picture or video}, white where the object is.
        views: the videos that they are of.
        landmarks: {view: (T, 21, 2)} of the steps ``start`` to ``stop``.
        start: first step wanted.
        stop: one past the last.

    Raises:
        DatasetError: if a mask's video is damaged.
    """
    return {
        view: np.stack(
            [
                _gaps(field, points)
                for field, points in zip(_fields(path, views, view, start, stop), landmarks[view], strict=True)
            ]
        )
        for view, path in masks.items()
    }


def moves(masks: Mapping[str, Path]) -> bool:
    """Whether every mask is a video, which follows the object."""
    return all(path.suffix.lower() not in PICTURES for path in masks.values())


def _fields(path: Path, views: Views, view: str, start: int, stop: int) -> Iterator[np.ndarray]:
    """Yield for each step the distance of every pixel from the object (H, W), px."""
    video = views.videos[view]
    if path.suffix.lower() in PICTURES:
        import cv2

        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise DatasetError(f"{path} is no picture; want the mask of view {view!r}, white where the object is")
        _require_size(path, mask.shape, video, view)
        if not (mask > WHITE).any():
            raise DatasetError(f"{path}: the mask of view {view!r} is empty; want white where the object is")
        field = _distances(mask)
        yield from (field for _ in range(start, stop))
        return
    film = Video(path)
    _require_size(path, film.size, video, view)
    if len(film) != len(video):
        raise DatasetError(f"{path}: {len(film)} pictures, but the video of view {view!r} has {len(video)}")
    chosen: Sequence[int] = views.numbers[view][start:stop].tolist()
    for picture in film.pictures(chosen):
        yield _distances(picture.max(axis=2))


def _require_size(path: Path, size: Sequence[int], video: Video, view: str) -> None:
    if tuple(size) != video.size:
        found, want = "x".join(map(str, size)), "x".join(map(str, video.size))
        raise DatasetError(f"{path}: the mask is {found}, but the video of view {view!r} is {want}")


def _distances(mask: np.ndarray) -> np.ndarray:
    import cv2

    outside = (mask <= WHITE).astype(np.uint8)
    if outside.all():
        return np.full(mask.shape, np.inf)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE))


def _gaps(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.round(points).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < field.shape[1]) & (y < field.shape[0])
    gaps = np.full(len(points), np.inf)
    gaps[inside] = field[y[inside], x[inside]]
    return gaps
