"""Kernel density: how unlike the successful episodes what the policy sees is."""

from collections.abc import Mapping

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.monitor.episodes import Episodes
from robopolicy.monitor.layout import ActionLayout
from robopolicy.types import Decision


class KernelDensity:
    """How far the policy's embedding lies from those of successful episodes.

    The posterior variance of a Gaussian process, s(x) = k(x,x) - k_x^T (K + m lam I)^-1 k_x, with an RBF kernel
    as wide as the median distance (Rasmussen and Williams 2006, eq. 2.26), given as -log(1 - s): the same order,
    but it keeps growing far from all data, where s itself rounds to 1 and a threshold of 1 could never be exceeded.

    An embedding element that never moved in the fit is dropped (it has no scale to be judged by), and no scale is
    smaller than 5 % of the median one. More than ``max_points`` embeddings are thinned evenly in time, so every
    episode keeps its share: 1000 keep ``update`` below a millisecond.
    """

    name = "kernel_density"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(
        self, *, layout: ActionLayout | None = None, seed: int = 0, lam: float = 1e-5, max_points: int = 1000
    ) -> None:
        self._lam = lam
        self._max_points = max_points

    def fit(self, episodes: Episodes) -> None:
        """Learn from the embeddings (E,) of successful episodes.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x = np.stack([d.embedding for episode in episodes for d in episode]).astype(np.float64)  # (M, E)
        owner = np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes])  # (M,)
        if not np.all(np.isfinite(x)):
            raise ContractError("an embedding is not finite; the monitor cannot learn from it")
        std = x.std(axis=0)
        alive = std > 1e-6
        if not alive.any():
            raise ContractError(f"the {x.shape[1]} elements of the embedding never change over {len(x)} decisions")
        if len(x) > self._max_points:
            rows = np.linspace(0, len(x) - 1, self._max_points).round().astype(int)
            x, owner = x[rows], owner[rows]
        scale = np.maximum(std[alive], 0.05 * np.median(std[alive]))
        mean = x[:, alive].mean(axis=0)
        points = (x[:, alive] - mean) / scale
        self._set(points, owner, mean, scale, alive, _median_distance(points))

    def update(self, decision: Decision) -> float:
        """Return the score of this decision, 0 or more."""
        return float(self._novelty(self._standardise(decision.embedding[None]), self._points, self._inverse)[0])

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,), its own points left out of K (scale and width are kept).

        Raises:
            ContractError: if these are not as many episodes as were fitted.
        """
        if len(episodes) != int(self._owner.max()) + 1:
            raise ContractError(f"held_out got {len(episodes)} episodes; it was fitted on {int(self._owner.max()) + 1}")
        scores = []
        for i, episode in enumerate(episodes):
            others = self._points[self._owner != i]  # (m_i, D)
            queries = self._standardise(np.stack([d.embedding for d in episode]))
            scores.append(self._novelty(queries, others, self._invert(others)))
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the points, their scaling and the kernel width; the inverse is cheap to make again."""
        return {
            "points": self._points,  # (m, D) float64, standardised
            "owner": self._owner,  # (m,) int64, episode of each point
            "mean": self._mean,  # (D,)
            "scale": self._scale,  # (D,)
            "alive": self._alive,  # (E,) bool
            "settings": np.array([self._width, self._lam]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "KernelDensity":
        """Rebuild what ``arrays`` gave."""
        width, lam = arrays["settings"]
        score = cls(lam=float(lam))
        points, owner, mean, scale, alive = (arrays[k] for k in ("points", "owner", "mean", "scale", "alive"))
        score._set(points, owner, mean, scale, alive, float(width))
        return score

    def _set(
        self,
        points: np.ndarray,
        owner: np.ndarray,
        mean: np.ndarray,
        scale: np.ndarray,
        alive: np.ndarray,
        width: float,
    ) -> None:
        self._points, self._owner, self._mean, self._scale, self._alive = points, owner, mean, scale, alive
        self._width = width
        self._inverse = self._invert(points)

    def _standardise(self, x: np.ndarray) -> np.ndarray:
        standard: np.ndarray = (x[:, self._alive].astype(np.float64) - self._mean) / self._scale
        return standard

    def _invert(self, points: np.ndarray) -> np.ndarray:
        k = np.exp(self._log_kernel(points, points))
        return np.linalg.inv(k + len(points) * self._lam * np.eye(len(points)))

    def _log_kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return -0.5 * _squared_distances(a, b) / self._width**2  # (len(a), len(b))

    def _novelty(self, queries: np.ndarray, points: np.ndarray, inverse: np.ndarray) -> np.ndarray:
        log_k = self._log_kernel(queries, points)  # (Q, m)
        nearest = log_k.max(axis=1, keepdims=True)  # taken out of k_x, so that nothing underflows
        k = np.exp(log_k - nearest)
        explained = np.einsum("qm,qm->q", k @ inverse, k)  # 1 - s, but for exp(2 * nearest)
        novelty: np.ndarray = np.maximum(-2.0 * nearest[:, 0] - np.log(explained), 0.0)
        return novelty


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squares: np.ndarray = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * a @ b.T
    squares[squares < 0] = 0.0  # rounding
    return squares


def _median_distance(points: np.ndarray) -> float:
    distances = np.sqrt(_squared_distances(points, points)[np.triu_indices(len(points), k=1)])
    median = float(np.median(distances)) if len(distances) else 0.0
    return median if median > 0 else 1.0
