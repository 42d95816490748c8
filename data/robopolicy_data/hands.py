"""A hand in a picture, and what finds it there."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.geometry.keypoints import Handedness

LANDMARKS = 21
WRIST, THUMB_IP, THUMB_TIP, INDEX_TIP = 0, 3, 4, 8
FINGER_TIPS = (8, 12, 16, 20)
PALM = ((0, 5), (0, 9), (0, 17), (5, 17))  # the palm's edges: the longest one seen is the size of a hand


@dataclass(frozen=True)
class Hand:
    """One hand that was found in one picture.

    Raises:
        ContractError: if there are not 21 finite points.
    """

    landmarks_px: np.ndarray  # (21, 2) x, y, sub-pixel, the centre of the first pixel is (0, 0)
    handedness: Handedness  # as the person has it, in a picture that is not mirrored
    score: float  # 0 to 1, of the handedness

    def __post_init__(self) -> None:
        points = np.asarray(self.landmarks_px, np.float64)
        if points.shape != (LANDMARKS, 2) or not np.isfinite(points).all():
            raise ContractError(f"hand: landmarks are {points.shape}; want finite ({LANDMARKS}, 2), px")
        object.__setattr__(self, "landmarks_px", points)


class HandDetector(Protocol):
    """Finds hands in the pictures of one video, in order; it may remember the pictures before."""

    def detect(self, rgb: np.ndarray) -> list[Hand]:
        """Return the hands in a picture (H, W, 3) uint8 RGB."""

    def close(self) -> None:
        """Let go of what it holds."""


def hand_size(landmarks: np.ndarray) -> np.ndarray:
    """Return how big hands (..., 21, D) are, (...,): the longest edge of the palm."""
    edges = np.stack([np.linalg.norm(landmarks[..., a, :] - landmarks[..., b, :], axis=-1) for a, b in PALM])
    size: np.ndarray = edges.max(axis=0)
    return size
