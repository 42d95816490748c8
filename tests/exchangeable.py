"""Scores of episodes that are exchangeable, as ragged and as ill-behaved as one likes: what a threshold must stand."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SCORES = 3
LENGTHS = (4, 25)  # decisions of an episode, both ends included


@dataclass(frozen=True)
class Law:
    """How the scores of an episode come about: AR(1) in time, correlated, each episode at a level of its own."""

    name: str
    noise: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    memory: float = 0.8  # of one decision in the next
    failing: float = 6.0  # by how much a failed episode's scores are larger


LAWS = (
    Law("AR(1), normal", lambda rng, shape: rng.normal(size=shape)),
    Law("heavy-tailed, t of 2 degrees", lambda rng, shape: rng.standard_t(2, size=shape), memory=0.5, failing=40.0),
)


def episodes(law: Law, rng: np.random.Generator, n: int, *, failed: bool = False) -> list[np.ndarray]:
    """Return the scores (T_i, SCORES) of ``n`` episodes of one law, all drawn alike."""
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, size=n)
    most = LENGTHS[1]
    noise = law.noise(rng, (most, n, SCORES)) + 0.7 * law.noise(rng, (most, n, 1))  # correlated between scores
    level = 0.5 * rng.normal(size=(n, SCORES)) + 0.05 * lengths[:, None]  # long episodes have larger scores
    x, values = np.zeros((n, SCORES)), np.empty((most, n, SCORES))
    for t in range(most):
        x = law.memory * x + noise[t]
        values[t] = x + level + 0.1 * t + failed * law.failing
    return [values[:length, i] for i, length in enumerate(lengths)]
