"""What calibration found: thresholds of the scores and of time, and what they promise."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.monitor.conformal import (
    GUARANTEE,
    conformal_rank,
    conformal_threshold,
    false_alarm_interval,
    min_calibration,
    p_value,
)


@dataclass(frozen=True)
class Calibration:
    """The statistic over each of n successful episodes, and the false-alarm rates that were asked for.

    Raises:
        NotEnoughCalibration: if n is too small for ``alpha`` or ``alpha_time``.
        ContractError: if a statistic is not finite, an episode is empty, or a rate is not between 0 and 1.
    """

    traces: tuple[np.ndarray, ...]  # (T_j,) the statistic at each decision of calibration episode j
    alpha: float = 0.05  # of successful episodes that the scores may alarm at
    alpha_time: float | None = None  # the same of the time overrun; None: the longest calibrated success, 1 / (n + 1)
    alpha_warn: float | None = None  # warn from this p-value on; None: twice alpha

    # What follows of them, computed once.
    z: np.ndarray = field(init=False)  # (n,) largest statistic of each episode, sorted
    lengths: np.ndarray = field(init=False)  # (n,) decisions of each episode, sorted
    threshold: float = field(init=False)  # alarm above it
    longest: int = field(init=False)  # overrun after so many decisions

    def __post_init__(self) -> None:
        if any(len(trace) == 0 or not np.all(np.isfinite(trace)) for trace in self.traces):
            raise ContractError("a calibration episode has no decisions, or a statistic that is not finite")
        if self.alpha_warn is not None and not self.alpha <= self.alpha_warn < 1:
            raise ContractError(f"alpha_warn is {self.alpha_warn:g}; want it from alpha, {self.alpha:g}, to below 1")
        z = np.sort(np.array([trace.max() for trace in self.traces], dtype=np.float64))
        threshold = conformal_threshold(z, self.alpha)
        lengths = np.sort(np.array([len(trace) for trace in self.traces], dtype=np.int64))
        over = lengths[-1] if self.alpha_time is None else conformal_threshold(lengths, self.alpha_time)
        for name, value in {"z": z, "lengths": lengths, "threshold": threshold, "longest": int(over)}.items():
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Number of calibration episodes."""
        return len(self.traces)

    @property
    def calibrated(self) -> int:
        """Decisions of the longest calibration episode: beyond it the scores are not calibrated."""
        return int(self.lengths[-1])

    @property
    def overrun_rate(self) -> float:
        """False overruns allowed, a fraction of successful episodes."""
        return 1 / (self.n + 1) if self.alpha_time is None else self.alpha_time

    @property
    def warn_rate(self) -> float:
        """The p-value from which on there is a warning."""
        return min(2 * self.alpha, 0.5) if self.alpha_warn is None else self.alpha_warn

    def p(self, statistic: float) -> float:
        """Return the conformal p-value of an episode's largest statistic so far."""
        return p_value(self.z, statistic)

    def guarantee(self) -> str:
        """Return what the thresholds promise, and what they do not, in words."""
        low, high = false_alarm_interval(self.n, self.alpha)
        n, k = self.n, conformal_rank(self.n, self.alpha)
        return (
            f"{GUARANTEE.format(n=n, alpha=self.alpha)} It takes {min_calibration(self.alpha)} episodes or more. "
            f"Given these {n}, the rate itself follows Beta({n + 1 - k}, {k}): with probability 95 % it lies between "
            f"{low:.1%} and {high:.1%}. An overrun, told from decision {self.longest + 1} on, is an alarm of its own, "
            f"at most {self.overrun_rate:.2g} of successful episodes; beyond decision {self.calibrated} no other fires."
        )

    def describe(self) -> dict[str, Any]:
        """Return it in words and numbers, JSON-able."""
        return {
            "alpha": self.alpha,
            "alpha_time": self.alpha_time,
            "alpha_warn": self.alpha_warn,
            "n_calibration": self.n,
            "k": conformal_rank(self.n, self.alpha),
            "threshold": self.threshold,
            "longest_decisions": self.longest,
            "calibrated_decisions": self.calibrated,
            "false_alarm_rate_95": false_alarm_interval(self.n, self.alpha),
            "guarantee": self.guarantee(),
        }
