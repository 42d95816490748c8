"""One camera of an episode being recorded: which frames are new, their bytes, their places in the shard."""

from pathlib import Path

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import CameraSpec
from robopolicy.types import Observation
from robopolicy_data.frames import Coding, FrameCodec, JpegFrames, jpeg_size
from robopolicy_data.rows import require_later
from robopolicy_data.shard import ShardWriter


class CameraWriter:
    """Takes a camera's frames in the order of their stamps; a stamp seen before is the same frame.

    Args:
        name: of the camera.
        camera: what it must deliver.
        coding: of the frames; a camera that sends JPEG has its bytes stored untouched.
        path: of the shard.

    Attributes:
        frames: how many are in the episode.
        codec: of the shard; fixed by the first frame.
        stamp_ns, place: of the newest frame.
        torn: how many frames came so torn that nobody can decode them; they are left out.
    """

    def __init__(self, name: str, camera: CameraSpec, coding: Coding, path: Path) -> None:
        self.frames = self.torn = 0
        self.stamp_ns = self._torn_ns = 0
        self.place = (0, 0)
        self.codec: FrameCodec = coding.codec(camera)
        self.codec.encode(np.zeros((16, 16, *camera.shape[2:]), camera.dtype))  # loads its library now, not in a tick
        self.shard = ShardWriter(path)
        self._name, self._camera, self._coding = name, camera, coding

    def stamp(self, seen: Observation) -> int:
        """Return when the frame in the observation was taken, robot clock."""
        return int(seen.image_stamps_ns.get(self._name, seen.stamp_ns))

    def encode(self, seen: Observation) -> tuple[FrameCodec, bytes] | None:
        """Return the bytes of a new frame, None if it is the newest one again, or torn: then that one stands for it.

        Raises:
            ContractError: if it is missing, goes back in time, or its size or dtype is not the spec's.
        """
        stamp_ns = self.stamp(seen)
        if self.frames:
            if stamp_ns in (self.stamp_ns, self._torn_ns):
                return None
            require_later(f"camera {self._name!r}", stamp_ns, self.stamp_ns)
        sent = seen.encoded.get(self._name)
        codec = self.codec if self.frames else self._coding.codec(self._camera, encoded=sent is not None)
        if sent is not None and isinstance(codec, JpegFrames):
            return (codec, bytes(sent)) if self._decodable(sent, stamp_ns) else None
        if isinstance(codec, JpegFrames) and self._coding.lossless:
            raise ContractError(f"camera {self._name!r} sent JPEG and now sends pictures; a lossless shard holds one")
        return codec, codec.encode(self._picture(seen))

    def append(self, data: bytes) -> tuple[int, int]:
        """Append a frame to the shard and return its place; it is in the episode once it is accepted."""
        return self.shard.append(data)

    def accept(self, codec: FrameCodec, stamp_ns: int, place: tuple[int, int]) -> None:
        """Count the frame in: the step that saw it is in the journal."""
        self.codec, self.stamp_ns, self.place = codec, stamp_ns, place
        self.frames += 1

    def _picture(self, seen: Observation) -> np.ndarray:
        if self._name not in seen.images:
            raise ContractError(f"camera {self._name!r} is not in the observation; it has {sorted(seen.images)}")
        image, want = seen.images[self._name], self._camera
        if image.shape != want.shape or image.dtype != want.dtype:
            raise ContractError(
                f"camera {self._name!r}: picture is {image.dtype} {image.shape}, want {want.dtype} {want.shape}"
            )
        return image

    def _decodable(self, data: bytes, stamp_ns: int) -> bool:
        """Whether a JPEG has a header; one that lost it is counted, unless the camera has sent nothing else so far."""
        try:
            size = jpeg_size(data)
        except ValueError as error:
            if not self.frames:
                raise ContractError(f"camera {self._name!r} sent bytes that are no JPEG: {error}") from error
            self.torn, self._torn_ns = self.torn + 1, stamp_ns
            return False
        if size != (self._camera.height, self._camera.width):
            raise ContractError(
                f"camera {self._name!r}: JPEG is {size[0]}x{size[1]}, want {self._camera.height}x{self._camera.width}"
            )
        return True
