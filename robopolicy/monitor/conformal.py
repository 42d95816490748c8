"""Split-conformal calibration: a threshold by rank, with a promise that holds for any score."""

from fractions import Fraction
from math import ceil

import numpy as np

from robopolicy.errors import ContractError, NotEnoughCalibration

GUARANTEE = (
    "If an episode is exchangeable with the {n} successful calibration episodes (same task, policy, robot, "
    "cameras, start distribution and code) and the monitor was fixed before looking at them, then the probability "
    "that its scores alarm at all during that episode, given that it succeeds, is at most {alpha:g}. This holds "
    "per episode, averaged over calibration sets; it says nothing of how many failures are caught, and nothing "
    "once the distribution has shifted."
)


def min_calibration(alpha: float) -> int:
    """Return the fewest calibration episodes for which a finite threshold at ``alpha`` exists: 9 for .1, 19 for .05."""
    return ceil(1 / _exact(alpha)) - 1


def conformal_rank(n: int, alpha: float) -> int:
    """Return k = ceil((n + 1)(1 - alpha)): the threshold is the k-th smallest of n calibration scores.

    ``alpha`` is taken as the decimal it was written as, so that .1 of 10 is 1 and not .9999.

    Raises:
        NotEnoughCalibration: if k > n, where the only valid threshold is infinite and the monitor could never alarm.
    """
    k = ceil((n + 1) * (1 - _exact(alpha)))
    if k > n:
        raise NotEnoughCalibration(
            f"{n} successful calibration episodes; a false-alarm rate of {alpha:g} needs at least "
            f"{min_calibration(alpha)}: record more, or allow a larger rate"
        )
    return k


def conformal_threshold(z: np.ndarray, alpha: float) -> float:
    """Return the threshold that a fresh exchangeable score exceeds with probability at most ``alpha``.

    Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005; ``np.quantile`` is *not* this.
    With ties the strict ``score > threshold`` keeps the promise.

    Args:
        z: (n,) one number a calibration episode: its largest score.
        alpha: false-alarm rate per successful episode, between 0 and 1.

    Raises:
        NotEnoughCalibration: if n < ``min_calibration(alpha)``.
        ContractError: if a score is not finite.
    """
    z = _checked(z)
    return float(np.sort(z)[conformal_rank(len(z), alpha) - 1])


def p_value(z: np.ndarray, score: float) -> float:
    """Return (1 + #{z_j >= score}) / (n + 1), the conformal p-value of ``score`` among z (n,)."""
    z = _checked(z)
    return (1 + int(np.count_nonzero(z >= score))) / (len(z) + 1)


def false_alarm_interval(n: int, alpha: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the shortest interval that holds the false-alarm rate of *these* n episodes with ``confidence``.

    Given the calibration set, the rate of a continuous score follows Beta(n + 1 - k, k) (Vovk, Conditional validity of
    inductive conformal predictors, 2012): with n = 19 and alpha = .05 the mean is .05, but the upper end 14.6 %.
    """
    from scipy.optimize import minimize_scalar
    from scipy.stats import beta

    k = conformal_rank(n, alpha)
    law = beta(n + 1 - k, k)
    if n + 1 - k == 1:  # its density falls from 0 on
        return 0.0, float(law.ppf(confidence))

    def width(tail: float) -> float:
        return float(law.ppf(tail + confidence) - law.ppf(tail))

    tail = minimize_scalar(width, bounds=(0.0, 1 - confidence), method="bounded").x
    return float(law.ppf(tail)), float(law.ppf(tail + confidence))


def _exact(alpha: float) -> Fraction:
    if not 0 < alpha < 1:
        raise ContractError(f"alpha is {alpha}; it must lie between 0 and 1, such as 0.05")
    return Fraction(repr(float(alpha)))


def _checked(z: np.ndarray) -> np.ndarray:
    z = np.asarray(z, dtype=np.float64)
    if z.ndim != 1 or not np.all(np.isfinite(z)):
        raise ContractError(f"calibration scores of shape {z.shape}; want (n,) finite numbers")
    return z
