"""Episodes as scores see them: sequences of decisions, stacked into arrays."""

from collections.abc import Sequence

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.interfaces import Score
from robopolicy.types import Decision

Episodes = Sequence[Sequence[Decision]]


def embeddings(episodes: Episodes) -> np.ndarray:
    """Return the embeddings (M, E) float64 of all decisions, episode after episode.

    Raises:
        ContractError: if there are none, or one is not finite.
    """
    rows = [decision.embedding for episode in episodes for decision in episode]
    if not rows:
        raise ContractError("no decisions to learn from")
    x: np.ndarray = np.stack(rows).astype(np.float64)
    if not np.all(np.isfinite(x)):
        raise ContractError("an embedding is not finite; the monitor cannot learn from it")
    return x


def owners(episodes: Episodes) -> np.ndarray:
    """Return the number (M,) int64 of the episode that each row of `embeddings` is of."""
    return np.repeat(np.arange(len(episodes), dtype=np.int64), [len(episode) for episode in episodes])


def score_episode(score: Score, episode: Sequence[Decision]) -> np.ndarray:
    """Return the scores (T,) of one episode, as they would have been given while it ran."""
    score.reset()
    return np.array([score.update(decision) for decision in episode], dtype=np.float64)
