"""The codec ``imagecodecs_jpeg`` for stock zarr, so that it opens our pictures; our own reader needs none of this."""

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from robopolicy_data.frames import JPEG_NAME, JpegFrames


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """One chunk of shape (1, H, W, 3) uint8 RGB as one JPEG picture of quality ``level``."""

    level: int = 90
    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from the codec's entry in zarr.json."""
        return cls(level=data.get("configuration", {}).get("level", 90))

    def to_dict(self) -> dict[str, Any]:
        """Return the codec's entry in zarr.json."""
        return {"name": JPEG_NAME, "configuration": {"level": self.level}}

    def compute_encoded_size(self, input_byte_length: int, _chunk_spec: ArraySpec) -> int:
        """Nobody knows before encoding."""
        raise NotImplementedError

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        out = np.empty(chunk_spec.shape, np.uint8)
        await asyncio.to_thread(JpegFrames(self.level).decode, chunk_bytes.to_bytes(), out.reshape(out.shape[-3:]))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(out)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        image = chunk_array.as_numpy_array().reshape(chunk_spec.shape[-3:])
        data = await asyncio.to_thread(JpegFrames(self.level).encode, image)
        return chunk_spec.prototype.buffer.from_bytes(data)


register_codec(JPEG_NAME, JpegCodec)
