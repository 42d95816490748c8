"""Our rotations equal scipy's, and one alone is what arrays give."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robopolicy.rotations import (
    matrix_to_quat,
    matrix_to_rot6d,
    matrix_to_rotvec,
    quat_to_matrix,
    rot6d_to_matrix,
    rotvec_to_matrix,
)

ROTATIONS = Rotation.random(200, rng=np.random.default_rng(0))
HALF_TURNS = Rotation.from_rotvec(np.pi * np.vstack([np.eye(3), [[0.6, 0.8, 0.0]]]))


def test_quaternions_equal_scipy():
    quats = ROTATIONS.as_quat(canonical=True, scalar_first=True)
    np.testing.assert_allclose(quat_to_matrix(quats), ROTATIONS.as_matrix(), atol=1e-12)
    for quat, matrix in zip(quats, ROTATIONS.as_matrix(), strict=True):
        np.testing.assert_allclose(matrix_to_quat(matrix), quat, atol=1e-9)


def test_half_turns_survive():
    for matrix in HALF_TURNS.as_matrix():
        np.testing.assert_allclose(quat_to_matrix(matrix_to_quat(matrix)), matrix, atol=1e-12)


def test_unnormalised_quaternion_is_normalised():
    np.testing.assert_allclose(quat_to_matrix(np.array([2.0, 0, 0, 0])), np.eye(3), atol=1e-12)


def test_rot6d_round_trip_and_projection():
    matrices = ROTATIONS.as_matrix()
    np.testing.assert_allclose(rot6d_to_matrix(matrix_to_rot6d(matrices)), matrices, atol=1e-12)
    noisy = matrix_to_rot6d(matrices) + np.random.default_rng(1).normal(0, 0.2, (200, 6))
    fixed = rot6d_to_matrix(noisy)
    np.testing.assert_allclose(fixed @ np.swapaxes(fixed, -1, -2), np.broadcast_to(np.eye(3), fixed.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(fixed), 1.0, atol=1e-9)


def test_one_six_numbers_become_the_matrix_that_many_do_to_the_bit():
    rng = np.random.default_rng(0)
    many = rng.normal(size=(3000, 6)) * 10.0 ** rng.integers(-3, 4, (3000, 1))
    many[np.arange(100), rng.integers(6, size=100)] = 0.0
    many[100:200] = many[100:200].astype(np.float32)
    for one, want in zip(many, rot6d_to_matrix(many), strict=True):
        assert np.array_equal(rot6d_to_matrix(one), want)
    with np.errstate(invalid="ignore"):
        assert np.isnan(rot6d_to_matrix(np.zeros(6))).all()
        assert np.isnan(rot6d_to_matrix(np.float32([1, 0, 0, 2, 0, 0]))[:, 1]).all(), "parallel columns"


def turns():
    """(N, 3) rad: any, a hair's breadth from 180 degrees on both sides, tiny, none, and about the axes themselves."""
    rng = np.random.default_rng(5)
    axes = rng.normal(size=(1200, 3))
    axes[:60] = np.eye(3)[rng.integers(3, size=60)] * rng.choice([-1.0, 1.0], (60, 1))
    near = 10.0 ** rng.uniform(-17, -3, 300)
    angles = np.concatenate([rng.uniform(0, 2 * np.pi, 300), np.pi - near, np.pi + near, near])
    rng.shuffle(angles)
    return np.vstack([np.zeros((1, 3)), axes / np.linalg.norm(axes, axis=1, keepdims=True) * angles[:, None]])


def quat_by_arrays(m):
    squares = np.array([m.trace(), m[0, 0], m[1, 1], m[2, 2]])
    k = int(np.argmax(squares))
    quat, i, j, l = np.empty(4), k - 1, k % 3, (k + 1) % 3
    if k == 0:
        quat[:] = 1 + m.trace(), m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
    else:
        quat[[0, 1 + i]] = m[l, j] - m[j, l], 1 + m[i, i] - m[j, j] - m[l, l]
        quat[[1 + j, 1 + l]] = m[i, j] + m[j, i], m[i, l] + m[l, i]
    quat /= np.linalg.norm(quat)
    return -quat if quat[0] < 0 else quat


def rotvec_by_arrays(matrix):
    quat = quat_by_arrays(matrix)
    length = np.linalg.norm(quat[1:])
    return np.zeros(3) if length < 1e-12 else quat[1:] * (2.0 * np.arctan2(length, quat[0]) / length)


def matrix_by_arrays(vector):
    angle = np.linalg.norm(vector)
    axis = vector / angle if angle > 0 else np.zeros(3)
    return quat_to_matrix(np.concatenate([[np.cos(angle / 2)], np.sin(angle / 2) * axis])[None])[0]


def test_one_quaternion_becomes_the_matrix_that_many_do_to_the_bit():
    rng = np.random.default_rng(0)
    many = rng.normal(size=(3000, 4)) * 10.0 ** rng.integers(-6, 7, (3000, 1))
    many[:100] = many[:100].astype(np.float32)
    many[np.arange(100, 200), rng.integers(4, size=100)] = 0.0
    many[200:208] = np.vstack([np.eye(4), -np.eye(4)])
    for one, want in zip(many, quat_to_matrix(many), strict=True):
        assert np.array_equal(quat_to_matrix(one), want)
    with np.errstate(invalid="ignore"):
        assert np.isnan(quat_to_matrix(np.zeros(4))).all()
    assert np.isnan(quat_to_matrix(np.float32([1, np.nan, 0, 0]))).all()


def test_one_turn_and_its_matrix_become_what_arrays_make_of_them_to_the_bit():
    for turn, after in zip(turns(), np.roll(turns(), 7, axis=0), strict=True):
        matrix = rotvec_to_matrix(turn)
        assert np.array_equal(matrix, matrix_by_arrays(turn))
        for one in (matrix, matrix.T, matrix @ rotvec_to_matrix(after), matrix.astype(np.float32)):
            assert np.array_equal(matrix_to_quat(one), quat_by_arrays(np.float64(one)))
            assert np.array_equal(matrix_to_rotvec(one), rotvec_by_arrays(np.float64(one)))


def test_turns_come_back_the_shortest_way():
    for turn in turns():
        back, angle = matrix_to_rotvec(rotvec_to_matrix(turn)), np.linalg.norm(turn)
        shortest = turn if angle <= np.pi else turn * (1 - 2 * np.pi / angle)
        half = min(np.linalg.norm(back - shortest), np.linalg.norm(back + shortest))
        assert np.linalg.norm(back) <= np.pi + 1e-12
        assert (half if abs(angle - np.pi) < 1e-9 else np.linalg.norm(back - shortest)) < 2e-8


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    matrix, turn, quat = np.eye(3), np.ones(3), np.ones(4)
    matrix[1, 2] = turn[1] = quat[2] = bad
    assert np.isnan(matrix_to_quat(matrix)).any()
    assert np.isnan(matrix_to_rotvec(matrix)).any()
    assert np.isnan(rotvec_to_matrix(turn)).any()
    assert np.isnan(quat_to_matrix(quat)).any()
