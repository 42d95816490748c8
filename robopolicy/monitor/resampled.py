"""Intervals of a monitor's measures: exact ones of shares, a bootstrap by episode of all else and of differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, isnan

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.evaluation.statistics import success_rate
from robopolicy.monitor.measures import Measure, Panel, Share, balanced_accuracy, point, tnr, tpr

RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; the limits are None where there is none, the value where there is nothing."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float = 0.95
    method: str = "bootstrap"  # by episode; or "clopper-pearson"
    splits: tuple[float | None, ...] = ()  # of each split by itself
    counts: tuple[float, int] | None = None  # k of n, means over the splits, of a share

    @property
    def apart_from_zero(self) -> bool:
        """Whether the interval is of one sign."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class Draws:
    """Which episodes each resample holds, the same for all monitors: pairs stay pairs.

    Successes and failures are drawn among themselves, so no resample lacks either. An episode that several splits
    judged is one episode: it is drawn with all of its verdicts.

    Args:
        panels: all that are to be measured, of any monitor and split.
        rng: of the draws.
        resamples: R.

    Raises:
        ContractError: if an episode succeeded in one panel and failed in another.
    """

    def __init__(self, panels: Sequence[Panel], rng: np.random.Generator, resamples: int = RESAMPLES) -> None:
        outcomes: dict[str, bool] = {}
        for panel in panels:
            for episode in panel.episodes:
                if outcomes.setdefault(episode.name, episode.success) != episode.success:
                    raise ContractError(f"episode {episode.name} both succeeded and failed; names must be of one each")
        self._column = {name: i for i, name in enumerate(outcomes)}
        success = np.array(list(outcomes.values()), bool)
        self._counts = np.zeros((resamples, len(outcomes)))
        for group in (success, ~success):
            if n := int(np.count_nonzero(group)):
                self._counts[:, group] = rng.multinomial(n, np.full(n, 1 / n), resamples)
        self._weights: dict[tuple[str, ...], np.ndarray] = {}  # of panels seen: methods judge the same episodes
        self._known: dict[tuple[int, Measure], tuple[Panel, np.ndarray]] = {}  # a panel that is kept keeps its id

    def weights(self, panel: Panel) -> np.ndarray:
        """Return how often each episode of a panel comes in each resample, (R, n)."""
        if panel.names not in self._weights:
            self._weights[panel.names] = self._counts[:, [self._column[name] for name in panel.names]]
        return self._weights[panel.names]

    def measured(self, panel: Panel, measure: Measure) -> np.ndarray:
        """Return a measure of a panel in each resample, (R,)."""
        key = id(panel), measure
        if key not in self._known:
            self._known[key] = panel, measure(panel, self.weights(panel))
        return self._known[key][1]


def estimate(splits: Sequence[Panel], measure: Measure, draws: Draws, *, confidence: float = 0.95) -> Estimate:
    """Return the mean of a measure over splits with an interval.

    A share has the interval of Clopper and Pearson for the episodes of one split: several splits judge the same
    episodes anew, which makes no more of them. Where the mean count is no whole number the limits are those of the
    whole numbers around it. Balanced accuracy has the mean of such limits of TPR and TNR, each at half the chance to
    miss, so that it covers at least ``confidence``. Everything else has the percentile bootstrap by episode.

    Args:
        splits: the same monitor's panel of every split.
        measure: see `MEASURES`.
        draws: of all panels.
        confidence: of the interval.
    """
    each = tuple(_known(point(panel, measure)) for panel in splits)
    value = _mean([v for v in each if v is not None])
    if isinstance(measure, Share):
        k, n, low, high = _share_limits(splits, measure, confidence)
        return Estimate(value, low, high, confidence, "clopper-pearson", each, None if n == 0 else (k, n))
    if measure is balanced_accuracy:
        sides = [_share_limits(splits, side, (1 + confidence) / 2)[2:] for side in (tpr, tnr)]
        lows, highs = ([limit for side in sides if (limit := side[i]) is not None] for i in (0, 1))
        low, high = (_mean(limits) if len(limits) == 2 else None for limits in (lows, highs))
        return Estimate(value, low, high, confidence, "clopper-pearson", each)
    low, high = _limits(_over_splits(splits, measure, draws), confidence)
    return Estimate(value, low, high, confidence, "bootstrap", each)


def difference(
    a: Sequence[Panel], b: Sequence[Panel], measure: Measure, draws: Draws, *, confidence: float = 0.95
) -> Estimate:
    """Return a measure of monitor A minus that of B on the same episodes, with its paired bootstrap interval.

    Raises:
        ContractError: if A and B judged other episodes, or not as many splits.
    """
    if len(a) != len(b) or any(set(x.names) != set(y.names) for x, y in zip(a, b, strict=True)):
        raise ContractError("a paired difference needs the same splits and the same episodes of both monitors")
    pairs = zip(a, b, strict=True)
    each = tuple(_known(_minus(point(x, measure), point(y, measure))) for x, y in pairs)
    drawn = _minus(_over_splits(a, measure, draws), _over_splits(b, measure, draws))
    low, high = _limits(drawn, confidence)
    return Estimate(_mean([v for v in each if v is not None]), low, high, confidence, "bootstrap", each)


def summary(
    splits: Sequence[Panel], measures: Mapping[str, Measure], draws: Draws, *, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Return every measure of one monitor by name."""
    return {name: estimate(splits, measure, draws, confidence=confidence) for name, measure in measures.items()}


def _share_limits(
    splits: Sequence[Panel], share: Share, confidence: float
) -> tuple[float, int, float | None, float | None]:
    """Mean k, the fewest n of a split, and the limits; None where some split has none to ask."""
    counts = [share.counts(panel) for panel in splits]
    n = min(n for _, n in counts)
    if n == 0:
        return 0.0, 0, None, None
    k = float(np.mean([k / of for k, of in counts])) * n
    k = round(k, 9)
    return (
        k,
        n,
        success_rate(floor(k), n, confidence=confidence).low,
        success_rate(ceil(k), n, confidence=confidence).high,
    )


def _over_splits(splits: Sequence[Panel], measure: Measure, draws: Draws) -> np.ndarray:
    """The mean over splits in each resample (R,), of those splits in which it is defined; NaN without any."""
    values = np.stack([draws.measured(panel, measure) for panel in splits])  # (S, R)
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _limits(drawn: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    known = drawn[~np.isnan(drawn)]
    if known.size < drawn.size / 2:  # of most resamples nothing is known
        return None, None
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail], method="inverted_cdf")  # no means of infinities
    return float(low), float(high)


def _minus(a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # never in time against never in time is not known
        return np.asarray(a) - np.asarray(b)


def _known(value: np.ndarray | float) -> float | None:
    return None if isnan(float(value)) else float(value)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
