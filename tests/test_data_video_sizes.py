"""`data import video --size`: smaller pictures, points and calibrations that say the same; datasets of one size."""

import re
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("av", reason="no PyAV here: pip install 'robopolicy[human]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install 'robopolicy[human]'")
sys.path.insert(0, str(Path(__file__).parent))
import track_data
from drawn_hand import film, looking, reach
from test_data_video import calibration

from robopolicy.area import shrink
from robopolicy.cli.main import main
from robopolicy.cli.train_tracks import plan_tracks
from robopolicy.cli.training_data import DataChoice
from robopolicy.errors import DatasetError, SpecMismatch, UnknownName
from robopolicy.geometry.cameras import cameras_of
from robopolicy.geometry.keypoints import ROLES
from robopolicy.geometry.triangulation import triangulate
from robopolicy.types import EpisodeMeta
from robopolicy_data.check import check
from robopolicy_data.hands import Hand
from robopolicy_data.hands_episode import HandRules
from robopolicy_data.hands_grasp import GraspRule
from robopolicy_data.human import HumanEpisode, write_human
from robopolicy_data.importers.video import import_video
from robopolicy_data.importers.video_files import Video
from robopolicy_data.picture_sizes import made_alike
from robopolicy_data.reader import Dataset
from robopolicy_data.tracked import TrackedDataset

STEPS, SIZE = 30, (240, 320)
SMALL = {"left": (120, 160), "right": (96, 100)}  # the right one does not keep its aspect
CAMERAS = {
    "left": looking(np.zeros(3), -0.5, 0.45),
    "right": replace(looking(np.zeros(3), 0.5, 0.45, height=0.3), distortion=(-0.2, 0.05, 0.001, -0.002)),
}
HANDS = reach(STEPS)
TIP = 8  # of the index: a right hand's second finger
SHOWN = {view: camera.project(HANDS) for view, camera in CAMERAS.items()}


class InTurn:
    """A detector that finds one hand after the other, in pictures of the video's own size."""

    def __init__(self, points, size=SIZE):
        self.points, self.size = iter(points), size

    def detect(self, rgb):
        assert rgb.shape == (*self.size, 3)
        return [Hand(next(self.points), "right", 0.9)]

    def close(self):
        pass


def detectors(shown=SHOWN, size=SIZE):
    made = iter([InTurn(points, size) for points in shown.values()])
    return lambda: next(made)


def never():
    raise AssertionError("looked at pictures of what could have been refused before")


def dotted(points, size=SIZE, noise=0):
    """Pictures in which a soft dot is at the index tip of points (T, 21, 2), before noise of one's own."""
    y, x = np.mgrid[: size[0], : size[1]]
    rough = np.random.default_rng(noise).integers(0, 3, (*size, 3)) if noise else 0
    return [
        (16 + rough + 220 * np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2) / 50)[..., None] * np.ones(3)).astype(np.uint8)
        for p in points[:, TIP]
    ]


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("takes")
    for view, points in SHOWN.items():
        film(folder / f"{view}.mp4", dotted(points))
    calibration(folder / "cams.yaml", CAMERAS)
    return {view: folder / f"{view}.mp4" for view in CAMERAS}


def taken(takes, target, **options):
    options = {"detector": detectors(), "lossless": True, "calibration": takes["left"].with_name("cams.yaml")} | options
    return import_video(takes, target, task="t", **options)


@pytest.fixture(scope="module")
def both(takes, tmp_path_factory):
    """(import, its episode) of whole and of smaller pictures."""
    folder = tmp_path_factory.mktemp("both")
    done = [taken(takes, folder / "whole.zarr"), taken(takes, folder / "small.zarr", sizes=SMALL)]
    return [(one, Dataset(folder / f"{name}.zarr")[0]) for one, name in zip(done, ("whole", "small"), strict=True)]


def seen(episode):
    """Return keypoints (V, T, 5, 2) and the cameras they are of."""
    cameras = cameras_of(episode.meta.cameras, list(CAMERAS))
    points = [episode.state(f"keypoints_{view}").reshape(-1, 5, 2).astype(float) for view in cameras]
    return np.stack(points), list(cameras.values())


def test_smaller_pictures_tell_the_same_places_in_space(both):
    (whole, episode), (small, other) = both
    (before, cameras), (after, fewer) = seen(episode), seen(other)
    places, again = triangulate(before, cameras).points, triangulate(after, fewer).points
    assert np.abs(places - again).max() < 2e-6  # m: what float32 leaves of pixels
    for k, (view, size) in enumerate(SMALL.items()):
        share = np.array(size[::-1]) / SIZE[::-1]
        np.testing.assert_allclose(after[k] + 0.5, (before[k] + 0.5) * share, atol=1e-4)
        assert other.meta.cameras[view]["size"] == list(size)
        ahead = other.action()[:-1, 10 * k : 10 * k + 10]
        np.testing.assert_allclose(ahead, after[k].reshape(-1, 10)[1:], atol=1e-5)
    np.testing.assert_array_equal(other.state("grasp"), episode.state("grasp"))
    assert (whole.shrunk, small.shrunk) == ({}, SMALL)
    assert other.meta.extra["hand"] == episode.meta.extra["hand"], "residual and all as judged in the whole pictures"
    assert other.meta.extra["recorded"] == {view: list(SIZE) for view in SMALL}
    assert not check(Path(other.where.partition(".zarr")[0] + ".zarr"))


def test_pictures_are_made_smaller_by_area_and_show_the_hand_where_its_points_are(both, takes):
    _, (_, episode) = both
    for view, size in SMALL.items():
        stored = episode.images(view)
        video = Video(takes[view])
        want = [shrink(picture, size) for picture in video.pictures(range(STEPS))]
        np.testing.assert_array_equal(stored, np.stack(want))
        bright = np.clip(stored.mean(axis=-1) - 40, 0, None)
        y, x = np.mgrid[: size[0], : size[1]]
        middles = np.stack([(bright * at).sum((1, 2)) / bright.sum((1, 2)) for at in (x, y)], axis=-1)
        tips = episode.state(f"keypoints_{view}").reshape(-1, 5, 2)[:, ROLES.index("second_tip")]
        assert np.abs(middles - tips).max() < 0.1  # px; half a pixel of the video is 0.15 to 0.25 here


def test_views_left_out_stay_as_they_are(takes, tmp_path):
    done = taken(takes, tmp_path / "h.zarr", sizes={"left": (60, 80), "right": SIZE})
    episode = Dataset(tmp_path / "h.zarr")[0]
    assert done.shrunk == {"left": (60, 80)}
    assert episode.images("right").shape[1:] == (*SIZE, 3)
    assert episode.meta.cameras["right"] == CAMERAS["right"].to_json()


def test_masks_are_of_the_whole_pictures(takes, tmp_path):
    drawn = np.zeros(SIZE, np.uint8)
    cv2.circle(drawn, tuple(SHOWN["left"][12, [4, 8]].mean(0).round().astype(int).tolist()), 3, 255, -1)
    cv2.imwrite(str(tmp_path / "mask.png"), drawn)
    options = {"masks": {"left": tmp_path / "mask.png"}, "rules": HandRules(grasp=GraspRule(least_s=0.1, near_px=15.0))}
    whole = taken(takes, tmp_path / "whole.zarr", **options)
    small = taken(takes, tmp_path / "small.zarr", sizes=SMALL, **options)
    assert 0 < whole.hand.grasp.sum() < STEPS
    np.testing.assert_array_equal(small.hand.grasp, whole.hand.grasp)
    np.testing.assert_array_equal(small.hand.contact.touching, whole.hand.contact.touching)


def test_no_block_of_whole_pictures_is_held(takes, monkeypatch):
    """A block is as many pictures as fit at the stored size: thousands of whole ones would be gigabytes."""
    copied = lambda video, wanted: (np.full((*video.size, 3), k, np.uint8) for k in wanted)  # noqa: E731  # traced
    monkeypatch.setattr(Video, "pictures", copied)
    read = Video(takes["left"]).reader(range(STEPS), (24, 32))
    tracemalloc.start()
    try:
        assert read(0, STEPS).shape == (STEPS, 24, 32, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 0.5 * STEPS * SIZE[0] * SIZE[1] * 3


def command(takes, target, *more):
    words = [word for view, path in takes.items() for word in ("--view", f"{view}={path}")]
    cams = takes["left"].with_name("cams.yaml")
    return ["data", "import", "video", *words, "--calibration", str(cams), "--task", "t", *more, str(target)]


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (("480x640",), r"--size left=480x640: .*left\.mp4 is 240x320; want no more, and 1x1 at least"),
        (("96x96", "right=96x321"), r"--size right=96x321: .*right\.mp4 is 240x320"),
        (("96",), r"--size '96': want HEIGHTxWIDTH in px, 96x96, or CAMERA=HEIGHTxWIDTH"),
        (("left=0x96",), r"--size 'left=0x96': want HEIGHTxWIDTH"),
        (("9" * 5000 + "x1",), r"--size '9+x1': want HEIGHTxWIDTH"),
        (("top=48x64",), r"no camera 'top'; valid: left, right"),
        (("48x64", "96x96"), r"--size gives all cameras a second size, '96x96'; want one"),
        (("left=48x64", "left=48x64"), r"--size gives left a second size"),
    ],
)
def test_sizes_that_make_no_sense_are_one_line_before_any_picture_is_looked_at(
    takes, tmp_path, monkeypatch, capsys, sizes, words
):
    monkeypatch.setattr("robopolicy_data.hands_mediapipe.MediapipeHands", never)
    more = [word for size in sizes for word in ("--size", size)]
    assert main(command(takes, tmp_path / "h.zarr", *more)) != 0
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(words, told)
    assert not (tmp_path / "h.zarr").exists()


def test_a_size_of_no_view_is_named(takes, tmp_path):
    with pytest.raises(UnknownName, match="no view with a video to make smaller 'top'; valid: left, right"):
        taken(takes, tmp_path / "h.zarr", sizes={"top": (48, 64)}, detector=never)
    with pytest.raises(DatasetError, match="1x1 at least"):
        taken(takes, tmp_path / "h.zarr", sizes={"left": (0, 64)}, detector=never)


def test_a_dataset_of_smaller_pictures_says_how_to_import_into_it(both, takes, tmp_path):
    target = tmp_path / "h.zarr"
    taken(takes, target, sizes=SMALL)
    again = {view: tmp_path / path.name for view, path in takes.items()}
    for view, path in again.items():
        film(path, dotted(SHOWN[view], noise=1))
    calibration(tmp_path / "cams.yaml", CAMERAS)
    words = r"has 120x160, .*has 240x320; .*; pictures are made smaller with --size left=120x160 --size right=96x100$"
    with pytest.raises(SpecMismatch, match=words):
        taken(again, target, detector=never)
    assert taken(again, target, sizes=SMALL).number == 1
    taken(takes, tmp_path / "whole.zarr")
    with pytest.raises(SpecMismatch) as caught:  # not what would make it fit, if only the rate does not
        taken(again, tmp_path / "whole.zarr", rate_hz=5.0, detector=never)
    assert "--size" not in str(caught.value)


def test_the_page_draws_the_hand_on_the_pictures_that_are_stored(takes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("robopolicy_data.hands_mediapipe.MediapipeHands", detectors())
    sizes = ["--size", "96x128", "--size", "right=60x100"]
    assert main(command(takes, tmp_path / "h.zarr", *sizes, "--review", str(tmp_path / "r.html"))) == 0
    assert "stored smaller: view left 96x128, view right 60x100" in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.count('<svg viewBox="0 0 128 96" role="img" aria-label="hand">') == 12
    right = page[page.index("View right") :].split('<svg viewBox="0 0 100 60" role="img" aria-label="hand">')
    assert len(right) == 1 + 12
    tip = re.search(r'cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="second"><title>second_tip', right[-1])
    want = (SHOWN["right"][-1, TIP] + 0.5) * [100 / 320, 60 / 240]  # SVG counts from the edge
    np.testing.assert_allclose([float(tip[1]), float(tip[2])], want, atol=0.06)
    assert "px of the videos between the views" in page


def test_train_says_with_which_size_to_import_and_then_takes_it(tmp_path, monkeypatch, capsys):
    robot = track_data.make_robot(tmp_path / "robot.zarr", 1)
    big = {view: camera.resized(96, 128) for view, camera in track_data.CAMERAS.items()}
    shown = {view: camera.project(HANDS + np.array([0.45, 0.0, 0.1])) for view, camera in big.items()}
    takes = {view: tmp_path / f"{view}.mp4" for view in big}
    for view, path in takes.items():
        film(path, dotted(shown[view], (96, 128)))
    calibration(tmp_path / "cams.yaml", big)
    for target in (tmp_path / "hand.zarr", tmp_path / "again.zarr"):
        monkeypatch.setattr("robopolicy_data.hands_mediapipe.MediapipeHands", detectors(shown, (96, 128)))
        more = [] if target.stem == "hand" else ["--size", "48x64"]
        assert main(command(takes, target, *more)) == 0
    capsys.readouterr()
    words = ["train", "--policy", "motion-track", "--data", str(robot), "--data", str(tmp_path / "hand.zarr")]
    assert main([*words, "--image-size", "48x48", "--out", str(tmp_path / "p")]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.endswith(
        f"; import the videos of {tmp_path / 'hand.zarr'} into a new dataset with --size 48x64 (data import video)"
    )
    assert "robot.zarr has 48x64" in told
    plan = plan_tracks(DataChoice((robot, tmp_path / "again.zarr")), {}, {}, None, None)
    assert [episode.human for episode in plan.data.episodes] == [False, True]
    with pytest.raises(SpecMismatch, match=r"import the videos of .*hand\.zarr .*--size 48x64"):  # hands alone
        plan_tracks(DataChoice((tmp_path / "again.zarr", tmp_path / "hand.zarr")), {}, {}, None, None)


def hand_of(path, size, **extra):
    """A dataset of one hand of two steps, at a size."""
    cameras = {view: camera.resized(*size) for view, camera in track_data.CAMERAS.items()}
    black = dict.fromkeys(cameras, np.zeros((2, *size, 3), np.uint8))
    points = dict.fromkeys(cameras, np.zeros((2, 5, 2)))
    write_human(path, HumanEpisode(black, points, np.zeros(2), cameras, 10.0), EpisodeMeta("t", "hand", extra=extra))


@pytest.mark.parametrize(
    ("size", "extra", "words"),
    [
        ((96, 128), {"imported": "video"}, r"into a new dataset with --size 48x64 "),
        (
            (24, 32),
            {"imported": "video"},
            r"the videos of .*h\.zarr are smaller, and pictures cannot grow; want 48x64 or larger$",
        ),
        (
            (24, 32),
            {"imported": "video", "recorded": {"left": [480, 640], "right": [48, 64]}},
            r"into a new dataset with --size 48x64 ",
        ),
        (
            (24, 32),
            {"imported": "video", "recorded": {"left": [480, 640], "right": [47, 64]}},
            r"are smaller, and pictures cannot grow; want 48x64 or larger$",
        ),
        (
            (96, 128),
            {"imported": "landmarks of a.zarr, episode 0"},
            r"^; record what .*h\.zarr was made of with --camera-size 48x64, then import its landmarks$",
        ),
        ((96, 128), {}, "^$"),
        ((48, 64), {"imported": "video"}, "^$"),
    ],
)
def test_what_to_do_depends_on_what_a_dataset_was_made_of(tmp_path, size, extra, words):
    hand_of(tmp_path / "h.zarr", size, **extra)
    paths = track_data.make_robot(tmp_path / "r.zarr", 1), tmp_path / "h.zarr"
    made = [TrackedDataset(Dataset(path), list(track_data.CAMERAS), track_data.TWIN) for path in paths]
    for order in (made, made[::-1]):
        assert re.search(words, made_alike(order))
