"""Cameras at this machine: real OpenCV on a real film; a fake capture where a cable has to be pulled."""

import itertools
import threading
import time
from contextlib import contextmanager

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.clock import WallClock
from robopolicy.errors import ConfigError, ContractError, StaleFrame
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy_hardware.cameras import uvc
from robopolicy_hardware.cameras.uvc import Device, UvcCamera, device_stamp_ns, open_capture
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.robot import RosRobot
from robopolicy_hardware.ros.server import RobotServer

FPS, FRAMES = 25.0, 20
ARM = PolicySpec(state={"q": StateSpec(2, ("rad",))}, action=ActionSpec("joint", ("a", "b"), ("rad",)))
FILE = """
rate_hz: 20
primary: front
cameras:
  front: {{uvc: {film}, width: 32, height: 24, latency_s: 0.01, max_age_s: 2}}
state: {{q: {{topic: /joint_states, joints: [a, b], max_age_s: 2}}}}
action: {{topic: /commands, kind: joint, names: [a, b], units: rad}}
"""


@pytest.fixture
def film(tmp_path):
    """A film of FRAMES pictures, 32 x 24, which turn from black to red."""
    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (32, 24))
    assert writer.isOpened()
    for k in range(FRAMES):
        writer.write(np.full((24, 32, 3), (0, 0, 10 * k), np.uint8))
    writer.release()
    return path


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(uvc, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(uvc, "LONGEST_PAUSE_S", 0.04)


@contextmanager
def camera(device, **options):
    seen = []
    made = UvcCamera(device, seen.append, **options)
    try:
        yield made, seen
    finally:
        made.close()


def until(asked, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if found := asked():
            return found
        time.sleep(0.005)
    raise AssertionError("it did not come")


def test_a_film_is_played_at_its_rate_and_again(film, quick):
    with camera(Device(str(film))) as (made, seen):
        until(lambda: len(seen) > FRAMES + 5)
        assert made.opened >= 2
        assert made.newest() in seen
    reds = [int(frame.image[..., 0].mean()) for frame in seen]
    np.testing.assert_allclose(reds[:FRAMES], 10 * np.arange(FRAMES), atol=4)
    assert reds[FRAMES] < 5, "it began again"
    assert all(frame.image.shape == (24, 32, 3) and frame.image[..., 1:].max() < 8 for frame in seen), "RGB"
    assert not any(frame.by_device for frame in seen)
    stamps = np.array([frame.stamp_ns for frame in seen])
    assert np.all(np.diff(stamps) > 0)
    assert (stamps[FRAMES - 1] - stamps[0]) / 1e9 > 0.9 * (FRAMES - 2) / FPS, "no faster than its rate"
    count = len(seen)
    made.close()
    time.sleep(3 / FPS)
    assert len(seen) == count


def test_pictures_in_a_folder(tmp_path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k:04d}.png"), np.full((10, 12, 3), (7 + k, 0, 0), np.uint8))
    with camera(Device(str(tmp_path / "%04d.png"), fps=100.0)) as (_, seen):
        until(lambda: len(seen) >= 3)
    assert [int(frame.image[0, 0, 2]) for frame in seen[:3]] == [7, 8, 9]


@pytest.mark.parametrize(
    ("device", "says"),
    [
        (Device("/dev/video99"), "/dev/video99: there is no such device; is it plugged in?"),
        (Device("97"), "97: there is no such device; is it plugged in?"),
        (Device(__file__), f"{__file__}: it does not open; does somebody else use it"),
    ],
)
def test_what_is_not_there_is_named_and_tried_again(device, says, quick):
    tries = []

    def counted(wanted):
        tries.append(wanted)
        return open_capture(wanted)

    with camera(device, open_device=counted) as (made, seen):
        until(lambda: len(tries) > 2)
        assert made.trouble.startswith(says)
        assert made.newest() is None
    assert not seen


def test_another_size_than_asked_for_is_no_picture(film, quick):
    with camera(Device(str(film), 64, 48)) as (made, seen):
        until(lambda: made.trouble)
        assert "it gives pictures of 32 x 24, not 64 x 48; list its sizes" in made.trouble
    assert not seen


class FakeCapture:
    """Stands for ``cv2.VideoCapture`` of a camera whose cable can be pulled."""

    def __init__(self, frames, backend="FAKE", hangs=None, stamps=None):
        self.frames, self.backend, self.hangs, self.stamps, self.released = frames, backend, hangs, stamps, False

    def grab(self):
        if self.hangs is not None and self.frames == 0:
            self.hangs.wait()
        self.frames -= 1
        return self.frames >= 0

    def retrieve(self):
        return True, np.full((4, 6, 3), 50, np.uint8)

    def get(self, what):
        return self.stamps() if what == cv2.CAP_PROP_POS_MSEC and self.stamps else 0.0

    def getBackendName(self):
        return self.backend

    def release(self):
        self.released = True


def test_after_the_cable_was_pulled_it_comes_back(quick, monkeypatch):
    plugged, opened, pauses = threading.Event(), [], []
    plugged.set()

    def open_device(device):
        if not plugged.is_set():
            raise ContractError("there is no such device; is it plugged in?")
        opened.append(FakeCapture(3))
        if len(opened) == 1:
            plugged.clear()
        return opened[-1]

    real = threading.Event.wait
    monkeypatch.setattr(
        threading.Event, "wait", lambda self, timeout=None: pauses.append(timeout) or real(self, timeout)
    )
    with camera(Device("/dev/fake"), open_device=open_device) as (made, seen):
        until(lambda: "is it plugged in?" in made.trouble and len([one for one in pauses if one == 0.04]) > 2)
        assert len(seen) == 3
        assert made.newest() is seen[2], "the last picture stays, with its stamp"
        assert opened[0].released
        plugged.set()
        until(lambda: len(seen) > 6)
        assert made.trouble in ("", "/dev/fake gives no pictures any more; was it unplugged?")
    waits = [one for one in pauses if one in (0.01, 0.02, 0.04)]
    assert waits[:4] == [0.01, 0.02, 0.04, 0.04], "each pause is twice the one before, up to the longest"
    assert np.all(np.diff([frame.stamp_ns for frame in seen]) > 0)


def test_a_driver_that_hangs_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(uvc, "GIVE_UP_S", 0.05)
    hangs = threading.Event()
    with camera(Device("/dev/fake"), open_device=lambda device: FakeCapture(2, hangs=hangs)) as (made, seen):
        until(lambda: len(seen) == 2)
        assert made.newest() is seen[1]
        made.close()
        assert made._thread.is_alive(), "it hangs in the driver"
    hangs.set()
    made._thread.join(30)
    assert not made._thread.is_alive()


def test_stamps_of_the_driver_are_taken_where_they_make_sense(quick):
    now_ns = 50_000_000_000_000
    at = {"before": now_ns - 20_000_000, "long ago": now_ns - 2_000_000_000, "ahead": now_ns + 1_000_000, "none": 0}
    found = {
        name: device_stamp_ns(FakeCapture(1, "V4L2", stamps=lambda ns=ns: ns / 1e6), now_ns) for name, ns in at.items()
    }
    assert found == {"before": at["before"], "long ago": None, "ahead": None, "none": None}
    assert device_stamp_ns(FakeCapture(1, "FFMPEG", stamps=lambda: at["before"] / 1e6), now_ns) is None

    ticks = itertools.count()

    def own():  # one that stands still: those of an unplugged hub did
        return time.monotonic_ns() / 1e6 - 15 if next(ticks) % 2 == 0 else 1.0

    with camera(
        Device("/dev/fake"), open_device=lambda device: FakeCapture(9, "V4L2", stamps=own)
    ) as (_, seen):  # fmt: skip
        until(lambda: len(seen) >= 8)
    assert seen[0].by_device
    assert not seen[1].by_device
    assert np.all(np.diff([frame.stamp_ns for frame in seen]) > 0), "stamps never go back"


@contextmanager
def robot_of(folder, text):
    """A robot behind topics within the process, the cameras of its file at this machine."""
    (folder / "arm.yaml").write_text(text)
    config, wire, clock = load_config(folder / "arm.yaml"), Wire(), WallClock()
    bare = load_config_without_cameras(folder, text)
    server = RobotServer(MockRobot(ARM, clock, lag_s=0.02), bare, LocalTopics(wire), clock)
    going = threading.Event()

    def serve():
        while not going.wait(0.005):
            server.step()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        made = RosRobot(config, clock, LocalTopics(wire), wait_s=20.0)
        try:
            yield made
        finally:
            made.close()
    finally:
        going.set()
        thread.join()
        server.close()


def load_config_without_cameras(folder, text):
    lines = [line for line in text.splitlines() if "front" not in line and "cameras" not in line]
    (folder / "bare.yaml").write_text("\n".join(lines))
    return load_config(folder / "bare.yaml")


def test_a_robot_behind_topics_with_a_camera_at_this_machine(tmp_path, film, quick):
    with robot_of(tmp_path, FILE.format(film=film)) as robot:
        assert robot.spec.cameras == {"front": CameraSpec(24, 32)}
        first = until(lambda: readable(robot))

        def at_a_picture():
            seen = readable(robot)
            return seen and seen.stamp_ns == seen.image_stamps_ns["front"] > first.stamp_ns and seen

        second = until(at_a_picture)  # an instant is when a picture was captured
        age_s = (time.monotonic_ns() - second.stamp_ns) / 1e9
        assert 0.01 <= age_s < 30, "its latency is taken off"
        assert second.images["front"][..., 1:].max() < 8
        assert second.state["q"].shape == (2,)
        names = {thread.name for thread in threading.enumerate()}
        assert f"camera {film}" in names
    assert f"camera {film}" not in {thread.name for thread in threading.enumerate()}, "closed with the robot"


def readable(robot):
    try:
        return robot.read()
    except StaleFrame:
        return None


def test_a_robot_whose_camera_is_unplugged_says_which(tmp_path, film, quick):
    text = FILE.format(film=film).replace("max_age_s: 2}\nstate", "max_age_s: 0.3}\nstate")
    with robot_of(tmp_path, text) as robot:
        until(lambda: readable(robot))
        film.unlink()

        def said():
            try:
                robot.read()
            except StaleFrame as error:
                return str(error)

        why = until(lambda: (one := said()) and "it does not open" in one and one)
        assert why.startswith("camera front: the newest message on /uvc:")


def test_a_robot_without_its_camera_is_not_made(tmp_path):
    (tmp_path / "arm.yaml").write_text(FILE.format(film="/dev/video99"))
    config = load_config(tmp_path / "arm.yaml")
    with pytest.raises(StaleFrame, match=r"camera front: /dev/video99: there is no such device"):
        RosRobot(config, WallClock(), LocalTopics(Wire()), wait_s=0.5)


def test_doctor_looks_at_the_devices_of_a_file(tmp_path, film, quick, monkeypatch):
    from robopolicy.cli import doctor_ros

    monkeypatch.setattr(doctor_ros, "LISTEN_S", 0.5)
    there, gone = (
        next(iter(doctor_ros._of_robot(config_of(tmp_path, name), [], [], {}))) for name in (film, "/dev/video99")
    )
    assert (there.level, there.what) == ("ok", "camera front")
    assert "32 x 24, stamped when it comes: say its latency_s" in there.found
    assert gone.level == "problem"
    assert "/dev/video99: there is no such device" in gone.found


def config_of(folder, name):
    (folder / "arm.yaml").write_text(FILE.format(film=name))
    return load_config(folder / "arm.yaml")


@pytest.mark.parametrize(
    ("camera", "says"),
    [
        ("{uvc: /dev/video0, topic: /a}", r"cameras.front: uvc: /dev/video0 is a device .* leave out topic"),
        ("{uvc: /dev/video0, stamp: bag}", "leave out stamp"),
        ("{topic: /a, width: 640}", "width, height, fps and fourcc are of a device"),
        ("{uvc: /dev/video0, width: wide}", "width is 'wide'; want a number from 0"),
        ("{uvc: /dev/video0, height: 480}", "width 0, height 480; give both or neither"),
        ("{uvc: /dev/video0, fourcc: JPEG2}", "fourcc is 'JPEG2'; want four letters"),
        ("{latency_s: 0.1}", "cameras.front has no 'topic'"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path, camera, says):
    path = tmp_path / "arm.yaml"
    path.write_text(f"rate_hz: 20\ncameras: {{front: {camera}}}\nstate: {{}}\naction: /a\n")
    with pytest.raises((ConfigError, ContractError), match=says):
        load_config(path)
