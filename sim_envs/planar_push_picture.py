"""Push-T from above, in gym-pusht's colours."""

import cv2
import numpy as np

from sim_envs.planar import CENTROID, PARTS, PX, place
from sim_envs.planar_push_physics import RADIUS, WALLS, turned

_SIZE, _SHIFT = 512, 4  # px that are drawn before they are scaled; bits of a pixel's fraction
_WALL, _MARK = (211, 211, 211), (144, 238, 144)
_BLOCK, _PUSHER, _TARGET = (119, 136, 153), (65, 105, 225), (255, 0, 0)


def draw(state: np.ndarray, goal: np.ndarray, size: int, *, target: np.ndarray | None = None) -> np.ndarray:
    """Return the picture of a state, (size, size, 3) uint8 RGB.

    Args:
        state: (5,) px, px, px, px, rad.
        goal: (3,) px, px, rad, of the T's origin.
        size: px.
        target: (2,) px, marked by a cross.
    """
    screen = np.full((_SIZE, _SIZE, 3), 255, np.uint8)
    low, high = (int(wall) for wall in WALLS)
    cv2.rectangle(screen, (low, low), (high, high), _WALL, 4)
    _tee(screen, goal, _MARK, plain=True)
    _circle(screen, state[:2], RADIUS, _PUSHER)
    _circle(screen, state[:2], RADIUS - 4, _lighter(_PUSHER))
    _tee(screen, state[2:], _BLOCK)
    picture = cv2.resize(screen, (size, size))
    if target is not None:
        at = tuple(int(v) for v in np.asarray(target) * size / _SIZE)
        cv2.drawMarker(picture, at, _TARGET, cv2.MARKER_CROSS, size // 12, max(size // 96, 1))
    return picture


def _tee(screen: np.ndarray, pose: np.ndarray, colour: tuple[int, int, int], *, plain: bool = False) -> None:
    centroid = np.array([*(pose[:2] + turned(pose[2], CENTROID)) * PX, pose[2]])
    for part in PARTS:
        corners = np.round(place(part, centroid) / PX * 2**_SHIFT).astype(np.int32)
        cv2.fillPoly(screen, [corners], colour if plain else _lighter(colour), cv2.LINE_8, _SHIFT)
        if not plain:
            cv2.polylines(screen, [corners], True, colour, 4, cv2.LINE_8, _SHIFT)


def _circle(screen: np.ndarray, centre: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
    at = tuple(int(v) for v in np.round(np.asarray(centre) * 2**_SHIFT))
    cv2.circle(screen, at, int(radius * 2**_SHIFT), colour, -1, cv2.LINE_8, _SHIFT)


def _lighter(colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(min(int(v * 1.2), 255) for v in colour)
