"""Pictures made smaller by area: each new pixel is the mean of what it covers, parts of pixels included."""

from functools import lru_cache

import numpy as np

from robopolicy.errors import ContractError


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 as (h, w, 3) uint8.

    Raises:
        ContractError: if it would have to grow.
    """
    height, width = size
    rows = area_weights(picture.shape[0], height) @ picture.reshape(len(picture), -1).astype(np.float32)
    made = area_weights(picture.shape[1], width) @ rows.reshape(height, picture.shape[1], 3)
    return np.rint(made).clip(0, 255).astype(np.uint8)


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
