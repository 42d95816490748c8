"""Pictures to and from mp4 files, through PyAV; what a codec cost is measured, not assumed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, DatasetError, MissingExtra, UnknownName

CODECS = {"libsvtav1": "av1", "h264": "h264"}  # {encoder: name of what it writes}
CRF_MOST = {"libsvtav1": 63, "h264": 51}
PIXELS = "yuv420p"  # half the colour resolution: what every player and loader of such files expects
GOP = 2  # frames from one key frame to the next: random access costs two decodes at most
CRF = 30  # LeRobot's default for both


class VideoWriter:
    """Encodes RGB pictures one after the other, frame k at k / rate.

    Args:
        path: the mp4 to make.
        height, width: of every picture, even.
        rate_hz: frames per second.
        codec: one of `CODECS`.
        crf: constant rate factor, smaller is better and bigger.

    Attributes:
        frames: how many were added.
        bytes: of encoded frames so far; the encoder holds a few back.

    Raises:
        MissingExtra: without PyAV.
        UnknownName: naming the codecs.
        ContractError: if a side is odd, which 4:2:0 cannot hold, or the codec has no such crf.
    """

    def __init__(
        self, path: Path, height: int, width: int, rate_hz: float, *, codec: str = "libsvtav1", crf: int = CRF
    ) -> None:
        if codec not in CODECS:
            raise UnknownName("video codec", codec, CODECS)
        if not 0 <= crf <= CRF_MOST[codec]:
            raise ContractError(f"crf is {crf}; {codec} has 0 to {CRF_MOST[codec]}")
        if height % 2 or width % 2:
            raise ContractError(f"a picture of {height}x{width} has an odd side, which a 4:2:0 video cannot hold")
        av = _av()
        options = {"g": str(GOP), "crf": str(crf)} | ({"preset": "12"} if codec == "libsvtav1" else {})
        self.frames = self.bytes = 0
        self._make = av.VideoFrame.from_ndarray
        self._file: Any = av.open(str(path), "w")
        self._stream: Any = self._file.add_stream(codec, rate_as_fraction(rate_hz), options=options)
        self._stream.pix_fmt, self._stream.height, self._stream.width = PIXELS, height, width

    def add(self, picture: np.ndarray) -> None:
        """Append (H, W, 3) uint8 RGB."""
        with _own_priority():
            self._mux(self._stream.encode(self._make(np.ascontiguousarray(picture), format="rgb24")))
        self.frames += 1

    def close(self) -> None:
        """Write what the encoder still holds, and the file's index; idempotent."""
        if self._file is not None:
            self._mux(self._stream.encode())
            self._file.close()
            self._file = None

    def _mux(self, packets: Any) -> None:
        for packet in packets:
            self.bytes += packet.size
            self._file.mux(packet)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _own_priority() -> Iterator[None]:
    """Keep the thread's place among others: SVT-AV1, run by root, puts whoever first calls it before all of them."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before[0]:
            os.sched_setscheduler(0, *before)


class VideoReader:
    """Reads the frames of a video in order; the times asked for may skip ahead, and back to another key frame.

    Args:
        path: the file.

    Raises:
        MissingExtra: without PyAV.
        DatasetError: if it is missing, or not a whole video.
    """

    def __init__(self, path: Path) -> None:
        av = _av()
        self.path, self._failure = path, av.FFmpegError
        if not path.is_file():
            raise DatasetError(f"{path} is missing")
        try:
            self._file: Any = av.open(str(path))
            self._stream: Any = self._file.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(f"{path} is no whole video: {_reason(error)}") from error
        self._stream.thread_type = "AUTO"
        self._decoded: Iterator[Any] = self._file.decode(self._stream)
        self._next_s = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its pictures."""
        return self._stream.height, self._stream.width

    def read(self, start_s: float, count: int, rate_hz: float) -> Iterator[np.ndarray]:
        """Yield ``count`` pictures (H, W, 3) uint8 RGB, those at ``start_s + k / rate_hz``.

        Raises:
            DatasetError: if the video ends early, has no frame at one of these times, or is damaged.
        """
        half = 0.5 / rate_hz
        if not -half < start_s - self._next_s < 2.0:
            self._seek(start_s)
        for k in range(count):
            due = start_s + k / rate_hz
            frame = self._at(due - half, f"frame {k} of {count} is due at {due:.4f} s")
            if frame.time > due + half:
                raise DatasetError(f"{self.path}: no frame at {due:.4f} s, the next one is at {frame.time:.4f} s")
            self._next_s = due + 2 * half
            yield frame.to_ndarray(format="rgb24")

    def close(self) -> None:
        """Close."""
        self._file.close()

    def _at(self, earliest_s: float, wanted: str) -> Any:
        """Return the next frame at or after ``earliest_s``."""
        try:
            for frame in self._decoded:
                if frame.time is not None and frame.time >= earliest_s:
                    return frame
        except self._failure as error:
            raise DatasetError(f"{self.path} is damaged, {wanted}: {_reason(error)}") from error
        raise DatasetError(f"{self.path} ends early: {wanted}")

    def _seek(self, start_s: float) -> None:
        try:
            self._file.seek(int(start_s / self._stream.time_base), stream=self._stream)
        except self._failure as error:
            raise DatasetError(f"{self.path}: cannot go to {start_s:.4f} s: {_reason(error)}") from error
        self._decoded = self._file.decode(self._stream)


@dataclass
class Error:
    """How far pictures are from what they should be, gathered over many."""

    squares: float = 0.0
    values: int = 0
    worst: float = 0.0  # mean square of the worst picture
    pictures: int = 0

    def add(self, got: np.ndarray, want: np.ndarray) -> None:
        """Compare two pictures of one shape, uint8."""
        difference = np.subtract(got, want, dtype=np.int16).ravel().astype(np.float32)
        squares = float(difference @ difference)
        self.squares, self.values = self.squares + squares, self.values + want.size
        self.worst, self.pictures = max(self.worst, squares / want.size), self.pictures + 1

    @property
    def psnr_db(self) -> float:
        """Peak signal to noise over all pictures; infinite when equal."""
        return _psnr(self.squares / max(self.values, 1))

    @property
    def worst_psnr_db(self) -> float:
        """That of the worst picture."""
        return _psnr(self.worst)


def rate_as_fraction(rate_hz: float) -> Fraction:
    """Return the rate as a ratio that a video's clock can hold."""
    return Fraction(rate_hz).limit_denominator(1000)


def _psnr(mean_square: float) -> float:
    return float("inf") if mean_square == 0 else float(10 * np.log10(255.0**2 / mean_square))


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _av() -> Any:
    os.environ.setdefault("SVT_LOG", "1")  # errors only: the AV1 encoder else prints 20 lines a file
    try:
        import av
    except ImportError as error:
        raise MissingExtra("av (PyAV)", "convert") from error
    # Its errors are raised, and told in one line of ours. Any level but None logs through Python, for which a
    # decoder's thread waits while whoever closes a damaged file waits for that thread.
    av.logging.set_level(None)
    return av
