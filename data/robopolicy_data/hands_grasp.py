"""Whether a hand grasps: how far thumb and index are apart, and whether they touch the object."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy_data.hands import FINGER_TIPS, INDEX_TIP, THUMB_IP, THUMB_TIP, hand_size
from robopolicy_data.hands_tracks import runs


@dataclass(frozen=True)
class GraspRule:
    """When a hand is closed; apertures are in sizes of the hand.

    Raises:
        ContractError: if it closes at a wider aperture than it opens at.
    """

    close: float = 0.40  # below it the hand closes
    open: float = 0.60  # above it, it opens; in between it stays as it was
    least_s: float = 0.2  # shorter grasps, and shorter openings between two, are none
    near_px: float = 15.0  # from the object's mask, that thumb and finger touch it
    contact_steps: int = 5  # in a row, that they must

    def __post_init__(self) -> None:
        if not 0 < self.close <= self.open:
            raise ContractError(
                f"grasp: closes below an aperture of {self.close:g}, opens above {self.open:g}; want 0 < close <= open"
            )


@dataclass(frozen=True)
class Contact:
    """Where thumb and a finger touch the object."""

    touching: np.ndarray  # (T,) bool
    moving: bool  # the mask follows the object, so that where they do not touch they do not hold


def aperture(landmarks: np.ndarray) -> np.ndarray:
    """Return how far the tips of thumb and index are apart, (T,), in sizes of the hand (T, 21, D), px or m."""
    gap = np.linalg.norm(landmarks[:, THUMB_TIP] - landmarks[:, INDEX_TIP], axis=-1)
    apart: np.ndarray = gap / np.maximum(hand_size(landmarks), 1e-9)
    return apart


def grasp(apart: np.ndarray, rate_hz: float, rule: GraspRule, contact: Contact | None = None) -> np.ndarray:
    """Return 1 where the hand is closed, else 0, (T,) int64.

    Without a mask the aperture decides, with hysteresis. With one, the hand closes where it touches the object and is
    not wide open, and opens where it is, or where it touches a mask that moves with the object no more.

    Args:
        apart: (T,) `aperture`.
        rate_hz: steps a second.
        rule: thresholds.
        contact: with the object's mask.
    """
    closed = np.zeros(len(apart), bool)
    holds = False
    for step, width in enumerate(apart.tolist()):
        wide = width > rule.open
        if contact is None:
            holds = (holds and not wide) or width < rule.close
        else:
            touches = bool(contact.touching[step])
            holds = not wide and (touches or (holds and not contact.moving))
        closed[step] = holds
    least = math.ceil(rule.least_s * rate_hz - 1e-9)
    for first, stop in runs(~closed):  # openings first: a grasp that flickers is one grasp
        if stop - first < least and first > 0 and stop < len(closed):
            closed[first:stop] = True
    for first, stop in runs(closed):
        if stop - first < least:
            closed[first:stop] = False
    return closed.astype(np.int64)


def contact_of(gaps: Mapping[str, np.ndarray], rule: GraspRule, *, moving: bool) -> Contact:
    """Return where thumb and a finger touch the object in every view that has a mask, long enough.

    Args:
        gaps: {view: (T, 21)} distances of the landmarks from the mask, px.
        rule: how near, and how long.
        moving: whether the masks follow the object.
    """
    views = []
    for far in gaps.values():
        near = far <= rule.near_px
        views.append(near[:, [THUMB_IP, THUMB_TIP]].any(axis=1) & near[:, list(FINGER_TIPS)].any(axis=1))
    touching = np.all(views, axis=0)
    for first, stop in runs(touching):
        if stop - first < rule.contact_steps:
            touching[first:stop] = False
    return Contact(touching, moving)
