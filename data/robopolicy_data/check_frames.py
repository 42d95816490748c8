"""What the frames of a camera tell: damage, black ones, ones that do not change; one frame in memory at a time."""

from collections.abc import Iterator

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.frames import jpeg_torn
from robopolicy_data.layout import camera_path
from robopolicy_data.problem import Problem

MAX_FROZEN = 0.1  # share of the frames at which the state moved that are equal to the one before
MOVED = 0.01  # of a stream's range in the episode, from one frame to the next; less is a robot that settles
SETTLES = 1e-3  # a stream with less range moved nothing that a camera sees: a millimetre, a milliradian
JPEG = b"\xff\xd8"  # how such a picture begins
BLACK = 8  # a picture with no brighter value is black, 0..255


def check_frames(episode: Episode, spec: PolicySpec, camera: str, moved: np.ndarray) -> Iterator[Problem]:
    """Decode every frame and yield what is wrong.

    Args:
        episode: read from.
        spec: of the dataset.
        camera: its name.
        moved: (N,) bool, whether the state moved since the frame before.
    """
    where = f"episode {episode.number}, {camera_path(spec, camera)}"
    size = spec.cameras[camera]
    frame, before = np.empty((1, *size.shape), size.dtype), np.empty((1, *size.shape), size.dtype)
    dark: list[int] = []
    torn: list[int] = []
    frozen, count = 0, episode.frame_count(camera)
    for row in range(count):
        try:
            episode.frames(camera, [row], out=frame)
            (data,) = episode.frame_bytes(camera, [row])
        except DatasetError as error:
            yield Problem("error", f"episode {episode.number}", str(error))
            return
        if data.startswith(JPEG) and jpeg_torn(data):
            torn.append(row)
        if frame.max() <= (BLACK if size.kind == "colour" else 0):
            dark.append(row)
        frozen += bool(row and moved[row] and np.array_equal(frame, before))
        frame, before = before, frame
    if dark:
        what = "black" if size.kind == "colour" else "empty"
        yield Problem("warning", where, f"{len(dark)} of {count} frames are {what}, the first at frame {dark[0]}")
    if torn:
        text = f"{len(torn)} of {count} frames are torn, as the camera sent them, the first at frame {torn[0]}"
        yield Problem("warning", where, text)
    moves = np.count_nonzero(moved[1:])
    if frozen > MAX_FROZEN * moves:
        text = f"{frozen} of the {moves} frames taken while the state moves repeat the one before"
        yield Problem("warning", where, text)


def state_moved(states: list[np.ndarray], align: np.ndarray, frames: int) -> np.ndarray:
    """Return whether the state moved between the first sights of each frame and the one before, (N,) bool.

    A robot at rest trembles; its picture may well stay the same.

    Args:
        states: (T, D) each.
        align: (T,) which frame each step saw.
        frames: N.
    """
    if not states:
        return np.ones(frames, bool)
    first = np.searchsorted(align, np.arange(frames)).clip(max=len(align) - 1)
    moved = np.zeros(frames, bool)
    with np.errstate(invalid="ignore"):  # infinity and NaN are named elsewhere
        for state in states:
            change = np.abs(state[first] - state[np.roll(first, 1)]).max(axis=1)
            span = np.ptp(state, axis=0).max()
            moved |= (change > MOVED * span) & (span > SETTLES)
    return moved
