"""Policies of known success, as pairs of outcomes on the same starts; many evaluations at once, in numpy."""

import numpy as np
from scipy.special import betaln, xlogy


def pairs(a: float, b: float, discordant: float, size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A's success minus B's on the same starts, int8 of -1, 0, 1; ``discordant`` is the part that is not 0."""
    only_a = (discordant + a - b) / 2
    assert 0 <= only_a <= discordant <= 1
    drawn = rng.random(size)
    return (drawn < only_a).astype(np.int8) - (drawn > 1 - (discordant - only_a)).astype(np.int8)


def discordance(a: float, b: float, phi: float) -> float:
    """The part of the pairs in which one of the two succeeds, for outcomes that correlate by ``phi``."""
    both = a * b + phi * np.sqrt(a * (1 - a) * b * (1 - b))
    return float(a + b - 2 * both)


def log_e(differences: np.ndarray) -> np.ndarray:
    """The logarithm of the mixture e-process after each pair, of many evaluations (R, N) at once."""
    a_only, b_only = (differences > 0).cumsum(axis=-1), (differences < 0).cumsum(axis=-1)
    return betaln(a_only + 1, b_only + 1) + (a_only + b_only) * np.log(2)


def tables(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All counts (a_only, b_only) of n pairs, (T,) each."""
    a_only, b_only = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    real = a_only + b_only <= n
    return a_only[real], b_only[real]


def chances(a_only: np.ndarray, b_only: np.ndarray, n: int, p: float, q: float) -> np.ndarray:
    """The chance of each table where A alone succeeds with chance p and B alone with chance q."""
    from scipy.special import gammaln

    rest = n - a_only - b_only
    ways = gammaln(n + 1) - gammaln(a_only + 1) - gammaln(b_only + 1) - gammaln(rest + 1)
    return np.exp(ways + xlogy(a_only, p) + xlogy(b_only, q) + xlogy(rest, 1 - p - q))
