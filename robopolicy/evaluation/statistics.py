"""An evaluation in numbers, each with its interval: success, score, time, alarms; and the seeds they come of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError, EvaluationError, UsageError
from robopolicy.evaluation.entropy import Entropy, entropy_of
from robopolicy.evaluation.failures import Cause, taxonomy
from robopolicy.evaluation.outcomes import Outcome

LARGEST_SEED = 2**63 - 1  # that torch and a table take
MOST_SEEDS = 10_000_000
Method = Literal["clopper-pearson", "wilson"]


@dataclass(frozen=True)
class Rate:
    """k of n with a confidence interval."""

    successes: int
    n: int
    low: float
    high: float
    confidence: float = 0.95
    method: Method = "clopper-pearson"

    @property
    def value(self) -> float:
        """The rate itself."""
        return self.successes / self.n

    def __str__(self) -> str:
        return f"{self.successes}/{self.n} = {self.value:.0%} [{self.low:.1%}, {self.high:.1%}]"


@dataclass(frozen=True)
class Mean:
    """The mean of n numbers with Student's t interval; None where they do not spread, and so tell nothing of it."""

    value: float
    n: int
    low: float | None
    high: float | None
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f}" + (f" [{self.low:.3f}, {self.high:.3f}]" if self.low is not None else "")


@dataclass(frozen=True)
class Median:
    """The median of n numbers with an exact interval; None where n is too small for one."""

    value: float
    n: int
    low: float | None
    high: float | None
    confidence: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3g}" + (f" [{self.low:.3g}, {self.high:.3g}]" if self.low is not None else "")


def median_of(values: Sequence[float], *, confidence: float = 0.95) -> Median | None:
    """Return the median with the interval of the sign test, between two order statistics; None without values.

    It covers at least ``confidence`` for every continuous distribution (Thompson 1936; David and Nagaraja 2003,
    section 7.1); below six values there is none at 95 %.
    """
    from scipy.stats import binom

    x = np.sort(np.asarray(values, np.float64))
    if x.size == 0:
        return None
    k = int(binom.ppf((1 - confidence) / 2, x.size, 0.5))  # the greatest with P(B < k) <= (1 - confidence) / 2
    low, high = (float(x[k - 1]), float(x[-k])) if k else (None, None)
    return Median(float(np.median(x)), int(x.size), low, high, confidence)


def success_rate(successes: int, n: int, *, confidence: float = 0.95, method: Method = "clopper-pearson") -> Rate:
    """Return the rate with an exact (Clopper and Pearson 1934) or a Wilson score (1927) interval.

    The exact one covers at least ``confidence`` for every true rate; Wilson's is shorter and covers it on average.

    Raises:
        ContractError: if there are no trials, or more successes than trials.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise ContractError(f"{successes} successes of {n}; want 0 <= successes <= n and n >= 1")
    interval = binomtest(successes, n).proportion_ci(confidence, "exact" if method == "clopper-pearson" else "wilson")
    return Rate(successes, n, float(interval.low), float(interval.high), confidence, method)


def mean_score(scores: Sequence[float], *, confidence: float = 0.95) -> Mean:
    """Return the mean of ``scores`` with Student's t interval, cut to [0, 1] if all scores lie there.

    The interval is the usual one, not a guaranteed one: where nearly all episodes have the best score it covers with
    less than ``confidence`` (`tests/benchmarks/bench_statistics.py` prints by how much). Comparisons do not use it.

    Raises:
        ContractError: if there are none, or one is not finite.
    """
    from scipy.stats import t

    x = np.asarray(scores, dtype=np.float64)
    if x.size == 0 or not np.all(np.isfinite(x)):
        raise ContractError(f"{x.size} scores; want at least one, all finite")
    if x.min() == x.max():
        return Mean(float(x[0]), x.size, None, None, confidence)
    half = float(t.ppf(0.5 + confidence / 2, x.size - 1) * x.std(ddof=1) / np.sqrt(x.size))
    low, high = float(x.mean()) - half, float(x.mean()) + half
    if x.min() >= 0 and x.max() <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return Mean(float(x.mean()), x.size, low, high, confidence)


@dataclass(frozen=True)
class Summary:
    """An evaluation in a few numbers; episodes that ended in an error are counted apart, not as failures."""

    success: Rate
    score: Mean
    errors: int  # episodes without an outcome
    false_alarms: Rate | None  # alarms among calm successful episodes; None without a monitor
    caught: Rate | None  # alarms among calm failed ones; None without a monitor, or without a failure
    noticed: Rate | None = None  # alarms after the disturbance among disturbed episodes; None without either
    success_s: Median | None = None  # time to success of the successful episodes, s; None without one, or if not known
    smoothness: Median | None = None  # of the tool's path in successful episodes, SPARC, see `ToolPath.smoothness`
    entropy: Entropy | None = None  # of the modes of successful episodes; None in a world without modes
    causes: tuple[Cause, ...] = ()  # why the others failed, the most frequent first

    def headline(self) -> str:
        """Return one line for people."""
        parts = [f"success {self.success}", f"mean score {self.score}"]
        if self.false_alarms is not None:
            parts.append(f"false alarms in {self.false_alarms.successes} of {self.false_alarms.n} successes")
        if self.caught is not None:
            parts.append(f"alarms in {self.caught.successes} of {self.caught.n} failures")
        if self.noticed is not None:
            parts.append(f"alarms after the disturbance in {self.noticed.successes} of {self.noticed.n} episodes")
        if self.success_s is not None:
            parts.append(f"median time to success {self.success_s} s")
        if self.entropy is not None:
            parts.append(f"behaviour entropy {self.entropy}")
        if self.errors:
            parts.append(f"{self.errors} episodes ended in an error and are not counted")
        return "; ".join(parts)


def summarise(
    outcomes: Sequence[Outcome],
    *,
    confidence: float = 0.95,
    modes: Sequence[str] = (),
    rng: np.random.Generator | None = None,
) -> Summary:
    """Return success, score, alarms, times, modes and causes of failure over ``outcomes``.

    Args:
        outcomes: of one policy in one world.
        confidence: of all intervals.
        modes: all that the world enumerates, `robopolicy.behaviour.modes_of`; for the entropy.
        rng: for its bootstrap; None is always the same one, so that a report repeats.

    Raises:
        EvaluationError: if no episode has an outcome; with the first error.
    """
    valid = [outcome for outcome in outcomes if outcome.error is None]
    if not valid:
        first = f"; seed {outcomes[0].seed}: {outcomes[0].error}" if outcomes else ""
        raise EvaluationError(f"none of {len(outcomes)} episodes has an outcome{first}")
    good = [outcome for outcome in valid if outcome.success]
    disturbed = [outcome for outcome in valid if outcome.disturb_step is not None]
    calm_good = [outcome for outcome in good if outcome.disturb_step is None]
    calm_bad = [outcome for outcome in valid if not outcome.success and outcome.disturb_step is None]
    watched = any(outcome.marks for outcome in valid)
    return Summary(
        success=success_rate(len(good), len(valid), confidence=confidence),
        score=mean_score([outcome.score for outcome in valid], confidence=confidence),
        errors=len(outcomes) - len(valid),
        false_alarms=_alarm_rate(calm_good, confidence) if watched and calm_good else None,
        caught=_alarm_rate(calm_bad, confidence) if watched and calm_bad else None,
        noticed=_alarm_rate(disturbed, confidence) if watched and disturbed else None,
        success_s=median_of([o.success_s for o in good if o.success_s is not None], confidence=confidence),
        smoothness=median_of([o.smoothness for o in good if o.smoothness is not None], confidence=confidence),
        entropy=entropy_of(outcomes, modes, rng=rng or np.random.default_rng(0), confidence=confidence),
        causes=tuple(taxonomy(outcomes)),
    )


def pace_words(outcomes: Sequence[Outcome]) -> str:
    """Return in words what episodes at the pace of the wall clock had to wait for."""
    valid = [outcome for outcome in outcomes if outcome.error is None]
    skipped, steps = sum(o.skipped_ticks for o in valid), sum(o.steps for o in valid)
    waiting = sum(o.skipped_ticks > 0 for o in valid)
    told = f"wall clock: {skipped} of {steps + skipped} control steps passed without a command"
    if skipped:
        told += f", in {waiting} of {len(valid)} episodes"
    if stopped := sum(bool(o.stopped) for o in valid):
        told += f"; {stopped} episode{'s were' if stopped > 1 else ' was'} stopped by safety"
    return told


def _alarm_rate(outcomes: Sequence[Outcome], confidence: float) -> Rate:
    alarms = sum(o.alarm_step is not None and o.alarm_step >= (o.disturb_step or 0) for o in outcomes)
    return success_rate(alarms, len(outcomes), confidence=confidence)


def parse_seeds(text: str) -> list[int]:
    """Read ``"100000:100050"`` (the last one excluded), ``"0,3,7"``, or both: ``"0:3,10"``.

    Raises:
        UsageError: saying what is wrong with which part.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, colon, last = (piece.strip() for piece in part.partition(":"))
        if not first.isdecimal() or (colon and not last.isdecimal()):
            raise UsageError(
                f"seeds {text!r}: {part.strip()!r} is neither a number nor FIRST:LAST+1, such as 0:50 or 0,3,7"
            )
        chosen = range(int(first), int(last)) if colon else [int(first)]
        if not chosen:
            raise UsageError(f"seeds {text!r}: {part.strip()!r} is empty; FIRST:LAST+1 needs LAST+1 > FIRST")
        if chosen[-1] > LARGEST_SEED or chosen[-1] - chosen[0] >= MOST_SEEDS:
            raise UsageError(
                f"seeds {text!r}: {part.strip()!r} is too much; want seeds up to {LARGEST_SEED}, {MOST_SEEDS} at most"
            )
        seeds.extend(chosen)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"seeds {text!r}: a seed appears twice; it would count twice")
    return seeds


def seed_words(seeds: Sequence[int]) -> str:
    """Return seeds as `parse_seeds` reads them: ``100000:100050`` where they follow one another."""
    if seeds and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}:{seeds[-1] + 1}"
    return ", ".join(map(str, seeds))
