"""An operator for the tests of the browser page: opens it in a real Chromium, finds its handle in space, drags it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from browser_chromium import PATIENCE_MS

from robopolicy_hardware.teleop.browser_page import (
    EYE,
    FIELD_OF_VIEW,
    HANDLE_PX,
    TARGET,
    UPRIGHT_EYE,
    UPRIGHT_TARGET,
)

SIZE = (900, 620)  # px: few enough for a software renderer, wide enough for the layout of a laptop


def open_page(browser: Any, url: str, size: tuple[int, int] = SIZE, **options: Any) -> Any:
    """A tab with the page in it, connected and drawn."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(url)
    page.get_by_text("You ", exact=False).first.wait_for()
    page.locator("canvas").first.wait_for()
    drawn(page)
    return page


def drawn(page: Any, frames: int = 3) -> None:
    """Wait until the page has drawn some more frames: what the server sent before is on the screen then."""
    page.evaluate(
        "n => new Promise(done => { const next = () => n-- > 0 ? requestAnimationFrame(next) : done(); next(); })",
        frames,
    )


def upright(page: Any) -> bool:
    """Whether the window is higher than wide: a telephone's, which has a view of its own."""
    return page.viewport_size["width"] < page.viewport_size["height"]


def on_screen(page: Any, point: Sequence[float]) -> tuple[float, float]:
    """Where a point in space is on the screen, px, as long as nobody turned the view."""
    box = page.locator("canvas").first.bounding_box()
    offset, depth = _seen(np.asarray(point, np.float64), upright(page))
    scale = box["height"] / 2 / np.tan(FIELD_OF_VIEW / 2) / depth
    return box["x"] + box["width"] / 2 + offset[0] * scale, box["y"] + box["height"] / 2 - offset[1] * scale


class Mouse:
    """A pointer that is pressed, moved and released."""

    def __init__(self, page: Any) -> None:
        self._mouse = page.mouse

    def down(self, x: float, y: float) -> None:
        self._mouse.move(x, y)
        self._mouse.down()

    def move(self, x: float, y: float) -> None:
        self._mouse.move(x, y)

    def up(self) -> None:
        self._mouse.up()


class Finger:
    """The same on a touch screen."""

    def __init__(self, page: Any) -> None:
        self._devtools = page.context.new_cdp_session(page)

    def down(self, x: float, y: float) -> None:
        self._send("touchStart", x, y)

    def move(self, x: float, y: float) -> None:
        self._send("touchMove", x, y)

    def up(self) -> None:
        self._devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def _send(self, kind: str, x: float, y: float) -> None:
        self._devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})


def drag(
    page: Any,
    handle: Sequence[float],
    by: Sequence[float],
    *,
    hold_s: float = 0.0,
    release: bool = True,
    pointer: Mouse | Finger | None = None,
) -> None:
    """Take the arrow of the handle at ``handle`` (3,) m that points along ``by`` and pull it by ``by`` (3,) m."""
    pointer = pointer or Mouse(page)
    step = np.asarray(by, np.float64)
    axis = np.abs(step) / np.abs(step).sum()
    assert np.count_nonzero(axis) == 1, "an arrow moves along its own axis only"
    box = page.locator("canvas").first.bounding_box()
    _, depth = _seen(np.asarray(handle, np.float64), upright(page))
    metres_a_px = 2 * depth * np.tan(FIELD_OF_VIEW / 2) / box["height"]
    grip = np.asarray(handle) + 0.7 * HANDLE_PX * metres_a_px * axis
    if isinstance(pointer, Mouse):
        pointer.move(*on_screen(page, grip))
        drawn(page)
    pointer.down(*on_screen(page, grip))
    drawn(page)
    for share in np.linspace(0, 1, 9)[1:]:
        pointer.move(*on_screen(page, grip + share * step))
        drawn(page, 1)
    page.wait_for_timeout(1000 * hold_s)
    if release:
        pointer.up()


def _seen(point: np.ndarray, on_phone: bool) -> tuple[np.ndarray, float]:
    """Offset to the right and up (2,) m, and depth m, of a point before the first view's camera."""
    eye, target = np.asarray(UPRIGHT_EYE if on_phone else EYE), np.asarray(UPRIGHT_TARGET if on_phone else TARGET)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    return np.array([(point - eye) @ right, (point - eye) @ up]), float((point - eye) @ ahead)
