"""Does one world predict another? Correlation, rank violation and their intervals over policies tried in both."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError

Statistic = Callable[..., float]


@dataclass(frozen=True)
class Interval:
    """A number with its bootstrap interval; ``low`` and ``high`` are NaN where resampling could not tell."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Agreement:
    """How well ``sim`` predicts ``real`` over the same policies and the same seeds."""

    policies: int
    seeds: int
    pearson: Interval
    mmrv: Interval
    gap: Interval  # mean over policies of |mean sim - mean real|
    episodes: Interval | None  # part of the episodes with the same outcome; None where outcomes are not yes or no

    def headline(self) -> str:
        """Return one line for people."""
        told = f"Pearson r {self.pearson}; MMRV {self.mmrv}; mean gap {self.gap}"
        same = "" if self.episodes is None else f"; the same outcome in {self.episodes} of the episodes"
        return f"{told}{same}; {self.policies} policies, {self.seeds} paired seeds each"


def pearson(*, sim: Sequence[float] | np.ndarray, real: Sequence[float] | np.ndarray) -> float:
    """Return the correlation of two worlds' results, each (P,), one a policy.

    Raises:
        ContractError: on fewer than two policies, or if all of one world's results are the same.
    """
    s, r = _checked(sim, real)
    s, r = s - s.mean(), r - r.mean()
    norm = np.sqrt((s @ s) * (r @ r))
    if norm < 1e-12 * len(s):
        raise ContractError("all results of one world are the same: there is no correlation to speak of")
    return float(np.clip(s @ r / norm, -1.0, 1.0))


def mean_max_rank_violation(*, sim: Sequence[float] | np.ndarray, real: Sequence[float] | np.ndarray) -> float:
    """Return MMRV of results (P,), one a policy: how much of ``real`` a wrong order in ``sim`` costs, 0 is best.

    For each policy the largest |real_i - real_j| among those j that ``sim`` ranks otherwise, averaged over policies.
    Li et al., Evaluating Real-World Robot Manipulation Policies in Simulation (SIMPLER), 2024, eq. 1. It is not
    symmetric, so both are keywords. A tie in one world only counts as a violation for both policies.

    Raises:
        ContractError: on fewer than two policies, different lengths, or numbers that are not finite.
    """
    s, r = _checked(sim, real)
    wrong = np.sign(s[:, None] - s) != np.sign(r[:, None] - r)  # (P, P)
    return float((wrong * np.abs(r[:, None] - r)).max(axis=1).mean())


def mean_gap(*, sim: Sequence[float] | np.ndarray, real: Sequence[float] | np.ndarray) -> float:
    """Return the mean |sim - real| over policies, of results (P,)."""
    s, r = _checked(sim, real)
    return float(np.abs(s - r).mean())


def agreement(
    *,
    sim: np.ndarray,
    real: np.ndarray,
    rng: np.random.Generator,
    paired: bool = True,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Agreement:
    """Compare two worlds over policies and seeds, with percentile bootstrap intervals over the seeds.

    Policies are what was chosen, seeds are what was drawn: so seeds are resampled, the same ones for every policy
    (their outcomes correlate) and, if ``paired``, for both worlds. The intervals hold for these policies. Resampling
    adds disorder: where two worlds agree all but perfectly, the interval of r lies low, and those of MMRV and the gap
    lie high. A resample in which a world tells no two policies apart is left out.

    Args:
        sim: (P, N) outcomes in the twin, success 0 or 1 or a score, policies by seeds.
        real: (P, N) in the world, of the same policies in the same order.
        rng: for the bootstrap.
        paired: column n is the same start in both worlds.
        resamples: of the bootstrap.
        confidence: of the intervals.

    Raises:
        ContractError: on other shapes, or numbers that are not finite.
    """
    sim, real = np.asarray(sim, np.float64), np.asarray(real, np.float64)
    if sim.ndim != 2 or real.ndim != 2 or len(sim) != len(real) or (paired and sim.shape != real.shape):
        raise ContractError(f"outcomes of shape {sim.shape} and {real.shape}; want (policies, seeds), the same twice")
    if 0 in (sim.shape[1], real.shape[1]):
        raise ContractError("no seeds; want at least one outcome for each policy")
    draws = [_draw(sim.shape[1], real.shape[1], paired, rng) for _ in range(resamples)]

    def interval(statistic: Statistic) -> Interval:
        value = statistic(sim=sim.mean(axis=1), real=real.mean(axis=1))
        drawn = [_try(statistic, sim[:, a].mean(axis=1), real[:, b].mean(axis=1)) for a, b in draws]
        return Interval(value, *_percentiles(drawn, confidence), confidence)

    same = None
    if paired and np.isin(sim, (0, 1)).all() and np.isin(real, (0, 1)).all():
        by_seed = (sim == real).mean(axis=0)
        drawn = [float(by_seed[a].mean()) for a, _ in draws]
        same = Interval(float(by_seed.mean()), *_percentiles(drawn, confidence), confidence)
    return Agreement(
        len(sim), sim.shape[1], interval(pearson), interval(mean_max_rank_violation), interval(mean_gap), same
    )


def _draw(n: int, m: int, paired: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = rng.integers(n, size=n)
    return first, first if paired else rng.integers(m, size=m)


def _try(statistic: Statistic, sim: np.ndarray, real: np.ndarray) -> float:
    try:
        return statistic(sim=sim, real=real)
    except ContractError:
        return float("nan")


def _percentiles(drawn: Sequence[float], confidence: float) -> tuple[float, float]:
    finite = np.asarray(drawn)[np.isfinite(drawn)]
    if finite.size < 0.5 * len(drawn) or finite.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _checked(sim: Sequence[float] | np.ndarray, real: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s, r = np.asarray(sim, np.float64), np.asarray(real, np.float64)
    if s.ndim != 1 or s.shape != r.shape or len(s) < 2:
        raise ContractError(f"results of shape {s.shape} and {r.shape}; want (policies,) twice, at least two policies")
    if not (np.isfinite(s).all() and np.isfinite(r).all()):
        raise ContractError("a result is not finite; leave out policies that have none")
    return s, r
