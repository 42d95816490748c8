"""Long contexts in two stages (Torne et al., 2025): the encoder of a short one, frozen, embeds frames once.

The head of the long-context policy then trains on features: 16 frames a window cost no more than 16 rows of numbers.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from robopolicy.errors import ContractError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.encoder import ObservationEncoder

BATCH = 64  # pictures embedded at once


def with_encoder(config: DiffusionConfig, source: DiffusionPolicy) -> DiffusionConfig:
    """Return ``config`` with the vision of ``source``, frozen: what the second stage is built from."""
    return replace(config, vision=replace(source.config.vision, frozen=True))


def take_encoder(policy: DiffusionPolicy, source: DiffusionPolicy) -> None:
    """Copy the camera encoders of ``source`` into ``policy``, whose checkpoints then need no other.

    Args:
        policy: built from `with_encoder`; its states are normalised by its own data.
        source: trained, of any context, network and process.

    Raises:
        ContractError: if ``policy`` sees no camera or does not freeze its encoders, if ``source`` does not see one of
            its cameras, or sees it in another size, or if its encoders are built differently.
    """
    if not policy.spec.cameras:
        raise ContractError("encoder: the policy sees no camera, so there is nothing to take; name its cameras")
    if policy.config.vision != replace(source.config.vision, frozen=True):
        raise ContractError(
            f"encoder: it is {source.config.vision}, the policy's {policy.config.vision}; want its own, frozen"
        )
    for name, camera in policy.spec.cameras.items():
        given = source.spec.cameras.get(name)
        if given is None:
            raise ContractError(
                f"encoder: it was not trained on camera {name!r}; it knows {sorted(source.spec.cameras)}"
            )
        if given.shape != camera.shape:
            raise ContractError(
                f"encoder: it was trained on {given.shape} of camera {name!r}, the data have {camera.shape}"
            )
        weights = source.encoder.camera(name).state_dict()
        policy.encoder.camera(name).load_state_dict(weights)


@torch.inference_mode()
def embed(encoder: ObservationEncoder, camera: str, pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Return the features (F, D) float32 of all pictures of a camera, as `FrameMemory` makes them at run time.

    Args:
        encoder: on the device that does the work.
        camera: one of its cameras.
        pictures: all in order, in blocks (n, H, W, 3) uint8 of any length.
    """
    training = encoder.training
    encoder.eval()
    device = next(encoder.cameras.parameters()).device
    try:
        made = [
            encoder.see(camera, torch.from_numpy(block[i : i + BATCH])[:, None].to(device))[:, 0].float().cpu().numpy()
            for block in pictures
            for i in range(0, len(block), BATCH)
        ]
    finally:
        encoder.train(training)
    return np.concatenate(made)


def embedded(arrays: Any, encoder: ObservationEncoder) -> Any:
    """Return decoded ``arrays`` (`robopolicy_data.arrays.Arrays`) with ``features`` in place of ``images``."""
    made = {name: embed(encoder, name, [arrays.images[name]]) for name in encoder.camera_names}
    return replace(arrays, images={}, features=made)
