"""Mahalanobis: how many standard deviations what the policy sees lies from the mean of successful episodes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robopolicy.monitor.episodes import Episodes, embeddings, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import require_fitted
from robopolicy.monitor.scores.standard import Standard
from robopolicy.types import Decision


class Mahalanobis:
    """Distance s(o) = sqrt((o - m)^T C^-1 (o - m)) from the mean m of successful embeddings, standardised.

    C is their covariance, shrunk towards a multiple of the identity by the share that Ledoit and Wolf (2004, "A
    well-conditioned estimator for large-dimensional covariance matrices", lemma 3.2 ff.) derive from the data, so it
    can be inverted where there are more elements than decisions. Elements that never moved are dropped.
    """

    name = "mahalanobis"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0) -> None:
        """Nothing to set."""

    def fit(self, episodes: Episodes) -> None:
        """Learn mean and covariance of the embeddings (E,) of successful episodes.

        Raises:
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        x = embeddings(episodes)
        self._standard = Standard.of(x)
        self._shrunk = Shrunk.of(self._standard(x))
        self._n = len(episodes)

    def update(self, decision: Decision) -> float:
        """Return the distance of this decision's embedding, in standard deviations."""
        return float(self._shrunk.distance(self._standard(decision.embedding[None]))[0])

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,), by mean and covariance of the others.

        Scales, and the two numbers of the shrinkage, are kept.

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)
        x, owner = self._standard(embeddings(episodes)), owners(episodes)
        return [self._shrunk.distance_without(x[owner == i], len(x)) for i in range(self._n)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scaling, axes and variances of the covariance, and its shrinkage."""
        shrunk = self._shrunk
        return {
            **self._standard.arrays(),
            "axes": shrunk.axes,  # (D, R) float64
            "variances": shrunk.variances,  # (R,) before shrinking
            "shrinkage": np.array([shrunk.share, shrunk.floor]),
            "episodes": np.array(self._n),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Mahalanobis":
        """Rebuild what ``arrays`` gave."""
        score = cls()
        score._standard = Standard.from_arrays(arrays)
        share, floor = (float(number) for number in arrays["shrinkage"])
        score._shrunk = Shrunk(arrays["axes"], arrays["variances"], share, floor)
        score._n = int(arrays["episodes"])
        return score


@dataclass(frozen=True)
class Shrunk:
    """A covariance (D, D) of rows whose mean is 0: (1 - share) axes diag(variances) axes^T + floor I."""

    axes: np.ndarray  # (D, R), orthonormal; R is D, or the rank where there are fewer rows
    variances: np.ndarray  # (R,)
    share: float  # of the identity, 0 to 1
    floor: float  # share * the mean variance

    @classmethod
    def of(cls, x: np.ndarray) -> "Shrunk":
        """Learn from rows x (M, D) whose mean is 0."""
        n, dim = x.shape
        small = x @ x.T if n < dim else x.T @ x  # the smaller of the two has the same eigenvalues
        values, vectors = np.linalg.eigh(small)
        kept = values > 1e-10 * values[-1]
        values, vectors = values[kept], vectors[:, kept]
        axes = x.T @ vectors / np.sqrt(values) if n < dim else vectors
        variances = values / n
        mean, squares = variances.sum() / dim, float((variances**2).sum())
        spread = squares / dim - mean**2  # |S - mean I|^2 / D
        noise = (float(((x**2).sum(axis=1) ** 2).sum()) / n - squares) / (n * dim)  # of S about the true covariance
        share = 1.0 if spread <= 0 else float(min(max(noise, 0.0) / spread, 1.0))
        share = max(share, 1e-6)  # what has no variance at all keeps a scale
        return cls(np.ascontiguousarray(axes), variances, share, float(share * mean))

    def distance(self, x: np.ndarray) -> np.ndarray:
        """Return sqrt(x^T C^-1 x) (Q,) of rows x (Q, D)."""
        along = x @ self.axes  # (Q, R)
        weights = 1.0 / ((1.0 - self.share) * self.variances + self.floor)
        squares = (along**2) @ weights + self._beside(x, along) / self.floor
        distance: np.ndarray = np.sqrt(squares)
        return distance

    def distance_without(self, x: np.ndarray, n: int) -> np.ndarray:
        """Return the distances (T,) of rows x (T, D) from the mean and covariance of the n - T others.

        With U U^T = x^T x + (n - T) m m^T, where m is the mean of the others, their scatter is n S - U U^T; the
        inverse is that of n S updated by U (Woodbury).
        """
        others = n - len(x)
        mean = -x.sum(axis=0) / others  # all of them together have mean 0
        u = np.concatenate([x, np.sqrt(others) * mean[None]])  # (T + 1, D)
        scale = (1.0 - self.share) / others
        centred = x - mean
        weights = 1.0 / (scale * n * self.variances + self.floor)

        def inverse_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # a (scale n S + floor I)^-1 b^T
            a_along, b_along = a @ self.axes, b @ self.axes
            beside = a @ b.T - a_along @ b_along.T if len(self.variances) < len(self.axes) else 0.0
            product: np.ndarray = (a_along * weights) @ b_along.T + beside / self.floor
            return product

        cross = inverse_between(u, centred)  # (T + 1, T)
        small = np.eye(len(u)) - scale * inverse_between(u, u)
        along = centred @ self.axes
        base = (along**2) @ weights + self._beside(centred, along) / self.floor
        squares = base + scale * np.einsum("ut,ut->t", cross, np.linalg.solve(small, cross))
        distance: np.ndarray = np.sqrt(squares)
        return distance

    def _beside(self, x: np.ndarray, along: np.ndarray) -> np.ndarray | float:
        """Return the squared length (Q,) of what the axes do not span."""
        if len(self.variances) == len(self.axes):
            return 0.0
        rest: np.ndarray = np.maximum((x**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return rest
