"""Rotations in numpy: quaternions wxyz, 3x3 matrices, and the continuous 6-D form of Zhou et al. 2019.

Control loops ask for one at a time: one is computed in plain floats, with the operations of the arrays in their order,
and so to the same bits in a fraction of the time.
"""

import math

import numpy as np


def quat_to_matrix(quat: np.ndarray) -> np.ndarray:
    """Convert quaternions wxyz (..., 4), of any length but zero, to matrices (..., 3, 3) float64."""
    quat = np.asarray(quat, dtype=np.float64)
    if quat.ndim == 1:
        try:
            return _one_quat(*quat.tolist())
        except ZeroDivisionError:
            pass  # then as arrays do it: not a number
    unit = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
    w, x, y, z = (unit[..., i] for i in range(4))
    matrix = np.empty((*quat.shape[:-1], 3, 3))
    matrix[..., 0, 0] = 1 - 2 * (y * y + z * z)
    matrix[..., 0, 1] = 2 * (x * y - w * z)
    matrix[..., 0, 2] = 2 * (x * z + w * y)
    matrix[..., 1, 0] = 2 * (x * y + w * z)
    matrix[..., 1, 1] = 1 - 2 * (x * x + z * z)
    matrix[..., 1, 2] = 2 * (y * z - w * x)
    matrix[..., 2, 0] = 2 * (x * z - w * y)
    matrix[..., 2, 1] = 2 * (y * z + w * x)
    matrix[..., 2, 2] = 1 - 2 * (x * x + y * y)
    return matrix


def _one_quat(w: float, x: float, y: float, z: float) -> np.ndarray:
    length = math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / length, x / length, y / length, z / length
    return np.array((
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    )).reshape(3, 3)  # fmt: skip


def matrix_to_quat(matrix: np.ndarray) -> np.ndarray:
    """Convert one rotation matrix (3, 3) to a unit quaternion wxyz (4,) float64 with w >= 0.

    The largest of the four components is computed first, so no small number is divided by
    (Shepperd 1978).
    """
    return np.array(_unit_quat(matrix))


def _unit_quat(matrix: np.ndarray) -> list[float]:
    (a, b, c), (d, e, f), (g, h, i) = np.asarray(matrix, dtype=np.float64).tolist()
    trace = a + e + i
    largest = max(trace, a, e, i)
    if largest == trace:
        quat = [1 + trace, h - f, c - g, d - b]
    elif largest == a:
        quat = [h - f, 1 + a - e - i, b + d, c + g]
    elif largest == e:
        quat = [c - g, d + b, 1 + e - i - a, f + h]
    else:
        quat = [d - b, g + c, h + f, 1 + i - a - e]
    length = _norm(quat)
    if quat[0] < 0:
        length = -length
    return [one / length for one in quat]


def _norm(vector: list[float]) -> float:
    """Return `np.linalg.norm` to the bit: its dot product may fuse the multiplications with the sums."""
    array = np.array(vector)
    return math.sqrt(array.dot(array))


def matrix_to_rot6d(matrix: np.ndarray) -> np.ndarray:
    """Return the first two columns of (..., 3, 3), one after the other: (..., 6)."""
    matrix = np.asarray(matrix)
    return np.concatenate([matrix[..., :, 0], matrix[..., :, 1]], axis=-1)


def rot6d_to_matrix(rot6d: np.ndarray) -> np.ndarray:
    """Return the rotation (..., 3, 3) float64 nearest in the Gram-Schmidt sense to two columns (..., 6).

    Zhou et al., On the Continuity of Rotation Representations in Neural Networks, 2019, eq. 15.
    """
    rot6d = np.asarray(rot6d, dtype=np.float64)
    if rot6d.ndim == 1:
        try:
            return _one_rot6d(*rot6d.tolist())
        except ZeroDivisionError:
            pass  # then as arrays do it: not a number
    first = rot6d[..., :3] / np.linalg.norm(rot6d[..., :3], axis=-1, keepdims=True)
    second = rot6d[..., 3:] - np.sum(first * rot6d[..., 3:], axis=-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    matrix = np.empty((*rot6d.shape[:-1], 3, 3))
    matrix[..., 0], matrix[..., 1] = first, second
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):  # np.cross is written for large arrays
        matrix[..., i, 2] = first[..., j] * second[..., k] - first[..., k] * second[..., j]
    return matrix


def _one_rot6d(a: float, b: float, c: float, d: float, e: float, f: float) -> np.ndarray:
    length = math.sqrt(a * a + b * b + c * c)
    a, b, c = a / length, b / length, c / length
    along = a * d + b * e + c * f
    d, e, f = d - along * a, e - along * b, f - along * c
    length = math.sqrt(d * d + e * e + f * f)
    d, e, f = d / length, e / length, f / length
    return np.array((a, d, b * f - c * e, b, e, c * d - a * f, c, f, a * e - b * d)).reshape(3, 3)


def rotvec_to_matrix(vector: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) float64 of a turn about ``vector`` (3,) by its length in rad."""
    vector = np.asarray(vector, dtype=np.float64)
    angle = math.sqrt(vector.dot(vector))
    x, y, z = (vector / angle if angle > 0 else vector).tolist()
    cos, sin = float(np.cos(angle / 2)), float(np.sin(angle / 2))  # math's may round otherwise
    return _one_quat(cos, sin * x, sin * y, sin * z)


def matrix_to_rotvec(matrix: np.ndarray) -> np.ndarray:
    """Return the shortest turn (3,) float64, rad, that one rotation matrix (3, 3) makes."""
    w, *axis = _unit_quat(matrix)  # w >= 0
    length = _norm(axis)
    if length < 1e-12:
        return np.zeros(3)
    per_length = 2.0 * float(np.arctan2(length, w)) / length  # math.atan2 rounds otherwise
    return np.array([one * per_length for one in axis])
