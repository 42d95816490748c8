"""Whether a monitor's calibration still holds, asked after every episode, with the chance of a false warning kept."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import exp, inf, isnan, log
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError

Side = Literal["", "high", "low"]

DELTA = 0.01  # chance of a warning, ever, while nothing drifts
POWERS = (0.1, 0.2, 0.35, 0.5, 0.7, 0.85)  # of the bets; each gets an equal part of what is staked
APART = 0.25  # of the capital, bets that all of the new episodes lie beyond all that calibrated
DOUBT = 0.1  # of that bet's capital, on the contrary at each episode, so that one exception does not ruin it
LARGEST = 700.0  # e to the power of more overflows


@dataclass(frozen=True)
class Drift:
    """What the episodes so far say of the calibration."""

    episodes: int  # that were taken, beside those that calibrated
    p_value: float  # of the newest, smoothed: small where its statistic is high among all before
    wealth_high: float  # of betting on statistics that are too high; 1 at the start
    wealth_low: float  # of betting on statistics that are too low
    warned: Side  # the side that a warning was given of; it stays
    words: str

    @property
    def wealth(self) -> float:
        """What decides: the mean of the two, a warning once it has reached 1 / delta."""
        return (self.wealth_high + self.wealth_low) / 2


class DriftWatch:
    """A conformal test martingale over the largest statistic of each finished episode.

    An episode's smoothed p-value is its rank among those that calibrated the monitor *and all that came since*. If
    all of these are exchangeable, the p-values are independent and uniform whatever the statistic's distribution
    (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, theorem 8.1), so that betting against
    it is a fair game: capital 1 ever becomes 1 / delta with a chance of at most delta (Ville 1939). Ranked among the
    calibrating episodes alone they would not be: those have gaps that a long life finds.

    Half of the capital bets on p-values that are too small (statistics too high: more alarms than promised), half on
    too large ones (too low: a camera or an embedding that stands still, a monitor that sees nothing). A bet is
    ``e * p ** (e - 1)`` for each e in ``POWERS`` (Vovk, Nouretdinov and Gammerman 2003). Of what these bet with,
    1 / (k (k + 1)) is staked at the k-th episode and held in cash before, so that a drift that begins at episode k is
    found nearly as soon as one that begins at once: it needs about ``k ** 2`` times the capital, not the losses of k
    quiet episodes won back.

    What came since joins the ranking, drifted or not, so that after m episodes even a drift that was there from the
    first on leaves p-values no smaller than uniform below m / (n + m). A quarter of the capital bets on just that;
    without it few calibration episodes would never be enough.

    Episodes that are known to have failed do not belong here: the calibration is of successes. Unlabelled ones may be
    taken; then "too high" also means that more of them fail than did. Episodes that were ended by hand or by a fault
    of the robot do not belong here either, for the largest statistic of a part is too low.

    Args:
        z: (n,) the largest statistic of each calibration episode.
        delta: chance of a warning, ever, while nothing drifts; averaged over calibration sets.
        seed: of the numbers that break ties; the same seed and statistics give the same bits.

    Raises:
        ContractError: if z is empty or holds NaN, or delta is no chance.
    """

    def __init__(self, z: Sequence[float] | np.ndarray, *, delta: float = DELTA, seed: int = 0) -> None:
        self._ranked = sorted(float(value) for value in z)
        if not self._ranked or any(map(isnan, self._ranked)):
            raise ContractError(f"{len(self._ranked)} calibration statistics; want at least one, none of them NaN")
        if not 0 < delta < 1:
            raise ContractError(f"delta is {delta}; want above 0 and below 1, such as 0.01")
        self.delta, self.seed = delta, seed
        self.episodes = 0
        self.warned: Side = ""
        self.warned_after: int | None = None
        self._log_cash = log(1 - APART)  # of either side
        self._log_high = self._log_low = [-inf] * len(POWERS)  # what each bet has come to
        self._apart_high = self._apart_low = log(APART)
        self._n = len(self._ranked)

    def update(self, statistic: float) -> Drift:
        """Take the largest statistic of the next finished episode; infinity is a fault and ranks highest.

        Raises:
            ContractError: if it is NaN.
        """
        if isnan(statistic):
            raise ContractError("the episode's largest statistic is NaN; want a number, or infinity after a fault")
        p = self._p_value(float(statistic))
        insort(self._ranked, float(statistic))
        k = self.episodes = self.episodes + 1
        staked = self._log_cash - log(k + 1) - log(len(POWERS))
        self._log_cash += log(k / (k + 1))
        self._log_high = _bet(self._log_high, staked, p)
        self._log_low = _bet(self._log_low, staked, 1 - p)
        beyond = k / (self._n + k)  # where p-values lie if all k are beyond all n
        self._apart_high += _apart(p, beyond)
        self._apart_low += _apart(1 - p, beyond)
        high = _log_sum([*self._log_high, self._apart_high, self._log_cash])
        low = _log_sum([*self._log_low, self._apart_low, self._log_cash])
        if not self.warned and _log_sum([high, low]) - log(2) >= -log(self.delta):
            self.warned, self.warned_after = "high" if high > low else "low", k
        return Drift(k, p, exp(min(high, LARGEST)), exp(min(low, LARGEST)), self.warned, self._words())

    def _p_value(self, statistic: float) -> float:
        """(#{z > s} + u (1 + #{z = s})) / (m + 1) with u uniform, above 0 and below 1."""
        m = len(self._ranked)
        below, upto = bisect_left(self._ranked, statistic), bisect_right(self._ranked, statistic)
        drawn = blake2b(f"{self.seed} {self.episodes}".encode(), digest_size=4).digest()
        u = (int.from_bytes(drawn, "little") + 0.5) / 2**32
        return (m - upto + u * (upto - below + 1)) / (m + 1)

    def _words(self) -> str:
        n, often = self.episodes, f"(a chance of {self.delta:.2g} if nothing had changed)"
        if self.warned == "high":
            return (
                f"drift: after {self.warned_after} episodes statistics are higher than in calibration {often}; there "
                "will be more false alarms than promised, or more episodes fail: look at the robot, then recalibrate"
            )
        if self.warned == "low":
            return (
                f"drift: after {self.warned_after} episodes statistics are lower than in calibration {often}; a camera "
                "or an embedding may stand still, and failures may go unseen: look at the robot, then recalibrate"
            )
        return f"no drift seen in {n} episode{'' if n == 1 else 's'}"


def _bet(log_stakes: Sequence[float], staked: float, uniform: float) -> list[float]:
    """Add the logarithm of what is newly staked to each bet's capital, then play it."""
    x = log(uniform)
    return [_log_sum([stake, staked]) + log(e) + (e - 1) * x for e, stake in zip(POWERS, log_stakes, strict=True)]


def _apart(uniform: float, beyond: float) -> float:
    """The logarithm of what betting on ``uniform < beyond`` pays: 1 on average if it is uniform."""
    return log((1 - DOUBT) / beyond) if uniform < beyond else log(DOUBT / (1 - beyond))


def _log_sum(logs: Sequence[float]) -> float:
    top = max(logs)
    return top + log(sum(exp(one - top) for one in logs))
