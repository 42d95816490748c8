"""Rotations in numpy: quaternions wxyz, 3x3 matrices, and the continuous 6-D form of Zhou et al. 2019."""

import math
from contextlib import suppress

import numpy as np


def quat_to_matrix(quat: np.ndarray) -> np.ndarray:
    """Convert quaternions wxyz (..., 4), of any length but zero, to matrices (..., 3, 3) float64."""
    quat = np.asarray(quat, dtype=np.float64)
    unit = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
    w, x, y, z = (unit[..., i] for i in range(4))
    matrix = np.empty((*quat.shape[:-1], 3, 3))  # element by element: stacking a single one takes four times as long
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


def matrix_to_quat(matrix: np.ndarray) -> np.ndarray:
    """Convert one rotation matrix (3, 3) to a unit quaternion wxyz (4,) float64 with w >= 0.

    The largest of the four components is computed first, so no small number is divided by
    (Shepperd 1978).
    """
    m = np.asarray(matrix, dtype=np.float64)
    squares = np.array([m.trace(), m[0, 0], m[1, 1], m[2, 2]])
    k = int(np.argmax(squares))
    if k == 0:
        quat = np.array([1 + m.trace(), m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    else:
        i = k - 1
        j, l = (i + 1) % 3, (i + 2) % 3
        quat = np.empty(4)
        quat[0] = m[l, j] - m[j, l]
        quat[1 + i] = 1 + m[i, i] - m[j, j] - m[l, l]
        quat[1 + j] = m[i, j] + m[j, i]
        quat[1 + l] = m[i, l] + m[l, i]
    quat /= np.linalg.norm(quat)
    return -quat if quat[0] < 0 else quat


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
        with suppress(ZeroDivisionError):  # then as arrays do it: not a number
            return _one_rot6d(*rot6d.tolist())
    first = rot6d[..., :3] / np.linalg.norm(rot6d[..., :3], axis=-1, keepdims=True)
    second = rot6d[..., 3:] - np.sum(first * rot6d[..., 3:], axis=-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    matrix = np.empty((*rot6d.shape[:-1], 3, 3))
    matrix[..., 0], matrix[..., 1] = first, second
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):  # np.cross is written for large arrays
        matrix[..., i, 2] = first[..., j] * second[..., k] - first[..., k] * second[..., j]
    return matrix


def _one_rot6d(a: float, b: float, c: float, d: float, e: float, f: float) -> np.ndarray:
    """Return what arrays give, to the bit, in a fifth of the time: control loops ask for one at a time."""
    length = math.sqrt(a * a + b * b + c * c)
    a, b, c = a / length, b / length, c / length
    along = a * d + b * e + c * f
    d, e, f = d - along * a, e - along * b, f - along * c
    length = math.sqrt(d * d + e * e + f * f)
    d, e, f = d / length, e / length, f / length
    return np.array([[a, d, b * f - c * e], [b, e, c * d - a * f], [c, f, a * e - b * d]])


def rotvec_to_matrix(vector: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) float64 of a turn about ``vector`` (3,) by its length in rad."""
    vector = np.asarray(vector, dtype=np.float64)
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 0 else np.zeros(3)
    return quat_to_matrix(np.array([np.cos(angle / 2), *(np.sin(angle / 2) * axis)]))


def matrix_to_rotvec(matrix: np.ndarray) -> np.ndarray:
    """Return the shortest turn (3,) float64, rad, that one rotation matrix (3, 3) makes."""
    quat = matrix_to_quat(matrix)  # w >= 0
    length = float(np.linalg.norm(quat[1:]))
    if length < 1e-12:
        return np.zeros(3)
    turn: np.ndarray = quat[1:] * (2.0 * np.arctan2(length, quat[0]) / length)
    return turn
