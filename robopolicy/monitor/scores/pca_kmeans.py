"""PCA and k-means: how far what the policy sees is from the nearest of a few typical sights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from robopolicy.errors import MonitorError
from robopolicy.monitor.episodes import Episodes, embeddings
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import folds, require_fitted, require_folds, scored_by_folds
from robopolicy.monitor.scores.standard import Standard, squared_distances
from robopolicy.types import Decision

MAX_ROUNDS = 100  # of k-means; it ends when no point changes its cluster


class PcaKmeans:
    """Distance to the nearest of k cluster centres in the space of the first principal components.

    The similarity baseline of FIPER (2025) and FAIL-Detect (2025): 10 components, 64 clusters, fewer where there are
    fewer decisions. What lies beside the components is not seen. Elements that never moved are dropped.

    Args:
        layout: not looked at.
        seed: of the first centres (k-means++, Arthur and Vassilvitskii 2007) and of the folds.
        components: principal components kept.
        clusters: centres.
        folds: parts that ``held_out`` leaves out in turn.

    Raises:
        MonitorError: if a setting is too small.
    """

    name = "pca_kmeans"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(
        self,
        *,
        layout: ActionLayout | None = None,
        seed: int = 0,
        components: int = 10,
        clusters: int = 64,
        folds: int = 5,
    ) -> None:
        if min(components, clusters) < 1:
            raise MonitorError(f"score pca_kmeans: {components} components and {clusters} clusters; want 1 or more")
        self._seed, self._components, self._clusters = seed, components, clusters
        self._folds = require_folds(self.name, folds)

    def fit(self, episodes: Episodes) -> None:
        """Find components and centres of the embeddings (E,) of successful episodes.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x = embeddings(episodes)
        self._standard = Standard.of(x)
        self._centres = self._learnt(self._standard(x))
        self._n = len(episodes)

    def update(self, decision: Decision) -> float:
        """Return the distance of this decision's embedding, in spreads."""
        return float(self._centres.distance(self._standard(decision.embedding[None]))[0])

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,) by components and centres that were found without it.

        The episodes are left out in ``folds`` parts, one by one where there are no more; the scaling is kept.

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)
        parts = folds(self._n, self._folds, self._seed)

        def refit(x: np.ndarray, owner: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            centres = self._learnt(self._standard(x))
            return lambda left_out: centres.distance(self._standard(left_out))

        return scored_by_folds(episodes, parts, refit)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scaling, components and centres."""
        return {
            **self._standard.arrays(),
            "middle": self._centres.middle,  # (D,)
            "components": self._centres.components,  # (D, P) float64
            "centres": self._centres.centres,  # (K, P)
            "settings": np.array([self._seed, self._components, self._clusters, self._folds, self._n]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "PcaKmeans":
        """Rebuild what ``arrays`` gave."""
        seed, components, clusters, parts, n = (int(number) for number in arrays["settings"])
        score = cls(seed=seed, components=components, clusters=clusters, folds=parts)
        score._standard, score._n = Standard.from_arrays(arrays), n
        score._centres = Centres(arrays["middle"], arrays["components"], arrays["centres"])
        return score

    def _learnt(self, x: np.ndarray) -> "Centres":
        middle = x.mean(axis=0)
        components = principal(x - middle, self._components)
        projected = (x - middle) @ components
        return Centres(middle, components, kmeans(projected, self._clusters, np.random.default_rng(self._seed)))


@dataclass(frozen=True)
class Centres:
    """Cluster centres in a linear subspace."""

    middle: np.ndarray  # (D,)
    components: np.ndarray  # (D, P), orthonormal
    centres: np.ndarray  # (K, P)

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Return the distance (Q,) of rows x (Q, D) from the nearest centre."""
        at = (x - self.middle) @ self.components  # (Q, P)
        distance: np.ndarray = np.sqrt(squared_distances(at, self.centres).min(axis=1))
        return distance


def principal(x: np.ndarray, p: int) -> np.ndarray:
    """Return the min(p, M - 1, D), at least one, principal axes (D, P) of centred rows x (M, D), largest first."""
    n, dim = x.shape
    p = max(min(p, n - 1, dim), 1)
    small = x @ x.T if n < dim else x.T @ x
    last = len(small) - 1
    values, vectors = eigh(small, subset_by_index=[last - p + 1, last])
    kept = values > 1e-12 * max(values[-1], 1e-300)
    kept[-1] = True
    axes = x.T @ vectors[:, kept] if n < dim else vectors[:, kept]
    lengths = np.linalg.norm(axes, axis=0)
    return np.ascontiguousarray((axes / np.where(lengths > 0, lengths, 1.0))[:, ::-1])


def kmeans(x: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return centres (min(k, M), P) of rows x (M, P): k-means++, then Lloyd's rounds.

    A centre that loses all its points stays where it is.
    """
    centres = [x[rng.integers(len(x))]]
    nearest = squared_distances(x, centres[0][None])[:, 0]
    while len(centres) < min(k, len(x)):
        total = nearest.sum()
        if total <= 0:
            break  # fewer different points than clusters
        centres.append(x[rng.choice(len(x), p=nearest / total)])
        nearest = np.minimum(nearest, squared_distances(x, centres[-1][None])[:, 0])
    at, mine = np.stack(centres), np.full(len(x), -1)
    for _ in range(MAX_ROUNDS):
        closest = squared_distances(x, at).argmin(axis=1)
        if np.array_equal(closest, mine):
            break
        mine = closest
        counts = np.bincount(mine, minlength=len(at))
        sums = np.zeros_like(at)
        np.add.at(sums, mine, x)
        at = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], at)
    return at
