"""Videos of a hand that must become no episode, or not twice: each is named, nothing is lost or half written."""

import errno
import multiprocessing
import os
import signal
import sys
import wave
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="no PyAV here: pip install 'robopolicy[human]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install 'robopolicy[human]'")
sys.path.insert(0, str(Path(__file__).parent))
from drawn_hand import film
from test_data_video import CAMERAS, HANDS, SIZE, STEPS, Known, calibration, detectors, grey

from robopolicy.cli.main import build_parser, main
from robopolicy.errors import ConfigError, ContractError, DatasetBusy, DatasetError, SpecMismatch
from robopolicy.geometry.keypoints import hand_keypoints
from robopolicy_data.check import check
from robopolicy_data.human import human_spec
from robopolicy_data.importers.video import import_video
from robopolicy_data.importers.video_files import Video, open_views
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Größe 手")
    for corner, view in enumerate(CAMERAS):
        film(folder / f"{view} ä.mp4", grey(corner=corner))
    calibration(folder / "cams ö.yaml")
    return {view: folder / f"{view} ä.mp4" for view in CAMERAS}


def cams(takes):
    return takes["left"].with_name("cams ö.yaml")


def never():
    raise AssertionError("looked at pictures of what could have been refused before")


def test_the_same_videos_are_taken_once_unless_the_episode_was_deleted(takes, tmp_path):
    target = tmp_path / "手.zarr"
    import_video(takes, target, calibration=cams(takes), task="t", detector=detectors())
    with pytest.raises(DatasetError, match=r"are episode 0 of .*手\.zarr already.*data delete .*手\.zarr'? 0$"):
        import_video(takes, target, calibration=cams(takes), task="t", detector=never)
    args = build_parser().parse_args(["data", "delete", str(target), "0"])
    args.run(args)
    turned = dict(reversed(takes.items()))  # the order of the views is none of the dataset's
    done = import_video(turned, target, calibration=cams(takes), task="t", detector=detectors())
    assert [one.number for one in Dataset(target)] == [done.number] == [1]


def test_one_video_for_two_views_is_refused(takes, tmp_path):
    twice = dict.fromkeys(takes, takes["left"])
    with pytest.raises(DatasetError, match="views 'left' and 'right' are the same video"):
        import_video(twice, tmp_path / "h.zarr", calibration=cams(takes), task="t", detector=never)
    assert not (tmp_path / "h.zarr").exists()


def test_a_dataset_that_cannot_take_it_is_named_before_any_picture_is_looked_at(takes, tmp_path):
    def take(target):
        import_video(takes, target, calibration=cams(takes), task="t", detector=never)

    DatasetWriter(tmp_path / "small.zarr", human_spec(dict.fromkeys(CAMERAS, (96, 96)), 10.0)).close()
    with pytest.raises(SpecMismatch, match=r"small\.zarr has 96x96, this recording has 240x320"):
        take(tmp_path / "small.zarr")
    with (
        DatasetWriter(tmp_path / "held.zarr", human_spec(dict.fromkeys(CAMERAS, SIZE), 10.0)),
        pytest.raises(DatasetBusy),
    ):
        take(tmp_path / "held.zarr")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"thesis\.txt"):
        take(tmp_path / "other")
    assert [one.name for one in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_a_new_dataset_that_cannot_be_written_is_named_before_anything_is_looked_at(takes, tmp_path, monkeypatch):
    def take(target):
        import_video(takes, target, calibration=tmp_path / "none.yaml", task="t", detector=never)

    (tmp_path / "file").write_text("mine")
    with pytest.raises(DatasetError, match=r"file/h\.zarr cannot be written \(Not a directory\); name a dataset in"):
        take(tmp_path / "file" / "h.zarr")
    (tmp_path / "there").mkdir()

    def denied(folder, *_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    with pytest.raises(ConfigError, match=r"none\.yaml"):  # what is wrong next
        take(tmp_path / "new" / "deep" / "h.zarr")
    monkeypatch.setattr(os, "mkdir", denied)
    for target in (tmp_path / "there", tmp_path / "new" / "deep" / "h.zarr"):
        with pytest.raises(DatasetError, match=rf"{target} cannot be written \(Permission denied"):
            take(target)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "there"]
    assert not list((tmp_path / "there").iterdir())


def test_a_page_that_cannot_be_written_is_named_and_the_episode_kept(takes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("robopolicy_data.hands_mediapipe.MediapipeHands", detectors())
    words = ["--calibration", str(cams(takes)), "--task", "t", "--review", str(tmp_path), str(tmp_path / "h.zarr")]
    for view, path in takes.items():
        words += ["--view", f"{view}={path}"]
    assert main(["data", "import", "video", *words]) == 1
    told = capsys.readouterr()
    assert "it grasps" in told.out
    last = told.err.strip().splitlines()[-1]
    assert last == (
        f"robopolicy: the page {tmp_path} cannot be written (Is a directory); "
        f"episode 0 is in {tmp_path / 'h.zarr'} all the same"
    )
    assert len(Dataset(tmp_path / "h.zarr")) == 1


def test_a_view_whose_name_is_no_name_is_refused_at_once(takes, tmp_path):
    named = {view.replace("l", "a/"): path for view, path in takes.items()}
    told = calibration(tmp_path / "c.yaml", {view.replace("l", "a/"): camera for view, camera in CAMERAS.items()})
    with pytest.raises(ContractError, match="a/eft"):
        import_video(named, tmp_path / "h.zarr", calibration=told, task="t", detector=never)


def _killed(takes, target):
    """Import, and be killed when the fifth picture is to be written."""
    reader = Video.reader

    def kills(video, *asked):
        read = reader(video, *asked)

        def some(first, stop):
            pictures = read(first, stop)
            return _Deadly(pictures) if video.path == takes["right"] else pictures

        return some

    Video.reader = kills
    import_video(takes, target, calibration=cams(takes), task="t", detector=detectors())


class _Deadly(list):
    def __getitem__(self, k):
        if k == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(k)


def test_an_import_that_was_killed_leaves_no_half_episode_and_is_made_again(takes, tmp_path):
    target = tmp_path / "h.zarr"
    one = multiprocessing.get_context("spawn").Process(target=_killed, args=(takes, target))
    one.start()
    one.join(120)
    assert one.exitcode == -signal.SIGKILL
    assert list((target / ".wip").glob("*/episode"))  # it was writing
    assert len(Dataset(target)) == 0
    done = import_video(takes, target, calibration=cams(takes), task="t", detector=detectors())
    assert done.number == 0
    assert Dataset(target)[0].length == STEPS
    assert not [problem for problem in check(target) if problem.severity == "error"]


def test_a_camera_that_moved_is_named_also_where_most_steps_just_agree(takes, tmp_path):
    class Off(Known):
        """Sees the hand ``px`` too low from the step ``start`` on."""

        def __init__(self, start, px):
            points = CAMERAS["right"].project(HANDS)
            points[start:, :, 1] += px
            super().__init__(points)

    made = iter([Known(CAMERAS["left"].project(HANDS)), Off(18, 30.0)])
    words = r"left, right disagree by more than 4\.8 px .* at 12 of 30 steps, by 0\.0 px .*: a camera moved since"
    with pytest.raises(DatasetError, match=words):
        import_video(takes, tmp_path / "h.zarr", calibration=cams(takes), task="t", detector=lambda: next(made))
    assert not (tmp_path / "h.zarr").exists()


def test_cameras_that_have_the_hand_behind_them_are_refused(takes, tmp_path):
    turned = {}
    for view, camera in CAMERAS.items():
        pose = camera.T_base_cam.copy()
        pose[:3, :3] = pose[:3, :3] @ np.diag([1.0, -1.0, -1.0])
        turned[view] = replace(camera, T_base_cam=pose)
    with pytest.raises(
        DatasetError, match=r"the hand is behind a camera, or nowhere, by the calibration of views left, r"
    ):
        import_video(
            takes, tmp_path / "h.zarr", calibration=calibration(tmp_path / "c.yaml", turned), task="t",
            detector=detectors(),
        )  # fmt: skip
    assert not (tmp_path / "h.zarr").exists()


def test_a_track_that_leaves_the_picture_keeps_its_place(takes, tmp_path):
    away = HANDS + np.array([0.2, 0.0, 0.0])
    made = iter([Known(camera.project(away)) for camera in CAMERAS.values()])
    import_video(takes, tmp_path / "h.zarr", calibration=cams(takes), task="t", detector=lambda: next(made))
    for view, camera in CAMERAS.items():
        kept = Dataset(tmp_path / "h.zarr")[0].state(f"keypoints_{view}").reshape(-1, 5, 2)
        np.testing.assert_allclose(kept, hand_keypoints(camera.project(away), "right"), atol=1e-3)
    assert not camera.inside(kept).any()  # in the right view


def noise(path, count=24):
    rng = np.random.default_rng(0)
    film(path, rng.integers(0, 255, (count, 96, 128, 3), np.uint8))
    return path


def test_a_garbled_video_is_named_and_never_waits_for_itself(tmp_path):
    """While a decoder's thread told PyAV's log of the damage, closing the file waited for it, for ever."""
    import av

    whole = noise(tmp_path / "v.mp4").read_bytes()
    rng = np.random.default_rng(1)
    told = []
    for _ in range(20):
        first = int(rng.integers(len(whole) // 8, len(whole) * 3 // 4))
        (tmp_path / "g.mp4").write_bytes(whole[:first] + rng.bytes(3000) + whole[first + 3000 :])
        try:
            video = Video(tmp_path / "g.mp4")
            list(video.pictures(range(len(video))))
        except DatasetError as error:
            told.append(str(error))
    assert told
    assert all(one.startswith(str(tmp_path / "g.mp4")) for one in told)
    assert av.logging.get_level() is None


def test_a_picture_that_the_decoder_leaves_out_is_named(tmp_path, monkeypatch):
    """All after it would be taken for the ones before them, and one view would run ahead of the others."""
    video, decode = Video(noise(tmp_path / "v.mp4")), Video._decode
    monkeypatch.setattr(Video, "_decode", lambda self: (f for k, f in enumerate(decode(self)) if k != 10))
    assert len(list(video.pictures(range(10)))) == 10
    with pytest.raises(DatasetError, match=r"v\.mp4 is damaged: picture 10 of 24, at 1\.00 s, cannot be read"):
        list(video.pictures(range(20)))


def test_sound_is_no_video(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "w") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    with pytest.raises(DatasetError, match=r"a\.wav holds no pictures; want a video"):
        Video(tmp_path / "a.wav")


def test_a_video_of_varying_rate_is_followed_by_its_stamps(tmp_path):
    """A phone's pictures come up to 40 % of a period late; each step sees the one nearest to its time."""
    import av

    late = np.round(np.random.default_rng(3).uniform(0, 40, STEPS)).astype(int)
    late[[0, -1]] = 0
    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        stream = file.add_stream("h264", 10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for k, picture in enumerate(grey()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = 100 * k + int(late[k]), stream.codec_context.time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    views = open_views({"left": tmp_path / "v.mp4"})
    assert views.rate_hz == pytest.approx(10, abs=0.01)
    assert views.numbers["left"].tolist() == list(range(STEPS))
