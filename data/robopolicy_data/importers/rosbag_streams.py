"""The streams of one bag: stamps and numbers in a first pass, the pictures that steps need in a second."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import CameraSpec
from robopolicy.topics.config import CameraTopic, TopicConfig
from robopolicy.topics.messages import PICTURES, decoded, numbers, picture, raw_stamp_ns, stamp_ns


@dataclass(frozen=True)
class Track:
    """One stream of a bag."""

    stamps: np.ndarray  # (M,) int64, as in the headers
    values: np.ndarray | None  # (M, D) float64; None: a camera
    quats: tuple[int, ...] = ()
    units: tuple[str, ...] = ("1",)
    camera: CameraSpec | None = None


class BagStreams:
    """What the config names in an opened bag.

    Args:
        path: of the bag, for messages.
        reader: rosbags' AnyReader, open.
        config: which topic is which stream.

    Attributes:
        tracks: {``camera front``, ``state q``, ``action``: its stamps and numbers}.

    Raises:
        DatasetError: one line naming bag, stream and topic: missing, of another type, back in time.
    """

    def __init__(self, path: Path, reader: Any, config: TopicConfig) -> None:
        self._path, self._reader, self._config = path, reader, config
        self._connections = self._connect()
        self.tracks = self._read()

    def markers(self) -> Iterator[tuple[int, Any]]:
        """Yield (bag time ns, what it says) of every message of the marker topic."""
        for connection, bag_ns, raw in self._reader.messages(connections=self._connections["episodes"]):
            yield bag_ns, getattr(self._reader.deserialize(raw, connection.msgtype), "data", None)

    def _connect(self) -> dict[str, list[Any]]:
        """Return {stream: connections of its topic}; DatasetError if there are none, or of the wrong type."""
        found = {}
        wanted = {what: topic.topic for what, topic in self._config.streams().items()}
        if self._config.episodes is not None:
            wanted["episodes"] = self._config.episodes
        for what, topic in wanted.items():
            found[what] = [c for c in self._reader.connections if c.topic == topic]
            if not sum(c.msgcount for c in found[what]):
                have = sorted({c.topic for c in self._reader.connections if c.msgcount})
                raise DatasetError(f"{self._path}: no messages on topic {topic!r} (for {what}); it has {have}")
            kind = found[what][0].msgtype
            if what.startswith("camera ") != (kind in PICTURES):
                want = " or ".join(PICTURES) if what.startswith("camera ") else "numbers"
                raise DatasetError(f"{self._path}: topic {topic!r} (for {what}) is {kind}; want {want}")
        return found

    def _read(self) -> dict[str, Track]:
        by_topic: dict[str, list[str]] = {}
        for what, topic in self._config.streams().items():
            by_topic.setdefault(topic.topic, []).append(what)
        stamps: dict[str, list[int]] = {what: [] for what in self._config.streams()}
        values: dict[str, list[np.ndarray]] = {what: [] for what in stamps}
        seen: dict[str, Any] = {}
        every = {c.id: c for what in stamps for c in self._connections[what]}
        for connection, bag_ns, raw in self._reader.messages(connections=list(every.values())):
            message = None
            for what in by_topic[connection.topic]:
                topic = self._config.streams()[what]
                if isinstance(topic, CameraTopic):
                    stamp = raw_stamp_ns(raw) if topic.stamp == "header" else bag_ns
                    if what not in seen:
                        image = _picture(self._reader.deserialize(raw, connection.msgtype), f"{self._path}: {what}")
                        seen[what] = camera_of(image, f"{self._path}: {what}")
                else:
                    message = message or self._reader.deserialize(raw, connection.msgtype)
                    vector, *seen[what] = numbers(message, topic, f"{self._path}: {what}")
                    if values[what] and len(vector) != len(values[what][0]):
                        had = len(values[what][0])
                        raise DatasetError(f"{self._path}: {what} had {had} numbers and now has {len(vector)}")
                    values[what].append(vector)
                    header = stamp_ns(message) if topic.stamp == "header" else None
                    stamp = bag_ns if header is None else header
                self._require_stamp(what, topic, stamp, stamps[what])
                stamps[what].append(stamp)
        return {what: self._track(what, stamps[what], values[what], seen[what]) for what in stamps}

    def _require_stamp(self, what: str, topic: Any, stamp: int, before: list[int]) -> None:
        if stamp == 0 and topic.stamp == "header":
            raise DatasetError(f"{self._path}: {what}: the header stamps of {topic.topic} are 0; set its stamp: bag")
        if before and stamp < before[-1]:
            raise DatasetError(
                f"{self._path}: {what} ({topic.topic}) goes back in time at message {len(before)}: {stamp} ns after "
                f"{before[-1]} ns"
            )

    def _track(self, what: str, stamps: list[int], values: list[np.ndarray], seen: Any) -> Track:
        if what.startswith("camera "):
            return Track(np.array(stamps, np.int64), None, camera=seen)
        quats, units = seen
        return Track(np.array(stamps, np.int64), np.stack(values), quats, self._config.streams()[what].units or units)  # type: ignore[union-attr]

    def pictures(self, rows: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray | bytes]]:
        """Yield the pictures of step after step; no more are held than the cameras are apart."""
        steps = len(next(iter(rows.values())))
        wanted = {name: set(column.tolist()) for name, column in rows.items()}
        names = {self._config.cameras[name].topic: name for name in rows}
        held: dict[str, dict[int, np.ndarray | bytes]] = {name: {} for name in rows}
        counts = dict.fromkeys(rows, -1)
        step = 0
        connections = {c.id: c for name in rows for c in self._connections[f"camera {name}"]}
        for connection, _, raw in self._reader.messages(connections=list(connections.values())):
            name = names[connection.topic]
            counts[name] += 1
            if counts[name] not in wanted[name]:
                continue
            where = f"{self._path}: camera {name}, message {counts[name]}"
            image = _picture(self._reader.deserialize(raw, connection.msgtype), where)
            if (size := camera_of(image, where)) != (want := self.tracks[f"camera {name}"].camera):
                raise DatasetError(f"{where}: {_size(size)}, want {_size(want)}")
            held[name][counts[name]] = image
            while step < steps and all(int(rows[n][step]) in held[n] for n in rows):
                yield {n: held[n][int(rows[n][step])] for n in rows}
                step += 1
                for n in rows:
                    oldest = int(rows[n][step]) if step < steps else 2**62
                    held[n] = {row: kept for row, kept in held[n].items() if row >= oldest}
            if step == steps:
                return
        raise DatasetError(
            f"{self._path}: only {step} of {steps} steps found their pictures; did the bag change meanwhile?"
        )


def _picture(message: Any, where: str) -> np.ndarray | bytes:
    """Return a picture, or the bytes of a colour JPEG, which are stored as they came."""
    image = picture(message, where)
    if not isinstance(image, bytes) or _is_colour_jpeg(image):
        return image
    import cv2

    return decoded(cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED) if image else None, where)


def _is_colour_jpeg(data: bytes) -> bool:
    import simplejpeg

    try:
        return data[:2] == b"\xff\xd8" and bool(simplejpeg.decode_jpeg_header(data)[2] != "Gray")
    except ValueError:
        return False


def camera_of(image: np.ndarray | bytes, where: str) -> CameraSpec:
    """Return size and kind of a picture."""
    if isinstance(image, bytes):
        import simplejpeg

        try:
            height, width = simplejpeg.decode_jpeg_header(image)[:2]
        except ValueError as error:
            raise DatasetError(f"{where}: no JPEG ({error})") from error
        return CameraSpec(int(height), int(width))
    return CameraSpec(int(image.shape[0]), int(image.shape[1]), "colour" if image.ndim == 3 else "depth")


def _size(camera: CameraSpec | None) -> str:
    assert camera is not None
    return f"{camera.height}x{camera.width} {camera.kind}"
