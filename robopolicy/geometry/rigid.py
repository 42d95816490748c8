"""The rigid motion that takes one set of points best onto another."""

from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.rotations import quat_to_matrix

THIN = 1e-3  # of breadth to length: thinner sets of points lie on a line, and say nothing of the turn about it


@dataclass(frozen=True)
class Fit:
    """Rigid motions: target = rotation @ source + translation; NaN where none can be told.

    Args:
        rotation: (..., 3, 3), determinant 1.
        translation: (..., 3) m.
        residual_m: (...) weighted root mean square distance of the moved source points to the target's, m.
    """

    rotation: np.ndarray
    translation: np.ndarray
    residual_m: np.ndarray


def fit_rigid(source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> Fit:
    """Return the rotations and translations of least weighted squares.

    Horn's quaternion (1987): the same minimum as Kabsch's with the reflection taken back, and a rotation always.
    A motion is NaN where fewer than three points are finite in both sets, and where those of either lie on a line.

    Args:
        source: (..., P, 3) m; it may have fewer leading axes than the target.
        target: (..., P, 3) m; points that are not finite do not count.
        weights: (..., P) at least 0; None: all points count the same.

    Raises:
        ContractError: if the shapes do not match or a weight is negative or no number.
    """
    source, target, weights = _checked(source, target, weights)
    counts = (weights > 0) & np.isfinite(source).all(-1) & np.isfinite(target).all(-1)
    share = np.where(counts, weights, 0.0)[..., None]
    total = np.where(counts.sum(-1) >= 3, share.sum((-1, -2)), np.nan)[..., None, None]
    share = share / total
    source, target = (np.where(counts[..., None], points, 0.0) for points in (source, target))
    here, there = (share * source).sum(-2, keepdims=True), (share * target).sum(-2, keepdims=True)
    from_centre, to_centre = source - here, target - there
    told = np.isfinite(total[..., 0, 0])
    for points in (from_centre, to_centre):
        length, broad = _spread(points, share)
        told &= broad > (THIN * length) ** 2
    quat = np.linalg.eigh(
        _horn(np.where(told[..., None, None], np.swapaxes(share * from_centre, -1, -2) @ to_centre, 0))
    )
    turn = np.where(told[..., None, None], quat_to_matrix(quat.eigenvectors[..., -1]), np.nan)
    shift = (there - here @ np.swapaxes(turn, -1, -2))[..., 0, :]
    miss = to_centre - from_centre @ np.swapaxes(turn, -1, -2)
    return Fit(turn, shift, np.sqrt((share * miss * miss).sum((-1, -2))))


def breadth(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far points (..., P, 3) weighing (..., P) reach across the line that they are nearest to, m (...).

    By it the turn about that line is told. Points of weight 0 do not count; 0 for points on a line.
    """
    share = np.asarray(weights, np.float64)[..., None]
    points = np.where(share > 0, points, 0.0)
    centre = (share * points).sum(-2, keepdims=True) / np.maximum(share.sum((-1, -2))[..., None, None], 1e-300)
    across: np.ndarray = np.sqrt(np.maximum(_spread(points - centre, share)[1], 0.0))
    return across


def _spread(centred: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the length and the squared breadth (...) of centred points (..., P, 3) sharing (..., P, 1)."""
    scatter = np.swapaxes(share * centred, -1, -2) @ centred
    (a, b, c), (_, d, e), (_, _, f) = np.moveaxis(scatter, (-2, -1), (0, 1))
    trace = a + d + f
    minors = a * d - b * b + a * f - c * c + d * f - e * e  # sums of eigenvalues and of their products by twos
    return np.sqrt(trace), minors / np.maximum(trace, 1e-300)


def _checked(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    try:
        source, target = np.broadcast_arrays(source, target)
        given = np.ones(target.shape[:-1]) if weights is None else np.asarray(weights, np.float64)
        given = np.broadcast_to(given, target.shape[:-1])
    except ValueError as error:
        raise ContractError(f"fit: points and weights do not match: {error}") from error
    if target.ndim < 2 or target.shape[-1] != 3:
        raise ContractError(f"fit: points are {target.shape}; want (..., P, 3)")
    if not (given >= 0).all():
        raise ContractError("fit: weights want to be 0 or more")
    return source, target, given


def _horn(cross: np.ndarray) -> np.ndarray:
    """Return the symmetric (..., 4, 4) whose last eigenvector is the quaternion of cross-covariances (..., 3, 3)."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = np.moveaxis(cross, (-2, -1), (0, 1))
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
