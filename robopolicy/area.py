"""Pictures made smaller by area: each new pixel is the mean of what it covers, parts of pixels included."""

from functools import lru_cache

import numpy as np

from robopolicy.errors import ContractError

BAND = 16  # new rows made at a time; the pixels that they cover are a small part of a large picture


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 as (h, w, 3) uint8.

    Raises:
        ContractError: if it would have to grow.
    """
    (before, across), (height, width) = picture.shape[:2], size
    rows = _weighted(area_weights(before, height), picture.reshape(before, -1)).reshape(height, across, 3)
    columns = rows.transpose(1, 0, 2).reshape(across, -1)
    made = _weighted(area_weights(across, width), columns).reshape(width, height, 3)
    return np.rint(made.transpose(1, 0, 2)).clip(0, 255).astype(np.uint8, order="C")


def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return weights (h, H) @ values (H, K), float32, leaving out most of the zeros beside the weights' diagonal."""
    fewer, n = weights.shape
    made = np.empty((fewer, values.shape[1]), np.float32)
    for first in range(0, fewer, BAND):
        stop = min(first + BAND, fewer)
        covered = slice(first * n // fewer, -(-stop * n // fewer))
        np.matmul(weights[first:stop, covered], values[covered].astype(np.float32, copy=False), out=made[first:stop])
    return made


@lru_cache(maxsize=64)
def area_weights(n: int, fewer: int) -> np.ndarray:
    """Return (fewer, n) float32: how much of each of ``n`` pixels in a row is in each of ``fewer``; rows sum to 1.

    Raises:
        ContractError: if ``fewer`` is more than ``n``, or not even one.
    """
    if not 1 <= fewer <= n:
        raise ContractError(f"picture: {n} pixels cannot become {fewer}; want 1 to {n}")
    edges = np.arange(fewer + 1) * (n / fewer)
    pixels = np.arange(n)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)  # (fewer, n)
    weights: np.ndarray = (covered.clip(0) * (fewer / n)).astype(np.float32)
    weights.flags.writeable = False  # it is shared
    return weights
