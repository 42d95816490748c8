"""Which of N candidate chunks to execute: pure functions of the candidates and of what was done before.

All compare normalised chunks, so that metres and radians weigh alike.
"""

import torch
from torch import Tensor

from robopolicy.errors import UnknownName
from robopolicy.policies.config import SELECTORS, SelectorConfig


def choose(
    config: SelectorConfig, chunks: Tensor, *, done: Tensor | None = None, previous: Tensor | None = None
) -> int:
    """Return the index of the chunk to execute.

    Args:
        config: which selector.
        chunks: (N, P + H, A) candidates, P rows of the past first.
        done: (P, A) what was executed in those past rows; None if not all of it is known: then the first is taken.
        previous: (H, A) what is left of the running chunk; None if there is none: then the first is taken.

    Raises:
        UnknownName: if there is no such selector.
    """
    if config.name == "first" or len(chunks) == 1:
        return 0
    if config.name == "past":
        return 0 if done is None or len(done) == 0 else int(past_error(chunks, done).argmin())
    past = 0 if done is None else len(done)
    if config.name == "coherence":
        return 0 if previous is None else int(incoherence(chunks[:, past:], previous).argmin())
    if config.name == "medoid":
        return int(spread(chunks).argmin())
    raise UnknownName("selector", config.name, SELECTORS)


def past_error(chunks: Tensor, done: Tensor) -> Tensor:
    """Return how far each candidate's past is from what was executed, (N,): mean squared. Torne et al. 2025 (PTP)."""
    return ((chunks[:, : len(done)] - done) ** 2).mean(dim=(1, 2))


def incoherence(chunks: Tensor, previous: Tensor, decay: float = 0.5) -> Tensor:
    """Return how far each candidate (N, H, A) is from the running chunk (H, A), (N,): squared, fading by row.

    The backward coherence of bidirectional decoding, Liu et al. 2025.
    """
    weight = decay ** torch.arange(chunks.shape[1], device=chunks.device)
    error = ((chunks - previous[: chunks.shape[1]]) ** 2).mean(-1)  # (N, H)
    return (error * weight).sum(1) / weight.sum()


def spread(chunks: Tensor) -> Tensor:
    """Return each candidate's mean distance from all others, (N,); the smallest belongs to the medoid."""
    return torch.cdist(chunks.flatten(1), chunks.flatten(1)).mean(1)
