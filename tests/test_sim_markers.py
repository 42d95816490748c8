"""Markers: found in pictures whose truth is known, with and without the plane they lie in."""

import sys
from pathlib import Path

import numpy as np
import pytest

import sim_envs  # noqa: F401  the GL backend is chosen before mujoco is loaded
from robopolicy.errors import ConfigError, ContractError, NoGLBackend, UnknownName
from robopolicy.rotations import matrix_to_quat, rotvec_to_matrix
from robopolicy.types import Observation
from sim_envs.markers import Calibration, Marker, MarkerFinder, MarkerSettings, load_markers
from sim_envs.rendering import probe
from sim_envs.views import Eye, Views

sys.path.insert(0, str(Path(__file__).parent))
import cv2
from tagged import NUMBER, SIZE, THICK, TaggedLift, tag_picture

K = np.array([[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1]])
DOWN = np.diag([1.0, -1.0, -1.0])  # a camera that looks down, its x along the base's
TOP = 0.04 + 2 * THICK


def camera(height=0.6, tilt=0.4, distortion=(0, 0, 0, 0, 0)):
    """One that looks at the origin from the side, tilted by so many rad."""
    pose = np.eye(4)
    pose[:3, :3] = rotvec_to_matrix(np.array([tilt, 0, 0])) @ DOWN
    pose[:3, 3] = -pose[:3, 2] * height / np.cos(tilt)
    return Calibration(K, pose, np.array(distortion, float))


def picture(T_base_marker, seen_by, size=0.03):
    """What the camera sees of a tag: its picture warped to where its corners project."""
    tag = tag_picture(20)
    half = size / 2 * 8 / 6
    corners = np.array([[-half, half, 0], [half, half, 0], [half, -half, 0], [-half, -half, 0]])
    base = corners @ T_base_marker[:3, :3].T + T_base_marker[:3, 3]
    inverse = np.linalg.inv(seen_by.T_base_cam)
    turn, shift = cv2.Rodrigues(inverse[:3, :3])[0], inverse[:3, 3]
    pixels = cv2.projectPoints(base, turn, shift, seen_by.K, np.zeros(5))[0][:, 0]
    side = len(tag) - 0.5
    flat = np.array([[-0.5, -0.5], [side, -0.5], [side, side], [-0.5, side]], np.float32)
    warp = cv2.getPerspectiveTransform(flat, pixels.astype(np.float32))
    # drawn four times as fine and averaged, as a sensor does
    finer = np.array([[4, 0, 1.5], [0, 4, 1.5], [0, 0, 1]]) @ warp
    grey = cv2.warpPerspective(tag, finer, (2560, 1920), flags=cv2.INTER_LINEAR, borderValue=200)
    grey = cv2.resize(grey, (640, 480), interpolation=cv2.INTER_AREA)
    return np.repeat(grey[..., None], 3, axis=2)


def pose(x, y, z, yaw=0.0, tilt=0.0):
    made = np.eye(4)
    made[:3, :3] = rotvec_to_matrix(np.array([0, 0, yaw])) @ rotvec_to_matrix(np.array([tilt, 0, 0]))
    made[:3, 3] = x, y, z
    return made


def find(image, seen_by, **more):
    marker = Marker(**{"id": NUMBER, "object": "cube", "size": 0.03, **more})
    return MarkerFinder(MarkerSettings((marker,), {"front": seen_by})).find(image, seen_by, 42)


def yaw_of(quat):
    w, x, y, z = quat
    return np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


@pytest.mark.parametrize(("x", "y", "yaw"), [(0, 0, 0), (0.08, -0.05, 0.5), (-0.1, 0.06, -2.0), (0.03, 0.09, 3.0)])
def test_a_tag_in_its_plane_is_found_within_a_fifth_of_a_millimetre(x, y, yaw):
    seen_by = camera()
    (found,) = find(picture(pose(x, y, 0.04, yaw), seen_by), seen_by, plane=0.04)
    np.testing.assert_allclose(found.position, [x, y, 0.04], atol=2e-4)
    assert (yaw_of(found.quat) - yaw + np.pi) % (2 * np.pi) - np.pi == pytest.approx(0, abs=np.radians(1.0))
    assert (found.name, found.stamp_ns) == ("cube", 42)


def test_the_object_is_where_its_tag_says():
    seen_by, on = camera(), (0.01, 0.0, 0.02, np.cos(0.4), 0, 0, np.sin(0.4))  # on the object, turned by 0.8 rad
    (found,) = find(picture(pose(0.05, 0.02, 0.04, 0.8 + 0.3), seen_by), seen_by, plane=0.04, T_object_marker=on)
    assert yaw_of(found.quat) == pytest.approx(0.3, abs=0.02)
    centre = np.array([0.05 - 0.01 * np.cos(0.3), 0.02 - 0.01 * np.sin(0.3), 0.02])
    np.testing.assert_allclose(found.position, centre, atol=4e-4)


def test_a_lifted_tag_is_not_reported_where_it_is_not():
    seen_by = camera()
    assert find(picture(pose(0, 0, 0.10), seen_by), seen_by, plane=0.04) == []
    assert find(picture(pose(0, 0, 0.04, tilt=-0.5), seen_by), seen_by, plane=0.04) == []


def test_without_a_plane_a_tag_is_found_by_perspective_and_less_well_in_depth():
    seen_by = camera()
    (found,) = find(picture(pose(0.05, 0.02, 0.15, 0.3, tilt=0.4), seen_by), seen_by)
    np.testing.assert_allclose(found.position, [0.05, 0.02, 0.15], atol=0.02)
    assert abs(found.quat @ matrix_to_quat(pose(0, 0, 0, 0.3, tilt=0.4)[:3, :3])) > np.cos(0.1)


def test_two_tags_of_an_object_are_one_measurement():
    finder = MarkerFinder(MarkerSettings((Marker(NUMBER, "cube", 0.03), Marker(9, "cube", 0.03)), {"c": camera()}))
    assert len(finder.find(picture(pose(0, 0, 0.04), camera()), camera(), 0)) == 1


def test_pictures_of_an_observation_are_looked_at_with_their_own_stamps():
    seen_by, front = camera(), picture(pose(0, 0, 0.04), camera())
    finder = MarkerFinder(MarkerSettings((Marker(NUMBER, "cube", 0.03, plane=0.04),), {"front": seen_by}))
    seen = Observation(9, {}, {"front": front, "other": front}, {"front": 5, "other": 6})
    assert [one.stamp_ns for one in finder(seen)] == [5]
    assert list(finder(seen)) == [], "a picture is looked at once"
    assert list(finder(Observation(9, {}))) == []
    assert finder.find(np.full((480, 640, 3), 128, np.uint8), seen_by, 0) == []


def test_a_distorted_picture_is_set_right():
    straight, bent = camera(), camera(distortion=(-0.25, 0.05, 0, 0, 0))
    image = picture(pose(0.12, 0.08, 0.04), straight)
    rows, columns = np.mgrid[:480, :640].astype(np.float32)
    points = np.stack([columns, rows], axis=-1).reshape(-1, 1, 2)
    ideal = cv2.undistortPoints(points, K, bent.distortion, P=K).reshape(480, 640, 2)
    image = cv2.remap(image, ideal[..., 0], ideal[..., 1], cv2.INTER_LINEAR)
    (found,) = find(image, bent, plane=0.04)
    np.testing.assert_allclose(found.position, [0.12, 0.08, 0.04], atol=6e-4)
    wrong = find(image, straight, plane=0.04)
    assert not wrong or np.linalg.norm(wrong[0].position - [0.12, 0.08, 0.04]) > 2e-3


def test_rendered_by_mujoco_it_is_where_mujoco_has_it():
    try:
        probe()
    except NoGLBackend as error:
        pytest.skip(str(error))
    views = Views(TaggedLift(), Eye((0.9, 0, 0.5), (0.5, 0, 0)), (480, 640))
    rng, off = np.random.default_rng(0), []
    try:
        for i in range(5):
            state = {
                "q": np.array([2.0, -0.5, 0, -2, 0, 2, 0.8]), "gripper": np.ones(1),
                "cube_pos": np.array([0.45 + 0.02 * i, 0.02 * i, 0.02]), "cube_quat": np.array([1.0, 0, 0, 0]),
            }  # fmt: skip
            image = np.clip(views.draw(state) + rng.normal(0, 4, (480, 640, 1)), 0, 255).astype(np.uint8)
            told = views.calibration()
            (found,) = find(image, Calibration(np.array(told["K"]), np.array(told["T_base_cam"])), size=SIZE,
                            T_object_marker=(0, 0, 0.02 + 2 * THICK, 1, 0, 0, 0), plane=TOP)  # fmt: skip
            off.append(found.position - state["cube_pos"])
    finally:
        views.close()
    assert np.sqrt(np.mean(np.square(off))) < 2e-4, "0.05 mm: half a pixel more would be 0.4 mm"


GOOD = """
markers:
  - {id: 7, object: cube, size: 0.03, T_object_marker: [0, 0, 0.02, 1, 0, 0, 0], plane: 0.04}
cameras:
  front: {K: [[600, 0, 320], [0, 600, 240], [0, 0, 1]],
          T_base_cam: [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.6], [0, 0, 0, 1]]}
"""


def test_the_file_is_read(tmp_path):
    (tmp_path / "m.yaml").write_text(GOOD)
    settings = load_markers(tmp_path / "m.yaml")
    assert settings.markers == (Marker(7, "cube", 0.03, (0, 0, 0.02, 1, 0, 0, 0), 0.04),)
    assert settings.cameras["front"].K[0, 2] == 320
    MarkerFinder(settings)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("id: 7, ", "", r"markers\[0\] has no 'id'"),
        ("size: 0.03", "size: 0", "marker 7: size is 0; want metres"),
        ("size: 0.03", "sise: 0.03", "no key in markers.0. 'sise'; valid: T_object_marker"),
        ("[0, 0, 0.02, 1, 0, 0, 0]", "[0, 0, 1]", "marker 7: T_object_marker is"),
        ("[0, 0, -1, 0.6], ", "", "cameras.front: want K 3x3 and T_base_cam 4x4"),
        ("[0, 0, -1, 0.6]", "[0, 0, -1, .nan]", "cameras.front: T_base_cam is no rotation and place"),
        ("[0, 0, -1, 0.6]", "[0, 0, -1000, 600]", "cameras.front: T_base_cam is no rotation and place"),
        ("[0, 0, -1, 0.6]", "[0, 0, 1, 0.6]", "cameras.front: T_base_cam is no rotation and place"),
        ("[600, 0, 320]", "[600, 0, x]", "cameras.front: could not convert"),
        ("cameras:", "lenses:", "no key in the file 'lenses'; valid: cameras, dictionary, markers"),
        ("markers:\n  -", "markers:\n  one:", "markers: want a list"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, old, new, says):
    assert old in GOOD
    (tmp_path / "m.yaml").write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=says):
        load_markers(tmp_path / "m.yaml")


def test_an_unknown_dictionary_is_named():
    settings = MarkerSettings((Marker(1, "cube", 0.03),), {}, "DICT_9X9")
    with pytest.raises(UnknownName, match=r"no ArUco dictionary 'DICT_9X9'; valid: .*DICT_APRILTAG_36h11"):
        MarkerFinder(settings)


@pytest.mark.parametrize(
    ("position", "target", "fovy", "says"),
    [((0, 0, 1), (0, 0, 1), 45, "cannot look at"), ((0, 0, 1), (0, 0, 0), 0, "a field of view of 0 degrees")],
)
def test_an_eye_that_sees_nothing_is_refused(position, target, fovy, says):
    with pytest.raises(ContractError, match=says):
        Eye(position, target, fovy)
