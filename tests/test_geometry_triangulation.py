"""Triangulation: OpenCV is the oracle; what cannot be told is never a wrong point."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import least_squares

from robopolicy.errors import ContractError
from robopolicy.geometry.triangulation import triangulate

sys.path.insert(0, str(Path(__file__).parent))
from watched_tool import LENS, looking, rig

LENSES = {"none": (), "five": LENS, "rational": (0.9, 0.4, 0.0005, -0.001, 0.02, 1.1, 0.6, 0.05)}


def scattered(count=60, seed=0):
    return np.random.default_rng(seed).uniform(-0.2, 0.2, (count, 3))


def seen(cameras, points):
    return np.stack([camera.project(points) for camera in cameras])


def by_opencv(pixels, cameras):
    """Two views, through OpenCV's own inverse of the lens."""
    flat = [
        cv2.undistortPointsIter(
            p.reshape(-1, 1, 2),
            c.K,
            c.distortion,
            None,
            None,
            (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-15),
        )[:, 0]
        for p, c in zip(pixels, cameras, strict=True)
    ]
    found = cv2.triangulatePoints(cameras[0].P, cameras[1].P, flat[0].T, flat[1].T)
    return (found[:3] / found[3]).T


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("angle", [30, 60, 90])
def test_exact_pixels_give_the_points_as_opencv_does(lens, angle):
    cameras, points = rig(angle, 2, LENSES[lens]), scattered()
    pixels = seen(cameras, points)
    found = triangulate(pixels, cameras)
    assert np.abs(found.points - points).max() < 1e-9
    assert np.abs(found.points - by_opencv(pixels, cameras)).max() < 1e-6
    assert found.residual_px.max() < 1e-6


def test_noise_does_what_it_does_in_opencv_and_a_refinement_would_gain_nothing():
    cameras, points = rig(60), scattered(300)
    pixels = seen(cameras, points) + np.random.default_rng(1).normal(size=(2, 300, 2))
    found = triangulate(pixels, cameras).points
    ours, theirs = (np.sqrt(((p - points) ** 2).sum(-1).mean()) for p in (found, by_opencv(pixels, cameras)))
    assert ours < 1.005 * theirs

    def miss(point, k):
        return np.concatenate([camera.project(point) - pixels[v, k] for v, camera in enumerate(cameras)])

    best = np.stack([least_squares(miss, found[k], args=(k,), xtol=1e-12).x for k in range(40)])
    assert np.linalg.norm(best - found[:40], axis=-1).max() < 5e-5, "a twentieth of a millimetre of 3.5"


def test_the_residual_is_in_the_pixels_of_the_picture_with_its_lens():
    cameras, points = rig(90, 3, LENSES["five"]), scattered()
    pixels = seen(cameras, points) + np.random.default_rng(2).normal(size=(3, 60, 2))
    found = triangulate(pixels, cameras)
    squares = np.zeros(60)
    for camera, pixel in zip(cameras, pixels, strict=True):
        inverse = np.linalg.inv(camera.T_base_cam)
        turned = cv2.Rodrigues(inverse[:3, :3])[0]
        there = cv2.projectPoints(found.points, turned, inverse[:3, 3], camera.K, camera.distortion)[0][:, 0]
        squares += ((there - pixel) ** 2).sum(-1)
    assert np.allclose(found.residual_px, np.sqrt(squares / 3), rtol=1e-9)


def test_a_point_is_told_by_the_views_that_see_it_and_by_two_at_least():
    cameras, points = rig(90, 3), scattered(6)
    pixels = seen(cameras, points)
    pixels[0, 1], pixels[:2, 2], pixels[:, 3], pixels[2, 4, 0] = np.nan, np.nan, np.nan, np.inf
    found = triangulate(pixels, cameras)
    assert found.views.tolist() == [3, 2, 1, 0, 2, 3]
    told = [0, 1, 4, 5]
    assert np.abs(found.points[told] - points[told]).max() < 1e-9
    assert np.isnan(found.points[[2, 3]]).all()
    assert np.isnan(found.residual_px[[2, 3]]).all()
    assert found.residual_px[told].max() < 1e-6, "views that do not see it do not count"
    pixels = seen(cameras, points) + np.random.default_rng(3).normal(size=(3, 6, 2))
    pixels[2] = np.nan
    two = triangulate(pixels[:2], cameras[:2])
    assert np.allclose(triangulate(pixels, cameras).residual_px, two.residual_px, rtol=1e-12)


def test_weights_say_how_much_a_view_counts():
    cameras, points = rig(90, 3), scattered(20)
    pixels = seen(cameras, points)
    wrong = pixels + np.array([0, 0, 30.0])[:, None, None]
    errors = [
        np.linalg.norm(
            triangulate(wrong, cameras, np.ones((3, 20)) * np.array([[1], [1], [w]])).points - points, axis=-1
        )
        for w in (1.0, 0.1, 0.0)
    ]
    assert (errors[0] > 2 * errors[1]).all()
    assert errors[2].max() < 1e-9, "weight 0: it does not see the point"
    with pytest.raises(ContractError, match="0 or more"):
        triangulate(wrong, cameras, -np.ones((3, 20)))
    with pytest.raises(ContractError, match=r"weights are \(3, 19\); want \(3, 20\)"):
        triangulate(wrong, cameras, np.ones((3, 19)))


def test_any_shape_of_points():
    cameras, points = rig(), scattered(24).reshape(2, 3, 4, 3)
    found = triangulate(seen(cameras, points), cameras)
    assert np.abs(found.points - points).max() < 1e-9
    assert found.residual_px.shape == found.views.shape == (2, 3, 4)
    assert triangulate(seen(cameras, points[0, 0, 0]), cameras).points.shape == (3,)
    assert triangulate(np.zeros((2, 0, 2)), cameras).points.shape == (0, 3)


def test_rays_that_meet_behind_a_camera_or_nowhere_give_no_point():
    left, right = rig(30)
    apart = np.array([[[100.0, 239.5]], [[540.0, 239.5]]])  # they spread ahead, and meet behind
    behind = triangulate(apart, [left, right])
    assert np.isnan(behind.points).all()
    assert np.isinf(behind.residual_px).all()
    together = [looking(0.0), looking(0.008)]  # half a degree
    small = triangulate(seen(together, scattered(5)), together)
    assert np.isnan(small.points).all()
    assert np.isinf(small.residual_px).all()
    assert np.isfinite(triangulate(seen(together, scattered(5)), together, parallax_rad=0.001).points).all()


def test_what_makes_no_sense_is_named():
    camera = looking(0.0)
    with pytest.raises(ContractError, match="1 camera; a place in space wants two or more"):
        triangulate(np.zeros((1, 4, 2)), [camera])
    with pytest.raises(ContractError, match=r"pixels are \(3, 4, 2\); want \(2, ..., 2\)"):
        triangulate(np.zeros((3, 4, 2)), rig())
    with pytest.raises(ContractError, match="from one place no depth"):
        triangulate(np.zeros((2, 4, 2)), [camera, camera])
