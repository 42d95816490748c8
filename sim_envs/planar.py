"""Plane geometry: the published T, poses (x, y, yaw), and the exact area that two T's share."""

from collections.abc import Sequence

import numpy as np

PX = 0.5 / 512  # m, of one pixel of the published Push-T world, which is 512 wide
CENTROID = (3600 * 15 + 2700 * 75) / 6300  # px below the top edge of the bar; the published origin is that edge


def _rectangle(left: float, right: float, top: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=float)


# Source: add_tee of diffusion_policy's and gym-pusht's simulator: bar 120 x 30 px, stem 30 x 90 px.
PARTS = tuple(
    (_rectangle(*sides) - [0, CENTROID]) * PX for sides in ((-60.0, 60.0, 0.0, 30.0), (-15.0, 15.0, 30.0, 120.0))
)  # two convex polygons (4, 2) m, counter-clockwise, about the centroid of the T
OUTLINE = (
    np.array(
        [[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]] - np.array([0, CENTROID])
    )
    * PX
)  # (8, 2) m, counter-clockwise
AREA = 6300 * PX**2  # m^2
FLAT = 0.98  # cosine of the most that a thing's own z leans while it counts as lying flat


def lies_flat(xmat: np.ndarray) -> bool:
    """Whether a thing lies flat and the right way up, by its rotation matrix (9,), row by row.

    A stick that presses on its edge can stand it up and turn it over; x, y and yaw do not tell.
    """
    return bool(xmat[8] > FLAT)


def place(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Move points (N, 2) m of a body's frame to where its pose (x, y, yaw) puts them."""
    c, s = np.cos(pose[2]), np.sin(pose[2])
    moved: np.ndarray = points @ np.array([[c, s], [-s, c]]) + pose[:2]
    return moved


def coverage(pose: np.ndarray, goal: np.ndarray) -> float:
    """Return the part of the T at ``goal`` that the T at ``pose`` covers, 0 to 1, exactly."""
    shared = sum(clip_area(place(a, pose), place(b, goal)) for a in PARTS for b in PARTS)
    return shared / AREA


def clip_area(subject: np.ndarray, clip: np.ndarray) -> float:
    """Return the area that two convex polygons share, both (N, 2) counter-clockwise.

    Sutherland and Hodgman, Reentrant Polygon Clipping, 1974, then the shoelace formula.
    """
    corners, edges = subject.tolist(), clip.tolist()  # plain floats: numpy is slower on four corners
    for i, (bx, by) in enumerate(edges):
        ax, ay = edges[i - 1]
        inside = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in corners]
        kept = []
        for j, (x, y) in enumerate(corners):
            here, before = inside[j], inside[j - 1]
            if (here >= 0) != (before >= 0):
                t, (px, py) = before / (before - here), corners[j - 1]
                kept.append((px + t * (x - px), py + t * (y - py)))
            if here >= 0:
                kept.append((x, y))
        corners = kept
        if not corners:
            return 0.0
    twice = sum(corners[i - 1][0] * y - x * corners[i - 1][1] for i, (x, y) in enumerate(corners))
    return 0.5 * twice


def distance(points: np.ndarray, parts: Sequence[np.ndarray] = PARTS) -> np.ndarray:
    """Return how far points (N, 2) of a thing's own frame are from it, (N,) m; negative inside.

    ``parts`` are the rectangles (4, 2) m along its axes that it is made of; default: the T's.
    """
    best = np.full(len(points), np.inf)
    for part in parts:
        low, high = part.min(axis=0), part.max(axis=0)
        gap = np.maximum(low - points, points - high)  # (N, 2)
        outside = np.linalg.norm(np.maximum(gap, 0), axis=1)
        best = np.minimum(best, outside + np.minimum(gap.max(axis=1), 0))
    return best
