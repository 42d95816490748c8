"""The videos of a LeRobot dataset: many episodes a file, each file read back and compared with what went in."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from robopolicy.errors import ContractError, DatasetError
from robopolicy_data.episode import Episode
from robopolicy_data.exporters.lerobot_layout import VIDEO, VIDEO_MB
from robopolicy_data.exporters.lerobot_tables import next_place
from robopolicy_data.videos import Error, VideoReader, VideoWriter

_BLOCK = 32  # pictures decoded at once


class CameraVideos:
    """Encodes one camera's episodes, a frame a step, into ``videos/<key>/chunk-*/file-*.mp4``.

    Args:
        root: of the LeRobot dataset.
        key: its feature.
        camera: its name in our dataset.
        rate_hz: steps per second.
        codec: one of `videos.CODECS`.
        crf: constant rate factor.

    Attributes:
        error: of the pictures in the finished files.
    """

    def __init__(self, root: Path, key: str, camera: str, rate_hz: float, codec: str, crf: int) -> None:
        self._root, self._key, self._camera, self._rate_hz = root, key, camera, rate_hz
        self._codec, self._crf = codec, crf
        self._place, self._inside = (0, -1), list[Episode]()
        self._writer: VideoWriter | None = None
        self.error = Error()

    def add(self, episode: Episode, height: int, width: int) -> dict[str, int | float]:
        """Encode an episode; return chunk, file and seconds in it, as columns of ``meta/episodes``."""
        if self._writer is None or self._writer.bytes >= VIDEO_MB << 20:
            self.close()
            self._place = next_place(*self._place)
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._writer = VideoWriter(path, height, width, self._rate_hz, codec=self._codec, crf=self._crf)
            except ContractError as error:
                raise ContractError(f"camera {self._camera}: {error}; pictures in the parquet: --video none") from error
        start = self._writer.frames
        for picture in pictures(episode, self._camera):
            self._writer.add(picture)
        self._inside.append(episode)
        values = (*self._place, start / self._rate_hz, self._writer.frames / self._rate_hz)
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        return {f"videos/{self._key}/{name}": value for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        """Finish the file being written and compare it with its episodes; idempotent.

        Raises:
            DatasetError: if the file does not hold every picture.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._compare()
            self._inside = []

    def abandon(self) -> None:
        """Close without looking."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _compare(self) -> None:
        reader, start = VideoReader(self._path()), 0
        try:
            for episode in self._inside:
                decoded = reader.read(start / self._rate_hz, episode.length, self._rate_hz)
                for got, want in zip(decoded, pictures(episode, self._camera), strict=True):
                    self.error.add(got, want)
                start += episode.length
        except DatasetError as error:
            raise DatasetError(f"the encoder {self._codec} lost pictures: {error}") from error
        finally:
            reader.close()

    def _path(self) -> Path:
        chunk, file = self._place
        return self._root / VIDEO.format(video_key=self._key, chunk_index=chunk, file_index=file)


def pictures(episode: Episode, camera: str) -> Iterator[np.ndarray]:
    """Yield what each step saw, few in memory at a time."""
    for start in range(0, episode.length, _BLOCK):
        yield from episode.images(camera, slice(start, start + _BLOCK))
