"""Recordings of a hand whose 21 landmarks are known in the base frame: what calibrated cameras see of its points."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from robopolicy.errors import BehindCamera, ContractError, DatasetError
from robopolicy.geometry.cameras import Camera, cameras_of
from robopolicy.geometry.keypoints import LANDMARKS, hand_keypoints
from robopolicy.spec import PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.human import HumanEpisode, human_spec
from robopolicy_data.importers.columns import require_new, write_columns
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

STATE, GRIP = "landmarks", "gripper"
HAND, HANDEDNESS = "hand", "handedness"  # in the meta's extra, as `import video` writes them
POINTS = 21
CLOSED_BELOW = 0.9  # of the way open between thumb and index


def import_landmarks(
    source: Path | str,
    destination: Path | str,
    *,
    closed_below: float = CLOSED_BELOW,
    lossless: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make a dataset of hands from one that knows landmarks, as ``robopolicy record --robot hand:TASK`` makes.

    Of each step the five points in each view are kept, whether it grasps and the pictures, encoded anew; landmarks,
    objects and commands are not. The action is what the hand did next.

    Args:
        source: the dataset; its states have ``landmarks`` (63), m in the base frame, MediaPipe's order, and
            ``gripper``, 0 thumb and index closed to 1 open; ``extra.hand.handedness`` of each episode is left or
            right.
        destination: the dataset to make; must not exist, or be empty.
        closed_below: the opening below which it grasps.
        lossless: keep the decoded pictures bit for bit (no JPEG).
        progress: called with (episodes done, episodes in all).

    Raises:
        DatasetError: if the source has no landmarks, no hand or no pictures, or the destination is taken.
        ContractError: if a camera was never calibrated, or for pictures of another size.
        BehindCamera: if a landmark is behind a camera, naming the episode.
    """
    target, data = require_new(destination), Dataset(source)
    known = {name: state.dim for name, state in data.spec.state.items()}
    if known.get(STATE) != 3 * POINTS or known.get(GRIP) != 1 or not data.spec.cameras:
        raise DatasetError(
            f"{source}: states {', '.join(known)} and cameras {', '.join(data.spec.cameras) or 'none'}; want "
            f"{STATE} ({3 * POINTS}), {GRIP} (1) and a calibrated camera or more, as record --robot hand:TASK makes"
        )
    views = {name: (camera.height, camera.width) for name, camera in data.spec.cameras.items()}
    with DatasetWriter(
        target, human_spec(views, data.spec.rate_hz), lossless=lossless, importing=str(source)
    ) as writer:
        for done, episode in enumerate(data, start=1):
            seen = seen_by_cameras(episode, data.spec, closed_below=closed_below)
            told = {name: camera.to_json() for name, camera in seen.cameras.items()}
            extra = {**episode.meta.extra, "imported": f"landmarks of {Path(source).name}, episode {episode.number}"}
            write_columns(writer, replace(episode.meta, embodiment="human", cameras=told, extra=extra), seen.columns())
            if progress is not None:
                progress(done, len(data))
        writer.imported()
    return len(data)


def seen_by_cameras(episode: Episode, spec: PolicySpec, *, closed_below: float = CLOSED_BELOW) -> HumanEpisode:
    """Return what the cameras of an episode see of its hand; raises as `import_landmarks` does.

    Args:
        episode: with the states that `import_landmarks` wants.
        spec: of its dataset.
        closed_below: the opening below which it grasps.
    """
    told = episode.meta.extra.get(HAND)
    hand = told.get(HANDEDNESS) if isinstance(told, dict) else None
    if hand not in LANDMARKS:
        raise DatasetError(f"{episode.where}: extra.{HAND}.{HANDEDNESS} is {hand!r}; want {' or '.join(LANDMARKS)}")
    cameras = _cameras(episode, spec)
    points = hand_keypoints(episode.state(STATE).astype(np.float64).reshape(-1, POINTS, 3), hand)  # (T, 5, 3)
    try:
        keypoints = {name: camera.project(points) for name, camera in cameras.items()}
    except BehindCamera as error:
        raise BehindCamera(f"{episode.where}: {error}") from error
    return HumanEpisode(
        pictures={name: partial(_pictures, episode, name) for name in cameras},
        keypoints=keypoints,
        grasp=(episode.state(GRIP)[:, 0] < closed_below).astype(np.float32),
        cameras=cameras,
        rate_hz=spec.rate_hz,
        stamps_ns=episode.stamps_ns("step"),
    )


def _cameras(episode: Episode, spec: PolicySpec) -> Mapping[str, Camera]:
    """Return the cameras of an episode's pictures, whatever sizes they were told of."""
    found = cameras_of(episode.meta.cameras, tuple(spec.cameras))
    for name, camera in found.items():
        size = spec.cameras[name].height, spec.cameras[name].width
        if camera.size not in (None, size):
            raise ContractError(
                f"{episode.where}: camera {name!r} was calibrated for {camera.size} px (H, W), its pictures are {size}"
            )
        found[name] = replace(camera, size=size)
    return found


def _pictures(episode: Episode, camera: str, first: int, stop: int) -> np.ndarray:
    return episode.images(camera, slice(first, stop))
