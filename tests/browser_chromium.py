"""A real Chromium, headless, driven over its own protocol: one process a browser, one websocket a page."""

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest


def chromium_path() -> str:
    """Return where Chromium is; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install -y chromium")
    return found


class Chromium:
    """A page in a browser of its own.

    Attributes:
        errors: console errors and exceptions so far, as text.
        requests: addresses asked for so far.
    """

    def __init__(self, width: int = 1400, height: int = 900, scale: float = 1.0, dark: bool = False) -> None:
        from websockets.sync.client import connect

        self._profile = tempfile.mkdtemp(prefix="chromium-")
        flags = [
            "--headless=new", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={self._profile}",
            "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--disable-gpu", f"--window-size={width},{height}",
            "--allow-pre-commit-input",  # else a click before the first picture is on the screen is thrown away
            "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [chromium_path(), *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._ids = itertools.count(1)
        try:
            port, path = self._address()
            self._socket = connect(f"ws://127.0.0.1:{port}{path}", max_size=None, open_timeout=30)
            self._session = None
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
            self.size(width, height, scale)
            if dark:
                features = [{"name": "prefers-color-scheme", "value": "dark"}]
                self.call("Emulation.setEmulatedMedia", features=features)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **params):
        """Send one command and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            reply = json.loads(self._socket.recv(timeout=60))
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]
            self._note(reply)

    def size(self, width: int, height: int, scale: float = 1.0, *, mobile: bool = False) -> None:
        """Make the page so big, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def eval(self, expression: str):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 30.0):
        """Wait until the expression is true, and return its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.eval(expression)
            if value:
                return value
            assert time.monotonic() < end, f"never true in {seconds} s: {expression}; errors: {self.errors}"
            time.sleep(0.05)

    def mouse(self, kind: str, x: float, y: float, buttons: int = 0) -> None:
        """Send one mouse event: ``mousePressed``, ``mouseMoved``, ``mouseReleased``."""
        button = "left" if buttons or kind == "mouseReleased" else "none"
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1)

    def click(self, selector: str) -> None:
        """Click in the middle of the first such element, once what was asked before is on the screen.

        A busy browser may still route the mouse by an older picture of the page: the button goes down only once the
        pointer is seen to be on the element.
        """
        self.eval("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))).then(() => 1)")
        end = time.monotonic() + 30
        while True:
            x, y = self.middle(selector)
            self.mouse("mouseMoved", x, y)
            if self.eval(f"document.querySelector({json.dumps(selector)}).matches(':hover')"):
                break
            assert time.monotonic() < end, f"something lies over {selector} at {x:.0f}, {y:.0f}"
            time.sleep(0.05)
        self.mouse("mousePressed", x, y, 1)
        self.mouse("mouseReleased", x, y)

    def middle(self, selector: str) -> tuple[float, float]:
        """Return where the middle of the first such element is."""
        where = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.eval(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({where})")
        return x, y

    def key(self, key: str, code: str = "", text: str = "", modifiers: int = 0) -> None:
        """Press and release one key."""
        what = {"key": key, "code": code or key, "modifiers": modifiers}
        down = what | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", **what)

    def screenshot(self, path: Path | str) -> None:
        """Save what is seen as PNG."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End the browser; idempotent."""
        if getattr(self, "_socket", None) is not None:
            self._socket.close()
            self._socket = None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _address(self) -> tuple[str, str]:
        """Wait for the file in which the browser says where it listens."""
        file, end = Path(self._profile, "DevToolsActivePort"), time.monotonic() + 60
        while time.monotonic() < end:
            assert self._process.poll() is None, "the browser ended at once"
            if file.is_file() and len(lines := file.read_text().split()) == 2:
                return lines[0], lines[1]
            time.sleep(0.05)
        raise AssertionError(f"the browser never listened; {os.listdir(self._profile)}")

    def _note(self, event: dict) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", {}).get("description", params)))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str([arg.get("value") for arg in params["args"]]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
