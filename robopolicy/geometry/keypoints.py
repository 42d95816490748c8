"""The five points by which a gripper and a human hand are the same thing (Ren et al. 2025, motion tracks)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robopolicy.errors import ContractError, UnknownName
from robopolicy.rotations import quat_to_matrix

ROLES: tuple[str, ...] = ("base", "first_mid", "first_tip", "second_mid", "second_tip")
POINTS = len(ROLES)
FIRST_TIP, SECOND_TIP = ROLES.index("first_tip"), ROLES.index("second_tip")
Handedness = Literal["left", "right"]
TOOL_STATES = ("tool_pos", "tool_quat", "gripper")  # of a robot, by which its points are placed
GRASP, EMBODIMENT = "grasp", "embodiment"  # states of tracks: 1 closed; 0 robot, 1 human
GRASPED_BELOW = 0.75  # a gripper less open than this grasps: one that holds a thing is not shut
# Of the 21 landmarks (MediaPipe's and HaMeR's order): 5 6 8 are the index finger's base, middle joint and tip, 2 and 4
# the thumb's. The finger on the same side of the hand plays the same role: thumb and index swap between the hands.
LANDMARKS: dict[str, tuple[int, ...]] = {"left": (5, 6, 8, 2, 4), "right": (5, 2, 4, 6, 8)}


@dataclass(frozen=True)
class GripperKeypoints:
    """Where the five points are in the tool frame, m: of the open and of the closed gripper; linear in between.

    Args:
        opened: (5, 3) at opening 1, in the order of `ROLES`.
        closed: (5, 3) at opening 0.

    Raises:
        ContractError: if the points are not (5, 3), not finite, or lie on a line, by which no pose can be found.
    """

    opened: np.ndarray
    closed: np.ndarray

    def __post_init__(self) -> None:
        for name in ("opened", "closed"):
            points = np.array(getattr(self, name), np.float64)
            if points.shape != (POINTS, 3) or not np.isfinite(points).all():
                raise ContractError(f"keypoints: {name} is {points.shape}; want finite ({POINTS}, 3), m")
            if np.linalg.svd(points - points.mean(0), compute_uv=False)[1] < 1e-3:
                raise ContractError(f"keypoints: {name} lie on a line, by which no rotation can be told")
            object.__setattr__(self, name, points)

    @classmethod
    def parallel(cls, width: float, length: float = 0.10, pad: float = 0.0) -> "GripperKeypoints":
        """Return those of a parallel gripper whose tool frame lies between the tips, y the way it opens, z outwards.

        Args:
            width: m between the tips when it is open.
            length: m from the base to the tips; the middle points are half-way.
            pad: m between the two sides' points when it is closed.
        """

        def at(gap: float) -> np.ndarray:
            y = gap / 2
            return np.array([[0, 0, -length], *([0, s * y, z] for s in (1, -1) for z in (-length / 2, 0.0))])

        return cls(at(width + pad), at(pad))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "GripperKeypoints":
        """Rebuild what `to_json` gave."""
        try:
            return cls(data["opened"], data["closed"])
        except (KeyError, TypeError, ValueError) as error:
            raise ContractError(f"not gripper keypoints: {error!r}; want opened and closed, (5, 3) each") from error

    def to_json(self) -> dict[str, Any]:
        """Return plain lists."""
        return {"opened": self.opened.tolist(), "closed": self.closed.tolist()}

    def at(self, opening: np.ndarray | float) -> np.ndarray:
        """Return the points (..., 5, 3) in the tool frame, m, at openings (...,), 0 closed to 1 open."""
        share = np.clip(np.asarray(opening, np.float64), 0.0, 1.0)[..., None, None]
        points: np.ndarray = share * self.opened + (1 - share) * self.closed
        return points

    def opening(self, points: np.ndarray) -> np.ndarray:
        """Return the openings (...,), 0 to 1, at which the tips are as far apart as in points (..., 5, 3)."""
        ends = [np.linalg.norm(p[FIRST_TIP] - p[SECOND_TIP]) for p in (self.closed, self.opened)]
        gap = np.linalg.norm(points[..., FIRST_TIP, :] - points[..., SECOND_TIP, :], axis=-1)
        if abs(ends[1] - ends[0]) < 1e-6:
            return np.ones_like(gap)
        opening: np.ndarray = np.clip((gap - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)
        return opening

    def placed(self, position: np.ndarray, quat: np.ndarray, opening: np.ndarray) -> np.ndarray:
        """Return the points (..., 5, 3) in the base frame.

        Args:
            position: (..., 3) of the tool, m.
            quat: (..., 4) wxyz.
            opening: (...,), 0 closed to 1 open.
        """
        turn = quat_to_matrix(np.asarray(quat, np.float64))
        placed: np.ndarray = (
            self.at(opening) @ np.swapaxes(turn, -1, -2) + np.asarray(position, np.float64)[..., None, :]
        )
        return placed


def keypoints_of(view: str) -> str:
    """Return the name of the state that holds a view's five points, (10,) px: x and y in the order of `ROLES`."""
    return f"keypoints_{view}"


def grasped(opening: np.ndarray) -> np.ndarray:
    """Return 1.0 where a gripper, 0 closed to 1 open, grasps, else 0.0, as a hand's grasp is told."""
    return (np.asarray(opening) < GRASPED_BELOW).astype(np.float32)


TWIN = GripperKeypoints.parallel(0.08, pad=0.016)  # of the twin's hand, on the outside of its finger tips


def hand_keypoints(landmarks: np.ndarray, handedness: Handedness) -> np.ndarray:
    """Return the five points (..., 5, D) of a hand's landmarks (..., 21, D), pixels or m.

    Raises:
        UnknownName: if the hand is neither left nor right.
        ContractError: on another shape.
    """
    if handedness not in LANDMARKS:
        raise UnknownName("hand", handedness, LANDMARKS)
    landmarks = np.asarray(landmarks)
    if landmarks.ndim < 2 or landmarks.shape[-2] != 21:
        raise ContractError(f"hand: landmarks are {landmarks.shape}; want (..., 21, D)")
    return landmarks[..., list(LANDMARKS[handedness]), :]
