"""Lenses and places of cameras, against pictures and corners whose truth is known."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from charuco_pictures import (
    BOARD,
    CAMERAS,
    LENS,
    SIZE,
    T_TOOL_BOARD,
    K,
    Sensor,
    apart,
    boards_in_base,
    facing,
    look,
    many_poses,
    seen_exactly,
    told,
)

from robopolicy.errors import CalibrationError, ContractError
from robopolicy.geometry.cameras import Camera
from robopolicy_hardware.cameras.board import Board
from robopolicy_hardware.cameras.calibration import calibrate, check
from robopolicy_hardware.cameras.charuco import BoardFinder, rms
from robopolicy_hardware.cameras.hand_eye import Setup, find_places, hand_eye
from robopolicy_hardware.cameras.lens import Lens, calibrate_lens

LENSES = {
    0: (),
    4: LENS,
    5: (-0.28, 0.09, 0.0004, -0.0007, -0.012),
    8: (0.9, 0.4, 0.0005, -0.001, 0.02, 1.1, 0.6, 0.05),
}
EXACT = {view: Lens(camera.K, camera.distortion, camera.size, 0.1) for view, camera in CAMERAS.items()}


def sightings(camera, poses, view="front", seed=0, noise=0.1, board=BOARD):
    rng = np.random.default_rng(seed)
    return [seen_exactly(camera, pose, view, str(k), board, rng, noise) for k, pose in enumerate(poses)]


def carried(count=20, seed=0, mm=0.0, deg=0.0, cameras=CAMERAS, turn_deg=(25, 25, 30)):
    """Sightings of a board on the tool, and what the arm says of the tool."""
    rng = np.random.default_rng(seed + 100)
    boards = boards_in_base(count, seed, turn_deg)
    tools = {str(k): told(board @ np.linalg.inv(T_TOOL_BOARD), rng, mm, deg) for k, board in enumerate(boards)}
    seen = [
        seen_exactly(camera, np.linalg.inv(camera.T_base_cam) @ board, view, str(k), rng=rng)
        for k, board in enumerate(boards) for view, camera in cameras.items()
    ]  # fmt: skip
    return seen, tools


def across(camera, found):
    """Largest distance, px, between where two lenses put a point, over the picture."""
    y, x = np.mgrid[0 : SIZE[0] : 9j, 0 : SIZE[1] : 9j]
    rays = camera.rays(np.stack([x, y], axis=-1))
    points = np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1)
    return np.linalg.norm(camera.project(points) - found.project(points), axis=-1).max()


@pytest.mark.parametrize("model", [0, 4, 5, 8])
def test_a_lens_is_found_from_noisy_pictures(model):
    camera = Camera(K, np.eye(4), LENSES[model], SIZE)
    sensor, finder = Sensor(camera), BoardFinder(BOARD)
    seen = [finder.find(sensor.picture(pose), "front", str(k)) for k, pose in enumerate(many_poses(16))]
    lens = calibrate_lens([one for one in seen if one], model)
    assert len(lens.distortion) == model
    assert lens.size == SIZE
    assert lens.error_px < 0.25
    assert abs(lens.K[0, 0] / K[0, 0] - 1) < 0.005
    assert abs(lens.K[1, 1] / K[1, 1] - 1) < 0.005
    assert np.abs(lens.K[:2, 2] - K[:2, 2]).max() < 4  # px
    if model != 0:
        with pytest.raises(CalibrationError, match=r"reprojection error|fit badly"):
            calibrate_lens([one for one in seen if one], 0, 2 * lens.error_px)


def test_its_error_is_that_of_the_corners_and_its_deviation_that_of_repetitions():
    camera = Camera(K, np.eye(4), LENS, SIZE)
    found = [calibrate_lens(sightings(camera, many_poses(14), seed=seed, noise=0.2), 4) for seed in range(12)]
    assert np.mean([lens.error_px for lens in found]) == pytest.approx(0.2 * np.sqrt(2), rel=0.1)
    spread = np.std([lens.K[0, 0] for lens in found]) / K[0, 0]
    assert 0.5 < spread / np.mean([lens.focal_sd for lens in found]) < 2
    assert max(across(camera, Camera(lens.K, np.eye(4), lens.distortion, SIZE)) for lens in found) < 25


def test_pictures_that_fit_badly_are_left_out_and_counted():
    camera = Camera(K, np.eye(4), LENS, SIZE)
    seen = sightings(camera, many_poses(16))
    for k in (3, 9):
        bent = seen[k].pixels.copy()
        bent[::2] += 6.0
        seen[k] = replace(seen[k], pixels=bent)
    lens = calibrate_lens(seen)
    assert sorted(lens.dropped_px) == ["3", "9"]
    assert min(lens.dropped_px.values()) > 2
    assert len(lens.errors_px) == 14
    assert lens.error_px < 0.2
    for k in range(0, 12, 2):
        bent = seen[k].pixels.copy()
        bent[::2] += 6.0 + k
        seen[k] = replace(seen[k], pixels=bent)
    with pytest.raises(CalibrationError, match=r"camera front.*(of 16 pictures fit badly|reprojection error)"):
        calibrate_lens(seen)


@pytest.mark.parametrize(("poses", "message"), [
    ([], "no picture shows enough"),
    (many_poses(7), "7 pictures show enough of the board; want 8"),
    ([facing(0.45, aside=(0.02 * k, 0.01 * k)) for k in range(-6, 6)], "too similar"),
    ([facing(0.45, (0.3 + 0.01 * k, 0, 0)) for k in range(12)], "too similar"),
    (many_poses(12, distance=(2.2, 2.6)), r"is \d+\.\d px wide .* want 12"),
])  # fmt: skip
def test_pictures_that_are_not_enough_are_refused_saying_what_they_lack(poses, message):
    with pytest.raises(CalibrationError, match=message):
        calibrate_lens(sightings(Camera(K, np.eye(4), LENS, SIZE), poses))


def test_a_corner_of_the_picture_does_not_tell_the_lens_of_all_of_it():
    poses = [facing(0.9, pose[:3, :3] @ [0, 0, 0] + t, (-0.25, -0.18)) for pose, t in zip(
        many_poses(16), np.random.default_rng(0).uniform(-0.6, 0.6, (16, 3)), strict=True)]  # fmt: skip
    with pytest.raises(CalibrationError, match=r"too similar|of the picture; want 30 %|folds"):
        calibrate_lens(sightings(Camera(K, np.eye(4), LENS, SIZE), poses, noise=0.02))


def test_a_wrong_board_a_wrong_size_and_a_bent_board_are_refused():
    camera = Camera(K, np.eye(4), LENS, SIZE)
    seen = sightings(camera, many_poses(12))
    with pytest.raises(CalibrationError, match="want one size"):
        calibrate_lens([*seen, replace(seen[0], size=(240, 320), moment="x")])
    with pytest.raises(ContractError, match="7 distortion coefficients"):
        calibrate_lens(seen, 7)
    bowed = [replace(one, points=one.points * [1, 1.03, 1] + [0, 0, 0.0]) for one in seen]
    with pytest.raises(CalibrationError, match=r"reprojection error \d\.\d\d px over .* the limit is 0.3"):
        calibrate_lens(
            [replace(one, pixels=one.pixels + np.random.default_rng(k).normal(0, 0.5, one.pixels.shape))
             for k, one in enumerate(bowed)], 4, 0.3)  # fmt: skip


def test_two_cameras_are_placed_by_rendered_pictures_of_a_board_on_the_tool():
    boards, finder = boards_in_base(20), BoardFinder(BOARD)
    sensors = {view: Sensor(camera, seed=k) for k, (view, camera) in enumerate(CAMERAS.items())}
    seen = [
        finder.find(sensors[view].picture(np.linalg.inv(camera.T_base_cam) @ board), view, str(k))
        for k, board in enumerate(boards) for view, camera in CAMERAS.items()
    ]  # fmt: skip
    tools = {str(k): board @ np.linalg.inv(T_TOOL_BOARD) for k, board in enumerate(boards)}
    found = calibrate(BOARD, [one for one in seen if one], Setup("tool", (), tools))
    for view, camera in CAMERAS.items():
        mm, deg = apart(camera.T_base_cam, found.places.cameras[view])
        assert mm < 2.0
        assert deg < 0.2
        assert found.error_px(view) < 0.3
        assert found.cross_px[view] < 0.3
        entry = found.entries()[view]
        back = Camera.from_json(entry, view)  # its own key for the figures is passed over
        np.testing.assert_allclose(back.T_base_cam, found.places.cameras[view])
        assert back.size == SIZE
        assert entry["calibration"]["pictures"] + entry["calibration"]["dropped"] == len(
            [one for one in seen if one and one.view == view]
        )


def test_an_arm_that_errs_is_allowed_for_and_said_in_the_deviation():
    off, said = [], []
    for seed in range(3):
        seen, tools = carried(14, seed, mm=0.5, deg=0.05)
        found = calibrate(BOARD, seen, Setup("tool", (), tools), max_error_px=2.0)
        off += [apart(camera.T_base_cam, found.places.cameras[view])[0] for view, camera in CAMERAS.items()]
        said += [found.places.deviations[view][0] for view in CAMERAS]
    assert np.median(off) < 2.0  # mm
    assert 0.3 < np.sqrt(np.mean(np.square(off))) / np.mean(said) < 2.5


def test_joint_adjustment_is_better_than_a_place_found_with_the_lens_of_the_pictures_alone():
    separate, joint = [], []
    for seed in range(3):
        seen, tools = carried(12, seed)
        setup = Setup("tool", (), tools)
        lenses = {view: calibrate_lens([one for one in seen if one.view == view]) for view in CAMERAS}
        alone, found = find_places(seen, lenses, setup), calibrate(BOARD, seen, setup)
        for view, camera in CAMERAS.items():
            separate.append(apart(camera.T_base_cam, alone.cameras[view])[0])
            joint.append(apart(camera.T_base_cam, found.places.cameras[view])[0])
    assert np.mean(joint) < 0.6 * np.mean(separate)


def on_the_tool(count=18, seed=0, mm=0.0, deg=0.0):
    """A wrist camera carried over a board that stands: sightings, tools, T_tool_cam, T_base_board."""
    rng = np.random.default_rng(seed)
    T_tool_cam = np.linalg.inv(look((0, 0, 0), (0.1, 0.2, 1))) @ np.eye(4)
    T_tool_cam[:3, 3] = (0.05, 0.01, -0.06)
    board = np.eye(4)
    board[:3, :3], board[:3, 3] = np.diag([1.0, -1.0, -1.0]), (0.4, 0.1, 0.01)  # face up
    camera, tools, seen = CAMERAS["left"], {}, []
    middle = board[:3, 3] + board[:3, :3] @ [*np.array(BOARD.size_m) / 2, 0]
    for k in range(count):
        eye = middle + rng.uniform((-0.18, -0.18, 0.3), (0.18, 0.18, 0.45))
        T_base_cam = look(eye, middle + rng.uniform((-0.06, -0.06, 0), (0.06, 0.06, 0)), roll=rng.uniform(-1, 1))
        tools[str(k)] = told(T_base_cam @ np.linalg.inv(T_tool_cam), rng, mm, deg)
        seen.append(seen_exactly(camera, np.linalg.inv(T_base_cam) @ board, "wrist", str(k), rng=rng))
    return seen, tools, T_tool_cam, board


def test_a_camera_on_the_tool_is_placed_by_a_board_that_stands_and_a_fixed_one_that_sees_it_too():
    seen, tools, T_tool_cam, board = on_the_tool()
    camera = CAMERAS["left"]
    eye = Camera(K, look((0.9, 0.4, 0.5), board[:3, 3]), LENS, SIZE)
    rng = np.random.default_rng(5)
    seen += [seen_exactly(eye, np.linalg.inv(eye.T_base_cam) @ board, "front", str(k), rng=rng) for k in range(3)]
    lenses = {"wrist": EXACT["left"], "front": Lens(K, np.array(LENS), SIZE, 0.1)}
    found = calibrate(BOARD, seen, Setup("base", ("wrist",), tools), lenses=lenses)
    for pose, true in ((found.places.cameras["wrist"], T_tool_cam), (found.places.board, board),
                       (found.places.cameras["front"], eye.T_base_cam)):  # fmt: skip
        mm, deg = apart(true, pose)
        assert mm < 1.0
        assert deg < 0.15
    entries = found.entries()
    assert "T_base_cam" not in entries["wrist"]
    assert "T_tool_cam" not in entries["front"]
    np.testing.assert_allclose(entries["wrist"]["T_tool_cam"], found.places.cameras["wrist"])
    assert camera.size == SIZE
    assert check(entries, seen[:18], Setup("base", ("wrist",), tools)).residual_px["wrist"] < 0.3
    entries["wrist"]["T_tool_cam"][0][3] += 0.01
    assert check(entries, seen[:18], Setup("base", ("wrist",), tools)).residual_px["wrist"] > 1.0


def test_a_board_at_a_known_pose_places_a_camera_by_one_picture():
    camera = CAMERAS["left"]
    lens_pictures = sightings(camera, many_poses(16), "left")
    (board,) = boards_in_base(1)
    placed = [seen_exactly(camera, np.linalg.inv(camera.T_base_cam) @ board, "left", "p", rng=np.random.default_rng(1))]
    found = calibrate(BOARD, lens_pictures, Setup(T_board=board), placing=placed)
    mm, deg = apart(camera.T_base_cam, found.places.cameras["left"])
    assert mm < 6.0
    assert deg < 0.5
    exact = calibrate(BOARD, [], Setup(T_board=board), placing=placed, lenses=EXACT)
    assert apart(camera.T_base_cam, exact.places.cameras["left"])[0] < 6.0
    rng = np.random.default_rng(2)
    many = [seen_exactly(camera, np.linalg.inv(camera.T_base_cam) @ board, "left", f"p{k}", rng=rng) for k in range(20)]
    exact = calibrate(BOARD, [], Setup(T_board=board), placing=many, lenses=EXACT)
    assert apart(camera.T_base_cam, exact.places.cameras["left"])[0] < 2.0
    np.testing.assert_array_equal(exact.lenses["left"].K, EXACT["left"].K)  # a given lens stays as it is


def test_poses_that_contradict_the_others_are_left_out_and_counted():
    seen, tools = carried(20)
    tools["7"] = tools["7"].copy()
    tools["7"][:3, 3] += [0.0, 0.02, 0.0]
    found = calibrate(BOARD, seen, Setup("tool", (), tools))
    for view, camera in CAMERAS.items():
        assert list(found.places.dropped_px[view]) == ["7"]
        assert apart(camera.T_base_cam, found.places.cameras[view])[0] < 2.0
    rng = np.random.default_rng(0)
    wild = {moment: told(tool, rng, 20, 3) for moment, tool in tools.items()}
    with pytest.raises(
        CalibrationError, match=r"camera (left|right): (reprojection error|\d+ of 20 pictures contradict)"
    ):
        calibrate(BOARD, seen, Setup("tool", (), wild))


@pytest.mark.parametrize(("turn_deg", "message"), [
    ((0, 0, 0), "turned by 0.0 degrees"), ((0, 0, 40), r"turned by 0\.0 degrees about the second of its axes"),
    ((25, 2, 2), r"turned by 1\.\d degrees about the second"),
])  # fmt: skip
def test_an_arm_that_does_not_turn_about_two_axes_is_refused(turn_deg, message):
    seen, tools = carried(16, turn_deg=turn_deg)
    with pytest.raises(CalibrationError, match=message):
        calibrate(BOARD, seen, Setup("tool", (), tools), lenses=EXACT)


def test_what_cannot_be_placed_is_refused_in_one_line():
    seen, tools = carried(16)
    with pytest.raises(CalibrationError, match="no tool pose of picture 3 of camera left"):
        calibrate(BOARD, seen, Setup("tool", (), {k: v for k, v in tools.items() if k != "3"}), lenses=EXACT)
    with pytest.raises(CalibrationError, match="2 pictures with a tool pose; want 4"):
        calibrate(BOARD, seen[:4], Setup("tool", (), tools), lenses=EXACT)
    with pytest.raises(CalibrationError, match="nobody says where the board of camera left was"):
        calibrate(BOARD, seen, Setup(), lenses=EXACT)
    with pytest.raises(ContractError, match="camera wrist is on the tool and so is the board"):
        Setup("tool", ("wrist",), tools)
    with pytest.raises(CalibrationError, match="camera left: nothing says what its lens is"):
        calibrate(BOARD, [], Setup("tool", (), tools), placing=seen)
    small = {view: replace(lens, size=(240, 320)) for view, lens in EXACT.items()}
    with pytest.raises(CalibrationError, match="is 640 x 480, its lens was calibrated at 320 x 240"):
        calibrate(BOARD, seen, Setup("tool", (), tools), lenses=small)


def entries_of(cameras):
    return {view: camera.to_json() for view, camera in cameras.items()}


def moved(camera, x_mm):
    place = camera.T_base_cam.copy()
    place[1, 3] += x_mm / 1000
    return Camera(camera.K, place, camera.distortion, camera.size)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_camera_that_moved_is_named_by_the_arm_and_not_the_one_that_did_not(seed):
    seen, tools = carried(16, seed, mm=0.1, deg=0.01)
    good = check(entries_of(CAMERAS), seen, Setup("tool", (), tools))
    assert good.sure
    assert max(good.residual_px.values()) < 0.6
    other = {**CAMERAS, "right": moved(CAMERAS["right"], 15)}
    bad = check(entries_of(other), seen, Setup("tool", (), tools))
    assert bad.residual_px["left"] < 0.6
    assert bad.residual_px["right"] > 5.0


def test_a_known_pose_judges_each_camera_by_itself():
    camera = CAMERAS["left"]
    (board,) = boards_in_base(1)
    seen = [seen_exactly(camera, np.linalg.inv(camera.T_base_cam) @ board, "left", rng=np.random.default_rng(0))]
    assert check(entries_of(CAMERAS), seen, Setup(T_board=board)).residual_px["left"] < 0.3
    assert check({"left": moved(camera, 5).to_json()}, seen, Setup(T_board=board)).residual_px["left"] > 3.0


def test_cameras_alone_can_disagree_and_the_odd_one_of_three_is_named():
    three = {**CAMERAS, "top": Camera(K, look((0.5, 0.1, 1.0), (0.45, 0, 0.2)), LENS, SIZE)}
    seen, _ = carried(8, cameras=three)
    assert max(check(entries_of(three), seen, Setup()).residual_px.values()) < 0.3
    two = [one for one in seen if one.view != "top"]
    pair = check(entries_of({**CAMERAS, "left": moved(CAMERAS["left"], 15)}), two, Setup())
    assert min(pair.residual_px.values()) > 1.0
    assert not pair.sure  # nobody can say which of two it was
    named = check(entries_of({**three, "top": moved(three["top"], 15)}), seen, Setup())
    assert named.sure
    assert [view for view, px in named.residual_px.items() if px > 1.0] == ["top"]
    with pytest.raises(CalibrationError, match="one camera alone cannot tell"):
        check(entries_of(CAMERAS), [one for one in seen if one.view == "left"], Setup())


def test_a_check_wants_the_cameras_it_was_given_pictures_of():
    seen, tools = carried(4)
    with pytest.raises(CalibrationError, match="camera left has no T_base_cam in the calibration; there are: right"):
        check(entries_of({"right": CAMERAS["right"]}), seen, Setup("tool", (), tools))
    small = entries_of({view: camera.resized(240, 320) for view, camera in CAMERAS.items()})
    with pytest.raises(CalibrationError, match="was calibrated at 320 x 240"):
        check(small, seen, Setup("tool", (), tools))


def test_another_board_is_another_size():
    seen, tools = carried(16)
    larger = [replace(one, points=one.points * 1.05) for one in seen]
    with pytest.raises(CalibrationError, match=r"reprojection error|contradict"):
        calibrate(Board(7, 5, 0.035 * 1.05, 0.026), larger, Setup("tool", (), tools), lenses=EXACT)
    assert rms(np.zeros((3, 2))) == 0


def test_the_closed_form_is_opencvs():
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "calibrateHandEye"):
        pytest.skip("OpenCV 5 has no hand-eye calibration")
    rng = np.random.default_rng(0)
    X, Y = look((0.9, 0.3, 0.5), (0.4, 0, 0.2)), T_TOOL_BOARD
    tools = [board @ np.linalg.inv(Y) for board in boards_in_base(10)]
    seen = [told(np.linalg.inv(X) @ tool @ Y, rng, 1, 0.2) for tool in tools]
    hands = [np.linalg.inv(tool) for tool in tools]
    parts = [[one[part] for one in poses] for poses in (hands, seen) for part in (np.s_[:3, :3], np.s_[:3, 3])]
    turn, shift = cv2.calibrateHandEye(*parts, method=cv2.CALIB_HAND_EYE_PARK)
    found = hand_eye(tools, seen)
    np.testing.assert_allclose(found[:3, 3], shift.ravel(), atol=5e-4)
    np.testing.assert_allclose(found[:3, :3], turn, atol=5e-4)
    mm, deg = apart(X, found)
    assert mm < 5
    assert deg < 0.5
    assert hand_eye(tools[:1] * 5, seen[:1] * 5) is None
