"""Cameras: OpenCV is the oracle."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from robopolicy.errors import BehindCamera, ContractError, UnknownCamera
from robopolicy.geometry.cameras import Camera, cameras_of

K = np.array([[611.0, 0, 318.7], [0, 608.0, 241.2], [0, 0, 1]])
LENSES = {
    "none": [],
    "four": [-0.21, 0.07, 0.001, -0.002],
    "five": [-0.28, 0.09, 0.0004, -0.0007, -0.012],
    "rational": [0.9, 0.4, 0.0005, -0.001, 0.02, 1.1, 0.6, 0.05],
    "prism": [-0.1, 0.02, 0.001, 0.0005, 0.0, 0.01, 0.0, 0.0, 0.002, -0.001, 0.0015, 0.0003],
}


def pose(seed=0):
    rng = np.random.default_rng(seed)
    made = np.eye(4)
    made[:3, :3] = cv2.Rodrigues(rng.normal(size=3))[0]
    made[:3, 3] = rng.normal(size=3)
    return made


def in_front(camera, count=500, seed=1):
    rng = np.random.default_rng(seed)
    seen = np.column_stack([rng.uniform(-0.5, 0.5, count), rng.uniform(-0.4, 0.4, count), np.ones(count)])
    seen *= rng.uniform(0.3, 2.0, (count, 1))
    return seen @ camera.T_base_cam[:3, :3].T + camera.T_base_cam[:3, 3]


@pytest.mark.parametrize("lens", LENSES)
def test_projects_as_opencv_and_back(lens):
    camera = Camera(K, pose(), LENSES[lens], (480, 640))
    points = in_front(camera)
    inverse = np.linalg.inv(camera.T_base_cam)
    coefficients = np.array(LENSES[lens]) if LENSES[lens] else None
    expected = cv2.projectPoints(points, cv2.Rodrigues(inverse[:3, :3])[0], inverse[:3, 3], K, coefficients)[0][:, 0]
    found = camera.project(points)
    assert np.abs(found - expected).max() < 1e-6
    seen = points @ inverse[:3, :3].T + inverse[:3, 3]
    assert np.abs(camera.rays(found) - seen[:, :2] / seen[:, 2:]).max() < 1e-9


def test_what_is_behind_is_named_and_counted():
    camera = Camera(K, np.eye(4))
    with pytest.raises(BehindCamera, match=r"2 of 3 points are behind the camera, the first \[ 0.  0. -1.\]"):
        camera.project(np.array([[0, 0, 1.0], [0, 0, -1.0], [0, 0, 0.0]]))


def test_what_is_no_number_is_not_said_to_be_behind():
    with pytest.raises(BehindCamera, match="1 of 2 points are not finite"):
        Camera(K, np.eye(4)).project(np.array([[0.0, 0.0, 1.0], [0.0, np.nan, 1.0]]))


def test_another_size_shows_the_same_at_its_scale():
    camera = Camera(K, pose(), LENSES["five"], (480, 640))
    small = camera.resized(128, 128)
    points = in_front(camera)
    there, here = camera.project(points), small.project(points)
    assert np.allclose((here + 0.5) / [128, 128], (there + 0.5) / [640, 480], atol=1e-12), "pixel centres, not corners"
    assert np.allclose(camera.resized_pixels(there, 128, 128), here, atol=1e-9)
    assert small.inside(np.array([[-0.5, 127.5], [-0.6, 3]])).tolist() == [True, False]


def test_entries_go_round_and_damaged_ones_are_named():
    camera = Camera(K, pose(), LENSES["five"], (480, 640))
    again = cameras_of({"left": camera.to_json()}, ["left"])["left"]
    for name in ("K", "T_base_cam", "distortion"):
        assert (getattr(again, name) == getattr(camera, name)).all()
    assert again.size == (480, 640)
    with pytest.raises(ContractError, match="camera 'left' is not calibrated"):
        Camera.from_json({"K": K.tolist()}, "left")
    with pytest.raises(ContractError, match=r"camera 'left'.*no rotation"):
        Camera.from_json({"K": K, "T_base_cam": np.diag([2.0, 1, 1, 1])}, "left")
    with pytest.raises(ContractError, match="3 distortion coefficients"):
        Camera(K, np.eye(4), [0.1, 0.2, 0.3])
    with pytest.raises(UnknownCamera, match="right"):
        cameras_of({"left": camera.to_json()}, ["right"])


ROW_VECTORS, NO_POSE, SCALED = pose().T, pose(), np.diag([1.0, 1, 1, 1000])
NO_POSE[3] = 5, 6, 7, 8
IN_MM = np.eye(4)
IN_MM[:3, 3] = 0, 900, 600


@pytest.mark.parametrize(("part", "matrix", "message"), [
    ("T_base_cam", ROW_VECTORS, r"T_base_cam has the last row .* 1; want 0 0 0 1; is it transposed\?"),
    ("T_base_cam", NO_POSE, r"T_base_cam has the last row 5 6 7 8; want 0 0 0 1$"),
    ("T_base_cam", SCALED, r"T_base_cam has the last row 0 0 0 1000; want 0 0 0 1$"),
    ("T_base_cam", IN_MM, "T_base_cam puts it 1082 m from the base; want metres"),
    ("K", K.T, r"K has the last row 318\.7 241\.2 1; want 0 0 1; is it transposed\?"),
    ("K", K + np.eye(3, k=-2), r"K has the last row 1 0 1; want 0 0 1$"),
    ("K", K + 40 * np.diag([1, 0], k=-1), r"K\[1, 0\] is 40; want 0$"),
    ("K", np.diag([-600.0, 600, 1]), "K has focal lengths -600 600; want them above 0$"),
])  # fmt: skip
def test_a_matrix_of_another_convention_is_refused_and_not_half_read(part, matrix, message):
    with pytest.raises(ContractError, match=f"^camera 'left': {message}"):
        Camera.from_json({"K": K, "T_base_cam": pose(), part: matrix}, "left")


def test_intrinsics_of_pictures_of_another_size_are_refused_as_soon_as_the_size_is_known():
    untold = Camera.from_json({"K": K, "T_base_cam": pose()}, "left")
    words = r"^camera 'left': K has its principal point at \(318\.7, 241\.2\), outside pictures of 96 x 120 px"
    with pytest.raises(ContractError, match=words):
        replace(untold, size=(120, 96))
    with pytest.raises(ContractError, match=words):
        Camera.from_json({**untold.to_json(), "size": [120, 96]}, "left")
    assert replace(untold, size=(480, 640)).resized(96, 96).name == "left", "whose intrinsics go with its size"


def test_a_lens_that_shows_no_such_point_says_so():
    camera = Camera(K, np.eye(4), [-0.4, 0, 0, 0], (480, 640))
    assert np.isnan(camera.rays(np.array([[5000.0, 5000.0]]))).all()


@pytest.mark.parametrize("lens", [(-0.3, 0, 0, 0), (-0.4, 0.1, 0.001, -0.002), (0.1, -0.2, 0, 0, 0.02, 0.05, 0, 0)])
def test_a_point_that_leaves_the_picture_is_not_folded_back_into_it(lens):
    """OpenCV's polynomial turns round outside the angles it was fitted on: -0.3 shows 58 degrees where 20 are."""
    camera = Camera([[500, 0, 319.5], [0, 500, 239.5], [0, 0, 1]], np.eye(4), lens, (480, 640))
    for direction in ((1, 0), (0, -1), (0.6, 0.8)):
        radii = np.linspace(0, 8, 2000)
        points = np.concatenate([radii[:, None] * direction, np.ones((2000, 1))], axis=1)
        pixels = camera.project(points)
        outwards = (pixels - camera.project(points[:1])) @ direction
        steps = np.diff(outwards)
        assert (steps > -1e-9).all()
        assert steps[radii[1:] < 1.5].max() < 2 * 500 * radii[1]  # nor does it jump
        left = np.flatnonzero(~camera.inside(pixels))[0]
        assert not camera.inside(pixels[left:]).any()
        straight = radii < 0.5
        seen = cv2.projectPoints(points[straight], np.zeros(3), np.zeros(3), camera.K, np.array(lens, float))[0]
        np.testing.assert_allclose(pixels[straight], seen[:, 0], atol=1e-9)
