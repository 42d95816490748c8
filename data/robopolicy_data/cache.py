"""Where a loader's pictures wait: decoded in memory, encoded in memory, or on the disk (or server) they came from."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from robopolicy.area import shrink
from robopolicy.errors import ContractError, DatasetError
from robopolicy.spec import CameraSpec
from robopolicy_data.episode import Episode
from robopolicy_data.files import crc32c
from robopolicy_data.frames import FrameCodec, JpegFrames
from robopolicy_data.parallel import cores, in_parallel

CACHES = ("auto", "decoded", "compressed", "disk")
_TASKS = 4  # a thread, so that none waits long for the slowest
_GAP = 65_536  # bytes between two frames that are cheaper to read than a second request
_RUN_BYTES = 4 << 20  # read at once at most, but for one frame, so that no long episode is in memory whole
BLOCK = 256  # frames decoded by one job


class Pictures(Protocol):
    """All F pictures of one camera, numbered through all episodes."""

    def tasks(self, which: np.ndarray, out: np.ndarray, threads: int) -> list[Callable[[], None]]:
        """Return the work, to be done in any order and in any threads, of ``out[i] = picture which[i]``.

        Args:
            which: (M,) int64.
            out: (M, H, W, 3) uint8 or (M, H, W) uint16.
            threads: how many there are to share the work.
        """
        ...


class Decoded:
    """Pictures in one array (F, H, W, 3) uint8 or (F, H, W) uint16: a batch is one gather a camera."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def tasks(self, which: np.ndarray, out: np.ndarray, threads: int) -> list[Callable[[], None]]:
        """Return a gather for each thread."""
        edges = np.linspace(0, len(which), min(threads, len(which)) + 1).astype(int).tolist()
        # clip, not raise: numpy buffers the whole output to be able to raise, at twice the cost
        return [
            lambda a=a, b=b: np.take(self.array, which[a:b], axis=0, out=out[a:b], mode="clip")  # type: ignore[misc]
            for a, b in itertools.pairwise(edges)
        ]


class Encoded:
    """Pictures as they lie in their shards, decoded straight into the batch; one seen twice is decoded once.

    Args:
        camera: name, for messages.
        episodes: in order.
        spec: of the pictures as they were recorded.
        size: (H, W) to decode to, or None for as they are. A JPEG is decoded at an eighth to eight eighths of its size,
            which is cheaper than whole and close to the mean of the area, and from there made smaller by area.
        hold: keep the shards' bytes in memory; else they are read, in ranges, when asked for.
        progress: called with (shards read, shards in all), if they are held.

    Attributes:
        ends: (E,) int64, one past each episode's last picture.

    Raises:
        DatasetError: naming episode and frame, if something is damaged; also while decoding.
    """

    def __init__(
        self,
        camera: str,
        episodes: Sequence[Episode],
        spec: CameraSpec,
        size: tuple[int, int] | None = None,
        *,
        hold: bool,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._camera, self._episodes, self._size, self._spec = camera, episodes, size, spec
        self._rough = None if size is None else _jpeg_size(spec, size)
        self._shards = [episode.shard(camera) for episode in episodes]
        index = [shard.index for shard, _ in self._shards]
        self.ends = np.cumsum([len(part) for part in index])
        self._index = np.concatenate(index).astype(np.int64)  # (F, 2) offset and bytes within the own shard
        self._held: list[bytes | None] = [None] * len(episodes)
        if hold:
            in_parallel(self._hold, len(episodes), progress)

    def tasks(self, which: np.ndarray, out: np.ndarray, threads: int) -> list[Callable[[], None]]:
        """Return pieces of about equal size, each in the order of the file."""
        order = np.argsort(which, kind="stable")
        new = np.flatnonzero(np.diff(which[order], prepend=-1))  # where in the order each different picture begins
        pieces = [part for part in np.array_split(new, threads * _TASKS) if len(part)]
        stops = [*(int(part[0]) for part in pieces[1:]), len(order)]
        return [
            lambda places=order[int(part[0]) : stop]: self._decode(which, places, out)  # type: ignore[misc]
            for part, stop in zip(pieces, stops, strict=True)
        ]

    def _decode(self, which: np.ndarray, places: np.ndarray, out: np.ndarray) -> None:
        """Decode the pictures of ``places``, which are sorted by picture."""
        done, at = -1, -1
        wanted = np.unique(which[places])
        encoded = self._fetch(wanted)
        for place in places.tolist():
            frame = int(which[place])
            if frame == done:
                out[place] = out[at]
                continue
            codec, data = next(encoded)
            try:
                self._into(codec, data, out[place])
            except ValueError as error:
                raise DatasetError(f"{self._where(frame)}: {error}") from error
            done, at = frame, place

    def _into(self, codec: FrameCodec, data: bytes, place: np.ndarray) -> None:
        if self._size is None or self._rough is None:
            codec.decode(data, place)
            return
        scaled = isinstance(codec, JpegFrames)
        first = self._rough if scaled else self._spec.shape[:2]
        out = place if first == self._size else np.empty((*first, 3), np.uint8)
        if scaled:
            import simplejpeg  # type: ignore[import-untyped]

            height, width = first  # a torn picture is grey where it ends, as in `JpegFrames.decode`
            simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, buffer=out, strict=False)
        else:
            codec.decode(data, out)
        if out is not place:
            place[...] = shrink(out, self._size)

    def _fetch(self, frames: np.ndarray) -> Iterator[tuple[FrameCodec, bytes]]:
        """Yield codec and bytes of each frame (sorted), verified; neighbours in a file come in one read."""
        offsets, sizes = self._index[frames, 0], self._index[frames, 1]
        owners = np.searchsorted(self.ends, frames, side="right")
        apart = (np.diff(owners, prepend=-1) != 0) | (np.diff(offsets, prepend=0) > np.roll(sizes, 1) + _GAP)
        apart |= np.diff(np.cumsum(sizes) // _RUN_BYTES, prepend=-1) != 0
        starts = np.flatnonzero(apart)
        for a, b in zip(starts, [*starts[1:], len(frames)], strict=True):
            owner, begin = int(owners[a]), int(offsets[a])
            (shard, codec), held = self._shards[owner], self._held[owner]
            if held is None:
                data = shard.fetch(begin, int(offsets[b - 1] + sizes[b - 1]) - begin)
            else:
                data, begin = held, 0
            for i in range(a, b):
                at = int(offsets[i]) - begin
                frame = data[at : at + int(sizes[i])]
                if held is None:
                    self._require(frame, int(frames[i]))
                yield codec, frame[:-4]

    def _hold(self, i: int) -> None:
        shard, _ = self._shards[i]
        data = shard.whole()
        for k, (offset, size) in enumerate(shard.index.astype(np.int64).tolist()):
            self._require(data[offset : offset + size], int(self.ends[i]) - len(shard.index) + k)
        self._held[i] = data

    def _require(self, frame: bytes, number: int) -> None:
        if crc32c(frame[:-4]) != frame[-4:]:
            raise DatasetError(f"{self._where(number)} is damaged (CRC-32C)")

    def _where(self, frame: int) -> str:
        owner = int(np.searchsorted(self.ends, frame, side="right"))
        first = 0 if owner == 0 else int(self.ends[owner - 1])
        return f"{self._episodes[owner].where}, camera {self._camera}, frame {frame - first}"


def decode_all(
    camera: str,
    episodes: Sequence[Episode],
    spec: CameraSpec,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Decode every picture of a camera: (F, H, W, 3) uint8 or (F, H, W) uint16.

    Raises:
        DatasetError: if something is damaged.
    """
    encoded = Encoded(camera, episodes, spec, size, hold=False)
    shape = spec.shape if size is None else (*size, *spec.shape[2:])
    out = np.empty((int(encoded.ends[-1]), *shape), spec.dtype)
    starts = range(0, len(out), BLOCK)

    def decode(i: int) -> None:
        block = out[starts[i] : starts[i] + BLOCK]
        for task in encoded.tasks(starts[i] + np.arange(len(block)), block, 1):
            task()

    in_parallel(decode, len(starts), progress)
    return out


def decode_blocks(camera: str, episodes: Sequence[Episode], spec: CameraSpec) -> Iterator[np.ndarray]:
    """Yield every picture of a camera in order, a few hundred at a time, (n, H, W, 3) uint8 or (n, H, W) uint16.

    Raises:
        DatasetError: if something is damaged.
    """
    encoded = Encoded(camera, episodes, spec, hold=False)
    for start in range(0, int(encoded.ends[-1]), BLOCK):
        which = np.arange(start, min(start + BLOCK, int(encoded.ends[-1])))
        block = np.empty((len(which), *spec.shape), spec.dtype)
        tasks = encoded.tasks(which, block, cores())
        in_parallel(lambda i, tasks=tasks: tasks[i](), len(tasks))  # type: ignore[misc]
        yield block


def require_size(camera: str, spec: CameraSpec, size: tuple[int, int]) -> None:
    """Refuse a size (H, W) that pictures cannot be made smaller to; ContractError says which they can."""
    wanted = "x".join(map(str, size))
    if spec.kind != "colour":
        if tuple(size) != (spec.height, spec.width):
            raise ContractError(f"camera {camera}: a depth map cannot be decoded to {wanted}; leave it as it is")
    elif len(size) != 2 or not (1 <= size[0] <= spec.height and 1 <= size[1] <= spec.width):
        raise ContractError(f"camera {camera}: cannot be decoded to {wanted}; want at most {spec.height}x{spec.width}")


def _jpeg_size(spec: CameraSpec, size: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size (H, W) that JPEG's own scaling gives and that is no smaller than ``size``."""
    given = [(-(-spec.height * k // 8), -(-spec.width * k // 8)) for k in range(1, 9)]
    return next(one for one in given if one[0] >= size[0] and one[1] >= size[1])
