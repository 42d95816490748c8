"""`robopolicy calibrate-cameras` from end to end, on pictures whose truth is known."""

import csv
import json
import shutil
import sys
from pathlib import Path

import cv2
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
    look,
)

from robopolicy.cli.calibrate_cameras import OF_PICTURES
from robopolicy.cli.main import build_parser, main
from robopolicy.geometry.calibrations import read_calibrations, read_cameras, write_calibrations
from robopolicy.geometry.cameras import Camera
from robopolicy.rotations import matrix_to_quat
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.writer import DatasetWriter
from robopolicy_hardware.cameras.board import read_board

POSES = 14
BOARDS = boards_in_base(POSES, seed=4)
TOOLS = [board @ np.linalg.inv(T_TOOL_BOARD) for board in BOARDS]


@pytest.fixture(scope="module")
def pictures():
    """{view: a picture of each board}."""
    sensors = {view: Sensor(camera, seed=k) for k, (view, camera) in enumerate(CAMERAS.items())}
    return {
        view: [sensors[view].picture(np.linalg.inv(camera.T_base_cam) @ board) for board in BOARDS]
        for view, camera in CAMERAS.items()
    }


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """Folders left and right, and where the tool was as CSV and JSON."""
    where = tmp_path_factory.mktemp("pictures of ü")
    rows = {f"{k:03d}": [*tool[:3, 3], *matrix_to_quat(tool[:3, :3])] for k, tool in enumerate(TOOLS)}
    for view, shown in pictures.items():
        (where / view).mkdir()
        for k, one in enumerate(shown):
            cv2.imwrite(str(where / view / f"{k:03d}.png"), one[..., ::-1])
    with (where / "tools.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["picture", "x", "y", "z", "qw", "qx", "qy", "qz"], *([n, *v] for n, v in rows.items())]
        )
    (where / "tools.json").write_text(json.dumps({f"{n}.png": list(map(float, v)) for n, v in rows.items()}))
    return where


def views(folder):
    return [f"{view}={folder / view}" for view in CAMERAS]


def run(*words):
    return main(["calibrate-cameras", *map(str, words)])


def refused(capsys, *words):
    """The one line that it says when it refuses."""
    assert run(*words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("robopolicy: ")
    assert "unexpected" not in line
    return line


def require_true(found, mm=2.5, deg=0.3, cameras=CAMERAS):
    for view, camera in cameras.items():
        off_mm, off_deg = apart(camera.T_base_cam, found[view].T_base_cam)
        assert off_mm < mm
        assert off_deg < deg
        assert abs(found[view].K[0, 0] / camera.K[0, 0] - 1) < 0.01


def test_from_a_printed_board_to_cameras_and_to_one_that_moved(folder, tmp_path, capsys):
    board, cams = tmp_path / "board.pdf", tmp_path / "cams.yaml"
    assert run("board", "--out", board) == 0
    assert "7 x 5 squares of 35 mm" in capsys.readouterr().out
    same = ("--board", board, "--pictures", *views(folder), "--tool-poses", folder / "tools.csv")
    assert run(*same, "--out", cams, "--each") == 0
    said = capsys.readouterr().out
    assert f"{cams} holds left, right" in said
    assert sum(line.startswith("  0") for line in said.splitlines()) == 2 * POSES
    require_true(read_cameras(cams))
    about = read_calibrations(cams)["left"]["calibration"]
    assert about["error_px"] < 0.3
    assert set(about["pictures_px"]) == {f"{k:03d}" for k in range(POSES)}
    assert f"left: {about['error_px']:.2f} px over {POSES} pictures, 0 dropped" in said
    assert read_board(board) == BOARD

    assert run(*same[2:], "--board", board, "--check", cams) == 0
    assert "the cameras are where" in capsys.readouterr().out
    other = read_calibrations(cams)
    other["right"]["T_base_cam"][1][3] += 0.02
    write_calibrations(tmp_path / "old.json", other)
    line = refused(capsys, *same, "--check", tmp_path / "old.json")
    assert "right (" in line
    assert "the limit is 1 px" in line
    line = refused(capsys, "--pictures", *views(folder), "--check", tmp_path / "old.json")  # without the arm
    assert "do not agree any more" in line
    assert run("--pictures", *views(folder), "--check", cams) == 0
    assert "against one pose of the board at each moment" in capsys.readouterr().out


def test_json_poses_and_the_error_limit(folder, tmp_path, capsys):
    same = ("--pictures", *views(folder), "--tool-poses", folder / "tools.json", "--out", tmp_path / "c.json")
    assert "the limit is 0.01" in refused(capsys, *same, "--max-error", 0.01)
    assert not (tmp_path / "c.json").exists()
    assert run(*same) == 0
    require_true(read_cameras(tmp_path / "c.json"))


def test_a_recorded_episode_in_which_the_arm_carried_the_board(pictures, tmp_path, capsys):
    spec = PolicySpec(
        cameras={view: CameraSpec(*SIZE) for view in CAMERAS},
        state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",))},
        action=ActionSpec("vector", ("x",), ("m",)), rate_hz=20.0,
    )  # fmt: skip
    rests = [(k, TOOLS[k]) for k in range(POSES) for _ in range(3)]
    steps = []
    for (k, tool), (n, after) in zip(rests, [*rests[1:], rests[-1]], strict=True):
        steps.append((k, tool))
        if n != k:  # on its way; what is seen there is of before: such a step must not be used
            half = after.copy()
            half[:3, 3] = (tool[:3, 3] + after[:3, 3]) / 2
            steps.append((k, half))
    never = [(0, tool) for _, tool in steps if tool[0, 3] != steps[0][1][0, 3]][::2]  # at rest nowhere
    with DatasetWriter(tmp_path / "d.zarr", spec) as writer:
        for taken in (steps, [one for k, one in enumerate(never) if k % 2]):
            episode = writer.begin(EpisodeMeta("calibration", "arm"))
            for number, (k, tool) in enumerate(taken):
                stamp = 10**9 + number * spec.period_ns
                state = {"tool_pos": tool[:3, 3].astype("f4"), "tool_quat": matrix_to_quat(tool[:3, :3]).astype("f4")}
                shown = {view: pictures[view][k] for view in CAMERAS}
                seen = Observation(stamp, state, shown, dict.fromkeys(CAMERAS, stamp))
                episode.add(Step(seen, np.zeros(1, "f4"), stamp + 1, "human"))
            episode.commit()
    cams = tmp_path / "cams.yaml"
    assert run("--data", tmp_path / "d.zarr", "--episode", 0, "--out", cams) == 0
    require_true(read_cameras(cams), mm=4.0)
    moments = list(read_calibrations(cams)["left"]["calibration"]["pictures_px"])
    assert len(moments) == POSES  # one of each rest
    assert run("--data", tmp_path / "d.zarr", "--check", cams, "--episode", 0) == 0
    capsys.readouterr()
    assert "the tool is never at rest" in refused(capsys, "--data", tmp_path / "d.zarr", "--episode", 1)
    line = refused(capsys, "--data", tmp_path / "d.zarr", "--cameras", "side")
    assert "no colour camera 'side'; valid: left, right" in line
    assert "--episode 3" in refused(capsys, "--data", tmp_path / "d.zarr", "--episode", 3)


def test_a_board_at_a_known_or_touched_place(folder, pictures, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    shutil.copy(folder / "left" / "003.png", tmp_path / "there" / "board.png")
    board = BOARDS[3]
    pose = [*board[:3, 3], *matrix_to_quat(board[:3, :3])]
    same = ("--pictures", views(folder)[0], "--placed", f"left={tmp_path / 'there'}")
    assert run(*same, "--board-pose", *pose, "--out", tmp_path / "a.json") == 0
    require_true(read_cameras(tmp_path / "a.json"), 15, 1.5, {"left": CAMERAS["left"]})
    corners = (board[:3, :3] @ BOARD.corners.T).T + board[:3, 3]
    (tmp_path / "touched.csv").write_text("".join(f"{n},{','.join(map(str, corners[n]))}\n" for n in (0, 5, 23, 18)))
    assert run(*same, "--touched", tmp_path / "touched.csv", "--out", tmp_path / "b.json") == 0
    said = capsys.readouterr().out
    assert "0.00 mm from the board's" in said
    a, b = (read_cameras(tmp_path / f"{name}.json")["left"] for name in "ab")
    np.testing.assert_allclose(a.T_base_cam, b.T_base_cam, atol=1e-5)
    x, y, z = b.T_base_cam[:3, 3]
    assert f"at x {x:.3f} y {y:.3f} z {z:.3f} m in the base's frame" in said
    # corners counted from the top right: a board, and a camera, on the other side of the table
    touched = zip((5, 0, 18, 23), corners[[0, 5, 23, 18]], strict=True)
    (tmp_path / "mirrored.csv").write_text("".join(f"{n},{','.join(map(str, at))}\n" for n, at in touched))
    line = refused(capsys, *same, "--touched", tmp_path / "mirrored.csv", "--out", tmp_path / "m.json")
    assert "mirrored.csv: by these corners the board faces down" in line
    assert not (tmp_path / "m.json").exists()
    down = line.partition("If it does face down: ")[2].split()  # and it may be so
    assert run(*same, *down, "--out", tmp_path / "m.json") == 0
    below = read_cameras(tmp_path / "m.json")["left"].T_base_cam
    assert below[2, 3] < corners[:, 2].min() < z
    # the lens once, the place again
    again = ("--lenses", tmp_path / "a.json", "--placed", f"left={tmp_path / 'there'}", "--board-pose", *pose)
    assert run(*again, "--out", tmp_path / "c.json") == 0
    c = read_cameras(tmp_path / "c.json")["left"]
    np.testing.assert_allclose(a.T_base_cam, c.T_base_cam, atol=1e-5)
    np.testing.assert_array_equal(a.K, c.K)
    check = ("--pictures", f"left={tmp_path / 'there'}", "--check", tmp_path / "a.json", "--board-pose")
    assert run(*check, *pose) == 0
    pose[0] += 0.03
    capsys.readouterr()
    assert "moved since the calibration" in refused(capsys, *check, *pose)


def test_lenses_only(folder, tmp_path, capsys):
    assert run("--pictures", views(folder)[0], "--out", tmp_path / "lens.yaml", "--distortion", 4) == 0
    entry = read_calibrations(tmp_path / "lens.yaml")["left"]
    assert "T_base_cam" not in entry
    np.testing.assert_allclose(entry["K"], K, atol=12)
    assert len(entry["distortion"]) == len(LENS)
    assert tuple(entry["size"]) == SIZE


def test_a_camera_on_the_tool_beside_one_that_was_calibrated_before(tmp_path, capsys):
    write_calibrations(tmp_path / "c.yaml", {"left": CAMERAS["left"].to_json(), "wrist": {"K": K.tolist()}})
    (tmp_path / "wrist").mkdir()
    rng, poses = np.random.default_rng(1), {}
    camera = Camera(K, np.eye(4), LENS, SIZE)
    sensor = Sensor(camera)
    T_tool_cam, board = look((0.05, 0.0, -0.06), (0.1, 0.3, 1.0)), np.eye(4)
    board[:3, :3], board[:3, 3] = np.diag([1.0, -1.0, -1.0]), (0.4, 0.1, 0.01)
    middle = board[:3, 3] + board[:3, :3] @ [*np.array(BOARD.size_m) / 2, 0]
    for k in range(14):
        eye = middle + rng.uniform((-0.18, -0.18, 0.3), (0.18, 0.18, 0.42))
        T_base_cam = look(eye, middle + rng.uniform((-0.08, -0.08, 0), (0.08, 0.08, 0)), roll=rng.uniform(-1, 1))
        tool = T_base_cam @ np.linalg.inv(T_tool_cam)
        poses[f"{k}"] = [*tool[:3, 3], *matrix_to_quat(tool[:3, :3])]
        picture = sensor.picture(np.linalg.inv(T_base_cam) @ board)
        cv2.imwrite(str(tmp_path / "wrist" / f"{k}.png"), picture[..., ::-1])
    (tmp_path / "tools.json").write_text(json.dumps({name: list(map(float, pose)) for name, pose in poses.items()}))
    same = ("--pictures", f"wrist={tmp_path / 'wrist'}/*.png", "--tool-poses", tmp_path / "tools.json",
            "--camera-on-tool", "wrist")  # fmt: skip
    assert run(*same, "--out", tmp_path / "c.yaml") == 0
    assert "holds wrist (and, from before, left)" in capsys.readouterr().out
    np.testing.assert_array_equal(read_cameras(tmp_path / "c.yaml")["left"].T_base_cam, CAMERAS["left"].T_base_cam)
    entry = read_calibrations(tmp_path / "c.yaml")["wrist"]
    off_mm, off_deg = apart(T_tool_cam, np.array(entry["T_tool_cam"]))
    assert off_mm < 2.0
    assert off_deg < 0.3
    assert apart(board, np.array(entry["calibration"]["T_base_board"]))[0] < 2.0
    assert run(*same, "--check", tmp_path / "c.yaml") == 0


def test_the_twins_cameras_for_nothing(tmp_path, capsys):
    assert run("--twin", "lift", "--size", "480x640", "--out", tmp_path / "twin.yaml") == 0
    entries = read_calibrations(tmp_path / "twin.yaml")
    assert list(entries) == ["front", "wrist", "side"]
    assert "T_tool_cam" in entries["wrist"]
    front = read_cameras(tmp_path / "twin.yaml")["front"]
    assert front.size == (480, 640)
    np.testing.assert_allclose(front.T_base_cam[:3, 3], [1.08, 0, 0.58])
    assert front.inside(front.project(np.array([0.43, 0.0, 0.03])))
    assert "no task 'lfit'" in refused(capsys, "--twin", "lfit", "--out", tmp_path / "x.yaml")
    assert "want HxW" in refused(capsys, "--twin", "lift", "--size", "big")


def test_every_option_but_three_is_of_pictures():
    known = vars(build_parser().parse_args(["calibrate-cameras"]))
    others = {"twin", "cameras", "size", "out", "command", "action", "debug", "run"}
    assert set(known) - others == set(OF_PICTURES)


@pytest.mark.parametrize(("words", "message"), [
    ((), "say where the pictures are"),
    (("--pictures", "left"), "want VIEW=FOLDER"),
    (("--pictures", "left={folder}/none"), "there is no picture"),
    (("--pictures", "{left}", "--data", "d.zarr"), "not both"),
    (("--pictures", "{left}", "{left}"), "camera left has two pictures 000"),
    (("--pictures", "{left}", "--tool-poses", "{folder}/none.csv"), "No such file"),
    (("--pictures", "{left}", "--board-pose", "1", "2"), "--board-pose: want finite x y z"),
    (("--pictures", "{left}", "--board-pose", "0", "0", "0", "2", "0", "0", "0"), "of length 2"),
    (("--pictures", "{left}", "--board-pose", "0", "0", "0", "0", "0", "0"), "--placed VIEW=FOLDER is wanted"),
    (("--pictures", "{left}", "--camera-on-tool", "left"), "where was the tool"),
    (("--pictures", "{left}", "--placed", "{left}"), "where is the board in them"),
    (("--pictures", "{left}", "--episode", "0"), "--episode: without --data"),
    (("--pictures", "{left}", "--size", "4x4"), "--size is of --twin"),
    (("--pictures", "{left}", "--dictionary", "DICT_9X9"), "no ArUco dictionary 'DICT_9X9'; valid: "),
    (("--pictures", "{left}", "--dictionary", "DICT_6X6_50"), "camera left: the board is in none of 14 pictures"),
    (("--pictures", "{left}", "--board", "{folder}/left/000.png"), "does not say which board it shows"),
    (("--pictures", "{left}", "--square-mm", "35", "--marker-mm", "40"), "0 < marker < square"),
    (("--pictures", "{left}", "--tool-poses", "{folder}/tools.csv", "--camera-on-tool", "wrist"),
     "--camera-on-tool wrist"),
    (("--pictures", "{left}", "--check", "{folder}/none.yaml"), "want the file of calibrated cameras"),
    (("--twin", "lift", "--pictures", "{left}"), "--twin takes no pictures"),
    (("--twin", "lift", "--max-error", "3"), "--max-error: --twin takes no pictures, only --cameras, --size and --out"),
    (("--twin", "lift", "--distortion", "0"), "--distortion: --twin takes no pictures"),
    (("--twin", "lift", "--board", "7x5"), "--board: --twin takes no pictures"),
    (("--twin", "lift", "--each"), "--each: --twin takes no pictures"),
    (("--twin", "lift", "--legacy-pattern"), "--legacy-pattern: --twin takes no pictures"),
    (("--twin", "lift", "--touched", "t.csv"), "--touched: --twin takes no pictures"),
    (("--twin", "lift", "--camera-on-tool", "wrist"), "--camera-on-tool: --twin takes no pictures"),
    (("--twin", "lift", "--lenses", "c.yaml"), "--lenses: --twin takes no pictures"),
    (("--twin", "lift", "--out", "c.txt"), "--out c.txt: want a name that ends in .yaml, .yml or .json"),
    (("--pictures", "{left}", "--out", "cams"), "--out cams: want a name that ends in .yaml, .yml or .json"),
    (("--pictures", "{left}", "--most", "9"), "--most: without --data"),
    (("--pictures", "{left}", "--check", "c.yaml", "--distortion", "0"), "--distortion: --check compares"),
    (("--data", "none.zarr"), "is not a robopolicy dataset"),
])  # fmt: skip
def test_what_makes_no_sense_is_one_line(folder, tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    left = f"left={folder / 'left'}"
    assert message in refused(capsys, *(word.format(folder=folder, left=left) for word in words))
    assert not list(tmp_path.iterdir())


def test_too_few_and_broken_pictures_are_named(folder, tmp_path, capsys):
    for k in range(5):
        shutil.copy(folder / "left" / f"{k:03d}.png", tmp_path)
    line = refused(capsys, "--pictures", f"left={tmp_path}", "--out", tmp_path / "c.yaml")
    assert "camera left: 5 pictures show enough of the board; want 8 or more" in line
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert "x.png is no picture that OpenCV reads" in refused(capsys, "--pictures", f"left={tmp_path}")
    (tmp_path / "tools.csv").write_text("000,1,2,3\n")
    line = refused(capsys, "--pictures", f"left={tmp_path}", "--tool-poses", tmp_path / "tools.csv")
    assert "000 has 3 numbers; want x y z (m) and quaternion wxyz" in line
    (tmp_path / "tools.csv").write_text("000,1,2,3,4,a,b,c\n")
    assert "want a name and numbers each" in refused(
        capsys, "--pictures", f"left={tmp_path}", "--tool-poses", tmp_path / "tools.csv"
    )


def test_roll_pitch_yaw_are_about_the_fixed_axes_one_after_the_other():
    from scipy.spatial.transform import Rotation

    from robopolicy.cli.calibrate_cameras_sources import pose_of_numbers

    found = pose_of_numbers([0.4, -0.1, 0.02, 170.0, -20.0, 35.0], "--board-pose")
    np.testing.assert_allclose(found[:3, :3], Rotation.from_euler("xyz", [170, -20, 35], degrees=True).as_matrix())
    np.testing.assert_array_equal(found[:, 3], [0.4, -0.1, 0.02, 1])
