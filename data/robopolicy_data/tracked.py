"""Episodes of robots and of hands seen the same way: pictures, five points in each of them, and a grasp.

What a motion-track policy learns from (Ren et al. 2025). A robot's points are those of its gripper, projected with the
calibration recorded beside the pictures; a hand's were found when its video was imported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, RobopolicyError, SpecMismatch, UnknownCamera
from robopolicy.geometry.cameras import cameras_of
from robopolicy.geometry.keypoints import (
    EMBODIMENT,
    GRASP,
    ROLES,
    TOOL_STATES,
    GripperKeypoints,
    grasped,
    keypoints_of,
)
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy_data.episode import Episode
from robopolicy_data.mixture import thinned
from robopolicy_data.reader import Dataset

XY = 2 * len(ROLES)
OPEN = ("open", "1")  # units of a gripper that is told as 0 closed to 1 open
ROUGHLY = 0.1  # by which a gripper may be measured to be more than open, or than closed


def tracks_spec(recorded: PolicySpec, views: Sequence[str]) -> PolicySpec:
    """Return the spec of tracks in ``views`` of episodes of ``recorded``.

    Its states are ``keypoints_VIEW`` (10,) px, x and y of the five points in the order of `ROLES`, ``grasp`` (1 closed)
    and ``embodiment`` (0 robot, 1 human); its action is where all points go next, view by view, and the grasp.

    Raises:
        UnknownCamera: naming those there are.
    """
    cameras = recorded.select(tuple(views), ()).cameras
    names = [f"{view}.{role}.{axis}" for view in views for role in ROLES for axis in "xy"]
    return PolicySpec(
        cameras=cameras,
        state={
            **{keypoints_of(view): StateSpec(XY, ("px",)) for view in views},
            GRASP: StateSpec(1, ("closed",)),
            EMBODIMENT: StateSpec(1, ("human",)),
        },
        action=ActionSpec("tracks", (*names, GRASP), (*("px",) * len(names), "closed")),
        rate_hz=recorded.rate_hz,
    )


class TrackedDataset(Dataset):
    """A dataset of robot or human episodes, seen as tracks.

    Args:
        dataset: any; its episodes' embodiment says which they are.
        views: cameras, two or more, calibrated in every episode.
        gripper: where the five points are on the robot's gripper.
        ahead: rows, of the tracks, from one step of the policy to the next.
        stride: rows of the recording a row of the tracks, which have its rate divided by that; the rows in between
            are left out.

    Raises:
        UnknownCamera: naming those there are.
        SpecMismatch: if it holds neither tool poses nor keypoints, is of a hand and has no keypoints, or has a gripper
            that is not told as 0 closed to 1 open.
    """

    def __init__(
        self, dataset: Dataset, views: Sequence[str], gripper: GripperKeypoints, ahead: int = 1, stride: int = 1
    ) -> None:
        self.where, self._dataset, self.stride = dataset.where, dataset, stride
        self.recorded = dataset.spec
        self.spec = thinned(tracks_spec(dataset.spec, views), stride)
        points = [keypoints_of(view) for view in views]
        if not any(set(names) <= set(dataset.spec.state) for names in (TOOL_STATES, points)):
            raise SpecMismatch(
                f"{dataset.where} holds the states {', '.join(dataset.spec.state) or 'none'}; tracks want a robot's "
                f"{', '.join(TOOL_STATES)}, or a hand's {', '.join(points)}"
            )
        if not set(points) <= set(dataset.spec.state):
            _require_robot(dataset, points)
        self._tracked = [_Tracked(episode, self.spec, tuple(views), gripper, ahead, stride) for episode in dataset]

    def __len__(self) -> int:
        return len(self._tracked)

    def __getitem__(self, index: Any) -> Any:
        return self._tracked[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._tracked)


class _Tracked:
    """An `Episode` whose states and action are tracks, of one row in ``stride``; all else is its own."""

    def __init__(
        self, episode: Episode, spec: PolicySpec, views: tuple[str, ...], gripper: GripperKeypoints, ahead: int,
        stride: int,
    ) -> None:  # fmt: skip
        self._episode, self._spec, self._views, self._gripper = episode, spec, views, gripper
        self._ahead, self._stride = ahead * stride, stride

    def __getattr__(self, name: str) -> Any:
        return getattr(self._episode, name)

    @property
    def human(self) -> bool:
        """Whether a hand did it."""
        return bool(self._episode.meta.embodiment == "human")

    @property
    def length(self) -> int:
        """T, rows of the tracks."""
        return len(range(0, self._episode.length, self._stride))

    def frame_rows(self, camera: str) -> np.ndarray:
        """Return which picture each row has, (T,)."""
        return self._episode.frame_rows(camera)[:: self._stride]

    def derived(self, name: str) -> dict[str, np.ndarray] | None:
        """Return what a tool has added, of the rows of the tracks."""
        found = self._episode.derived(name)
        if found is None:
            return None
        whole = self._episode.length
        return {key: values[:: self._stride] if len(values) == whole else values for key, values in found.items()}

    def state(self, name: str) -> np.ndarray:
        """Return (T, D) float32."""
        return self._state(name)[:: self._stride]

    def _state(self, name: str) -> np.ndarray:
        if name == EMBODIMENT:
            return np.full((self._episode.length, 1), float(self.human), np.float32)
        if name == GRASP and not self.human:
            return grasped(self._opening)
        if name == GRASP:
            return self._episode.state(GRASP)
        return dict(zip(map(keypoints_of, self._views), self._points, strict=True))[name]

    def action(self) -> np.ndarray:
        """Return where the points are one step on, and the grasp that leads there, (T, A) float32."""
        last = self._episode.length - 1
        later = np.minimum(np.arange(last + 1) + self._ahead, last)
        if self.human:
            grasp = self._episode.state(GRASP)[later]
        else:
            grasp = grasped(self.commanded())[np.maximum(later - 1, 0)]  # what was commanded on the way there
        tracks = np.concatenate([*(points[later] for points in self._points), grasp], axis=1)
        return tracks.astype(np.float32)[:: self._stride]

    def commanded(self) -> np.ndarray:
        """Return the opening of a robot's gripper that was commanded at each row of the recording, (N, 1).

        Raises:
            DatasetError: if the commands tell none as 0 closed to 1 open.
        """
        action = self._spec_of_robot.action
        last, unit = action.names[-1], action.units[-1]
        if action.kind not in ("tool_pose", "joint") or not ("gripper" in last or unit == "open"):
            raise DatasetError(
                f"{self._episode.where}: its actions are {action.kind}, the last one {last}; tracks want "
                "tool_pose or joint, gripper last"
            )
        if unit not in OPEN:
            raise DatasetError(f"{self._episode.where}: action {last} is in {unit}; tracks want 0 closed to 1 open")
        return self._open(f"action {last}", self._episode.action()[:, -1:])

    @property
    def _spec_of_robot(self) -> PolicySpec:
        return self._episode._spec

    @cached_property
    def _opening(self) -> np.ndarray:
        """Of the gripper, (T, 1)."""
        return self._open("state gripper", self._episode.state("gripper"))

    def _open(self, what: str, values: np.ndarray) -> np.ndarray:
        """Refuse what is no opening."""
        opening = self._finite(what, values)
        if opening.min() < -ROUGHLY or opening.max() > 1 + ROUGHLY:
            raise DatasetError(
                f"{self._episode.where}: {what} goes from {opening.min():.3g} to {opening.max():.3g}; "
                "tracks want 0 closed to 1 open"
            )
        return opening

    def _finite(self, what: str, values: np.ndarray) -> np.ndarray:
        """Refuse what no points can be told of: a comparison takes NaN for an open gripper."""
        fine = np.isfinite(values).all(-1)
        if what == "state tool_quat":
            fine &= values.any(-1)
        if not fine.all():
            raise DatasetError(
                f"{self._episode.where}: {what} holds no {'rotation' if 'quat' in what else 'number'} at step "
                f"{int(np.argmin(fine))}; trim or delete the episode"
            )
        return values

    @cached_property
    def _points(self) -> list[np.ndarray]:
        """Of each view, (T, 10) float32 px."""
        episode = self._episode
        if self.human:
            return [episode.state(keypoints_of(view)) for view in self._views]
        position, quat = (self._finite(f"state {name}", episode.state(name)) for name in TOOL_STATES[:2])
        points = self._gripper.placed(position, quat, self._opening[:, 0])  # (T, 5, 3) m
        try:
            cameras = cameras_of(episode.meta.cameras, self._views)
            for view, camera in cameras.items():
                size = self._spec.cameras[view].height, self._spec.cameras[view].width
                if camera.size not in (None, size):
                    raise DatasetError(
                        f"camera {view!r} was calibrated for {camera.size} px (H, W), its pictures are {size}"
                    )
                cameras[view] = replace(camera, size=size)  # a K of other pictures is refused
            found = [camera.project(points) for camera in cameras.values()]
        except UnknownCamera as error:
            raise DatasetError(f"{episode.where}: {error} (tell it: data label --calibration)") from error
        except RobopolicyError as error:
            raise DatasetError(f"{episode.where}: {error}") from error
        return [pixels.reshape(len(pixels), XY).astype(np.float32) for pixels in found]


def _require_robot(dataset: Dataset, points: Sequence[str]) -> None:
    """Refuse hands without keypoints, and a robot's states that are not as this project tells them."""
    if any(episode.meta.embodiment == "human" for episode in dataset):
        raise SpecMismatch(
            f"{dataset.where} is of a hand and holds no {', '.join(points)}; "
            "`robopolicy data import landmarks` makes them of a recorded hand's landmarks"
        )
    state = dataset.spec.state
    dims = {name: state[name].dim for name in TOOL_STATES}
    wants = dict(zip(TOOL_STATES, (3, 4, 1), strict=True))
    unit = "/".join(state["gripper"].units)
    if dims != wants or unit not in OPEN:
        have = ", ".join(f"{name} ({dim})" for name, dim in dims.items())
        raise SpecMismatch(
            f"{dataset.where} holds {have}, the gripper in {unit}; tracks want "
            f"{', '.join(f'{name} ({dim})' for name, dim in wants.items())}, the gripper 0 closed to 1 open"
        )
