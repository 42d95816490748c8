"""Points in space from their pixels in two or more calibrated pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.geometry.cameras import NEAREST, Camera

PARALLAX_RAD = 0.01  # between the rays of a point at least: at 1 m and 1 px, below it depth is wrong by 20 cm and more
BASELINE_M = 1e-3  # cameras nearer to each other than this are at the same place
WIDEST = 1e3  # focal lengths off the first pixel: nothing is seen so far aside
ROUNDS = 1  # of weighting by depth; a second changes the sixth digit at 5 px of noise


@dataclass(frozen=True)
class Triangulated:
    """Points and how well the views agree on them.

    Args:
        points: (..., 3) m in the base frame; NaN where fewer than two views see one, or no place can be told.
        residual_px: (...) root mean square over the views that see it of the distance between where a point was seen
            and where it would be, in the pixels of the pictures; NaN where fewer than two views see it, inf where the
            rays are parallel or meet behind a camera.
        views: (...) int, how many views see it.
        rays: (V, ..., 2) of the pixels, on the undistorted image planes; NaN where a view does not see the point.
    """

    points: np.ndarray
    residual_px: np.ndarray
    views: np.ndarray
    rays: np.ndarray


def triangulate(
    pixels: np.ndarray,
    cameras: Sequence[Camera],
    weights: np.ndarray | None = None,
    *,
    parallax_rad: float = PARALLAX_RAD,
) -> Triangulated:
    """Return the points that the views see at these pixels.

    Linear least squares on the undistorted rays (DLT), its rows divided by the depth found before, by which they
    measure pixels (Hartley and Sturm 1997, Iterative-LS).

    Args:
        pixels: (V, ..., 2) as in the pictures, distorted; a pixel that is not finite (or a thousand focal lengths
            off): that view does not see the point.
        cameras: V of them, two or more, in the order of the views.
        weights: (V, ...) at least 0, how much a view counts; 0: it does not see the point.
        parallax_rad: the rays of a point must meet at this angle at least.

    Raises:
        ContractError: for fewer than two cameras, cameras at the same place, and shapes that do not match.
    """
    pixels, given = _checked(pixels, cameras, weights)
    shape, views = pixels.shape[1:-1], len(cameras)
    pixels, given = pixels.reshape(views, -1, 2), given.reshape(views, -1)
    reach = [WIDEST * camera.K[0, 0] for camera in cameras]
    seen = (np.abs(pixels).max(-1) < np.reshape(reach, (-1, 1))) & (given > 0)  # False for NaN
    rays = np.stack([c.rays(np.where(s[:, None], p, np.nan)) for c, p, s in zip(cameras, pixels, seen, strict=True)])
    seen &= np.isfinite(rays).all(-1)  # a lens does not show every pixel
    count = seen.sum(0)
    onto = [camera.P for camera in cameras]
    points = _met(np.where(seen[..., None], rays, 0.0), np.where(seen, given, 0.0), cameras, onto, count >= 2)
    depth = np.stack([P[2, :3] @ points.T + P[2, 3] for P in onto])  # (V, M)
    told = (
        _parallax(rays, seen, cameras, parallax_rad) & ~((depth <= NEAREST) & seen).any(0) & np.isfinite(points).all(-1)
    )
    squares = np.zeros(points.shape[0])
    for camera, pixel, shows in zip(cameras, pixels, seen & told, strict=True):
        ahead = camera.T_base_cam[:3, 3] + camera.T_base_cam[:3, 2]  # somewhere harmless for the points not asked for
        miss = camera.project(np.where(shows[:, None], points, ahead)) - np.where(shows[:, None], pixel, 0.0)
        squares += np.where(shows, (miss * miss).sum(-1), 0.0)
    residual = np.where(told, np.sqrt(squares / np.maximum(count, 1)), np.where(count >= 2, np.inf, np.nan))
    points = np.where(told[:, None], points, np.nan)
    rays = np.where(seen[..., None], rays, np.nan).reshape(views, *shape, 2)
    return Triangulated(points.reshape(*shape, 3), residual.reshape(shape), count.reshape(shape), rays)


def _checked(
    pixels: np.ndarray, cameras: Sequence[Camera], weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.asarray(pixels, np.float64)
    if len(cameras) < 2:
        raise ContractError(f"triangulate: {len(cameras)} camera; a place in space wants two or more")
    if pixels.ndim < 2 or pixels.shape[0] != len(cameras) or pixels.shape[-1] != 2:
        raise ContractError(f"triangulate: pixels are {pixels.shape}; want ({len(cameras)}, ..., 2), a row a camera")
    places = np.stack([camera.T_base_cam[:3, 3] for camera in cameras])
    apart = float(np.linalg.norm(places - places[0], axis=-1).max())
    if apart < BASELINE_M:
        raise ContractError(f"triangulate: the cameras are {apart:.2g} m apart; from one place no depth can be told")
    if weights is None:
        return pixels, np.ones(pixels.shape[:-1])
    given = np.asarray(weights, np.float64)
    if given.shape != pixels.shape[:-1]:
        raise ContractError(f"triangulate: weights are {given.shape}; want {pixels.shape[:-1]}, one a pixel")
    if not (given >= 0).all():
        raise ContractError("triangulate: weights want to be 0 or more")
    return pixels, given


def _met(
    rays: np.ndarray, weights: np.ndarray, cameras: Sequence[Camera], onto: Sequence[np.ndarray], enough: np.ndarray
) -> np.ndarray:
    """Return where rays (V, M, 2) meet best, (M, 3), weighted by (V, M); NaN where there is no such place."""
    rows, right = [], []  # (2V, 3, M), (2V, M): x P3 - P1 and y P3 - P2, in pixels at depth 1
    for camera, P, ray in zip(cameras, onto, rays, strict=True):
        for axis in (0, 1):
            focal = camera.K[axis, axis]
            rows.append(focal * (ray[:, axis] * P[2, :3, None] - P[axis, :3, None]))
            right.append(focal * (P[axis, 3] - ray[:, axis] * P[2, 3]))
    row, rhs = np.stack(rows), np.stack(right)
    share = weights
    for last in range(ROUNDS + 1):
        twice = np.repeat(share, 2, axis=0)
        weighted = row * twice[:, None]
        normal = np.einsum("rim,rjm->ijm", weighted, row)
        points = _solved(normal, np.einsum("rim,rm->im", weighted, rhs), enough)
        if last < ROUNDS:
            depth = np.stack([P[2, :3] @ points + P[2, 3] for P in onto])
            share = weights / np.maximum(np.abs(depth), 1e-3) ** 2
    return points.T


def _solved(normal: np.ndarray, right: np.ndarray, enough: np.ndarray) -> np.ndarray:
    """Return the solutions (3, M) of symmetric systems (3, 3, M) by their cofactors; NaN where there is none."""
    (a, b, c), (_, d, e), (_, _, f) = normal
    first, second, third = d * f - e * e, c * e - b * f, b * e - c * d
    det = a * first + b * second + c * third
    det = np.where(enough & (det > 1e-12 * (a + d + f) ** 3), det, np.nan)
    middle, cross, last = a * f - c * c, b * c - a * e, a * d - b * b
    x, y, z = right
    return (
        np.stack(
            [first * x + second * y + third * z, second * x + middle * y + cross * z, third * x + cross * y + last * z]
        )
        / det
    )


def _parallax(rays: np.ndarray, seen: np.ndarray, cameras: Sequence[Camera], least: float) -> np.ndarray:
    """Return whether two of the rays of a point meet at an angle of ``least`` rad or more, (M,)."""
    ahead = []
    for camera, ray in zip(cameras, rays, strict=True):
        at = np.concatenate([ray, np.ones((len(ray), 1))], axis=-1) @ camera.T_base_cam[:3, :3].T
        ahead.append(at / np.sqrt((at * at).sum(-1, keepdims=True)))
    apart = np.zeros(rays.shape[1], bool)
    for i in range(len(cameras)):
        for j in range(i):
            cosine = (ahead[i] * ahead[j]).sum(-1)
            apart |= seen[i] & seen[j] & (cosine * cosine < np.cos(least) ** 2)
    return apart
