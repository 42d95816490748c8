"""How regularly a stream came: the achieved rate and the jitter that an episode's attributes tell."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

KEPT = 4096  # to twice as many periods are kept for the percentile, evenly picked


class Periods:
    """The periods of one stream, told block by block, in memory that does not grow with it."""

    def __init__(self) -> None:
        self._sum_ns, self._count = 0, 0
        self._newest = np.empty(0, np.int64)  # stamp, once there is one
        self._some, self._stride = np.empty(0, np.int64), 1  # every so manieth period

    def add(self, stamps_ns: np.ndarray) -> None:
        """Take the next stamps (N,) int64."""
        stamps = np.concatenate([self._newest, stamps_ns])
        dt = np.diff(stamps)
        self._some = np.concatenate([self._some, dt[-self._count % self._stride :: self._stride]])
        while len(self._some) > 2 * KEPT:
            self._some, self._stride = self._some[::2].copy(), 2 * self._stride
        self._sum_ns, self._count, self._newest = self._sum_ns + int(dt.sum()), self._count + len(dt), stamps[-1:]

    def summary(self) -> dict[str, float] | None:
        """Return the achieved rate and the 99th percentile of how far a period lies off the median."""
        if self._sum_ns <= 0:
            return None
        off = np.abs(self._some - _quantile(self._some, 0.5))
        return {"hz": self._count * 1e9 / self._sum_ns, "jitter_p99_ms": _quantile(off, 0.99) / 1e6}


def timing(periods: Mapping[str, Periods]) -> dict[str, dict[str, float]]:
    """Return the summary of each stream that has one."""
    return {name: summary for name, one in periods.items() if (summary := one.summary()) is not None}


def periods(stamps_ns: Iterable[int] | np.ndarray) -> Periods:
    """Return the periods of a whole stream (N,) int64."""
    made = Periods()
    made.add(np.asarray(stamps_ns, np.int64))
    return made


def _quantile(values: np.ndarray, q: float) -> int:
    """Return the smallest of the integers that so large a share does not exceed, without sorting them all."""
    place = max(math.ceil(q * len(values)) - 1, 0)
    return int(np.partition(values, place)[place])
