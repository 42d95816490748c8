"""In how many ways a policy succeeds: the entropy over a task's enumerated modes, as D3IL defines it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.evaluation.outcomes import Outcome

ENOUGH = 4  # successes a mode; with fewer the entropy comes out low, and a line says so


@dataclass(frozen=True)
class Entropy:
    """Behaviour entropy of successful episodes, 0 (always the same way) to 1 (every way equally often)."""

    value: float
    low: float  # of its confidence interval
    high: float
    n: int  # successful episodes whose mode is known
    counts: dict[str, int]  # of them, by mode; every enumerated mode, in the task's order
    corrected: float  # the value plus Miller and Madow's correction, at most 1
    ceiling: float  # what a policy that takes every mode equally often scores with so few episodes, on average
    undecided: int = 0  # successes whose mode the world could not tell; not counted
    contexts: int = 1  # starts over which a conditional entropy is the mean
    confidence: float = 0.95

    @property
    def scarce(self) -> bool:
        """Whether there are too few successes to see all modes."""
        return self.n < ENOUGH * len(self.counts) * self.contexts

    def __str__(self) -> str:
        taken = sum(count > 0 for count in self.counts.values())
        text = f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}], {taken} of {len(self.counts)} modes"
        text += f" in {self.n} successes"
        if self.scarce:
            text += f" (few: all modes equally often would score {self.ceiling:.2f})"
        return text


def behaviour_entropy(
    counts: Mapping[str, int],
    *,
    rng: np.random.Generator,
    undecided: int = 0,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Entropy:
    """Return the entropy of how often each mode was taken by successful episodes, with base "number of modes".

    H = -sum p log p / log M over M modes, with p the observed shares: Jia et al. 2024, "Towards diverse behaviors: a
    benchmark for imitation learning with human demonstrations" (D3IL), section 4. This estimate is low by about
    (modes seen - 1) / (2 n log M) (Miller 1955), so ``corrected`` adds that, and ``ceiling`` tells what may be
    reached at all with n episodes.

    The interval is a percentile bootstrap moved to the corrected value, since resampling loses modes once more. Two
    things that resampling cannot know widen it upwards: modes never seen may together have a chance of up to
    1 - ((1 - confidence) / 2) ** (1 / n), and where a policy that takes every mode equally often would score so little
    in more than (1 - confidence) / 2 of its evaluations, the interval reaches 1.

    Args:
        counts: of every enumerated mode, those never taken included.
        rng: for the bootstrap.
        undecided: successes whose mode is not known.
        resamples: of the bootstrap.
        confidence: of the interval.

    Raises:
        ContractError: if there are less than two modes, or no success with one.
    """
    n, size = sum(counts.values()), len(counts)
    if size < 2 or n < 1:
        raise ContractError(f"{n} successes over {size} modes; an entropy needs at least one, and two modes")
    seen, tail = np.fromiter(counts.values(), np.int64, size), (1 - confidence) / 2
    value, even = float(_entropy(seen)), _entropy(rng.multinomial(n, np.full(size, 1 / size), resamples))
    corrected = min(value + (np.count_nonzero(seen) - 1) / (2 * n * float(np.log(size))), 1.0)
    again = _entropy(rng.multinomial(n, seen / n, resamples))
    low, high = np.quantile(again, [tail, 1 - tail]) + corrected - again.mean()
    unseen = seen == 0
    if unseen.any():
        chance = 1 - tail ** (1 / n)
        high = max(high, _entropy(np.where(unseen, chance / unseen.sum(), (1 - chance) * seen / n)))
    if value >= np.quantile(even, tail):
        high = 1.0
    low, high = (float(np.clip(limit, 0, 1)) for limit in (min(low, value), max(high, value)))
    return Entropy(
        value, low, high, n, dict(counts), corrected, float(even.mean()), undecided, confidence=confidence
    )  # fmt: skip


def conditional_entropy(
    contexts: Mapping[str, Mapping[str, int]],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Entropy:
    """Return the mean over starts of each one's behaviour entropy: how many ways are taken from one and the same start.

    D3IL's conditional entropy, for tasks where the start alone decides which mode is the sensible one. The interval
    resamples the starts; starts without a success are left out.

    Args:
        contexts: for each start, how often each enumerated mode was taken by successful episodes from it.
        rng: for the bootstrap.
        resamples: of the bootstrap.
        confidence: of the interval.

    Raises:
        ContractError: if the starts have other modes, or no start has a success.
    """
    kept = [counts for counts in contexts.values() if sum(counts.values())]
    if not kept or any(list(counts) != list(kept[0]) for counts in kept):
        raise ContractError(f"{len(kept)} starts with a success; want at least one, all with the same modes")
    each = [behaviour_entropy(counts, rng=rng, resamples=200) for counts in kept]
    values = np.array([entropy.value for entropy in each])
    drawn = rng.choice(values, (resamples, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    counts = {mode: sum(counts[mode] for counts in kept) for mode in kept[0]}
    corrected, ceiling = (sum(part) / len(each) for part in zip(*((e.corrected, e.ceiling) for e in each), strict=True))
    return Entropy(
        float(values.mean()), float(low), float(high), sum(counts.values()), counts, corrected, ceiling,
        contexts=len(kept), confidence=confidence,
    )  # fmt: skip


def entropy_of(
    outcomes: Sequence[Outcome], modes: Sequence[str], *, rng: np.random.Generator, confidence: float = 0.95
) -> Entropy | None:
    """Return the behaviour entropy of the successes among ``outcomes``; None without modes, or without a success.

    Args:
        outcomes: of one policy in one world; failures and errors do not count.
        modes: all that the world enumerates, `robopolicy.behaviour.modes_of`.
        rng: for the bootstrap.
        confidence: of the interval.
    """
    good = [outcome.mode for outcome in outcomes if outcome.error is None and outcome.success]
    counts = {mode: good.count(mode) for mode in modes}
    decided = sum(counts.values())
    if len(counts) < 2 or not decided:
        return None
    return behaviour_entropy(counts, rng=rng, undecided=len(good) - decided, confidence=confidence)


def _entropy(counts: np.ndarray) -> np.ndarray:
    """Entropy over the last axis of counts or chances (..., M), base M."""
    p = counts / counts.sum(axis=-1, keepdims=True)
    logs = np.log(np.where(p > 0, p, 1.0))
    h: np.ndarray = -(p * logs).sum(axis=-1) / np.log(counts.shape[-1]) + 0.0  # no -0.0
    return h
