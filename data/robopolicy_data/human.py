"""Episodes of a human hand: pictures, the five points of the hand in each, and whether it grasps; no robot in them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.keypoints import GRASP, POINTS, ROLES, keypoints_of
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.importers.columns import Columns, Pictures, nominal_ns, write_columns
from robopolicy_data.writer import DatasetWriter

HAND = "human hand"  # EpisodeMeta.robot of who has no other name for it


@dataclass(frozen=True)
class HumanEpisode:
    """T steps of a hand, seen by one camera or more at the same instants.

    Raises:
        ContractError: if the views differ, a camera's size is not known or not that of its pictures, a length differs
            from the others, a point is not finite, or grasp is neither 0 nor 1.
    """

    pictures: Mapping[str, np.ndarray | Pictures]  # {view: (T, H, W, 3) uint8 RGB, or what reads rows of it}
    keypoints: Mapping[str, np.ndarray]  # {view: (T, 5, 2) px, in the order of ROLES, sub-pixel; may leave the picture}
    grasp: np.ndarray  # (T,) 1 closed, 0 open
    cameras: Mapping[str, Camera]  # of the pictures
    rate_hz: float
    stamps_ns: np.ndarray | None = None  # (T,) int64; None: step / rate

    def __post_init__(self) -> None:
        if not self.pictures or not set(self.pictures) == set(self.keypoints) == set(self.cameras):
            given = " / ".join(" ".join(part) or "none" for part in (self.pictures, self.keypoints, self.cameras))
            raise ContractError(
                f"hand: pictures, keypoints and cameras are of views {given}; want the same, at least 1"
            )
        length = len(self.grasp)
        for view, camera in self.cameras.items():
            if camera.size is None:
                raise ContractError(
                    f"hand: the size of camera {view!r} is not known; want the (H, W) it was calibrated for"
                )
            points, frames = np.asarray(self.keypoints[view]), self.pictures[view]
            if points.shape != (length, POINTS, 2) or not np.isfinite(points).all():
                want = f"want finite ({length}, {POINTS}, 2), px"
                raise ContractError(f"hand: keypoints of view {view!r} are {points.shape}; {want}")
            if isinstance(frames, np.ndarray) and frames.shape != (length, *camera.size, 3):
                raise ContractError(
                    f"hand: pictures of view {view!r} are {frames.shape}; want {(length, *camera.size, 3)}"
                )
        if not length or not np.isin(self.grasp, (0, 1)).all():
            raise ContractError("hand: grasp wants a 0 or a 1 for each of at least one step")
        if self.stamps_ns is not None and len(self.stamps_ns) != length:
            raise ContractError(f"hand: {len(self.stamps_ns)} stamps for {length} steps")

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """{view: (H, W)}."""
        return {view: camera.size for view, camera in self.cameras.items() if camera.size is not None}

    def columns(self) -> Columns:
        """Return states and action: the action of step t is what the hand did next, keypoints and grasp of t + 1."""
        grasp = np.asarray(self.grasp, np.float32).reshape(-1, 1)
        flat = {view: np.asarray(self.keypoints[view], np.float32).reshape(len(grasp), -1) for view in self.cameras}
        track = np.concatenate([*flat.values(), grasp], axis=1)
        stamps = (
            nominal_ns(len(grasp), self.rate_hz) if self.stamps_ns is None else np.asarray(self.stamps_ns, np.int64)
        )
        return Columns(
            np.concatenate([track[1:], track[-1:]]),
            {**{keypoints_of(view): values for view, values in flat.items()}, GRASP: grasp},
            {view: _reader(frames) for view, frames in self.pictures.items()},
            stamps,
        )


def human_spec(views: Mapping[str, tuple[int, int]], rate_hz: float) -> PolicySpec:
    """Return the spec of a dataset of hands.

    States are ``keypoints_VIEW`` (10: x and y of each of `ROLES`, px) and ``grasp`` (1 closed, 0 open); the action is
    ``tracks``: where the points of all views will be at the next step, then the grasp.

    Args:
        views: {name: (H, W)} of the pictures.
        rate_hz: steps a second.
    """
    names = [f"{view}.{role}.{axis}" for view in views for role in ROLES for axis in "xy"]
    state = {keypoints_of(view): StateSpec(2 * POINTS, ("px",)) for view in views}
    return PolicySpec(
        {view: CameraSpec(*size) for view, size in views.items()},
        {**state, GRASP: StateSpec(1, ("1",))},
        ActionSpec("tracks", (*names, GRASP), ("px",) * len(names) + ("1",)),
        rate_hz,
    )


def write_human(path: Path | str, episode: HumanEpisode, meta: EpisodeMeta, *, lossless: bool = False) -> int:
    """Append an episode to a dataset of hands, which is made if absent; return its number.

    Args:
        path: of the dataset.
        episode: what the hand did.
        meta: task, robot, success, ...; its embodiment becomes human, its cameras those of the episode.
        lossless: keep the pictures bit for bit (no JPEG).

    Raises:
        SpecMismatch: if the dataset has other views, sizes or another rate; both are printed.
        DatasetError, DatasetBusy, DiskFull: as `DatasetWriter` does.
    """
    cameras = {view: camera.to_json() for view, camera in episode.cameras.items()}
    with DatasetWriter(path, human_spec(episode.sizes, episode.rate_hz), lossless=lossless) as writer:
        return write_columns(writer, replace(meta, embodiment="human", cameras=cameras), episode.columns())


def _reader(frames: np.ndarray | Pictures) -> Pictures:
    if isinstance(frames, np.ndarray):
        return lambda first, stop: frames[first:stop]
    return frames
