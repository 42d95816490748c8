"""Chunk overlap: how much the policy changed its mind, from one sample a decision."""

from collections.abc import Mapping

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.types import Decision


class ChunkOverlap:
    """How much the policy changed its mind: mean squared difference of two successive chunks where they overlap.

    Each action element is divided by its spread in the fit. It needs one sample a decision (the temporal
    consistency error); the first decision of an episode scores 0.
    """

    name = "chunk_overlap"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0) -> None:
        self._previous: Decision | None = None

    def fit(self, episodes: Episodes) -> None:
        """Learn the spread of each action element (A,)."""
        rows = np.concatenate([d.chunks[0] for episode in episodes for d in episode])
        std = rows.std(axis=0, dtype=np.float64)
        if not np.any(std > 1e-6):
            raise ContractError("the actions never change; there is no spread to compare chunks by")
        self._scale = np.where(std > 1e-6, std, np.inf)  # an element that never moved cannot disagree

    def update(self, decision: Decision) -> float:
        """Return the disagreement with the previous decision's chunk, in squared spreads."""
        previous, self._previous = self._previous, decision
        if previous is None or previous.n_execute >= len(previous.chunks[0]):
            return 0.0
        left = previous.chunks[0][previous.n_execute :]
        gap = (decision.chunks[0][: len(left)] - left).astype(np.float64) / self._scale
        return float(np.mean(gap**2))

    def reset(self) -> None:
        """Forget the previous chunk."""
        self._previous = None

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each episode's scores (T_i,); one spread an element is too little to have learnt an episode by."""
        return [score_episode(self, episode) for episode in episodes]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the spread of each action element."""
        return {"scale": self._scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ChunkOverlap":
        """Rebuild what ``arrays`` gave."""
        score = cls()
        score._scale = arrays["scale"]
        return score
