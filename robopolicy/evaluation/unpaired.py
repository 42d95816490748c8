"""Two policies that were tried on different starts, such as on a real table: an exact test of fixed numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt
from statistics import NormalDist

from robopolicy.errors import ContractError
from robopolicy.evaluation.comparison import holm
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.paired import Difference
from robopolicy.evaluation.statistics import Rate, summarise


@dataclass(frozen=True)
class Unpaired:
    """Two policies, each on its own starts."""

    a: str
    b: str
    a_success: Rate
    b_success: Rate
    difference: Difference
    p_value: float  # Boschloo's, exact, two-sided
    alpha: float = 0.05
    family: int = 1
    threshold: float = 0.05  # what p had to stay under
    better: str = ""

    def verdict(self) -> str:
        """Return what may be said of the two, in one sentence."""
        counts = (
            f"{self.a_success.successes} of {self.a_success.n} against {self.b_success.successes} of {self.b_success.n}"
        )
        among = f" (Holm, {self.family} comparisons)" if self.family > 1 else ""
        p = f"Boschloo p = {self.p_value:.2g} {'<=' if self.better else '>'} {self.threshold:.2g}{among}"
        told = f"{counts}, different starts, {p}; difference about {self.difference}"
        if not self.better:
            return f"not decided between {self.a} and {self.b}: {told}; the same starts for both would tell more"
        return f"{self.better} is better than {self.b if self.better == self.a else self.a}: {self.a} {told}"


def compare_unpaired(runs: Mapping[str, Sequence[Outcome]], *, alpha: float = 0.05) -> list[Unpaired]:
    """Compare every two of several policies that were not tried on the same starts, by Holm over Boschloo's test.

    The numbers of episodes must have been fixed before anybody looked, and starts drawn alike for all.

    Args:
        runs: outcomes by the policies' names.
        alpha: chance of one false verdict or more.

    Raises:
        EvaluationError: if a policy has no outcome.
    """
    rates = {name: summarise(outcomes, confidence=1 - alpha).success for name, outcomes in runs.items()}
    found = [
        Unpaired(
            a, b, rates[a], rates[b], unpaired_difference(rates[a], rates[b]),
            boschloo(rates[a].successes, rates[a].n, rates[b].successes, rates[b].n), alpha,
        )
        for a, b in combinations(rates, 2)
    ]  # fmt: skip
    order = sorted(range(len(found)), key=lambda i: found[i].p_value)
    rejected = holm([one.p_value for one in found], alpha)
    decided = []
    for i, one in enumerate(found):
        better = (one.a if one.difference.value > 0 else one.b) if rejected[i] else ""
        level = alpha / (len(found) - order.index(i))
        decided.append(replace(one, family=len(found), threshold=level, better=better))
    return decided


def unpaired_difference(a: Rate, b: Rate) -> Difference:
    """Return the difference of two rates on different starts, with an approximate interval.

    Agresti and Caffo 2000: a success and a failure more for each. At 95 % it covers with 91.5 % or more (10 episodes
    each) and with 94 % or more (50 each), on average with more than 95 %.
    """
    p, q = ((rate.successes + 1) / (rate.n + 2) for rate in (a, b))
    z = NormalDist().inv_cdf(0.5 + a.confidence / 2)
    half = z * sqrt(p * (1 - p) / (a.n + 2) + q * (1 - q) / (b.n + 2))
    low, high = max(p - q - half, -1.0), min(p - q + half, 1.0)
    return Difference(a.value - b.value, low, high, a.confidence, "agresti-caffo")


def boschloo(a_successes: int, a_n: int, b_successes: int, b_n: int) -> float:
    """Return the exact two-sided p-value of "equally often" for episodes that are not paired (Boschloo 1970).

    Raises:
        ContractError: if a count is impossible.
    """
    from scipy.stats import boschloo_exact

    if not (0 <= a_successes <= a_n and 0 <= b_successes <= b_n and a_n and b_n):
        raise ContractError(f"{a_successes} of {a_n} against {b_successes} of {b_n} successes")
    table = [[a_successes, b_successes], [a_n - a_successes, b_n - b_successes]]
    if 0 in (a_successes + b_successes, a_n + b_n - a_successes - b_successes):
        return 1.0
    return min(1.0, float(boschloo_exact(table).pvalue))
