"""Which of two policies is better, asked after every pair of episodes, with the chance of a false answer kept."""

from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, exp, inf, lgamma, log, sqrt
from statistics import NormalDist

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.evaluation.paired import BISECTIONS, Difference

STAKES = 512  # of the bets, each with its part of the capital


class Sequential:
    """An anytime-valid test of "A and B do equally well" over paired episodes, one pair at a time.

    Where outcomes are success or not, only pairs in which one of the two succeeds tell them apart. If neither is
    better, the one that does is A or B with chance 1/2 each, whatever came before; against that stands a mixture over
    all other chances. Their ratio, with the beta function B,

        E = B(b + 1, c + 1) / 0.5 ** (b + c),  b pairs that only A solved, c that only B solved

    is a martingale that starts at 1, so that it ever reaches 1 / alpha with a chance of at most alpha (Ville 1939;
    Robbins 1970 for the mixture; Ramdas, Grünwald, Vovk and Shafer 2023, "Game-theoretic statistics and safe
    anytime-valid inference"). So one may look after every pair, stop as soon as E is that large, or go on for as long
    as one likes. Scores between 0 and 1 are taken too: E is then the capital of `log_wealth`, of which the formula
    above is the case of 0 and 1, and what is tested is whether the mean difference is 0.

    The order of the pairs must not depend on how they came out. Episodes that run beside each other finish early where
    they succeed early: give pairs in the order of their seeds, as `InSeedOrder` does, never in the order of arrival.

    Args:
        alpha: chance of a verdict where there is no difference.

    Attributes:
        differences: A's outcome minus B's, a pair each.
        a_better, b_better: pairs in which A, or B, did better.
        log_e: natural logarithm of E after each pair.
        decided_after: pairs after which E first was at least 1 / alpha; None until then. It stays: what comes after a
            verdict does not take it back.
        better: ``"a"`` or ``"b"`` once it is decided, before that ``""``.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        if not 0 < alpha < 1:
            raise ContractError(f"alpha is {alpha}; want above 0 and below 1")
        self.alpha = alpha
        self.differences: list[float] = []
        self.a_better = self.b_better = 0
        self.log_e: list[float] = []
        self.decided_after: int | None = None
        self.better = ""
        self._graded = False  # whether there were other differences than -1, 0 and 1
        self._capital = np.zeros(STAKES)  # logarithm of what each stake has come to

    def add(self, a: float, b: float) -> bool:
        """Take the next pair, both from the same start: success or score, 0 to 1; return whether it is decided.

        Raises:
            ContractError: if one is out of range.
        """
        if not (0 <= a <= 1 and 0 <= b <= 1):
            raise ContractError(f"outcomes {a} and {b}; want both between 0 and 1")
        difference = float(a) - float(b)
        self.differences.append(difference)
        self.a_better += difference > 0
        self.b_better += difference < 0
        self._graded |= difference not in (-1.0, 0.0, 1.0)
        self._capital += np.log1p(_legendre()[0] * difference)
        self.log_e.append(self._log_e())
        if self.decided_after is None and self.log_e[-1] >= log(1 / self.alpha):
            self.decided_after = len(self.differences)
            self.better = "a" if sum(self.differences) > 0 else "b"
        return self.decided

    @property
    def decided(self) -> bool:
        """Whether one of them is better."""
        return self.decided_after is not None

    @property
    def e_value(self) -> float:
        """E now: evidence against "equally well", 1 before the first pair."""
        return exp(min(self.log_e[-1], 700.0)) if self.log_e else 1.0

    @property
    def largest_e(self) -> float:
        """The largest E so far, which is what decides."""
        return exp(min(max([0.0, *self.log_e]), 700.0))

    @property
    def p_value(self) -> float:
        """1 / the largest E so far: a p-value that stays valid however the number of pairs was chosen."""
        return 1.0 / self.largest_e

    def _log_e(self) -> float:
        return _mean_of(self._capital) if self._graded else log_e(self.a_better, self.b_better)


class InSeedOrder:
    """Feeds a `Sequential` with pairs in the order of their seeds, in whatever order their episodes finish.

    Args:
        seeds: of the pairs, in the order in which they count; fixed before the first outcome is known.
        alpha: see `Sequential`.

    Attributes:
        test: the test so far.
        counted: seeds whose pair it has seen.
        missing: seeds passed over because one of the two episodes has no outcome (it broke).
    """

    def __init__(self, seeds: Sequence[int], alpha: float = 0.05) -> None:
        self.test = Sequential(alpha)
        self.counted: list[int] = []
        self.missing: list[int] = []
        self._waiting = list(reversed(seeds))
        self._known: dict[str, dict[int, bool | None]] = {"a": {}, "b": {}}

    def tell(self, side: str, seed: int, success: bool | None) -> bool:
        """Take the outcome of one episode, None if it broke; return whether it is decided.

        Raises:
            ContractError: if the side is neither ``"a"`` nor ``"b"``.
        """
        if side not in self._known:
            raise ContractError(f"side {side!r}; want 'a' or 'b'")
        self._known[side].setdefault(seed, success)
        a, b = self._known["a"], self._known["b"]
        while not self.test.decided and self._waiting and self._waiting[-1] in a and self._waiting[-1] in b:
            seed = self._waiting.pop()
            first, second = a[seed], b[seed]
            if first is None or second is None:
                self.missing.append(seed)
                continue
            self.counted.append(seed)
            self.test.add(first, second)
        return self.test.decided


def log_e(a_only: int, b_only: int) -> float:
    """Return the natural logarithm of B(a_only + 1, b_only + 1) / 0.5 ** (a_only + b_only), see `Sequential`."""
    n = a_only + b_only
    return lgamma(a_only + 1) + lgamma(b_only + 1) - lgamma(n + 2) + n * log(2)


def anytime_difference(differences: Sequence[float] | np.ndarray, *, confidence: float = 0.95) -> Difference:
    """Return the mean of paired differences, with an interval that holds however their number was chosen.

    Under the hypothesis that the mean is d, betting on each difference x with a stake l that multiplies the capital by
    ``1 + l (x - d)`` is a fair game; the interval holds those d against which no stake, all tried at once with equal
    parts of the capital, has won ``1 / (1 - confidence)`` (Waudby-Smith and Ramdas 2023, "Estimating means of bounded
    random variables by betting"; Ville's inequality). It asks nothing of the differences but their bounds. For d = 0
    and outcomes of 0 and 1 it is the test of `Sequential`: the interval leaves out 0 exactly when that has decided.

    Args:
        differences: (N,) A's outcome minus B's from the same start, each -1 to 1: of success or of scores.
        confidence: of the interval.

    Raises:
        ContractError: if there are none, or one is out of range.
    """
    x = np.asarray(differences, np.float64)
    if x.size == 0 or not np.all(np.abs(x) <= 1):
        raise ContractError(f"{x.size} differences; want at least one, all between -1 and 1")
    values, counts = np.unique(x, return_counts=True)
    most, mean = -log(1 - confidence), float(x.mean())

    def allowed(d: float) -> bool:
        return log_wealth(values, counts, d) < most

    edge = 1 - 1e-9
    inside = float(np.clip(mean, -edge, edge))
    low, high = _last(allowed, inside, -edge), _last(allowed, inside, edge)
    return Difference(mean, -1.0 if low == -edge else low, 1.0 if high == edge else high, confidence, "anytime")


def log_wealth(values: np.ndarray, counts: np.ndarray, d: float = 0.0) -> float:
    """Return the logarithm of the capital that betting against "the mean is d" has come to; see `anytime_difference`.

    Args:
        values: (K,) distinct differences, -1 to 1.
        counts: (K,) how often each came.
        d: above -1, below 1.
    """
    nodes, _ = _legendre()
    low, high = -1 / (1 - d), 1 / (1 + d)  # stakes that cannot lose more than all
    stakes = low + (high - low) * (nodes + 1) / 2  # (STAKES,)
    return _mean_of(np.log1p(stakes[:, None] * (values - d)) @ counts)


def pairs_needed(difference: float, discordant: float, *, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return after about how many pairs `Sequential` will have decided with chance ``power``.

    The number m of discordant pairs for which a binomial share at its lower ``1 - power`` quantile (normal
    approximation) gives E >= 1 / alpha, over the rate of discordant pairs.

    Args:
        difference: between the two success rates, not 0.
        discordant: part of the pairs in which one of the two succeeds; at least ``|difference|`` is taken.
        alpha: of the test.
        power: chance of having decided.

    Raises:
        ContractError: if the difference is 0, or a chance is not one.
    """
    if difference == 0 or not abs(difference) <= 1 or not 0 < power < 1 or not 0 < alpha < 1:
        raise ContractError(f"difference {difference}, power {power}, alpha {alpha}; want a difference that is not 0")
    rate = min(max(discordant, abs(difference)), 1.0)
    share = 0.5 * (1 + abs(difference) / rate)  # of the discordant pairs, those that the better one solved
    z = NormalDist().inv_cdf(power)

    def enough(m: int) -> bool:
        wins = share * m - z * sqrt(m * share * (1 - share))
        return wins > m / 2 and _log_e(wins, m - wins) >= log(1 / alpha)

    high = 1
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return ceil(high / rate)


def _log_e(a_only: float, b_only: float) -> float:
    if min(a_only, b_only) < 0:
        return -inf
    n = a_only + b_only
    return lgamma(a_only + 1) + lgamma(b_only + 1) - lgamma(n + 2) + n * log(2)


def _mean_of(capital: np.ndarray) -> float:
    """The logarithm of the mean of what stakes have come to, from its logarithms (STAKES,)."""
    top = capital.max()
    return float(top + np.log(np.exp(capital - top) @ _legendre()[1] / 2))


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(STAKES)


def _last(allowed: Callable[[float], bool], inside: float, outside: float) -> float:
    if allowed(outside):
        return outside
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if allowed(middle) else (inside, middle)
    return outside
