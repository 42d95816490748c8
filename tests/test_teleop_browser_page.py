"""The page as a browser meets it on the wire: driving, losing the connection, watching, and how much is sent."""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("viser", reason="the extra 'teleop' is not installed")
sys.path.insert(0, str(Path(__file__).parent))
from browser_raw import RawBrowser

from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Command, Observation, Shape, Status
from robopolicy_hardware.teleop.browser import BrowserTeleop

SPEC = PolicySpec(
    cameras={"front": CameraSpec(48, 64), "deep": CameraSpec(48, 64, "depth")},
    state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",)), "gripper": StateSpec(1, ("open",))},
    action=TOOL_POSE,
)
STATE = {
    "tool_pos": np.array([0.4, 0, 0.2], np.float32),
    "tool_quat": np.array([0, 1, 0, 0], np.float32),
    "gripper": np.ones(1, np.float32),
}


class OneCube:
    """A scene that counts how often it is asked where things are."""

    def __init__(self) -> None:
        self.asked = 0

    def shapes(self):
        corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
        faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
        return [Shape("cube", corners, faces, (1.0, 0.0, 0.0, 0.5))]

    def poses(self):
        self.asked += 1
        return {"cube": np.array([0.001 * self.asked, 0, 0, 1, 0, 0, 0], np.float32)}


class Loop:
    """A device and the loop that reads it."""

    def __init__(self) -> None:
        self.scene = OneCube()
        self.teleop = BrowserTeleop(SPEC, scene=self.scene, port=0, camera_hz=5.0, max_hz=20.0, silence_s=1.0)
        self.stamp_ns = 0
        self.pictures = {"front": np.zeros((48, 64, 3), np.uint8), "deep": np.full((48, 64), 700, np.uint16)}
        self.teleop.engage(self.seen(), None)

    def seen(self) -> Observation:
        self.stamp_ns += 10_000_000
        return Observation(self.stamp_ns, STATE, self.pictures, dict.fromkeys(self.pictures, self.stamp_ns))

    def tick(self) -> Command:
        command = self.teleop.read(self.seen())
        self.teleop.show(Status("waiting", 1, 2, source=command.source))
        time.sleep(0.01)
        return command

    def until(self, condition, seconds: float = 20.0) -> Command:
        deadline = time.monotonic() + seconds
        while True:
            command = self.tick()
            if condition(command):
                return command
            assert time.monotonic() < deadline, f"it did not happen; the last was {command}"

    def browser(self) -> RawBrowser:
        browser = RawBrowser(self.teleop.url)
        self.until(lambda _: browser.says("You "))
        return browser


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.teleop.close()


def driving(loop: Loop) -> RawBrowser:
    browser = loop.browser()
    loop.until(lambda _: browser.handle is not None)
    browser.drag("Start")
    browser.drag("Update", (0.43, 0, 0.2))
    return browser


def test_the_handle_drives_and_a_closed_connection_holds_at_once(loop):
    browser = driving(loop)
    command = loop.until(lambda command: command.source == "human")
    start = command.values[0]
    browser.drag("Update", (0.45, 0, 0.2))
    moved = loop.until(lambda command: command.values is not None and command.values[0] > start + 0.015)
    assert moved.values[1:] == pytest.approx([0, 0.2, 1, 0, 0, 0, -1, 0, 1], abs=1e-5)
    assert loop.teleop.latency_s > 0
    browser.close()
    assert loop.until(lambda command: command.source == "hold").reason == "no browser is connected"
    assert loop.teleop.latency_s == 0


def test_a_page_that_stops_answering_holds_though_it_stays_connected(loop):
    browser = driving(loop)
    loop.until(lambda command: command.source == "human")
    browser.answering = False
    assert loop.until(lambda command: command.source == "hold").reason == "browser 1 does not answer"
    browser.drag("Update", (0.6, 0, 0.2))
    time.sleep(0.2)
    assert loop.tick().source == "hold", "what is dragged without answering does not count"
    browser.answering = True
    again = loop.until(lambda command: command.source == "human")
    assert again.values[0] == pytest.approx(0.4, abs=1e-5), "it goes on from where the tool is"
    browser.close()


def test_two_browsers(loop):
    first, second = loop.browser(), loop.browser()
    loop.until(lambda _: second.says("You watch:</b> browser 1 drives"))
    assert second.handle is None
    second.press("Start")
    loop.until(lambda _: second.counts.get("NotificationShowMessage", 0) == 1)
    second.press("Start")
    loop.until(lambda _: second.counts.get("NotificationShowMessage", 0) == 2)
    assert second.counts.get("RemoveNotificationMessage", 0) == 1, "said once, however often it is tried"
    assert loop.teleop.events() == []
    second.press("Drive from here")
    loop.until(lambda _: first.says("You watch:</b> browser 2 drives") and second.handle is not None)
    loop.until(lambda _: second.counts["RemoveNotificationMessage"] == 2)
    second.press("Start")
    second.press("Success")
    pressed = []
    loop.until(lambda _: pressed.extend(loop.teleop.events()) or len(pressed) == 2)
    assert pressed == ["start", "success"]
    second.close()
    loop.until(lambda _: first.says("You drive"))
    first.close()


def test_the_gripper_button_says_what_it_will_do(loop):
    browser = loop.browser()
    browser.press("Close gripper")
    assert loop.until(lambda command: command.values is not None and command.values[9] == 0).source == "human"
    loop.until(lambda _: "Open gripper" in browser.buttons)
    browser.press("Open gripper")
    loop.until(lambda command: command.values[9] == 1)
    browser.close()


def test_nothing_is_asked_for_while_nobody_looks_and_little_while_somebody_does(loop):
    before = loop.scene.asked
    for _ in range(20):
        loop.tick()
    assert loop.scene.asked == before
    browser = loop.browser()
    start, started_s = dict(browser.counts), time.monotonic()
    asked = loop.scene.asked
    loop.until(lambda _: browser.counts.get("SetPositionMessage", 0) > start.get("SetPositionMessage", 0) + 10)
    took_s = time.monotonic() - started_s
    assert loop.scene.asked - asked <= 20 * took_s + 2, "at most max_hz times a second"
    browser.close()
    loop.until(lambda command: command.reason == "no browser is connected")


def test_a_page_that_cannot_be_kept_up_to_date_is_no_page_to_drive_by(loop):
    browser = driving(loop)
    loop.until(lambda command: command.source == "human")
    good = loop.pictures["front"]
    loop.pictures["front"] = np.zeros((48, 64, 7), np.uint8)
    assert "cannot be kept up to date" in loop.until(lambda command: command.source == "hold").reason
    loop.pictures["front"] = good
    loop.until(lambda command: command.source == "human")
    browser.close()


def test_a_plain_robot_has_no_gripper_button():
    plane = replace(SPEC, cameras={}, action=ActionSpec("vector", ("x", "y"), ("px",)))
    device = BrowserTeleop(plane, port=0)
    browser = RawBrowser(device.url)
    deadline = time.monotonic() + 20
    while "Quit" not in browser.buttons and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "Quit" in browser.buttons
    assert not {"Close gripper", "Turn tool"} & set(browser.buttons)
    browser.close()
    device.close()
