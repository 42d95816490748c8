"""A supervised head: where failures are labelled, what they look like is learnt from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from robopolicy.errors import MonitorError
from robopolicy.monitor.episodes import Episodes, embeddings, owners
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.scores.folds import folds, packed, require_fitted, require_folds, unpacked
from robopolicy.monitor.scores.pca_kmeans import principal
from robopolicy.monitor.scores.standard import Standard
from robopolicy.types import Decision

MIN_FAILURES = 30  # failed episodes; of fewer a direction in the embedding is not learnt but guessed


class Supervised:
    """Log odds that an episode fails, by logistic regression on the embedding and its running mean.

    The regression sees the first principal components of the standardised embedding, each with unit variance, and
    beside each its exponential mean over the episode so far: no later decision, and no clock. Decisions of successful
    episodes are labelled 0; those of failed ones 1, with a weight that rises linearly from 1 / T to 1: the end of a
    failed episode is where it has failed. Both classes weigh the same in total.

    Args:
        layout: not looked at.
        seed: of the folds.
        components: principal components; 0 takes all there are.
        memory: decisions that the running mean looks back over; 0 leaves it out.
        ridge: weight of the squared coefficients, a decision's loss being 1.
        folds: parts that ``held_out`` leaves out in turn.

    Raises:
        MonitorError: if a setting makes no sense.
    """

    name = "supervised"
    requires: frozenset[str] = frozenset()
    min_candidates = 1
    learns_failures = True  # ``fit`` takes them beside the successful episodes

    def __init__(
        self,
        *,
        layout: ActionLayout | None = None,
        seed: int = 0,
        components: int = 32,
        memory: int = 5,
        ridge: float = 1e-2,
        folds: int = 5,
    ) -> None:
        if min(components, memory) < 0 or not ridge > 0:
            raise MonitorError(
                f"score supervised: components {components}, memory {memory}, ridge {ridge}; "
                "want 0 or more of the first two, and a ridge above 0"
            )
        self._seed, self._components, self._memory, self._ridge = seed, components, memory, ridge
        self._folds = require_folds(self.name, folds)
        self.reset()

    def fit(self, episodes: Episodes, failures: Episodes = ()) -> None:
        """Learn to tell ``failures`` from successful ``episodes``.

        Raises:
            MonitorError: if fewer than 30 failed episodes are given.
            ContractError: if there is nothing to learn from, or an embedding is not finite.
        """
        if len(failures) < MIN_FAILURES:
            raise MonitorError(
                f"score supervised learns from labelled failures: got {len(failures)} failed episodes, "
                f"needs {MIN_FAILURES}"
            )
        x = embeddings([*episodes, *failures])
        self._standard = Standard.of(x)
        standard = self._standard(x)
        axes = principal(standard, self._components or standard.shape[1])
        self._axes = axes / np.maximum((standard @ axes).std(axis=0), 1e-12)
        self._n = len(episodes)
        self._failures = np.concatenate([self._features(episode) for episode in failures])
        self._lateness = np.concatenate([np.arange(1, len(f) + 1) / len(f) for f in failures])
        self._weights = self._learnt(np.concatenate([self._features(episode) for episode in episodes]))

    def update(self, decision: Decision) -> float:
        """Return the log odds of failure as of this decision."""
        return float(self._feature(decision) @ self._weights[1:] + self._weights[0])

    def reset(self) -> None:
        """Forget the running mean."""
        self._running: np.ndarray | None = None

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each fitted episode's scores (T_i,) by coefficients that were learnt without it.

        The successful episodes are left out in ``folds`` parts (one by one where there are no more); the failed ones
        stay. Scaling and components, which know no labels, are kept.

        Raises:
            ContractError: if these are not as many episodes as were fitted.
            MonitorError: if there is only one.
        """
        require_fitted(episodes, self._n)
        features, owner = np.concatenate([self._features(episode) for episode in episodes]), owners(episodes)
        scores = np.empty(len(owner))
        for part in folds(self._n, self._folds, self._seed):
            out = np.isin(owner, part)
            weights = self._learnt(features[~out])
            scores[out] = features[out] @ weights[1:] + weights[0]
        return [scores[owner == i] for i in range(self._n)]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return scaling, components, coefficients, and the failures as the regression sees them."""
        settings = {
            "seed": self._seed, "components": self._components, "memory": self._memory, "ridge": self._ridge,
            "folds": self._folds,
        }  # fmt: skip
        return {
            **self._standard.arrays(),
            "axes": self._axes,  # (D, P)
            "weights": self._weights,  # (1 + F,) intercept first; F is P, or 2 P with a memory
            "failures": self._failures,  # (M_f, F)
            "lateness": self._lateness,  # (M_f,) weight of each
            "episodes": np.array(self._n),
            "settings": packed(settings),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Supervised":
        """Rebuild what ``arrays`` gave."""
        settings: dict[str, Any] = unpacked(arrays["settings"])
        score = cls(**settings)
        score._standard, score._n = Standard.from_arrays(arrays), int(arrays["episodes"])
        score._axes, score._weights = arrays["axes"], arrays["weights"]
        score._failures, score._lateness = arrays["failures"], arrays["lateness"]
        return score

    def _feature(self, decision: Decision) -> np.ndarray:
        now = (self._standard(decision.embedding[None]) @ self._axes)[0]  # (P,)
        if not self._memory:
            return now
        last = now if self._running is None else self._running
        self._running = last + (now - last) / self._memory
        return np.concatenate([now, self._running])

    def _features(self, episode: Sequence[Decision]) -> np.ndarray:
        self.reset()
        features = np.stack([self._feature(decision) for decision in episode])  # (T, F), as they come at run time
        self.reset()
        return features

    def _learnt(self, successes: np.ndarray) -> np.ndarray:
        """Return intercept and coefficients (1 + F,) that tell the failures from features (M, F) of successes."""
        x = np.concatenate([successes, self._failures])
        sign = np.repeat([-1.0, 1.0], [len(successes), len(self._failures)])
        even, late = np.full(len(successes), 1.0 / len(successes)), self._lateness / self._lateness.sum()
        share = 0.5 * np.concatenate([even, late])
        return logistic(x, sign, share, self._ridge)


def logistic(x: np.ndarray, sign: np.ndarray, share: np.ndarray, ridge: float) -> np.ndarray:
    """Return the minimiser (1 + F,) of sum share log(1 + exp(-sign (b + x w))) + ridge |w|^2 / 2, b first.

    Args:
        x: (M, F).
        sign: (M,) 1 for the class whose log odds are returned, -1 for the other.
        share: (M,) weights that sum to 1.
        ridge: of the coefficients; the intercept b is free.

    Raises:
        MonitorError: if the search for it does not converge.
    """

    def cost(weights: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ weights[1:] + weights[0])
        slope = -share * sign * expit(-margin)
        value = float(share @ np.logaddexp(0.0, -margin)) + 0.5 * ridge * float(weights[1:] @ weights[1:])
        return value, np.concatenate([[slope.sum()], x.T @ slope + ridge * weights[1:]])

    found = minimize(cost, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 1000})
    if not found.success:
        raise MonitorError(f"score supervised: the regression does not converge: {found.message}")
    weights: np.ndarray = found.x
    return weights
