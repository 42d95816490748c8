"""mediapipe itself on drawn hands whose landmarks are known: what it finds, how far off it is, which hand it says."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mediapipe", reason="no mediapipe here: tests/peers/mediapipe_install.py makes a Python with it")
pytest.importorskip("av", reason="no PyAV here: pip install 'robopolicy[human]'")
sys.path.insert(0, str(Path(__file__).parent))
from drawn_hand import draw, film, landmarks, looking, reach
from test_data_video import calibration

from robopolicy.cli.main import build_parser
from robopolicy.errors import ContractError, DatasetError
from robopolicy.geometry.keypoints import hand_keypoints
from robopolicy.rotations import quat_to_matrix
from robopolicy_data.hands import hand_size
from robopolicy_data.hands_grasp import aperture
from robopolicy_data.hands_mediapipe import MediapipeHands
from robopolicy_data.importers.video import import_video
from robopolicy_data.reader import Dataset

CAMERAS = {"left": looking(np.zeros(3), -0.5, 0.45), "right": looking(np.zeros(3), 0.5, 0.45, height=0.3)}
HANDS = reach(24)


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("takes")
    for view, camera in CAMERAS.items():
        film(folder / f"{view}.mp4", [draw(hand, camera, seed=5) for hand in HANDS])
    calibration(folder / "cams.yaml", CAMERAS)
    return folder


@pytest.fixture(scope="module")
def still():
    """Pictures of open hands, each looked at alone."""
    detector = MediapipeHands(video=False)
    yield detector.detect
    detector.close()


def arguments(takes, target):
    words = ["data", "import", "video", str(target), "--task", "pinch it", "--calibration", str(takes / "cams.yaml")]
    for view in CAMERAS:
        words += ["--view", f"{view}={takes / view}.mp4"]
    return build_parser().parse_args(words)


def test_the_command_finds_the_hand_where_it_is_in_both_views(takes, tmp_path, capsys):
    args = arguments(takes, tmp_path / "h.zarr")
    args.run(args)
    said = capsys.readouterr().out
    assert "view left: 24 of 24 pictures show the hand, 0 do not" in said
    assert "the views agree within" in said
    assert "right hand (0 pictures say left, 48 right); it grasps" in said
    assert (tmp_path / "h-000000.html").read_text().count("data:image/jpeg") == 2 * 12
    episode = Dataset(tmp_path / "h.zarr")[0]
    for view, camera in CAMERAS.items():
        true = camera.project(HANDS)
        points = episode.state(f"keypoints_{view}").reshape(-1, 5, 2)
        off = np.linalg.norm(points - hand_keypoints(true, "right"), axis=-1)
        assert np.median(off) < 0.09 * np.median(hand_size(true))
        assert np.median(off[:, [2, 4]]) < 0.06 * np.median(hand_size(true))  # the tips
    apart, closed = aperture(HANDS), episode.state("grasp")[:, 0]
    assert closed[apart < 0.25].all()
    assert not closed[apart > 0.75].any()
    told = episode.meta.extra["hand"]
    assert told["residual_px"] < 2.0
    assert told["handedness"] == "right"


def test_a_camera_that_moved_is_noticed(takes, tmp_path):
    pose = CAMERAS["right"].T_base_cam.copy()
    pose[:3, :3] = pose[:3, :3] @ quat_to_matrix(np.array([np.cos(0.035), np.sin(0.035), 0, 0]))  # 4 degrees
    cams = calibration(tmp_path / "c.yaml", {**CAMERAS, "right": replace(CAMERAS["right"], T_base_cam=pose)})
    videos = {view: takes / f"{view}.mp4" for view in CAMERAS}
    with pytest.raises(DatasetError, match=r"disagree by \d+\.\d px .*a camera moved since calibration"):
        import_video(videos, tmp_path / "h.zarr", calibration=cams, task="t")
    assert not (tmp_path / "h.zarr").exists()


def test_views_that_do_not_begin_at_the_same_instant_are_noticed(takes, tmp_path):
    film(tmp_path / "late.mp4", [draw(hand, CAMERAS["right"], seed=5) for hand in HANDS[::2]] * 2)
    videos = {"left": takes / "left.mp4", "right": tmp_path / "late.mp4"}
    with pytest.raises(DatasetError, match=r"left, right disagree by \d+\.\d px .*the same instant"):
        import_video(videos, tmp_path / "h.zarr", calibration=takes / "cams.yaml", task="t")


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("left", [False, True])
def test_the_side_is_that_of_the_person_in_a_picture_that_is_not_mirrored(still, left, back):
    camera = looking(np.array([0, 0.06, 0]), np.pi if back else 0.0, 0.45)
    (hand,) = still(draw(landmarks(left=left), camera, seed=2))
    assert hand.handedness == ("left" if left else "right")
    assert hand.landmarks_px.dtype == np.float64
    assert np.abs(hand.landmarks_px - np.round(hand.landmarks_px)).max() > 0.1  # sub-pixel


def test_the_centre_of_the_first_pixel_is_zero(still):
    sums = []
    for left in (False, True):
        for angle in (-0.4, 0.0, 0.4):
            picture = draw(landmarks(left=left), looking(np.array([0, 0.06, 0]), angle, 0.45), seed=1)
            upright, turned = still(picture), still(np.ascontiguousarray(picture[::-1, ::-1]))
            sums.append(upright[0].landmarks_px + turned[0].landmarks_px - [319, 239])
    assert np.abs(np.median(np.concatenate(sums), axis=0)).max() < 0.5  # half a pixel off would be 1


def test_a_film_without_a_hand_is_refused(takes, tmp_path):
    empty = draw(HANDS[0] + [3.0, 0, 0], CAMERAS["left"], seed=5)
    film(tmp_path / "empty.mp4", [empty] * 5)
    with pytest.raises(DatasetError, match=r"no hand in any picture \(left 5 of them\)"):
        import_video(
            {"left": tmp_path / "empty.mp4"}, tmp_path / "h.zarr", calibration=takes / "cams.yaml", task="t"
        )  # fmt: skip


def test_a_picture_of_another_type_is_refused(still):
    with pytest.raises(ContractError, match=r"float64 \(4, 4, 3\); want uint8"):
        still(np.zeros((4, 4, 3)))
