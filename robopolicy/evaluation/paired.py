"""The difference of two policies' success over a fixed number of the same starts: exact interval and tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError

EXACT_PAIRS = 1000  # up to so many the interval is exact; beyond, the score interval itself holds well enough
NUISANCE = 121  # points at which the chance that both fail alike is tried
BISECTIONS = 17  # of [-1, 1]: to 2e-5, and on the safe side

Test = Callable[[float], bool]
How = Literal["exact", "score", "anytime", "agresti-caffo"]


@dataclass(frozen=True)
class Difference:
    """Success rate of A minus that of B, over the same starts, with its confidence interval."""

    value: float
    low: float
    high: float
    confidence: float = 0.95
    method: How = "exact"

    def __str__(self) -> str:
        return f"{self.value:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def difference(a_only: int, b_only: int, pairs: int, *, confidence: float = 0.95) -> Difference:
    """Return the difference of two success rates over a number of pairs that was fixed beforehand.

    The limits are those differences that an exact test just does not reject: the score statistic of Tango (1998,
    Statistics in Medicine 17, 891-908, eq. 6-8), its tail summed over all tables and taken where it is largest over
    the unknown rate of discordant pairs (Hsueh, Liu and Chen 2001, Biometrics 57, 478-483), half of ``1 - confidence``
    on each side. So it covers with at least ``confidence`` for every pair of rates; Tango's own approximation, which
    is returned beyond 1000 pairs, falls up to two points below for rare discordant pairs.

    Args:
        a_only: pairs that only A solved.
        b_only: pairs that only B solved.
        pairs: all of them.
        confidence: of the interval.

    Raises:
        ContractError: if there are no pairs, or more discordant ones than pairs.
    """
    _check(a_only, b_only, pairs)
    exact = pairs <= EXACT_PAIRS
    tail = (1 - confidence) / 2
    limit = _exact_limit if exact else _score_limit
    low, high = limit(a_only, b_only, pairs, tail), -limit(b_only, a_only, pairs, tail)
    return Difference((a_only - b_only) / pairs, low, high, confidence, "exact" if exact else "score")


def mcnemar(a_only: int, b_only: int) -> float:
    """Return the exact two-sided p-value of "equally often" from the discordant pairs (McNemar 1947; binomial).

    It holds for a number of pairs that was fixed before anybody looked.
    """
    from scipy.stats import binomtest

    return 1.0 if a_only + b_only == 0 else float(binomtest(a_only, a_only + b_only).pvalue)


def score_statistic(a_only: np.ndarray, b_only: np.ndarray, pairs: int, d: float) -> np.ndarray:
    """Return Tango's score statistic of "the difference is d", of any shape: standard normal where that is so.

    Args:
        a_only: pairs that only A solved.
        b_only: pairs that only B solved, of the same shape.
        pairs: all of them.
        d: the difference, -1 to 1.
    """
    b, c = np.asarray(a_only, np.float64), np.asarray(b_only, np.float64)
    above = b - c - pairs * d
    variance = pairs * (2 * _nuisance(b, c, pairs, d) + d * (1 - d))
    known = variance > 1e-12 * pairs
    with np.errstate(divide="ignore"):
        certain = np.where(np.abs(above) < 1e-9, 0.0, np.copysign(np.inf, above))
    return np.where(known, above / np.sqrt(np.where(known, variance, 1.0)), certain)


def _nuisance(a_only: np.ndarray, b_only: np.ndarray, pairs: int, d: float) -> np.ndarray:
    """The likeliest chance of "only B" where the difference is d: the larger root of Tango's eq. 7."""
    linear = (2 * pairs - a_only + b_only) * d - a_only - b_only
    root = np.sqrt(np.maximum(linear**2 + 8 * pairs * b_only * d * (1 - d), 0.0))
    likeliest: np.ndarray = np.clip((root - linear) / (4 * pairs), max(0.0, -d), (1 - d) / 2)
    return likeliest


def _exact_limit(a_only: int, b_only: int, pairs: int, tail: float) -> float:
    """The smallest difference under which so good a result for A has a chance of more than ``tail``."""
    states = np.arange(pairs + 1)
    a_wins, b_wins = states[:, None], states[None]  # tables: (pairs + 1, pairs + 1)
    real = a_wins + b_wins <= pairs

    def rejected(d: float) -> bool:
        seen = score_statistic(np.array(a_only), np.array(b_only), pairs, d)
        better = real & (score_statistic(a_wins, b_wins, pairs, d) >= seen - 1e-9)
        return _largest_chance(better, pairs, d) <= tail

    if not rejected(-1 + 1e-9):
        return -1.0
    return _bisect(rejected, -1 + 1e-9, (a_only - b_only) / pairs)


def _largest_chance(better: np.ndarray, pairs: int, d: float) -> float:
    """The chance of the tables ``better``, (a_only, b_only) bool, at its largest over the rate of "only B".

    For each number of pairs that only B solved they are those from some number on that only A solved, so their
    chance is a sum over binomial tails.
    """
    from scipy.special import bdtrc, gammaln, xlog1py, xlogy

    first = np.where(better.any(axis=0), better.argmax(axis=0), pairs + 1)  # (pairs + 1,) by b_only
    columns = np.flatnonzero(first <= pairs - np.arange(pairs + 1))
    if columns.size == 0:
        return 0.0
    lowest, highest = max(0.0, -d), (1 - d) / 2
    only_b = lowest + (highest - lowest) * np.linspace(0, 1, NUISANCE)[:, None] ** 2  # finer where they are rare
    only_a = np.clip(only_b + d, 0.0, 1.0)
    share = np.clip(only_a / np.maximum(1 - only_b, 1e-300), 0.0, 1.0)
    least = first[columns]
    tails = np.where(least > 0, bdtrc(np.maximum(least - 1, 0), pairs - columns, share), 1.0)
    ways = gammaln(pairs + 1) - gammaln(columns + 1) - gammaln(pairs - columns + 1)
    chances = np.exp(ways + xlogy(columns, only_b) + xlog1py(pairs - columns, -only_b))  # of so many that only B solved
    return float((chances * tails).sum(axis=1).max())


def _score_limit(a_only: int, b_only: int, pairs: int, tail: float) -> float:
    from scipy.stats import norm

    z = float(norm.isf(tail))

    def rejected(d: float) -> bool:
        return bool(score_statistic(np.array(a_only), np.array(b_only), pairs, d) > z)

    return _bisect(rejected, -1.0, (a_only - b_only) / pairs)


def _bisect(true_below: Test, low: float, high: float) -> float:
    """Where ``true_below``, which holds at ``low``, ceases to hold, from below."""
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if true_below(middle) else (low, middle)
    return low


def _check(a_only: int, b_only: int, pairs: int) -> None:
    if min(a_only, b_only) < 0 or a_only + b_only > pairs or pairs < 1:
        raise ContractError(f"{a_only} and {b_only} discordant of {pairs} pairs; want no more than pairs, at least one")
