"""How good a monitor is: rates, times and ranks over judged episodes, each a function of weights for the bootstrap."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import ceil

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.monitor.judged import Judged

Measure = Callable[["Panel", np.ndarray], np.ndarray]  # of the episodes, and weights (R, n) of them: (R,), or NaN


@dataclass(frozen=True)
class Panel:
    """Judged episodes of one monitor as arrays.

    Args:
        episodes: n of them.
        task_time: decisions that a nominal success takes, by which measures at matched time are told; fixed before
            the test episodes are looked at.
        longest: T_max, decisions; 0 is the longest of ``episodes``.

    Raises:
        ContractError: if there are no episodes, a name comes twice, or the task time is not positive.
    """

    episodes: tuple[Judged, ...]
    task_time: float
    longest: int = 0

    def __post_init__(self) -> None:
        names = {episode.name for episode in self.episodes}
        if not names or len(names) < len(self.episodes) or not self.task_time > 0:
            raise ContractError(
                f"{len(self.episodes)} judged episodes of {len(names)} names, task time {self.task_time}; want one of "
                "each name, at least one, and a task time above 0"
            )
        if not self.longest:
            object.__setattr__(self, "longest", max(episode.length for episode in self.episodes))

    @classmethod
    def of(cls, episodes: Sequence[Judged], task_time: float | None = None, longest: int = 0) -> "Panel":
        """Return a panel; without ``task_time`` it is the median length of the nominal successes among them."""
        if task_time is None:
            task_time = task_time_of([e.length for e in episodes if e.success and not e.ood] or [1])
        return cls(tuple(episodes), task_time, longest)

    def only(self, stratum: str) -> "Panel | None":
        """Return the episodes of one stratum, T_max and task time being those of all; None if it has none."""
        kept = tuple(episode for episode in self.episodes if episode.stratum == stratum)
        return Panel(kept, self.task_time, self.longest) if kept else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(n,) of the episodes."""
        return tuple(episode.name for episode in self.episodes)

    @cached_property
    def success(self) -> np.ndarray:
        """(n,) bool."""
        return np.array([episode.success for episode in self.episodes], bool)

    @cached_property
    def ood(self) -> np.ndarray:
        """(n,) bool: whether the world was perturbed."""
        return np.array([episode.ood for episode in self.episodes], bool)

    @cached_property
    def first(self) -> np.ndarray:
        """(n,) decision of the first alarm or overrun, inf without one."""
        return np.array([np.inf if e.first is None else e.first for e in self.episodes], np.float64)

    @cached_property
    def lead_s(self) -> np.ndarray:
        """(n,) seconds from the first alarm to the onset that the task stamped; -inf without alarm, NaN without onset.

        An alarm before the onset is one that far ahead, were it the first decision's.
        """
        onset = np.array([np.nan if e.onset is None or e.success else e.onset for e in self.episodes], np.float64)
        return (onset - self.first) * np.array([e.dt_s for e in self.episodes])

    @cached_property
    def left_s(self) -> np.ndarray:
        """(n,) seconds from the first alarm to the end of a failed episode; NaN without an alarm, and in successes."""
        length = np.array([e.length for e in self.episodes], np.float64)
        left = (length - self.first) * np.array([e.dt_s for e in self.episodes])
        return np.where(self.success | ~np.isfinite(left), np.nan, left)

    def peak(self, decisions: int | None = None) -> np.ndarray:
        """Return how bad each episode had looked at most after so many decisions, (n,); None is at its end.

        One that ended before keeps the value it ended with.
        """
        return np.array([e.severity[:decisions].max() for e in self.episodes], np.float64)


def task_time_of(lengths: Sequence[int]) -> float:
    """Return the nominal task time in decisions: the median length of successful episodes.

    Raises:
        ContractError: if there are none.
    """
    if not lengths:
        raise ContractError("no successful episode to take the task time of; want one at least")
    return float(np.median(np.asarray(lengths)))


@dataclass(frozen=True)
class Share:
    """The share of some episodes that have something: k of n, so an exact interval exists.

    Args:
        masks: of a panel: which episodes have it (n,) bool, and which it is asked of (n,) bool.
    """

    masks: Callable[[Panel], tuple[np.ndarray, np.ndarray]]

    def __call__(self, panel: Panel, weights: np.ndarray) -> np.ndarray:
        """Return the share (R,) under weights (R, n)."""
        having, among = self.masks(panel)
        return _mean(having.astype(np.float64), among, weights)

    def counts(self, panel: Panel) -> tuple[int, int]:
        """Return k and n."""
        having, among = self.masks(panel)
        return int(np.count_nonzero(having & among)), int(np.count_nonzero(among))


# Share of failures with an alarm at any time before their end.
tpr = Share(lambda panel: (np.isfinite(panel.first), ~panel.success))
# Share of successes without an alarm.
tnr = Share(lambda panel: (np.isinf(panel.first), panel.success))
# Share of failures with an alarm within the nominal task time: waiting longer is no prediction.
caught_in_time = Share(lambda panel: (panel.first < panel.task_time, ~panel.success))
# Share of successes in the calibrated world with an alarm: what the promise is about.
nominal_false_alarms = Share(lambda panel: (np.isfinite(panel.first), panel.success & ~panel.ood))
# Share of successes in a perturbed world with an alarm: no promise covers these.
ood_false_alarms = Share(lambda panel: (np.isfinite(panel.first), panel.success & panel.ood))


def balanced_accuracy(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """(TPR + TNR) / 2, what FIPER calls accuracy."""
    return (tpr(panel, weights) + tnr(panel, weights)) / 2


def detection_time(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """DT: the mean over detected failures of t_alarm / (T_max - 1), as FIPER defines it; 0 is at once."""
    found = ~panel.success & np.isfinite(panel.first)
    return _mean(_relative_time(panel), found, weights)


def twa(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """TWA as FIPER (2025) defines it: half of it TNR, half TPR with an early alarm worth more than a late one.

    TWA = ((1 / N_fail) sum over detected failures of (1 - DT_i) + TNR) / 2.
    """
    earliness = np.where(np.isfinite(panel.first), 1.0 - _relative_time(panel), 0.0)
    return (_mean(earliness, ~panel.success, weights) + tnr(panel, weights)) / 2


def auroc(panel: Panel, weights: np.ndarray, *, share: float | None = None) -> np.ndarray:
    """Chance that a failure looks worse than a success, a tie counting half; blind to the threshold.

    Args:
        panel: the episodes.
        weights: (R, n) of them.
        share: at matched time, of the nominal task time: every episode is told by its first ceil(share x task time)
            decisions, so a clock knows nothing before the first episode ends. None: each at its own end.
    """
    return rank_area(panel.peak(budget(panel, share)), ~panel.success, weights)


def median_lead(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """Median, s, from the alarm to the onset over detected failures that have one; below 0 is after it."""
    return _weighted_median(panel.lead_s, np.isfinite(panel.lead_s), weights)


def median_lead_of_all(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """The same over all failures that have an onset, one without an alarm being infinitely late: -inf."""
    return _weighted_median(panel.lead_s, ~np.isnan(panel.lead_s), weights)


def median_left(panel: Panel, weights: np.ndarray) -> np.ndarray:
    """Median, s, from the alarm to the end of detected failures."""
    return _weighted_median(panel.left_s, ~np.isnan(panel.left_s), weights)


MEASURES: Mapping[str, Measure] = {
    "balanced_accuracy": balanced_accuracy,
    "tpr": tpr,
    "tnr": tnr,
    "twa": twa,
    "detection_time": detection_time,
    "auroc": auroc,
    "auroc_25": partial(auroc, share=0.25),
    "auroc_50": partial(auroc, share=0.5),
    "caught_in_time": caught_in_time,
    "nominal_false_alarms": nominal_false_alarms,
    "ood_false_alarms": ood_false_alarms,
    "median_lead_s": median_lead,
    "median_lead_of_all_s": median_lead_of_all,
    "median_left_s": median_left,
}


def point(panel: Panel, measure: Measure) -> float:
    """Return a measure of the episodes as they are; NaN where there is nothing to measure."""
    return float(measure(panel, np.ones((1, len(panel.episodes))))[0])


def budget(panel: Panel, share: float | None) -> int | None:
    """Return the decisions within ``share`` of the nominal task time, one at least; None without a share."""
    return None if share is None else max(1, ceil(share * panel.task_time))


def rank_area(values: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC (R,) of ``values`` (n,), ties counted half (Mann and Whitney 1947).

    Args:
        values: (n,) larger for positives, may be infinite.
        positive: (n,) bool.
        weights: (R, n) of the episodes.
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])  # of groups of equal values
    w = weights[:, order]
    of_positives = np.add.reduceat(w * positive[order], starts, axis=1)  # (R, G)
    of_negatives = np.add.reduceat(w * ~positive[order], starts, axis=1)
    below = np.cumsum(of_negatives, axis=1) - of_negatives / 2
    return _ratio((of_positives * below).sum(axis=1), of_positives.sum(axis=1) * of_negatives.sum(axis=1))


def roc(panel: Panel, share: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return (false, true) alarm rates (G + 1,) over all thresholds, from none to all; for drawing."""
    values, failed = panel.peak(budget(panel, share)), ~panel.success
    levels = np.unique(values)[::-1]
    over = values[None] >= levels[:, None]  # (G, n)
    false = over[:, ~failed].mean(axis=1) if (~failed).any() else np.zeros(len(levels))
    true = over[:, failed].mean(axis=1) if failed.any() else np.zeros(len(levels))
    return np.r_[0.0, false], np.r_[0.0, true]


def _relative_time(panel: Panel) -> np.ndarray:
    return np.where(np.isfinite(panel.first), panel.first, 0.0) / max(panel.longest - 1, 1)


def _mean(values: np.ndarray, among: np.ndarray, weights: np.ndarray) -> np.ndarray:
    kept = weights[:, among]
    return _ratio(kept @ values[among], kept.sum(axis=1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _weighted_median(values: np.ndarray, among: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The median of ``values[among]``, each as often as its weight; of an even number the mean of the middle two."""
    if not among.any():
        return np.full(len(weights), np.nan)
    order = np.argsort(values[among], kind="stable")
    ranked, w = values[among][order], weights[:, among][:, order]
    reached, half = np.cumsum(w, axis=1), w.sum(axis=1, keepdims=True) / 2
    low = ranked[np.argmax(reached >= half, axis=1)]
    high = ranked[np.argmax(reached > half, axis=1)]  # all weights 0: the first, and unused
    middle = np.where(low == high, low, (low + high) / 2)
    return np.where(half[:, 0] > 0, middle, np.nan)
