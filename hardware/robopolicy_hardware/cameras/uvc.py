"""A camera that OpenCV opens, as a rule UVC: a thread keeps its newest picture, and reopens it after it was gone."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import ContractError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # before a device that was gone is opened again; doubles
SURE_S = 1.0  # a device's own stamp is believed if it is not later than now, nor earlier than that
GIVE_UP_S = 2.0  # to wait for a driver that hangs, when closing

OnFrame = Callable[["Frame"], None]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, nobody else's
    stamp_ns: int  # of its capture, monotonic clock
    by_device: bool  # the driver stamped it; otherwise when it came


@dataclass(frozen=True)
class Device:
    """What to open, and how; 0 and "" leave it to the camera."""

    path: str  # /dev/video0 or /dev/v4l/by-id/..., a number, a film, or pictures as in folder/%04d.png
    width: int = 0  # pixels
    height: int = 0  # given if the width is
    fps: float = 0.0
    fourcc: str = ""  # of the pixels on the cable, as MJPG: most cameras want it above 640 x 480

    @property
    def recorded(self) -> bool:
        """Whether it is a film or a sequence of pictures, which is played at its own rate, again and again."""
        return "%" in self.path or Path(self.path).is_file()


class UvcCamera:
    """Keeps the newest picture of a device.

    **Stamps.** Under Linux a UVC camera's driver stamps every picture on the monotonic clock when its first byte comes;
    V4L2 tells that, and it is used. Elsewhere, and from drivers that tell another clock's time, the stamp is when the
    picture came out of OpenCV, which is later by the transfer and the decoding: measure that once and say it as
    ``latency_s``. Exposure and the sensor's readout come before either stamp.

    Args:
        device: opened by the thread, also again and again after it was gone.
        on_frame: told of each picture, in that thread; must not raise.
        open_device: as `open_capture`; another one for tests.

    Attributes:
        trouble: why nothing comes, in one line that stays the same, or nothing.
        opened: how often the device was opened.
    """

    def __init__(
        self, device: Device, on_frame: OnFrame | None = None, open_device: Callable[[Device], Any] | None = None
    ) -> None:
        self.device, self.trouble, self.opened = device, "", 0
        self._on_frame, self._open_device = on_frame, open_device or open_capture
        self._newest: Frame | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {device.path}", daemon=True)
        self._thread.start()

    def newest(self) -> Frame | None:
        """Return the newest picture, None before the first; never waits."""
        return self._newest

    def first(self, timeout_s: float) -> Frame | None:
        """Wait for a picture; None if none comes."""
        deadline_s = time.monotonic() + timeout_s
        while self._newest is None and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return self._newest

    def close(self) -> None:
        """Let the device go; idempotent. A driver that hangs is left to itself."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join(GIVE_UP_S)

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self._closed.is_set():
            if self._play():
                pause_s = FIRST_PAUSE_S
            if self._closed.wait(pause_s):
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _play(self) -> bool:
        """Open it and take pictures until it is gone; return whether there was one."""
        try:
            capture = self._open_device(self.device)
        except Exception as error:  # a driver's, whatever it is; this thread has nobody to tell
            self.trouble = f"{self.device.path}: {error}"
            return False
        seen = False
        try:
            self.opened += 1
            pace = Pace(capture, self.device)
            while not self._closed.is_set():
                frame = self._take(capture)
                if frame is None:
                    break
                seen = True
                pace.wait(self._closed)
        except Exception as error:
            self.trouble = f"{self.device.path}: {error}"
        finally:
            capture.release()
        return seen

    def _take(self, capture: Any) -> Frame | None:
        grabbed = capture.grab()
        came_ns = time.monotonic_ns()
        got, image = capture.retrieve() if grabbed else (False, None)
        if not got or image is None or not image.size:
            self.trouble = self.trouble or f"{self.device.path} gives no pictures any more; was it unplugged?"
            return None
        if self.device.width and image.shape[:2] != (self.device.height, self.device.width):
            raise ContractError(
                f"it gives pictures of {image.shape[1]} x {image.shape[0]}, not {self.device.width} x "
                f"{self.device.height}; list its sizes with v4l2-ctl --list-formats-ext"
            )
        own_ns = device_stamp_ns(capture, came_ns)
        last_ns = -1 if self._newest is None else self._newest.stamp_ns
        stamp_ns = own_ns if own_ns is not None and own_ns > last_ns else max(came_ns, last_ns + 1)
        frame = Frame(as_rgb(image), stamp_ns, stamp_ns == own_ns)
        self._newest, self.trouble = frame, ""
        if self._on_frame is not None:
            self._on_frame(frame)
        return frame


class Pace:
    """Keeps a film to its rate; a camera has its own."""

    def __init__(self, capture: Any, device: Device) -> None:
        import cv2

        rate = device.fps or (capture.get(cv2.CAP_PROP_FPS) if device.recorded else 0.0)
        self._period_s = 1.0 / rate if device.recorded and rate > 0 else 0.0
        self._due_s = time.monotonic()

    def wait(self, closed: threading.Event) -> None:
        """Wait until the next picture is due."""
        self._due_s = max(self._due_s + self._period_s, time.monotonic() - self._period_s)
        if self._period_s:
            closed.wait(max(0.0, self._due_s - time.monotonic()))


def open_capture(device: Device) -> Any:
    """Return an open ``cv2.VideoCapture`` that is set to what the device is to be.

    Raises:
        ContractError: if it does not open.
    """
    import cv2

    what: int | str = int(device.path) if device.path.isdecimal() else device.path
    live = isinstance(what, int) or what.startswith("/dev/")
    backend = cv2.CAP_V4L2 if live and Path("/dev").is_dir() and hasattr(cv2, "CAP_V4L2") else cv2.CAP_ANY
    node = f"/dev/video{what}" if isinstance(what, int) else what
    if backend == cv2.CAP_V4L2 and not Path(node).exists():  # OpenCV would say so on the terminal, at every try
        raise ContractError("there is no such device; is it plugged in?")
    capture = cv2.VideoCapture(what, backend)
    if not capture.isOpened():
        capture.release()
        raise ContractError("it does not open; does somebody else use it, and may this user read it (group video)?")
    if live:
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if device.fourcc:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*device.fourcc))
        if device.width:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, device.width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, device.height)
        if device.fps:
            capture.set(cv2.CAP_PROP_FPS, device.fps)
    return capture


def device_stamp_ns(capture: Any, now_ns: int) -> int | None:
    """Return the driver's own stamp of the picture just grabbed, monotonic ns; None without one that makes sense.

    OpenCV's V4L2 backend gives the buffer's timestamp as CAP_PROP_POS_MSEC; uvcvideo stamps by CLOCK_MONOTONIC.
    """
    import cv2

    if capture.getBackendName() != "V4L2":
        return None
    stamp_ns = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
    return stamp_ns if 0 <= now_ns - stamp_ns <= SURE_S * 1e9 else None


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Return a picture as OpenCV has it, grey or BGR, as (H, W, 3) uint8 RGB of its own."""
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., 2::-1])
