"""How one camera frame becomes bytes: JPEG by default, zstd where every bit counts, blosc for depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, DatasetError
from robopolicy.spec import CameraSpec

JPEG_NAME = "imagecodecs_jpeg"  # the name under which imagecodecs-zarr registers the same bytes


@dataclass(frozen=True)
class JpegFrames:
    """Baseline JPEG with 4:2:0 chroma.

    Raises:
        ContractError: if the quality is not in 1..100.
    """

    quality: int = 90

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ContractError(f"JPEG quality is {self.quality}; want 1 to 100")

    def encode(self, image: np.ndarray) -> bytes:
        """Encode (H, W, 3) uint8 RGB."""
        import simplejpeg

        data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(image), self.quality, "RGB", "420")
        return data

    def decode(self, data: bytes, out: np.ndarray) -> None:
        """Decode into ``out`` (H, W, 3) uint8 RGB; ValueError if the bytes are not such a picture.

        One that a camera sent torn is decoded as far as it goes, the rest is grey: a checksum says that it came so.
        """
        import simplejpeg

        if jpeg_size(data) != out.shape[:2]:
            raise ValueError(f"JPEG is {jpeg_size(data)}, want {out.shape[:2]}")
        simplejpeg.decode_jpeg(data, "RGB", buffer=out, strict=False)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the zarr codecs, array to bytes."""
        return [{"name": JPEG_NAME, "configuration": {"level": self.quality}}]


@dataclass(frozen=True)
class ZstdFrames:
    """Raw bytes through zstd: lossless, and on flat simulated pictures smaller than JPEG."""

    level: int = 3

    def encode(self, image: np.ndarray) -> bytes:
        """Encode (H, W, 3) uint8 RGB."""
        from numcodecs.zstd import Zstd

        data: bytes = Zstd(self.level).encode(np.ascontiguousarray(image))
        return data

    def decode(self, data: bytes, out: np.ndarray) -> None:
        """Decode into ``out`` (H, W, 3) uint8 RGB; ValueError if the bytes are not such a picture."""
        from numcodecs.zstd import Zstd

        try:
            raw = Zstd(self.level).decode(data)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        out[...] = np.frombuffer(raw, np.uint8).reshape(out.shape)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the zarr codecs, array to bytes."""
        return [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}]


@dataclass(frozen=True)
class DepthFrames:
    """Bits of one weight side by side, then LZ4: lossless, and cheap on the noise of a depth map."""

    level: int = 5

    def encode(self, image: np.ndarray) -> bytes:
        """Encode (H, W) uint16."""
        from numcodecs.blosc import BITSHUFFLE, Blosc

        data: bytes = Blosc("lz4", self.level, BITSHUFFLE).encode(np.ascontiguousarray(image, "<u2"))
        return data

    def decode(self, data: bytes, out: np.ndarray) -> None:
        """Decode into ``out`` (H, W) uint16; ValueError if the bytes are not such a map."""
        from numcodecs.blosc import Blosc

        try:
            raw = Blosc().decode(data)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        out[...] = np.frombuffer(raw, "<u2").reshape(out.shape)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the zarr codecs, array to bytes."""
        blosc = {"cname": "lz4", "clevel": self.level, "shuffle": "bitshuffle", "typesize": 2, "blocksize": 0}
        return [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": blosc},
        ]


FrameCodec = JpegFrames | ZstdFrames | DepthFrames


@dataclass(frozen=True)
class Coding:
    """How the frames of a recording are coded; depth maps are lossless always.

    Raises:
        ContractError: if the quality is not in 1..100.
    """

    quality: int = 90
    lossless: bool = False

    def __post_init__(self) -> None:
        JpegFrames(self.quality)

    def codec(self, camera: CameraSpec, *, encoded: bool = False) -> FrameCodec:
        """Return the codec of a camera; ``encoded`` says that it sends JPEG by itself."""
        if camera.kind == "depth":
            return DepthFrames()
        return ZstdFrames() if self.lossless and not encoded else JpegFrames(self.quality)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Return height and width that the header of a JPEG picture names; ValueError if it is none."""
    import simplejpeg

    height, width = simplejpeg.decode_jpeg_header(data)[:2]
    return int(height), int(width)


def jpeg_torn(data: bytes) -> bool:
    """Return whether a JPEG picture lacks its end, as one does of which a camera or its bus lost a part."""
    return not data.rstrip(b"\0").endswith(b"\xff\xd9")


def frame_codec(codecs: Sequence[Mapping[str, Any]]) -> FrameCodec:
    """Return the codec whose ``to_json`` gave ``codecs``.

    Raises:
        DatasetError: naming what this version decodes.
    """
    match codecs:
        case [{"name": "imagecodecs_jpeg", "configuration": {"level": int(quality)}}]:
            return JpegFrames(quality)
        case [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": int(level)}}]:
            return ZstdFrames(level)
        case [{"name": "bytes"}, {"name": "blosc", "configuration": {"cname": "lz4", "clevel": int(level)}}]:
            return DepthFrames(level)
    names = [codec.get("name") for codec in codecs]
    raise DatasetError(f"frames are coded by {names}; want [{JPEG_NAME}], [bytes, zstd] or [bytes, blosc]")
