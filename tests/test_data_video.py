"""Videos of a hand as an episode: steps of several views, calibrations, masks, the command and its page."""

import argparse
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("av", reason="no PyAV here: pip install 'robopolicy[human]'")
pytest.importorskip("ruamel.yaml", reason="no ruamel.yaml here: pip install 'robopolicy[human]'")
sys.path.insert(0, str(Path(__file__).parent))
from browser_chromium import Tab, chromium
from drawn_hand import film, looking, reach

from robopolicy.cli.main import build_parser
from robopolicy.errors import ConfigError, ContractError, DatasetError, SpecMismatch, UnknownName, UsageError
from robopolicy.geometry.calibrations import read_cameras
from robopolicy.geometry.keypoints import hand_keypoints
from robopolicy.rotations import quat_to_matrix
from robopolicy_data.check import check
from robopolicy_data.hands import Hand
from robopolicy_data.hands_episode import HandRules
from robopolicy_data.hands_grasp import GraspRule
from robopolicy_data.hands_page import write_review
from robopolicy_data.importers.video import import_video
from robopolicy_data.importers.video_files import Video, open_views
from robopolicy_data.reader import Dataset

STEPS, SIZE = 30, (240, 320)
CAMERAS = {"left": looking(np.zeros(3), -0.5, 0.45), "right": looking(np.zeros(3), 0.5, 0.45, height=0.3)}
HANDS = reach(STEPS)


class Known:
    """A detector that knows where the hand is: frames are grey, and count upwards by 8."""

    def __init__(self, points, missing=()):
        self.points, self.missing = points, missing

    def detect(self, rgb):
        number = round((float(rgb.mean()) - 4) / 8)
        return [] if number in self.missing else [Hand(self.points[number], "right", 0.9)]

    def close(self):
        pass


def grey(count=STEPS, size=SIZE, colour=(1, 1, 1), corner=0):
    """Pictures that count upwards; those of another ``corner`` are of another camera."""
    pictures = [np.full((*size, 3), 4 + 8 * k, np.uint8) * np.array(colour, np.uint8) for k in range(count)]
    for picture in pictures:
        picture[:8, 8 * corner : 8 * corner + 8] = 0
    return pictures


def detectors(**missing):
    """Makes one detector a view, in order."""
    made = iter([Known(camera.project(HANDS), missing.get(view, ())) for view, camera in CAMERAS.items()])
    return lambda: next(made)


def calibration(path, cameras=CAMERAS):
    from ruamel.yaml import YAML

    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump({view: camera.to_json() for view, camera in cameras.items()}, file)
    return path


@pytest.fixture(scope="module")
def takes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("takes")
    for corner, view in enumerate(CAMERAS):
        film(folder / f"{view}.mp4", grey(corner=corner))
    return {view: folder / f"{view}.mp4" for view in CAMERAS}


def test_the_episode_holds_the_points_pictures_and_cameras_of_the_kept_steps(tmp_path, takes):
    target, cams = tmp_path / "h.zarr", calibration(tmp_path / "c.yaml")
    shown, written = [], []
    done = import_video(
        takes, target, calibration=cams, task="pinch", lossless=True, operator="me",
        detector=detectors(left=(0, 1, 9), right=(28, 29)), progress=lambda at, total: shown.append((at, total)),
        writing=lambda at, total: written.append((at, total)),
    )  # fmt: skip
    assert (done.number, done.rate_hz, done.hand.start, done.hand.stop) == (0, 10.0, 2, 28)
    assert shown[-1] == (60, 60)
    assert written == [(26, 52), (52, 52)]
    episode = Dataset(target)[0]
    for view, camera in CAMERAS.items():
        points = hand_keypoints(camera.project(HANDS[2:28]), "right")
        kept = episode.state(f"keypoints_{view}").reshape(-1, 5, 2)
        known = np.arange(26) != 7  # interpolated in the left view
        np.testing.assert_allclose(kept[known], points[known], atol=1e-3)
        np.testing.assert_allclose(
            episode.action()[:-1, list(CAMERAS).index(view) * 10 :][:, :10], kept[1:].reshape(-1, 10)
        )
        levels = episode.images(view).mean(axis=(1, 2, 3))
        np.testing.assert_allclose(levels, 4 + 8 * np.arange(2, 28), atol=2)  # the codec's
        assert episode.meta.cameras[view]["K"] == camera.K.tolist()
    assert 0 < episode.state("grasp").sum() < 26
    assert np.diff(np.flatnonzero(episode.state("grasp")[:, 0])).max() == 1  # one grasp, in the middle
    meta = episode.meta
    assert (meta.embodiment, meta.task, meta.operator) == ("human", "pinch", "me")
    assert meta.extra["hand"]["views"]["left"] == {
        "pictures": 30, "detected": 27, "without_hand": 3, "overruled": 0, "beside": 0, "interpolated": 1, "trimmed": 4,
    }  # fmt: skip
    assert not check(target)


def test_a_second_take_is_a_second_episode_unless_it_has_another_rate(tmp_path, takes):
    target, cams = tmp_path / "h.zarr", calibration(tmp_path / "c.yaml")
    for number in range(2):
        take = {view: tmp_path / f"{number}{view}.mp4" for view in takes}
        for corner, path in enumerate(take.values(), start=2 * number):
            film(path, grey(corner=corner))
        done = import_video(take, target, calibration=cams, task="pinch", detector=detectors())
        assert done.number == number
    with pytest.raises(SpecMismatch, match=r"10 Hz.*5 Hz"):
        import_video(takes, target, calibration=cams, task="pinch", rate_hz=5.0, detector=detectors())


def test_a_lower_rate_takes_the_pictures_nearest_in_time(tmp_path, takes):
    done = import_video(
        takes, tmp_path / "h.zarr", calibration=calibration(tmp_path / "c.yaml"), task="pinch", rate_hz=4.0,
        detector=detectors(),
    )  # fmt: skip
    episode = Dataset(tmp_path / "h.zarr")[done.number]
    assert episode.length == 12  # at 0, 0.25, ... 2.75 s of 2.9
    levels = (episode.images("left").mean(axis=(1, 2, 3)) - 4) / 8
    np.testing.assert_allclose(levels, [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27], atol=0.51)
    with pytest.raises(DatasetError, match="10 pictures a second; --rate 20 is more"):
        open_views(takes, 20.0)


def test_views_of_other_lengths_and_rates_are_refused_with_the_numbers(tmp_path, takes):
    film(tmp_path / "short.mp4", grey(29))
    with pytest.raises(DatasetError, match=r"different lengths: left 30 pictures \(2\.90 s\), right 29 pictures"):
        open_views({"left": takes["left"], "right": tmp_path / "short.mp4"})
    film(tmp_path / "fast.mp4", grey(), rate=12.0)
    with pytest.raises(DatasetError, match="different rates: left 10 Hz, right 12 Hz"):
        open_views({"left": takes["left"], "right": tmp_path / "fast.mp4"})


def test_a_video_that_leaves_out_a_time_is_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "v.mp4"), "w") as file:
        stream = file.add_stream("h264", 10)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for k, picture in enumerate(grey()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = k + 6 * (k >= 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    with pytest.raises(DatasetError, match=r"view left: .*v\.mp4 has no picture at \d\.\d\d s"):
        open_views({"left": tmp_path / "v.mp4"})


def test_damaged_short_and_missing_videos_are_named(tmp_path, takes):
    with pytest.raises(DatasetError, match=r"no\.mp4 is missing"):
        Video(tmp_path / "no.mp4")
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(DatasetError, match=r"text\.mp4 is no whole video"):
        Video(tmp_path / "text.mp4")
    film(tmp_path / "one.mp4", grey(1))
    with pytest.raises(DatasetError, match=r"one\.mp4: 1 pictures"):
        Video(tmp_path / "one.mp4")


def test_a_phone_held_upright_gives_upright_pictures(tmp_path):
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:20, :30], picture[40:, :30] = (250, 30, 30), (30, 30, 250)
    film(tmp_path / "v.mp4", [picture] * 3)
    data = bytearray((tmp_path / "v.mp4").read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the track's matrix: a quarter turn clockwise
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    capture = cv2.VideoCapture(str(tmp_path / "turned.mp4"))  # the oracle; it turns as the file says
    want = capture.read()[1][..., ::-1]
    capture.release()
    assert want.shape == (96, 64, 3)
    video = Video(tmp_path / "turned.mp4")
    assert video.size == (96, 64)
    got = next(video.pictures([0]))
    assert np.abs(got.astype(int) - want).mean() < 4


def test_a_camera_that_is_missing_or_not_calibrated_is_named(tmp_path, takes):
    cams = calibration(tmp_path / "c.yaml", {"left": CAMERAS["left"]})
    with pytest.raises(ConfigError, match=r"c\.yaml: no calibrated camera 'right'; valid: left"):
        read_cameras(cams, list(takes), extra="human")
    (tmp_path / "bare.yaml").write_text("left: {size: [240, 320]}\n")
    with pytest.raises(ConfigError, match=r"bare\.yaml: camera 'left' is not calibrated"):
        import_video({"left": takes["left"]}, tmp_path / "h.zarr", calibration=tmp_path / "bare.yaml", task="t")
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file.*calibrate-cameras"):
        import_video(takes, tmp_path / "h.zarr", calibration=tmp_path / "none.yaml", task="t")
    for there, words in (("T_tool_cam", "'left' rides on the tool"), ("wrong", "'left' has a lens and no place")):
        entry = CAMERAS["left"].to_json()
        entry[there] = entry.pop("T_base_cam")
        (tmp_path / "c.json").write_text(json.dumps({"left": entry}))
        with pytest.raises(ConfigError, match=rf"c\.json: camera {words}"):
            import_video({"left": takes["left"]}, tmp_path / "h.zarr", calibration=tmp_path / "c.json", task="t")
    assert not (tmp_path / "h.zarr").exists()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((480, 640), r"right\.mp4 is 240x320 .*calibrates view 'right' for 480x640"),
        (None, r"'right' has no size; want \[240, 320\]"),
    ],
)
def test_a_calibration_of_another_size_is_refused(tmp_path, takes, size, words):
    cams = calibration(tmp_path / "c.yaml", {**CAMERAS, "right": replace(CAMERAS["right"], size=size)})
    with pytest.raises(DatasetError, match=words):
        import_video(takes, tmp_path / "h.zarr", calibration=cams, task="t", detector=detectors())
    assert not (tmp_path / "h.zarr").exists()


def test_a_camera_that_moved_is_refused_and_nothing_is_written(tmp_path, takes):
    pose = CAMERAS["right"].T_base_cam.copy()
    pose[:3, :3] = pose[:3, :3] @ quat_to_matrix(np.array([np.cos(0.04), np.sin(0.04), 0, 0]))
    cams = calibration(tmp_path / "c.yaml", {**CAMERAS, "right": replace(CAMERAS["right"], T_base_cam=pose)})
    with pytest.raises(DatasetError, match=r"disagree by \d+\.\d px .*a camera moved since calibration"):
        import_video(takes, tmp_path / "h.zarr", calibration=cams, task="t", detector=detectors())
    assert not (tmp_path / "h.zarr").exists()


def test_a_hand_too_rarely_seen_is_refused_and_nothing_is_written(tmp_path, takes):
    with pytest.raises(DatasetError, match=r"view left 30 of 30 \(100%\), view right 18 of 30 \(60%\); want 70%"):
        import_video(
            takes, tmp_path / "h.zarr", calibration=calibration(tmp_path / "c.yaml"), task="t",
            detector=detectors(right=range(12)),
        )  # fmt: skip
    assert not (tmp_path / "h.zarr").exists()


def mask(points, radius):
    """A mask (H, W) that is white around the tips of thumb and index (21, 2)."""
    drawn = np.zeros(SIZE, np.uint8)
    cv2.circle(drawn, tuple(np.round(points[[4, 8]].mean(0)).astype(int).tolist()), radius, 255, -1)
    return drawn


@pytest.mark.parametrize("moving", [False, True])
def test_a_mask_says_when_the_object_is_touched(tmp_path, takes, moving):
    points = CAMERAS["left"].project(HANDS)
    place = tmp_path / ("mask.mp4" if moving else "mask.png")
    if moving:
        film(place, [np.repeat(mask(p, 3)[..., None] * (10 <= k < 16), 3, axis=2) for k, p in enumerate(points)])
    else:
        cv2.imwrite(str(place), mask(points[12], 3))
    cams = calibration(tmp_path / "c.yaml")
    rule = GraspRule(least_s=0.1, near_px=15.0)
    done = import_video(
        takes, tmp_path / "h.zarr", calibration=cams, task="t", rules=HandRules(grasp=rule), masks={"left": place},
        detector=detectors(),
    )  # fmt: skip
    closed = np.flatnonzero(done.hand.grasp)
    assert done.hand.to_json()["grasp"]["from"] == "contact and aperture"
    if moving:
        assert (closed.min(), closed.max()) == (10, 15)
    else:
        assert 8 <= closed.min() <= 12
        assert closed.max() > 16  # a mask that stays behind does not open the hand
    elsewhere = tmp_path / "elsewhere.png"
    cv2.imwrite(str(elsewhere), np.pad(np.full((5, 5), 255, np.uint8), ((0, 235), (0, 315))))
    away = import_video(
        takes, tmp_path / "away.zarr", calibration=cams, task="t", masks={"left": elsewhere}, detector=detectors()
    )
    assert away.hand.grasp.sum() == 0


def test_masks_that_do_not_fit_are_named(tmp_path, takes):
    cams = calibration(tmp_path / "c.yaml")
    cv2.imwrite(str(tmp_path / "small.png"), np.full((10, 10), 255, np.uint8))
    cv2.imwrite(str(tmp_path / "empty.png"), np.zeros(SIZE, np.uint8))
    film(tmp_path / "short.mp4", grey(5))
    for name, view, error, words in (
        ("small.png", "left", DatasetError, "mask is 10x10, but the video of view 'left' is 240x320"),
        ("empty.png", "left", DatasetError, "mask of view 'left' is empty"),
        ("short.mp4", "left", DatasetError, "5 pictures, but the video of view 'left' has 30"),
        ("none.png", "left", DatasetError, "none.png is no picture"),
        ("empty.png", "top", UnknownName, "no view with a video for the mask 'top'; valid: left, right"),
    ):
        with pytest.raises(error, match=words):
            import_video(
                takes, tmp_path / "h.zarr", calibration=cams, task="t", masks={view: tmp_path / name},
                detector=detectors(),
            )  # fmt: skip


def test_no_view_is_refused(tmp_path):
    with pytest.raises(ContractError, match="no view"):
        import_video({}, tmp_path / "h.zarr", calibration=tmp_path / "c.yaml", task="t")


def test_the_command_takes_what_the_issue_of_a_video_needs():
    words = "data import video --view left=a.mp4 --view right=b.mp4 --calibration cams.yaml --task T"
    args = build_parser().parse_args(words.split())
    assert args.view == [("left", Path("a.mp4")), ("right", Path("b.mp4"))]
    assert args.destination == Path("human.zarr")
    with pytest.raises(UsageError, match="--view names 'left' twice"):
        args.run(argparse.Namespace(**{**vars(args), "view": args.view + args.view[:1]}))
    with pytest.raises(UsageError, match="add --mask"):
        args.run(argparse.Namespace(**{**vars(args), "near_px": 3.0}))


def test_the_page_shows_tracks_detections_and_grasp_in_a_browser(tmp_path, takes):
    done = import_video(
        takes, tmp_path / "h.zarr", calibration=calibration(tmp_path / "c.yaml"), task="put <it> there",
        detector=detectors(left=(0, 1, 9)),
    )  # fmt: skip
    page = write_review(
        tmp_path / "r.html", done.hand, Dataset(tmp_path / "h.zarr")[0].images, title="put <it> there", rate_hz=10.0,
        rule=GraspRule(),
    )  # fmt: skip
    with chromium() as browser:
        tab = Tab(browser)
        tab.size(1100, 900)
        tab.open(page.as_uri())
        assert tab.page.inner_text("h1") == "put <it> there"
        text = tab.page.inner_text("main")
        assert "27 of 30 pictures show the hand, 3 do not; 1 steps interpolated, 2 cut off at the ends." in text
        assert "0 pictures say left, 57 right" in text
        assert tab.page.locator("figure").count() == 2 * 12
        assert tab.page.locator("figure.closed").count() > 0
        broken = "[...document.images, ...document.querySelectorAll('image')].filter(i => !i.getBBox().width).length"
        assert tab.page.evaluate(broken) == 0
        # The overlay is where the points are: the index tip of the last step shown, in the picture's own pixels.
        shown = tab.page.locator("figure").nth(11).locator("circle.second").nth(1)
        tip = CAMERAS["left"].project(HANDS)[29, 8] + 0.5
        assert abs(float(shown.get_attribute("cx")) - tip[0]) < 0.1
        assert abs(float(shown.get_attribute("cy")) - tip[1]) < 0.1
        assert tab.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert not tab.errors
        assert all(url.startswith(("file:", "data:")) for url in tab.requests)
