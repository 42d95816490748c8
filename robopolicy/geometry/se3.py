"""Poses as (4, 4) matrices: exponential and logarithm of SE(3), and smoothing over the steps of a plan."""

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.rotations import quat_to_matrix

SMALL = 0.05  # rad, below which series are more exact than their closed forms


def pose(position: np.ndarray, quat: np.ndarray) -> np.ndarray:
    """Return the poses (..., 4, 4) of positions (..., 3) m and quaternions wxyz (..., 4)."""
    turn = quat_to_matrix(quat)
    made = np.zeros((*np.broadcast_shapes(np.shape(position)[:-1], turn.shape[:-2]), 4, 4))
    made[..., :3, :3], made[..., :3, 3], made[..., 3, 3] = turn, position, 1.0
    return made


def inverse(T: np.ndarray) -> np.ndarray:
    """Return the inverses of poses (..., 4, 4)."""
    made = np.array(T)
    turned = np.swapaxes(T[..., :3, :3], -1, -2)
    made[..., :3, :3] = turned
    made[..., :3, 3] = -(turned @ T[..., :3, 3:])[..., 0]
    return made


def quats_of(matrices: np.ndarray) -> np.ndarray:
    """Return unit quaternions wxyz (..., 4), w >= 0, of rotation matrices (..., 3, 3); NaN for NaN.

    Four times the outer product of the quaternion with itself is linear in the matrix; its row of the largest diagonal
    element is the quaternion but for its length, and no small number is divided by.
    """
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(np.asarray(matrices, np.float64), (-2, -1), (0, 1))
    rows = (
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    )
    outer = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    largest = np.argmax(np.diagonal(outer, axis1=-2, axis2=-1), axis=-1)
    quat = np.take_along_axis(outer, largest[..., None, None], axis=-2)[..., 0, :]
    quat = quat / np.sqrt((quat * quat).sum(-1, keepdims=True))
    signed: np.ndarray = np.where(quat[..., :1] < 0, -quat, quat)
    return signed


def exp(twist: np.ndarray) -> np.ndarray:
    """Return the poses (..., 4, 4) of twists (..., 6): three of the shift, m, and the turn by its axis times rad."""
    twist = np.asarray(twist, np.float64)
    shift, turn = twist[..., :3], twist[..., 3:]
    square = (turn * turn).sum(-1)[..., None, None]
    angle = np.sqrt(square)
    cross = _cross(turn)
    twice = cross @ cross
    small = angle < SMALL
    safe = np.where(small, 1.0, angle)
    sine = np.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), np.sin(safe) / safe)
    half = np.where(
        small, 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56)), 2 * (np.sin(safe / 2) / safe) ** 2
    )
    third = np.where(small, (1 - square / 20 * (1 - square / 42)) / 6, (safe - np.sin(safe)) / safe**3)
    made = np.zeros((*twist.shape[:-1], 4, 4))
    made[..., :3, :3] = np.eye(3) + sine * cross + half * twice
    made[..., :3, 3] = ((np.eye(3) + half * cross + third * twice) @ shift[..., None])[..., 0]
    made[..., 3, 3] = 1.0
    return made


def turn_of(T: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
    """Return the turns (..., 3), axis times rad, of poses (..., 4, 4); NaN for NaN.

    Args:
        T: poses.
        near: (..., 3) turns, rad; of a turn beyond 90 degrees the one of the two ways round that is nearer to it is
            returned, which may be longer than 180 degrees. None: the shorter.
    """
    quat = quats_of(T[..., :3, :3])
    length = np.sqrt((quat[..., 1:] ** 2).sum(-1, keepdims=True))
    angle = 2 * np.arctan2(length, quat[..., :1])
    turn = quat[..., 1:] * np.where(length > 1e-12, angle / np.maximum(length, 1e-300), 2.0)
    if near is not None:
        round_ = turn * (1 - 2 * np.pi / np.maximum(angle, 1e-300))
        nearer = ((round_ - near) ** 2).sum(-1, keepdims=True) < ((turn - near) ** 2).sum(-1, keepdims=True)
        turn = np.where(nearer & (angle > np.pi / 2), round_, turn)
    return turn


def shift_of(turn: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Return the first half (..., 3) of the twist that turns by (..., 3) rad and comes to a position (..., 3) m."""
    square = (turn * turn).sum(-1)[..., None, None]
    small = square < SMALL**2
    safe = np.where(small, 1.0, square)
    root = np.sqrt(safe)
    factor = np.where(small, (1 + square / 60 * (1 + square / 42)) / 12, (1 - root / 2 / np.tan(root / 2)) / safe)
    cross = _cross(turn)
    back = np.eye(3) - cross / 2 + factor * (cross @ cross)
    shift: np.ndarray = (back @ position[..., None])[..., 0]
    return shift


def log(T: np.ndarray) -> np.ndarray:
    """Return the twists (..., 6) of poses (..., 4, 4), as `exp` takes them, of the shorter turn; NaN for NaN."""
    turn = turn_of(T)
    return np.concatenate([shift_of(turn, T[..., :3, 3]), turn], axis=-1)


def _cross(vectors: np.ndarray) -> np.ndarray:
    """Return the matrices (..., 3, 3) of the cross product with vectors (..., 3)."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    made = np.zeros((*vectors.shape, 3))
    made[..., 0, 1], made[..., 0, 2], made[..., 1, 2] = -z, y, -x
    made[..., 1, 0], made[..., 2, 0], made[..., 2, 1] = z, -y, x
    return made


def smooth_poses(
    T: np.ndarray, start: np.ndarray, weights: np.ndarray, stiffness: np.ndarray | float, *, bridge: int = 2
) -> np.ndarray:
    """Return the smoothest poses near those of a plan: penalised least squares on the motion since its start.

    With y_k the twist from the start to step k and x_0 = 0, minimises the sum over the steps of weight times
    (x_k - y_k)^2 plus stiffness times the second differences squared, each element of the twist for itself. The start
    stays where it is, and a constant twist (a straight line, an arc, a screw) has no second differences: it is not
    changed, so it does not lag. The turns come first and the shifts are those by which the positions stay: a turn
    that is told badly moves nothing. A turn since the start may reach 270 degrees.

    Args:
        T: (..., H, 4, 4) poses of the steps 1 to H; one that is not finite does not count.
        start: (4, 4) or (..., 4, 4), the pose at step 0.
        weights: (..., H) or (..., H, 6), one over the variance of a twist (of each of its elements).
        stiffness: one number or (6,), one over the variance of the twist's second difference.
        bridge: so many steps in a row that are not finite are filled in when one after them is; others stay NaN.

    Raises:
        ContractError: if the shapes do not match, or weights or stiffness are negative.
    """
    T, start = np.asarray(T, np.float64), np.asarray(start, np.float64)
    weights, stiff = np.asarray(weights, np.float64), np.broadcast_to(np.asarray(stiffness, np.float64), (6,))
    if T.ndim < 3 or T.shape[-2:] != (4, 4) or start.shape[-2:] != (4, 4):
        raise ContractError(
            f"smooth: poses are {T.shape}, the start {start.shape}; want (..., H, 4, 4) and (..., 4, 4)"
        )
    weights = weights[..., None] if weights.shape == T.shape[:-2] else weights
    if weights.shape not in ((*T.shape[:-2], 1), (*T.shape[:-2], 6)):
        raise ContractError(f"smooth: weights are {weights.shape}; want {T.shape[:-2]} or {(*T.shape[:-2], 6)}")
    told = np.isfinite(T).all((-1, -2)) & np.isfinite(weights).all(-1) & (weights > 0).all(-1)
    share = np.where(told[..., None], weights, 0.0)
    if (share < 0).any() or not (stiff >= 0).all():
        raise ContractError("smooth: weights and stiffness want to be 0 or more")
    relative = np.where(told[..., None, None], inverse(start)[..., None, :, :] @ T, np.eye(4))
    share = np.broadcast_to(share, (*told.shape, 6))
    turn = _least(_turns(relative, told), share[..., 3:], stiff[3:])
    shift = _least(shift_of(turn, relative[..., :3, 3]), share[..., :3], stiff[:3])
    kept = told | _short_gaps(told, bridge)
    moved = exp(np.where(kept[..., None], np.concatenate([shift, turn], axis=-1), 0.0))
    return np.where(kept[..., None, None], start[..., None, :, :] @ moved, np.nan)


def _turns(relative: np.ndarray, told: np.ndarray) -> np.ndarray:
    """Return the turns (..., H, 3) of poses since the start, each going on from the one told before it."""
    turns = turn_of(relative)
    if not ((turns * turns).sum(-1) > (np.pi / 2) ** 2).any():
        return turns
    near = np.zeros((*relative.shape[:-3], 3))
    for k in range(relative.shape[-3]):
        turns[..., k, :] = turn_of(relative[..., k, :, :], near)
        near = np.where(told[..., k, None], turns[..., k, :], near)
    return turns


def _least(y: np.ndarray, weights: np.ndarray, stiff: np.ndarray) -> np.ndarray:
    """Return the minimiser (..., H, D) for measured y and weights (..., H, D) and stiffness (D,), D systems of H."""
    steps = y.shape[-2]
    second = np.zeros((steps - 1, steps))  # x_0 = 0 has no column
    for row in range(steps - 1):
        second[row, row : row + 2] = -2.0, 1.0
        if row:
            second[row, row - 1] = 1.0
    matrix = np.moveaxis(weights, -2, -1)[..., None] * np.eye(steps) + stiff[:, None, None] * (second.T @ second)
    untold = ~(weights > 0).any(-2)  # nothing to solve: 0, whatever stands there
    matrix = matrix + np.where(untold, stiff + 1.0, 0.0)[..., None, None] * np.eye(steps)
    return np.moveaxis(np.linalg.solve(matrix, np.moveaxis(weights * y, -2, -1)[..., None])[..., 0], -1, -2)


def _short_gaps(told: np.ndarray, longest: int) -> np.ndarray:
    """Return which steps (..., H) lie in a gap of at most so many, with a told one (or the start) on either side."""
    steps = told.shape[-1]
    index = np.arange(steps)
    before = np.maximum.accumulate(np.where(told, index, -1), axis=-1)
    after = np.flip(np.minimum.accumulate(np.flip(np.where(told, index, steps + longest + 1), -1), axis=-1), -1)
    return ~told & (after - before - 1 <= longest)
