"""A real Chromium, headless, through playwright: the browser, and a tab that keeps what went wrong in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--use-angle=gl-egl", "--ignore-gpu-blocklist"]  # Mesa draws
PATIENCE_MS = 60_000


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser, or a skip that says what is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver, TemporaryDirectory() as folder:
        polite = Path(folder) / "chromium"  # drawing without a GPU takes every core: the robot's loop goes first
        polite.write_text(f'#!/bin/sh\nexec nice -n 15 {path} "$@"\n')
        polite.chmod(0o755)
        browser = driver.chromium.launch(executable_path=polite, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A tab.

    Attributes:
        page: playwright's.
        errors: warnings, errors and exceptions so far, as text.
        requests: addresses asked for so far.
    """

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_context(no_viewport=True).new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._devtools = self.page.context.new_cdp_session(self.page)
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def size(self, width: int, height: int, scale: float = 1.0, *, mobile: bool = False) -> None:
        """Make the page so big, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self._devtools.send("Emulation.setDeviceMetricsOverride", metrics)

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.page.goto(url)

    def eval(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self.page.evaluate(expression)

    def until(self, expression: str) -> None:
        """Wait until the expression is true."""
        self.page.wait_for_function(expression)

    def click(self, selector: str) -> None:
        """Click in the middle of the first such element, once it is there and nothing lies over it."""
        self.page.locator(selector).first.click()

    def key(self, key: str) -> None:
        """Press and release one key."""
        self.page.keyboard.press(key)

    def _note(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(f"{message.text} {message.location.get('url', '')}")
