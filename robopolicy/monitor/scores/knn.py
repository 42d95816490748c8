"""Nearest neighbours: how far what the policy sees is from anything seen in successful episodes."""

from collections.abc import Mapping

import numpy as np

from robopolicy.errors import MonitorError
from robopolicy.monitor.episodes import Episodes, embeddings, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import require_fitted
from robopolicy.monitor.scores.standard import Standard, squared_distances, thinned
from robopolicy.types import Decision


class NearestNeighbours:
    """Distance to the k-th nearest of the successful embeddings, standardised (Sun et al. 2022, eq. 3).

    Elements that never moved are dropped. More than ``max_points`` embeddings are thinned evenly in time. Where
    fewer than k are left the farthest of them counts.

    Args:
        layout: not looked at.
        seed: not needed; nothing is drawn.
        k: which neighbour; one alone may be an accident.
        max_points: that are kept; 1000 keep ``update`` below a millisecond.

    Raises:
        MonitorError: if k or ``max_points`` is below 1.
    """

    name = "knn"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(
        self, *, layout: ActionLayout | None = None, seed: int = 0, k: int = 5, max_points: int = 1000
    ) -> None:
        if min(k, max_points) < 1:
            raise MonitorError(f"score knn: k {k} and max_points {max_points}; want 1 or more of each")
        self._k, self._max_points = k, max_points

    def fit(self, episodes: Episodes) -> None:
        """Keep the embeddings (E,) of successful episodes.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x = embeddings(episodes)
        rows = thinned(len(x), self._max_points)
        standard = Standard.of(x, rows)
        self._set(standard(x[rows]), owners(episodes)[rows], standard, len(episodes))

    def update(self, decision: Decision) -> float:
        """Return the distance of this decision's embedding, in spreads."""
        query = self._standard(decision.embedding[None])
        return float(np.sqrt(self._kth(squared_distances(query, self._points, self._squares))[0]))

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,), its own points left out (the scaling is kept).

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)
        scores = []
        for i, episode in enumerate(episodes):
            other = self._owner != i
            queries = self._standard(np.stack([decision.embedding for decision in episode]))
            scores.append(np.sqrt(self._kth(squared_distances(queries, self._points[other], self._squares[other]))))
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the points, whose they are, and their scaling."""
        return {
            **self._standard.arrays(),
            "points": self._points,  # (m, D) float64, standardised
            "owner": self._owner,  # (m,) int64, episode of each point
            "settings": np.array([self._k, self._max_points, self._n]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "NearestNeighbours":
        """Rebuild what ``arrays`` gave."""
        k, max_points, n = (int(number) for number in arrays["settings"])
        score = cls(k=k, max_points=max_points)
        score._set(arrays["points"], arrays["owner"], Standard.from_arrays(arrays), n)
        return score

    def _set(self, points: np.ndarray, owner: np.ndarray, standard: Standard, n: int) -> None:
        self._points, self._owner, self._standard, self._n = points, owner, standard, n
        self._squares = (points**2).sum(axis=1)

    def _kth(self, squares: np.ndarray) -> np.ndarray:
        """Return the k-th smallest (Q,) of each row of (Q, m)."""
        k = min(self._k, squares.shape[1]) - 1
        kth: np.ndarray = np.partition(squares, k, axis=1)[:, k]
        return kth
