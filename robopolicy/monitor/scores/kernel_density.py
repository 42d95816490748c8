"""Kernel density: how unlike the successful episodes what the policy sees is."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from robopolicy.monitor.episodes import Episodes, embeddings, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import require_fitted
from robopolicy.monitor.scores.standard import Standard, squared_distances, thinned
from robopolicy.types import Decision


class KernelDensity:
    """How far the policy's embedding lies from those of successful episodes.

    The posterior variance of a Gaussian process, s(x) = k(x,x) - k_x^T (K + m lam I)^-1 k_x, with an RBF kernel
    as wide as the median distance (Rasmussen and Williams 2006, eq. 2.26), given as -log(1 - s): the same order,
    but it keeps growing far from all data, where s itself rounds to 1 and a threshold of 1 could never be exceeded.

    An embedding element that never moved in the fit is dropped (it has no scale to be judged by), and no scale is
    smaller than 5 % of the median one. More than ``max_points`` embeddings are thinned evenly in time, so every
    episode keeps its share: 768 keep ``update`` below 2 ms on one core.
    """

    name = "kernel_density"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(
        self, *, layout: ActionLayout | None = None, seed: int = 0, lam: float = 1e-5, max_points: int = 768
    ) -> None:
        self._lam = lam
        self._max_points = max_points

    def fit(self, episodes: Episodes) -> None:
        """Learn from the embeddings (E,) of successful episodes.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x, owner = embeddings(episodes), owners(episodes)
        rows = thinned(len(x), self._max_points)
        standard = Standard.of(x, rows)
        points = standard(x[rows])
        self._set(points, owner[rows], standard, _median_distance(points))

    def update(self, decision: Decision) -> float:
        """Return the score of this decision, 0 or more."""
        log_k = self._log_kernel(self._standard(decision.embedding[None]), self._points, self._squares)
        return float(_novelty(log_k, lambda k: k @ self._inverse)[0])

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,), its own points left out of K (scale and width are kept).

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, int(self._owner.max()) + 1)
        kernel = np.exp(self._log_kernel(self._points, self._points))
        scores = []
        for i, episode in enumerate(episodes):
            other = self._owner != i
            points = self._points[other]  # (m_i, D)
            factor = cho_factor(self._regular(kernel[np.ix_(other, other)]))
            log_k = self._log_kernel(self._standard(np.stack([d.embedding for d in episode])), points)
            scores.append(_novelty(log_k, lambda k, factor=factor: cho_solve(factor, k.T).T))
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the points, their scaling and the kernel width; the inverse is cheap to make again."""
        return {
            "points": self._points,  # (m, D) float64, standardised
            "owner": self._owner,  # (m,) int64, episode of each point
            **self._standard.arrays(),
            "settings": np.array([self._width, self._lam]),
            "max_points": np.array(self._max_points),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "KernelDensity":
        """Rebuild what ``arrays`` gave."""
        width, lam = arrays["settings"]
        score = cls(lam=float(lam), max_points=int(arrays.get("max_points", np.array(768))))
        score._set(arrays["points"], arrays["owner"], Standard.from_arrays(arrays), float(width))
        return score

    def _set(self, points: np.ndarray, owner: np.ndarray, standard: Standard, width: float) -> None:
        self._points, self._owner, self._standard, self._width = points, owner, standard, width
        self._squares = (points**2).sum(axis=1)
        self._inverse = np.linalg.inv(self._regular(np.exp(self._log_kernel(points, points))))

    def _regular(self, kernel: np.ndarray) -> np.ndarray:
        return kernel + len(kernel) * self._lam * np.eye(len(kernel))

    def _log_kernel(self, a: np.ndarray, b: np.ndarray, squares_of_b: np.ndarray | None = None) -> np.ndarray:
        return -0.5 * squared_distances(a, b, squares_of_b) / self._width**2  # (len(a), len(b))


def _novelty(log_k: np.ndarray, solve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return -log(1 - s) (Q,) of log kernels (Q, m); ``solve`` multiplies rows by (K + m lam I)^-1."""
    nearest = log_k.max(axis=1, keepdims=True)  # taken out of k_x, so that nothing underflows
    k = np.exp(log_k - nearest)
    explained = np.einsum("qm,qm->q", solve(k), k)  # 1 - s, but for exp(2 * nearest)
    novelty: np.ndarray = np.maximum(-2.0 * nearest[:, 0] - np.log(explained), 0.0)
    return novelty


def _median_distance(points: np.ndarray) -> float:
    distances = np.sqrt(squared_distances(points, points)[np.triu_indices(len(points), k=1)])
    median = float(np.median(distances)) if len(distances) else 0.0
    return median if median > 0 else 1.0
