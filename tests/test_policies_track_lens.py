"""What a strong lens does to rays and to points that several views guide: the exact camera is the oracle."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from robopolicy.geometry.cameras import Camera
from robopolicy.policies.track_views import SURE, Views

sys.path.insert(0, str(Path(__file__).parent))
from watched_tool import looking

SIZE = (480, 640)
LENSES = {
    "folds in the picture": ((-0.4, 0, 0, 0), 300.0),
    "folds beside the picture": ((-0.4, 0, 0, 0), 800.0),
    "tangential": ((-0.35, 0.15, 0.001, -0.001, -0.03), 300.0),
    "rational": ((0.1, -0.2, 0, 0, 0.02, 0.05, 0, 0), 300.0),
    "never folds": ((0.9, 0.4, 0.0005, -0.001, 0.02, 1.1, 0.6, 0.05), 300.0),
}


def rig(lens):
    coefficients, focal = LENSES[lens]
    K = np.array([[focal, 0, 319.5], [0, focal, 239.5], [0, 0, 1]])
    return [Camera(K, looking(azimuth).T_base_cam, coefficients, SIZE) for azimuth in (-0.6, 0.6)]


def share_of_fold(camera, points):
    """(N,): how far out points are seen, of where the lens folds."""
    seen = (points - camera.T_base_cam[:3, 3]) @ camera.T_base_cam[:3, :3]
    assert (seen[:, 2] > 0).all()
    return np.linalg.norm(seen[:, :2] / seen[:, 2:], axis=-1) / camera.fold


def exactly_agreed(cameras, pixels):
    """(V, N, 2): where each view shows the point nearest to the rays of all."""
    A, b = np.zeros((pixels.shape[1], 3, 3)), np.zeros((pixels.shape[1], 3))
    for camera, each in zip(cameras, pixels, strict=True):
        ray = np.concatenate([camera.rays(each), np.ones((len(each), 1))], -1) @ camera.T_base_cam[:3, :3].T
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        off = np.eye(3) - ray[:, :, None] * ray[:, None]
        A, b = A + off, b + off @ camera.T_base_cam[:3, 3]
    points = np.linalg.solve(A, b[..., None])[..., 0]
    return np.stack([camera.project(points) for camera in cameras])


@pytest.mark.parametrize("lens", LENSES)
def test_a_ray_is_never_one_from_beyond_the_fold(lens):
    camera = rig(lens)[0]
    pixels = np.stack(np.meshgrid(np.arange(-20.0, 660, 3), np.arange(-20.0, 500, 3)), axis=-1).reshape(-1, 2)
    rays = camera.rays(pixels)
    told = np.isfinite(rays).all(-1)
    outwards = (rays * (pixels - camera.K[:2, 2])).sum(-1)
    assert (outwards[told] >= 0).all(), "the polynomial shows the same pixel once more, mirrored"
    assert (np.linalg.norm(rays[told], axis=-1) <= camera.fold).all()
    straight = np.concatenate([rays[told], np.ones((told.sum(), 1))], -1)
    again = camera.project(straight @ camera.T_base_cam[:3, :3].T + camera.T_base_cam[:3, 3])
    np.testing.assert_allclose(again, pixels[told], atol=1e-5)
    if lens == "folds in the picture":  # at 0.913 and 0.609 of the focal length: nothing is shown outside that circle
        radius = np.linalg.norm(pixels - camera.K[:2, 2], axis=-1)
        np.testing.assert_array_equal(told, radius < 300 * np.sqrt(1 / 1.2) * 2 / 3)


@pytest.mark.parametrize("lens", LENSES)
def test_points_are_guided_to_where_the_exact_cameras_see_them(lens):
    cameras, rng = rig(lens), np.random.default_rng(0)
    points = rng.uniform(-0.4, 0.4, (20_000, 3))
    pixels = np.stack([camera.project(points) for camera in cameras])
    known = np.all([share_of_fold(camera, points) < 0.95 * SURE for camera in cameras], axis=0)
    inside = known & np.all([camera.inside(each) for camera, each in zip(cameras, pixels, strict=True)], axis=0)
    assert inside.sum() > 3000
    pixels = pixels[:, inside]
    views = Views(cameras, [SIZE] * 2)
    for off in (0.0, 1.0):  # px
        drawn = pixels + off * rng.normal(size=pixels.shape)
        made, fine = views.meet(views.shares(torch.tensor(drawn, dtype=torch.float32)))
        assert fine.all()
        missed = np.abs(views.pixels(made).numpy() - exactly_agreed(cameras, drawn))
        assert missed.max() < 0.01


def test_a_lens_that_shows_nothing_in_a_corner_without_folding_has_a_table_all_the_same():
    cameras = [Camera(c.K, c.T_base_cam, (0, 0, 0.3, 0), SIZE) for c in rig("folds beside the picture")]
    assert np.isinf(cameras[0].fold)
    assert np.isnan(cameras[0].rays(np.array([[319.0, -60.0]]))).all()
    assert torch.isfinite(Views(cameras, [SIZE] * 2).lenses).all()
