"""Rigid fits: scipy is the oracle."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from robopolicy.errors import ContractError
from robopolicy.geometry.keypoints import TWIN
from robopolicy.geometry.rigid import breadth, fit_rigid


def moved(rng, count=200, points=7):
    source = rng.normal(size=(count, points, 3))
    turns = Rotation.from_quat(rng.normal(size=(count, 4)))
    shift = rng.normal(size=(count, 3))
    return source, turns.as_matrix(), shift, source @ np.swapaxes(turns.as_matrix(), -1, -2) + shift[:, None]


def test_exact_points_give_their_motion():
    source, turn, shift, target = moved(np.random.default_rng(0))
    fit = fit_rigid(source, target)
    assert np.abs(fit.rotation - turn).max() < 1e-12
    assert np.abs(fit.translation - shift).max() < 1e-12
    assert fit.residual_m.max() < 1e-12


def test_weighted_noise_gives_scipys_rotation_and_residual():
    rng = np.random.default_rng(1)
    source, _, _, target = moved(rng)
    target = target + 0.3 * rng.normal(size=target.shape)
    weights = rng.uniform(0, 2, target.shape[:-1])
    fit = fit_rigid(source, target, weights)
    for k in range(len(source)):
        here, there = (np.average(p[k], axis=0, weights=weights[k]) for p in (source, target))
        expected, rssd = Rotation.align_vectors(target[k] - there, source[k] - here, weights[k])
        assert np.abs(fit.rotation[k] - expected.as_matrix()).max() < 1e-9
        assert np.allclose(fit.translation[k], there - expected.as_matrix() @ here)
        assert fit.residual_m[k] == pytest.approx(rssd / np.sqrt(weights[k].sum()))


def test_a_mirrored_set_is_never_answered_by_a_reflection():
    rng = np.random.default_rng(2)
    source = rng.normal(size=(50, 6, 3))
    fit = fit_rigid(source, source * [1, 1, -1])
    assert np.allclose(np.linalg.det(fit.rotation), 1)
    flat = np.array(source)
    flat[..., 2] = 0  # as the gripper's points: without the fix half of these are reflections
    fit = fit_rigid(flat, flat + 1e-3 * rng.normal(size=flat.shape))
    assert np.abs(fit.rotation - np.eye(3)).max() < 0.05


def test_points_that_are_not_numbers_do_not_count():
    source, turn, _, target = moved(np.random.default_rng(3), 3, 5)
    target[0, 1], target[1, :2], target[2, :3] = np.nan, np.inf, np.nan
    fit = fit_rigid(source, target)
    assert np.abs(fit.rotation[:2] - turn[:2]).max() < 1e-12
    assert np.isnan(fit.rotation[2]).all(), "two points are not enough"
    assert np.isnan(fit.translation[2]).all()
    assert np.isnan(fit.residual_m[2])
    wrong = np.array(target)
    wrong[0, 0] += 5
    weights = np.ones((3, 5))
    weights[0, 0] = 0
    assert np.abs(fit_rigid(source, wrong, weights).rotation[0] - turn[0]).max() < 1e-12


@pytest.mark.parametrize("which", ["source", "target", "one place"])
def test_points_on_a_line_tell_no_turn(which):
    rng = np.random.default_rng(4)
    line = np.linspace(0, 1, 5)[:, None] * rng.normal(size=3) + 0.2
    full = rng.normal(size=(5, 3))
    sets = {"source": (line, full), "target": (full, line), "one place": (full, np.ones((5, 3)))}
    assert np.isnan(fit_rigid(*sets[which]).rotation).all()


def test_one_model_for_many_targets():
    rng = np.random.default_rng(5)
    turns = Rotation.from_quat(rng.normal(size=(6, 4))).as_matrix().reshape(2, 3, 3, 3)
    fit = fit_rigid(TWIN.opened, TWIN.opened @ np.swapaxes(turns, -1, -2))
    assert fit.rotation.shape == (2, 3, 3, 3)
    assert np.abs(fit.rotation - turns).max() < 1e-12


def test_breadth_is_across_the_line_that_the_points_are_nearest_to():
    points = np.array([[-1.0, 0.01, 0], [1, 0.01, 0], [-1, -0.01, 0], [1, -0.01, 0]])
    assert breadth(points, np.ones(4)) == pytest.approx(0.02, rel=1e-3), "four points 0.01 off"
    assert breadth(points, np.array([1.0, 1, 0, 0])) < 1e-9


def test_what_does_not_match_is_named():
    with pytest.raises(ContractError, match="do not match"):
        fit_rigid(np.zeros((4, 3)), np.zeros((5, 3)))
    with pytest.raises(ContractError, match=r"want \(..., P, 3\)"):
        fit_rigid(np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(ContractError, match="0 or more"):
        fit_rigid(np.zeros((4, 3)), np.zeros((4, 3)), [1, 1, 1, -1])
