"""What a policy with a long memory need not look at again: the features of the frames it saw lately."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopolicy.policies.encoder import ObservationEncoder
from robopolicy.types import Observation


@dataclass
class _Frame:
    stamp_ns: int  # of its capture
    pixels: np.ndarray  # (H, W, 3), kept, so that another picture of the same stamp is told from it
    features: Tensor | None = None  # (F,), once it was encoded


class FrameMemory:
    """Encodes each frame of each camera once, for as long as it is part of the window.

    A window of 16 observations then costs one frame a step instead of 16. Frames are known again by the stamp of their
    capture and by their pixels, so a policy that is asked about several episodes at once is slower, never wrong. All
    is forgotten when the encoder's weights change or move. A copy, or a pickle, of a memory is an empty one.
    """

    def __init__(self) -> None:
        self._frames: dict[str, list[_Frame]] = {}
        self._weights: tuple[Any, ...] = ()

    def forget(self) -> None:
        """Start anew, as at the beginning of an episode."""
        self._frames = {}

    def features(
        self, encoder: ObservationEncoder, window: Sequence[Observation], block: int | None = None
    ) -> dict[str, Tensor]:
        """Return {camera: (1, T, F)} for a window of T observations, encoding what was not seen before.

        Args:
            encoder: not training: its crops are the centre.
            window: observations, oldest first; of several environments, one window after the other.
            block: pictures encoded in one batch, the last one filled up; None: all in one.
        """
        weights = _weights(encoder)
        if weights != self._weights:
            self.forget()
            self._weights = weights
        return {camera: self._of(encoder, camera, window, block)[None] for camera in encoder.camera_names}

    def _of(self, encoder: ObservationEncoder, camera: str, window: Sequence[Observation], block: int | None) -> Tensor:
        known, seen = self._frames.get(camera, []), []
        fresh: list[_Frame] = []
        for observation in window:
            pixels, stamp_ns = observation.images[camera], observation.image_stamps_ns.get(camera, observation.stamp_ns)
            frame = _find([*known, *fresh], stamp_ns, pixels)
            if frame is None:
                frame = _Frame(stamp_ns, pixels)
                fresh.append(frame)
            seen.append(frame)
        for at in range(0, len(fresh), block or len(fresh) or 1):
            some = fresh[at : at + block] if block else fresh
            pixels = [frame.pixels for frame in some] + [some[0].pixels] * ((block or 0) - len(some))
            pictures = torch.from_numpy(np.stack(pixels))[None]
            made = encoder.see(camera, pictures.to(next(encoder.cameras.parameters()).device))[0]
            for frame, features in zip(some, made, strict=False):  # what fills up is not looked at
                frame.features = features
        self._frames[camera] = list({id(frame): frame for frame in seen}.values())
        return torch.stack([frame.features for frame in seen if frame.features is not None])

    def __deepcopy__(self, memo: Any) -> "FrameMemory":
        return FrameMemory()

    def __reduce__(self) -> Any:
        return FrameMemory, ()


def _find(frames: Sequence[_Frame], stamp_ns: int, pixels: np.ndarray) -> _Frame | None:
    for frame in frames:
        if frame.pixels is pixels and frame.stamp_ns == stamp_ns:
            return frame
    for frame in frames:
        if frame.stamp_ns == stamp_ns and np.array_equal(frame.pixels, pixels):
            return frame
    return None


def _weights(encoder: ObservationEncoder) -> tuple[Any, ...]:
    """Return what changes with the encoder's weights: an optimiser, a load and a move to another device all do."""
    tensors = encoder.cameras.state_dict(keep_vars=True).values()
    return tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors)
