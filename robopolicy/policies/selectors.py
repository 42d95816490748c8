"""Which of N candidate chunks to execute: pure functions of the candidates and of what was done before.

All compare normalised chunks, so that metres and radians weigh alike.
"""

import torch
from torch import Tensor

from robopolicy.errors import UnknownName
from robopolicy.policies.config import SELECTORS, SelectorConfig


def choose(
    config: SelectorConfig, chunks: Tensor, *, past: int = 0, done: Tensor | None = None, previous: Tensor | None = None
) -> int:
    """Return the index of the chunk to execute.

    Args:
        config: which selector.
        chunks: (N, P + H, A) candidates.
        past: P, how many of their rows are of the past; they come first.
        done: (P, A) what was executed in those past rows; None if not all of it is known: then the first is taken.
        previous: (R, A) what is left of the running chunk, R <= H, its row 0 at row P of the candidates; None if there
            is nothing: then the first is taken.

    Raises:
        UnknownName: if there is no such selector.
    """
    if config.name == "first" or len(chunks) == 1:
        return 0
    if config.name == "past":
        return 0 if done is None or len(done) == 0 else int(past_error(chunks, done).argmin())
    if config.name == "coherence":
        return 0 if previous is None or len(previous) == 0 else int(incoherence(chunks[:, past:], previous).argmin())
    if config.name == "medoid":
        return int(spread(chunks[:, past:]).argmin())
    raise UnknownName("selector", config.name, SELECTORS)


def past_error(chunks: Tensor, done: Tensor) -> Tensor:
    """Return how far each candidate's past is from what was executed, (N,): mean squared. Torne et al. 2025 (PTP)."""
    return ((chunks[:, : len(done)] - done) ** 2).mean(dim=(1, 2))


def incoherence(chunks: Tensor, previous: Tensor, decay: float = 0.5) -> Tensor:
    """Return how far each candidate (N, H, A) is from the running chunk (R, A), (N,): squared, fading by row.

    The backward coherence of bidirectional decoding, Liu et al. 2025.
    """
    rows = min(chunks.shape[1], len(previous))
    weight = decay ** torch.arange(rows, device=chunks.device)
    error = ((chunks[:, :rows] - previous[:rows]) ** 2).mean(-1)  # (N, rows)
    return (error * weight).sum(1) / weight.sum()


def spread(chunks: Tensor) -> Tensor:
    """Return each candidate's mean distance from all others, (N,); the smallest belongs to the medoid."""
    return torch.cdist(chunks.flatten(1), chunks.flatten(1)).mean(1)
