"""Our rotations equal scipy's."""

import numpy as np
from scipy.spatial.transform import Rotation

from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, quat_to_matrix, rot6d_to_matrix

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
