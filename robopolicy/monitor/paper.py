"""FIPER as published, faults and all, and the same with thresholds that hold: what ours is compared with.

Roemer et al., Failure Prediction at Runtime for Generative Robot Policies, NeurIPS 2025, and its published code.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.monitor import MonitorConfig, fit_monitor
from robopolicy.monitor.paper_thresholds import THRESHOLDS, Threshold, thresholds
from robopolicy.monitor.roles import Roles
from robopolicy.monitor.runtime import ConformalMonitor
from robopolicy.monitor.scores import make_score
from robopolicy.monitor.statistic import Combination
from robopolicy.types import Decision, Verdict

LEGS = ("rnd", "ace")  # novelty of the observation, entropy of the action
EPSILON = 1e-6  # added to every score
Settings = Mapping[str, Mapping[str, Any]]  # {score: its settings}


class FiperPaper:
    """The published method as coded: no promise of a false-alarm rate holds, whatever ``alpha`` says.

    Both scores are fitted on *all* calibration rollouts (RND on raw embeddings, validated on a tenth of the
    *decisions*), and thresholds come from the same rollouts, those that succeeded. A leg is the *sum* of its last
    scores against a threshold a decision; beyond the longest rollout that is the mean of all of them. The alarm is
    both legs above theirs at the same decision. Windows are the caller's: the paper takes the best on its test set.

    Args:
        alpha: hoped for: 1 less the quantile of either leg.
        windows: scores that are summed, of RND and of ACE; None: all so far.
        threshold: ``ct_quantile``, ``tvt_quantile`` or ``tvt_cp_band``.
        seed: of the networks and of the band's halves.
        layout: what the elements of an action are; None takes all for positions.
        settings: of the two scores, such as ``{"rnd": {"small": True}}``.

    Raises:
        MonitorError: if a setting makes no sense.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        windows: tuple[int | None, int | None] = (5, 5),
        threshold: Threshold = "tvt_cp_band",
        seed: int = 0,
        layout: ActionLayout | None = None,
        settings: Settings | None = None,
    ) -> None:
        if threshold not in THRESHOLDS or not 0 < alpha < 1 or any(w is not None and w < 1 for w in windows):
            raise MonitorError(f"threshold {threshold!r}, alpha {alpha:g}, windows {windows}; want {THRESHOLDS}, 0 to "
                               "1, and 1 or more")  # fmt: skip
        self.alpha, self.windows, self.kind, self.seed, self.layout = alpha, windows, threshold, seed, layout
        self._settings: dict[str, dict[str, Any]] = {name: dict((settings or {}).get(name, {})) for name in LEGS}
        self._settings["rnd"] = {"raw": True} | self._settings["rnd"]
        self._levels: tuple[np.ndarray, ...] = ()

    def fit(self, episodes: Episodes, failures: Episodes = ()) -> "FiperPaper":
        """Fit scores and thresholds on the same rollouts; return this.

        Args:
            episodes: decisions of each successful calibration rollout.
            failures: of those that failed: the scores learn from them too, the thresholds do not.
        """
        rollouts = [*episodes, *failures]
        self.scores = [make_score(name, layout=self.layout, seed=self.seed, **self._settings[name]) for name in LEGS]
        rnd, ace = self.scores
        rnd.fit([[decision] for rollout in rollouts for decision in rollout])  # each for itself: split by decision
        ace.fit(rollouts)
        self._levels = tuple(
            thresholds(self.kind, [self._trace(leg, one) for one in episodes], 1 - self.alpha, seed=self.seed)
            for leg in range(len(LEGS))
        )
        self._candidates = len(episodes[0][0].chunks)
        self.reset()
        return self

    def reset(self) -> None:
        """Start a new episode and re-arm."""
        for score in self.scores if self._levels else ():
            score.reset()
        self._recent = [deque[float](maxlen=window) for window in self.windows]
        self._count, self._largest, self._alarmed = 0, -np.inf, False

    def step(self, decision: Decision) -> Verdict:
        """Return the verdict; ``statistic`` is the largest so far of the lesser leg over its threshold, 1 the limit.

        It has no p-value: that is always 1. A score that is not a number compares as calm, as in the published code.

        Raises:
            ContractError: before ``fit``.
        """
        start_s = time.perf_counter()
        if not self._levels:
            raise ContractError("fiper_paper was never fitted; it has no thresholds")
        scores, ratios = {}, []
        for score, recent, levels in zip(self.scores, self._recent, self._levels, strict=True):
            scores[score.name] = float(score.update(decision))
            recent.append(scores[score.name] + EPSILON)
            level = levels[self._count] if self._count < len(levels) else levels.mean()
            ratios.append(sum(recent) / float(level))
        self._count += 1
        least = min(ratios)
        self._alarmed = self._alarmed or least > 1
        self._largest = max(self._largest, least)
        state = "alarm" if self._alarmed else "nominal"
        told = ", ".join(f"{name} {ratio:.2f}" for name, ratio in zip(scores, ratios, strict=True))
        return Verdict(
            decision.stamp_ns, scores, self._largest, 1.0, 1.0, "alarm" if self._alarmed else "nominal",
            time.perf_counter() - start_s, f"decision {decision.number}: {state}: {told} of their thresholds",
        )  # fmt: skip

    @property
    def candidates(self) -> int:
        """Chunks that the policy has to draw a decision."""
        return self._candidates

    def _trace(self, leg: int, episode: Sequence[Decision]) -> np.ndarray:
        """The windowed scores (T,) of one episode."""
        values = score_episode(self.scores[leg], episode) + EPSILON
        return windowed(values, self.windows[leg])


class FiperFixed:
    """The same two scores, both legs still to be high at once, with a threshold that keeps its promise.

    Rollouts are split by episode: one part fits scores, their scale and what is usual at each decision; on the other
    the lesser of the two standardised scores is calibrated, once, by rank. It differs from the published method in a
    mean over the window in place of a sum, of the lesser score in place of each.

    Args:
        alpha: false alarms, a fraction of successful episodes.
        window: decisions that are averaged.
        seed: of the split and the networks.
        layout: what the elements of an action are; None takes all for positions.
        settings: of the two scores.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        window: int = 5,
        seed: int = 0,
        layout: ActionLayout | None = None,
        settings: Settings | None = None,
    ) -> None:
        given = {name: dict((settings or {}).get(name, {})) for name in LEGS}
        self.config = MonitorConfig(
            LEGS, Combination("min", window, 0, "band"), alpha, seed=seed,
            settings=given | {"rnd": {"raw": True} | given["rnd"]},
        )  # fmt: skip
        self.layout = layout
        self.monitor: ConformalMonitor | None = None

    def fit(
        self, episodes: Episodes, failures: Episodes = (), *, roles: Roles | None = None, seeds: Sequence[int] = ()
    ) -> "FiperFixed":
        """Fit and calibrate on successful rollouts; return this.

        Args:
            episodes: decisions of each.
            failures: set aside.
            roles: which of ``seeds`` fits and which calibrates; None splits at random.
            seeds: of the episodes; None numbers them.

        Raises:
            NotEnoughCalibration: if there are too few for alpha.
        """
        self.monitor = fit_monitor(
            episodes, self.config, layout=self.layout, roles=roles, seeds=seeds, failed=len(failures)
        )
        return self

    def reset(self) -> None:
        """Start a new episode and re-arm."""
        if self.monitor is not None:
            self.monitor.reset()

    def step(self, decision: Decision) -> Verdict:
        """Return the verdict of the calibrated monitor.

        Raises:
            ContractError: before ``fit``.
        """
        if self.monitor is None:
            raise ContractError("fiper_paper was never fitted; it has no threshold")
        return self.monitor.step(decision)

    @property
    def candidates(self) -> int:
        """Chunks that the policy has to draw a decision."""
        return 1 if self.monitor is None else self.monitor.candidates


@overload
def fiper_paper(fixed: Literal[False] = False, **options: Any) -> FiperPaper: ...
@overload
def fiper_paper(fixed: Literal[True], **options: Any) -> FiperFixed: ...
def fiper_paper(fixed: bool = False, **options: Any) -> FiperPaper | FiperFixed:
    """Return the published method, to be fitted; ``fixed`` with thresholds that hold. ``options`` are the class's."""
    return FiperFixed(**options) if fixed else FiperPaper(**options)


def windowed(scores: np.ndarray, window: int | None) -> np.ndarray:
    """Return the sum of the last ``window`` scores (T,) at each decision, fewer at the start; None: of all."""
    length = len(scores)
    total = np.zeros(length)
    for lag in reversed(range(min(length if window is None else window, length))):  # oldest first, as they come
        total[lag:] += scores[: length - lag]
    return total
