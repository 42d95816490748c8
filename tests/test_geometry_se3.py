"""Poses: scipy's matrix exponential and logarithm are the oracles; smoothing leaves what is smooth as it is."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from robopolicy.errors import ContractError
from robopolicy.geometry import se3

sys.path.insert(0, str(Path(__file__).parent))
from watched_tool import reach


def hat(twist):
    x, y, z = twist[3:]
    return np.array([[0, -z, y, twist[0]], [z, 0, -x, twist[1]], [-y, x, 0, twist[2]], [0, 0, 0, 0.0]])


def twists(angle, count=20):
    rng = np.random.default_rng(0)
    made = rng.normal(size=(count, 6))
    made[:, 3:] *= angle / np.linalg.norm(made[:, 3:], axis=-1, keepdims=True)
    return made


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.049, 0.051, 1.0, 3.0, 3.1415])
def test_exponential_and_logarithm_are_scipys(angle):
    these = twists(angle)
    found = se3.exp(these)
    assert np.abs(found - [expm(hat(t)) for t in these]).max() < 1e-13
    assert np.abs(se3.log(found) - these).max() < 1e-10
    if 0 < angle < 3.1:
        assert np.abs([hat(t) - logm(T) for t, T in zip(se3.log(found), found, strict=True)]).max() < 1e-6
    assert np.abs(se3.inverse(found) @ found - np.eye(4)).max() < 1e-13


def test_quaternions_of_matrices():
    turns = Rotation.concatenate(
        [
            Rotation.from_quat(np.random.default_rng(1).normal(size=(500, 4))),
            Rotation.from_euler(
                "xyz", [[180, 0, 0], [0, 180, 0], [0, 0, 180], [0, 0, 0], [179.999, 0, 0]], degrees=True
            ),
        ]
    )
    found = se3.quats_of(turns.as_matrix())
    expected = turns.as_quat(canonical=False, scalar_first=True)
    assert np.abs(np.abs((found * expected).sum(-1)) - 1).max() < 1e-12
    assert (found[:, 0] >= 0).all()
    assert np.isnan(se3.quats_of(np.full((2, 3, 3), np.nan))).all()
    assert np.abs(se3.pose(np.ones(3), expected)[:, :3, :3] - turns.as_matrix()).max() < 1e-12


@pytest.mark.parametrize("turn", [0.0, 0.02, 0.28])  # rad a step: the last comes to 257 degrees
@pytest.mark.parametrize("stiffness", [0.0, 1.0, 1e6])
def test_a_steady_screw_is_not_changed_and_does_not_lag(turn, stiffness):
    start = se3.exp(np.array([0.3, 0.1, 0.2, 1.0, -0.5, 2.0]))
    twist = np.array([0.01, -0.02, 0.005, 0.6 * turn, 0.0, 0.8 * turn])
    screw = start @ se3.exp(np.arange(1, 17)[:, None] * twist)
    assert np.abs(se3.smooth_poses(screw, start, np.ones(16), stiffness) - screw).max() < 1e-8


def solved(y, weights, stiffness):
    """Penalised least squares by its normal equations, an element at a time."""
    second = np.diff(np.eye(len(y) + 1), 2, axis=0)[:, 1:]  # on 0, x_1, x_2 ...
    columns = zip(y.T, weights.T, stiffness, strict=True)
    return np.stack([np.linalg.solve(np.diag(w) + s * second.T @ second, w * one) for one, w, s in columns], axis=-1)


def test_the_smooth_pose_solves_the_least_squares():
    rng = np.random.default_rng(2)
    start = se3.exp(rng.normal(size=6))
    poses = start @ se3.exp(0.02 * rng.normal(size=(8, 6)).cumsum(0))
    weights, stiffness = rng.uniform(0.5, 2, (8, 6)), np.array([1, 2, 3, 4, 5, 6.0])
    found = se3.log(se3.inverse(start) @ se3.smooth_poses(poses, start, weights, stiffness))
    relative = se3.inverse(start) @ poses
    measured = se3.turn_of(relative)
    turns = solved(measured, weights[:, 3:], stiffness[3:])
    assert np.abs(found[:, 3:] - turns).max() < 1e-9
    # a shift with which the smoothed turn comes to the measured position: scipy's exponential says so
    shifts = se3.shift_of(turns, relative[:, :3, 3])
    came = [expm(hat(np.concatenate(t)))[:3, 3] for t in zip(shifts, turns, strict=True)]
    assert np.abs(came - relative[:, :3, 3]).max() < 1e-12
    expected = solved(shifts, weights[:, :3], stiffness[:3])
    assert np.abs(found[:, :3] - expected).max() < 1e-9


def test_a_turn_told_badly_moves_nothing():
    rng = np.random.default_rng(3)
    made = reach(rng)
    poses = se3.pose(made.position, made.quat)
    shaken = poses @ se3.exp(np.concatenate([np.zeros((17, 3)), 0.2 * rng.normal(size=(17, 3))], axis=-1))
    weights = np.repeat([1e12, 1.0], 3) * np.ones((16, 6))
    found = se3.smooth_poses(shaken[1:], poses[0], weights, np.repeat([4e4, 1e3], 3))
    assert np.linalg.norm(found[:, :3, 3] - made.position[1:], axis=-1).max() < 1e-6
    before, after = (made.errors(p[:, :3, 3], se3.quats_of(p[:, :3, :3]))[1] for p in (shaken[1:], found))
    assert np.median(after) < 0.6 * np.median(before)


def test_short_gaps_are_filled_and_the_rest_is_left():
    start, twist = np.eye(4), np.array([0.01, 0, 0, 0, 0.02, 0])
    screw = se3.exp(np.arange(1, 17)[:, None] * twist)
    holed = np.array(screw)
    holed[[0, 4, 5, 8, 9, 10, 15]] = np.nan
    found = se3.smooth_poses(np.stack([holed, screw, np.full_like(screw, np.nan)]), start, np.ones((3, 16)), 10.0)
    told = np.isfinite(found).all((-1, -2))
    assert np.flatnonzero(~told[0]).tolist() == [8, 9, 10, 15], "three in a row, and after the last"
    assert told[1].all()
    assert not told[2].any()
    assert np.abs(found[0][told[0]] - screw[told[0]]).max() < 1e-9
    assert (
        np.flatnonzero(~np.isfinite(se3.smooth_poses(holed, start, np.ones(16), 10.0, bridge=0)).all((-1, -2))).size
        == 7
    )


def test_what_does_not_match_is_named():
    poses = np.broadcast_to(np.eye(4), (4, 4, 4))
    with pytest.raises(ContractError, match=r"weights are \(5,\); want \(4,\) or \(4, 6\)"):
        se3.smooth_poses(poses, np.eye(4), np.ones(5), 1.0)
    with pytest.raises(ContractError, match=r"poses are \(4, 3, 3\)"):
        se3.smooth_poses(np.zeros((4, 3, 3)), np.eye(4), np.ones(4), 1.0)
    with pytest.raises(ContractError, match="0 or more"):
        se3.smooth_poses(poses, np.eye(4), np.ones(4), -1.0)
