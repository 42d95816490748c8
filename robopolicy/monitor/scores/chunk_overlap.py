"""Chunk overlap: how much the policy changed its mind, from one sample a decision."""

from collections.abc import Mapping

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.replans import element_weights, overlap
from robopolicy.types import Decision


class ChunkOverlap:
    """How much the policy changed its mind: mean squared difference of two successive chunks where they overlap.

    Each action element is divided by its spread in the fit. It needs one sample a decision (the temporal
    consistency error); the first decision of an episode scores 0, and so does a chunk that goes on as the one before.
    The gripper counts as any other element: to open where the last chunk closed is a change of mind as well.

    Args:
        layout: says how long a row lasts, so that a plan that came late is compared at its own time, and which
            elements are grippers; None trusts ``n_execute``.
        seed: nothing is drawn.
        gripper: whether grippers count.
    """

    name = "chunk_overlap"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0, gripper: bool = True) -> None:
        self._dt_s = None if layout is None else layout.dt_s
        self._left_out = () if layout is None or gripper else layout.gripper
        self._weight: np.ndarray | None = None  # (A,) one over the spread
        self._previous: Decision | None = None

    def fit(self, episodes: Episodes) -> None:
        """Learn the spread of each action element (A,).

        Raises:
            ContractError: if the actions never change, or are not finite.
        """
        self._weight = element_weights(episodes, self._left_out)

    def update(self, decision: Decision) -> float:
        """Return the disagreement with the previous decision's chunk, in squared spreads; NaN if it is not finite."""
        if self._weight is None:
            raise ContractError("chunk_overlap was never fitted; it has no spread to compare chunks by")
        previous, self._previous = self._previous, decision
        if not np.isfinite(decision.chunks[0]).all():
            return np.nan
        if previous is None:
            return 0.0
        left, now = overlap(previous, decision, self._dt_s)
        if left.shape[1] == 0:
            return 0.0
        gap = (now[0].astype(np.float64) - left[0]) * self._weight
        return float(np.mean(gap**2))

    def reset(self) -> None:
        """Forget the previous chunk."""
        self._previous = None

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each episode's scores (T_i,); one spread an element is too little to have learnt an episode by."""
        return [score_episode(self, episode) for episode in episodes]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weight of each action element, and the time of a row, NaN where it is not known."""
        if self._weight is None:
            raise ContractError("chunk_overlap was never fitted; there is nothing to keep")
        return {"weight": self._weight, "dt_s": np.array(np.nan if self._dt_s is None else self._dt_s)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ChunkOverlap":
        """Rebuild what ``arrays`` gave."""
        score = cls()
        score._weight = arrays["weight"]
        score._dt_s = None if np.isnan(arrays["dt_s"]) else float(arrays["dt_s"])
        return score
