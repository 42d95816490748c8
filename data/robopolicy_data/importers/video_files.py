"""Videos of several views of one scene: the same instants in each, or a refusal with the numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.area import shrink
from robopolicy.errors import DatasetError, MissingExtra
from robopolicy_data.importers.columns import Pictures

SAME_RATE = 0.01  # share by which the rates of two views may differ: clocks, not settings


class Video:
    """One video file, read from its beginning as often as wanted.

    Args:
        path: of the file.

    Attributes:
        size: (H, W) pixels of its pictures as they are meant to be seen.
        stamps_s: (N,) float64 of its pictures, from the first.
        rate_hz: pictures a second.

    Raises:
        MissingExtra: without PyAV.
        DatasetError: if it is missing, no video, or has less than two pictures.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        av = _av()
        self._failure = av.FFmpegError
        if not self.path.is_file():
            raise DatasetError(f"{self.path} is missing; want a video")
        try:
            with av.open(str(self.path)) as file:
                if not file.streams.video:
                    raise DatasetError(f"{self.path} holds no pictures; want a video")
                stream = file.streams.video[0]
                told = stream.average_rate
                # Packets are not kept: they are all of the video.
                told_s = [_shown_s(packet) for packet in file.demux(stream) if packet.size and not packet.is_discard]
                stamps = np.sort(np.array(told_s))
            with av.open(str(self.path)) as file:
                first = next(file.decode(video=0), None)
        except av.FFmpegError as error:
            raise DatasetError(f"{self.path} is no whole video: {_reason(error)}") from error
        if not np.isfinite(stamps).all():
            raise DatasetError(
                f"{self.path} does not say when its pictures are shown; make an .mp4 of it (ffmpeg -i IN OUT.mp4)"
            )
        if first is None or len(stamps) < 2 or stamps[-1] <= stamps[0]:
            raise DatasetError(f"{self.path}: {len(stamps)} pictures; want a video of 2 or more")
        self._turns = round(getattr(first, "rotation", 0) / 90) % 4
        height, width = first.height, first.width
        self.size = (width, height) if self._turns % 2 else (height, width)
        self._first_s = float(stamps[0])
        self.stamps_s = stamps - stamps[0]
        measured = (len(stamps) - 1) / float(self.stamps_s[-1])
        exact = float(told) if told and abs(float(told) / measured - 1) < 0.005 else measured
        self.rate_hz = round(exact, 3)

    def __len__(self) -> int:
        return len(self.stamps_s)

    def pictures(self, wanted: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield pictures (H, W, 3) uint8 RGB by their numbers, which never decrease.

        Raises:
            DatasetError: if the file is damaged, lacks one of them, or changes its size.
        """
        number, picture = -1, np.zeros(0)
        decoded = self._decode()
        for one in wanted:
            while number < one:
                frame = next(decoded, None)
                if frame is None:
                    raise DatasetError(f"{self.path} ends early: picture {one} of {len(self)} is missing")
                number += 1
                self._require_next(frame, number)
                if number == one:
                    picture = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), self._turns))
            if picture.shape[:2] != self.size:
                now, size = ("x".join(map(str, one)) for one in (picture.shape[:2], self.size))
                raise DatasetError(f"{self.path}: picture {number} is {now}, those before it {size}; want one size")
            yield picture

    def reader(self, wanted: Sequence[int], size: tuple[int, int] | None = None) -> Pictures:
        """Return what reads the wanted pictures in blocks, each after the other, made ``size`` (H, W) by area."""
        size = size or self.size
        pictures, at = self.pictures(wanted), 0

        def read(first: int, stop: int) -> np.ndarray:
            nonlocal at
            assert first == at, "a video is read in order"
            at = stop
            block = np.empty((stop - first, *size, 3), np.uint8)
            for row in block:
                picture = next(pictures)
                row[:] = picture if size == self.size else shrink(picture, size)
            return block

        return read

    def _require_next(self, frame: Any, number: int) -> None:
        """Refuse a decoder that left out a picture: all after it would be taken for those before them."""
        at = None if frame.pts is None else float(frame.pts * frame.time_base) - self._first_s
        if number < len(self) and at is not None and abs(at - self.stamps_s[number]) * self.rate_hz > 0.5:
            raise DatasetError(
                f"{self.path} is damaged: picture {number} of {len(self)}, at {self.stamps_s[number]:.2f} s, cannot be "
                "read; cut it out, or convert the video anew"
            )

    def _decode(self) -> Iterator[Any]:
        with _av().open(str(self.path)) as file:
            try:
                file.streams.video[0].thread_type = "AUTO"
                yield from file.decode(video=0)
            except self._failure as error:
                raise DatasetError(f"{self.path} is damaged: {_reason(error)}") from error


@dataclass(frozen=True)
class Views:
    """Videos whose pictures belong together, and the steps that are made of them."""

    videos: Mapping[str, Video]
    rate_hz: float  # of the steps
    numbers: Mapping[str, np.ndarray]  # {view: (T,) which picture each step sees}

    @property
    def steps(self) -> int:
        """How many steps T."""
        return len(next(iter(self.numbers.values())))


def open_views(paths: Mapping[str, Path | str], rate_hz: float | None = None) -> Views:
    """Open one video a view; their first pictures are taken for the same instant.

    Args:
        paths: {view: file}.
        rate_hz: of the steps; None is that of the videos.

    Raises:
        DatasetError: if lengths or rates differ, a video leaves out a time, or the rate is above theirs; with the
            numbers.
    """
    videos = {view: Video(path) for view, path in paths.items()}
    rates = [video.rate_hz for video in videos.values()]
    if max(rates) > min(rates) * (1 + SAME_RATE):
        told = ", ".join(f"{view} {video.rate_hz:g} Hz" for view, video in videos.items())
        raise DatasetError(f"the views have different rates: {told}; record or convert them at one rate")
    if len({len(video) for video in videos.values()}) > 1:
        told = ", ".join(f"{view} {len(v)} pictures ({v.stamps_s[-1]:.2f} s)" for view, v in videos.items())
        raise DatasetError(f"the views have different lengths: {told}; cut them to the same instants")
    native = rates[0]
    rate = native if rate_hz is None else rate_hz
    if rate > native * (1 + SAME_RATE):
        raise DatasetError(f"the videos have {native:g} pictures a second; --rate {rate:g} is more than they hold")
    end = min(float(video.stamps_s[-1]) for video in videos.values())
    due = np.arange(int(end * rate + 0.5 * rate / native) + 1) / rate
    return Views(videos, rate, {view: _nearest(view, video, due) for view, video in videos.items()})


def _nearest(view: str, video: Video, due: np.ndarray) -> np.ndarray:
    """Return which picture is nearest to each time (T,) s."""
    after = np.clip(np.searchsorted(video.stamps_s, due), 1, len(video) - 1)
    before = after - 1
    nearest = np.where(due - video.stamps_s[before] <= video.stamps_s[after] - due, before, after)
    away = np.abs(video.stamps_s[nearest] - due)
    worst = int(np.argmax(away))
    if away[worst] * video.rate_hz > 1.0:
        raise DatasetError(
            f"view {view}: {video.path} has no picture at {due[worst]:.2f} s, the nearest is {away[worst]:.3f} s away; "
            f"it was to have {video.rate_hz:g} a second"
        )
    return nearest


def _shown_s(packet: Any) -> float:
    return np.nan if packet.pts is None else float(packet.pts * packet.time_base)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtra("av (PyAV)", "human") from error
    # Its errors are raised, and told in one line of ours. Any level but None logs through Python, for which a
    # decoder's thread waits while whoever closes a damaged file waits for that thread.
    av.logging.set_level(None)
    return av
