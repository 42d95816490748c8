"""Short videos that every browser plays, written with OpenCV alone: VP8 in WebM."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import SYSTEM_LIBRARIES, EvaluationError

ALARM = (220, 60, 40)  # RGB of the frame around a picture while the monitor alarms


class VideoWriter:
    """Writes pictures to ``path`` (.webm) as they come; the file appears when it is closed.

    VP8 takes 1.8 ms of CPU a 320x240 picture (VP9 6 ms for 10 % fewer bytes); H.264 is in no OpenCV wheel.

    Args:
        path: of the file, its folder is made.
        rate_hz: pictures a second.

    Raises:
        EvaluationError: at the first picture, if OpenCV cannot be loaded or cannot encode; with the remedy.
    """

    def __init__(self, path: str | Path, *, rate_hz: float) -> None:
        self._path = Path(path)
        self._scratch = self._path.with_suffix(f".part{self._path.suffix}")
        self._rate_hz = rate_hz
        self._writer: Any = None
        self._size = (0, 0)  # width, height

    def add(self, image: np.ndarray, *, alarm: bool = False) -> None:
        """Append ``image`` (H, W, 3) uint8 RGB, with a red frame around it if ``alarm``."""
        cv2 = load_cv2()
        if self._writer is None:
            self._open(cv2, image)
        image = image[: self._size[1], : self._size[0]].copy()
        if alarm:
            width = max(2, image.shape[0] // 40)
            image[:width], image[-width:], image[:, :width], image[:, -width:] = ALARM, ALARM, ALARM, ALARM
        self._writer.write(np.ascontiguousarray(image[:, :, ::-1]))

    def close(self) -> None:
        """Finish the file; nothing is written if there were no pictures. Idempotent."""
        if self._writer is not None:
            self._writer.release()  # which says nothing of a full disk
            self._writer = None
            if self._scratch.stat().st_size == 0:
                self._scratch.unlink()
                raise EvaluationError(f"{self._path}: nothing could be written; is there space on the disk?")
            self._scratch.replace(self._path)

    def _open(self, cv2: Any, image: np.ndarray) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._size = (image.shape[1] // 2 * 2, image.shape[0] // 2 * 2)  # chroma is stored at half size
        with _silent_stderr():  # OpenCV's table of tags lacks VP8, and it says so in vain: the file is good
            self._writer = cv2.VideoWriter(
                str(self._scratch), cv2.VideoWriter_fourcc(*"VP80"), self._rate_hz, self._size
            )
        if not self._writer.isOpened():
            self._writer = None
            raise EvaluationError(f"this OpenCV ({cv2.__version__}) cannot encode VP8; pip install opencv-python can")


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, rate_hz: float) -> Path:
    """Write ``frames``, each (H, W, 3) uint8 RGB, at ``rate_hz`` pictures a second to ``path`` (.webm); return it.

    Raises:
        EvaluationError: if OpenCV cannot be loaded or cannot encode; with the remedy.
    """
    writer = VideoWriter(path, rate_hz=rate_hz)
    for frame in frames:
        writer.add(frame)
    writer.close()
    return Path(path)


def last_picture(path: str | Path) -> bytes | None:
    """Return the last picture of a video as JPEG, to stand for it until it is played; None if it holds none."""
    cv2 = load_cv2()
    with _silent_stderr():  # a damaged file is said to be one by returning None
        capture = cv2.VideoCapture(str(path))
        image = None
        while (got := capture.read())[0]:
            image = got[1]
        capture.release()
    if image is None:
        return None
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


def load_cv2() -> Any:
    """Import OpenCV.

    Raises:
        EvaluationError: naming the command that installs what is missing.
    """
    try:
        import cv2
    except ImportError as error:
        remedy = SYSTEM_LIBRARIES if ".so" in str(error) else "pip install opencv-python"
        raise EvaluationError(f"OpenCV cannot be loaded ({error}); install it with: {remedy}") from error
    return cv2


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Point file descriptor 2 nowhere: the C library below writes to it, past ``sys.stderr``."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
