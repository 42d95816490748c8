"""Which of several policies is better, in words: paired seeds, a verdict one may ask for at any time, an interval."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import exp, log
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError, EvaluationError
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.paired import Difference, difference, mcnemar
from robopolicy.evaluation.sequential import InSeedOrder, Sequential, anytime_difference, pairs_needed

__all__ = ["Comparison", "InSeedOrder", "Sequential", "compare", "compare_all", "decide", "e_bh", "holm"]

Of = Literal["success", "score"]

WORTH_SEEING = 0.1  # difference of success that a verdict of "not decided" speaks of


@dataclass(frozen=True)
class Comparison:
    """Two policies on the same starts."""

    a: str
    b: str
    seeds: tuple[int, ...]  # of the pairs, in the order in which they counted
    both: int  # pairs that both solved
    a_only: int
    b_only: int
    neither: int
    log_e: tuple[float, ...]  # natural logarithm of `Sequential`'s E after each pair
    lead: tuple[float, ...]  # sum of A's outcomes minus B's after each pair
    p_value: float  # McNemar's, exact, two-sided
    exact: Difference  # of success, for a number of pairs fixed beforehand
    anytime: Difference  # of success, however their number was chosen
    score: Difference  # of the mean scores, the same, 0 to 1
    alpha: float = 0.05  # chance of one false verdict or more among all comparisons of the family
    family: int = 1  # comparisons that were made at once
    left_out: int = 0  # seeds that only one of the two has, or whose episode broke
    of: Of = "success"  # what the verdict is of
    fixed: bool = False  # whether the verdict is McNemar's
    threshold: float = 20.0  # what E had to reach; of p, if the number of pairs was fixed, what it had to stay under
    decided_after: int | None = None  # pairs
    better: str = ""  # the name, if it is decided

    @property
    def pairs(self) -> int:
        """Pairs that were compared."""
        return len(self.seeds)

    @property
    def largest_e(self) -> float:
        """The largest E, which is what decides."""
        return exp(min(max((0.0, *self.log_e)), 700.0))

    @property
    def interval(self) -> Difference:
        """The difference with the interval that goes with the verdict."""
        if self.of == "score":
            return self.score
        return self.exact if self.fixed else self.anytime

    def verdict(self) -> str:
        """Return what may be said of the two, in one sentence."""
        alike = not self.a_only + self.b_only if self.of == "success" else self.score.value == 0.0 == max(self.log_e)
        if alike:
            told = "they came out alike on every seed"
        else:
            told = f"{self._seen()}, {self._evidence()}"
        if self.better:
            other = self.b if self.better == self.a else self.a
            what = "" if self.of == "success" else " in score"
            return f"{self.better} is better than {other}{what}: {told}; difference {self._difference()}"
        left = f"not decided after {self.pairs} pairs"
        return f"{self.a} against {self.b}: {left}: {told}; difference {self._difference()}{self._outlook()}"

    def _seen(self) -> str:
        if self.of == "score":
            return f"scores of {self.pairs} seeds"
        counts = (self.b_only, self.a_only) if self.better == self.b else (self.a_only, self.b_only)
        return f"{counts[0]} against {counts[1]} discordant of {self.pairs} seeds"

    def _difference(self) -> str:
        d = self.interval
        return str(d) if self.of == "success" else f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"

    def _evidence(self) -> str:
        among = f" (Holm, {self.family} comparisons)" if self.family > 1 else ""
        if self.fixed:
            return f"McNemar p = {self.p_value:.2g} {'<=' if self.better else '>'} {self.threshold:.2g}{among}"
        after = f"; decided after {self.decided_after} pairs" if self.better else ""
        return f"e = {self.largest_e:.3g} {'>=' if self.better else '<'} {self.threshold:.3g}{among}{after}"

    def _outlook(self) -> str:
        if self.of == "score":
            return ""
        rate = (self.a_only + self.b_only + 1) / (self.pairs + 2)
        more = pairs_needed(WORTH_SEEING, rate, alpha=self.alpha / self.family) - self.pairs
        if more <= 0:
            return f"; a difference of {WORTH_SEEING:.0%} would by now have been seen, four times in five"
        return f"; to see a difference of {WORTH_SEEING:.0%} four times in five, about {more} more pairs are needed"


def compare(
    a: str,
    a_outcomes: Sequence[Outcome],
    b: str,
    b_outcomes: Sequence[Outcome],
    *,
    alpha: float = 0.05,
    of: Of = "success",
) -> Comparison:
    """Compare two policies over the seeds for which both have an outcome, in the order of the seeds.

    Args:
        a: the first one's name.
        a_outcomes: its episodes; those that broke do not count.
        b: the second one's name.
        b_outcomes: its episodes.
        alpha: chance of a verdict where there is no difference; the intervals are of confidence 1 - alpha.
        of: what the verdict is of; the score tells more where success is rare.

    Raises:
        EvaluationError: if there is no such seed; with both sides' seeds.
    """
    mine, theirs = ({o.seed: o for o in side if o.error is None} for side in (a_outcomes, b_outcomes))
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        raise EvaluationError(
            f"{a} and {b} have no seed in common: {a} has {_range(mine)}, {b} has {_range(theirs)}; policies are "
            "compared on the same starts"
        )
    pairs = [(mine[seed], theirs[seed]) for seed in seeds]
    kinds = Counter((first.success, second.success) for first, second in pairs)
    a_only, b_only = kinds[True, False], kinds[False, True]
    solved = [float(first.success) - float(second.success) for first, second in pairs]
    scored = [_score(first) - _score(second) for first, second in pairs]
    test = Sequential(alpha)
    for first, second in pairs:
        test.add(*((first.success, second.success) if of == "success" else (_score(first), _score(second))))
    compared = Comparison(
        a, b, tuple(seeds), kinds[True, True], a_only, b_only, kinds[False, False], tuple(test.log_e),
        tuple(np.cumsum(test.differences).tolist()), mcnemar(a_only, b_only),
        difference(a_only, b_only, len(pairs), confidence=1 - alpha),
        anytime_difference(solved, confidence=1 - alpha), anytime_difference(scored, confidence=1 - alpha), alpha,
        left_out=len({o.seed for o in (*a_outcomes, *b_outcomes)}) - len(seeds), of=of,
    )  # fmt: skip
    return decide([compared])[0]


def compare_all(
    runs: Mapping[str, Sequence[Outcome]], *, alpha: float = 0.05, of: Of = "success", fixed: bool = False
) -> list[Comparison]:
    """Compare every two of several policies; among all their verdicts one or more is false with chance alpha at most.

    The intervals are each of confidence 1 - alpha by itself.

    Args:
        runs: outcomes by the policies' names.
        alpha: see above.
        of: what the verdicts are of.
        fixed: the number of seeds was fixed before anybody looked: exact McNemar decides, which sees more.

    Raises:
        EvaluationError: as `compare`.
        ContractError: for scores of a fixed number of seeds.
    """
    found = [compare(a, runs[a], b, runs[b], alpha=alpha, of=of) for a, b in combinations(runs, 2)]
    return decide(found, fixed=fixed)


def decide(comparisons: Sequence[Comparison], *, fixed: bool = False) -> list[Comparison]:
    """Return the comparisons with their verdicts as one family, by Holm (1979), at the first one's alpha.

    With the sequential test, 1 / the largest E is a p-value that is valid at any time, so Holm's procedure over
    these is too, whatever the dependence among the comparisons.

    Args:
        comparisons: of one family.
        fixed: decide by McNemar's p-values, for numbers of pairs fixed beforehand.

    Raises:
        ContractError: for scores of a fixed number of seeds.
    """
    if not comparisons:
        return []
    if fixed and any(c.of == "score" for c in comparisons):
        raise ContractError("McNemar's test is of success; scores are compared by the sequential test")
    alpha, m = comparisons[0].alpha, len(comparisons)
    p_values = [c.p_value if fixed else 1 / c.largest_e for c in comparisons]
    rank = {i: place for place, i in enumerate(np.argsort(p_values, kind="stable").tolist())}
    decided = []
    for i, (c, rejected) in enumerate(zip(comparisons, holm(p_values, alpha), strict=True)):
        level = alpha / (m - rank[i])
        after, better = None, ""
        if rejected:
            after = c.pairs if fixed else _first(c.log_e, log(1 / level))
            better = c.a if c.lead[after - 1] > 0 else c.b
        threshold = level if fixed else 1 / level
        decided.append(replace(c, family=m, fixed=fixed, threshold=threshold, decided_after=after, better=better))
    return decided


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Return which hypotheses fall so that one or more true ones do with chance ``alpha`` at most (Holm 1979)."""
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    passed = p[order] <= alpha / (len(p) - np.arange(len(p)))
    rejected = np.zeros(len(p), bool)
    rejected[order] = np.logical_and.accumulate(passed)
    return [bool(r) for r in rejected]


def e_bh(e_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Return which hypotheses fall so that of those that do a part of ``alpha`` at most is true, on average.

    The e-Benjamini-Hochberg procedure (Wang and Ramdas 2022, "False discovery rate control with e-values"): under any
    dependence, for the many cells of a sweep. Each E is the one at the time of looking, not the largest so far.
    """
    e = np.asarray(e_values, np.float64)
    order = np.argsort(-e, kind="stable")
    enough = np.flatnonzero(e[order] * np.arange(1, len(e) + 1) >= len(e) / alpha)
    rejected = np.zeros(len(e), bool)
    rejected[order[: enough[-1] + 1 if enough.size else 0]] = True
    return [bool(r) for r in rejected]


def _first(log_e: Sequence[float], level: float) -> int:
    return next(i for i, value in enumerate(log_e, 1) if value >= level - 1e-12)


def _score(outcome: Outcome) -> float:
    return min(max(outcome.score, 0.0), 1.0)


def _range(outcomes: Mapping[int, Outcome]) -> str:
    if not outcomes:
        return "no outcome at all"
    return f"{len(outcomes)} seeds from {min(outcomes)} to {max(outcomes)}"
