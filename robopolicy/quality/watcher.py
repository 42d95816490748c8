"""Live feedback while recording: how well the demonstration so far fits those before."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from robopolicy.quality.compatibility import BasePolicy, Judged, mean_of_familiar
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step

RECENT_S = 1.5  # what `message` speaks of
DIFFERS = "this differs from the rest"
NEW = "new ground: not seen before"


class CompatibilityWatcher:
    """A `Watcher` that judges each step against a base policy as soon as the actions that follow it are known.

    Args:
        base: made from the demonstrations to compare with.

    Attributes:
        message: for the operator: how the last `RECENT_S` seconds compare; "" while all is well.
        compatibility: of every judged step of this episode, 0 to 1.
    """

    def __init__(self, base: BasePolicy) -> None:
        self.message = ""
        self.compatibility: list[float] = []
        self._base = base
        self._novelty: list[float] = []
        self._window: deque[Step] = deque(maxlen=base.config.horizon)
        self._recent = max(round(RECENT_S * base.spec.rate_hz), 1)  # steps
        self._limit = stretch_limit(base.held_out, self._recent, base.config.false_alarm)

    @property
    def score(self) -> float | None:
        """The demonstration's compatibility so far, 0 to 1; None before there is one."""
        return mean_of_familiar(np.array(self.compatibility), self._new(0)) if self.compatibility else None

    def require(self, spec: PolicySpec) -> None:
        """Raise SpecMismatch, both sides printed, if the robot is not the one of the base demonstrations."""
        self._base.spec.require_from(spec, needs="the demonstrations to compare with", offers="the robot")

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Begin anew; raises as `require` does."""
        self.require(spec)
        self.message, self.compatibility, self._novelty = "", [], []
        self._window.clear()

    def on_step(self, step: Step) -> None:
        """Judge the step whose following actions are now all known."""
        self._window.append(step)
        if len(self._window) < self._base.config.horizon:
            return
        state = {name: np.asarray(self._window[0].observation.state[name])[None] for name in self._base.spec.state}
        compatibility, novelty = self._base.judge_step(state, np.stack([s.sent for s in self._window]))
        self.compatibility.append(compatibility)
        self._novelty.append(novelty)
        self.message = self._say()

    def on_end(self, meta: EpisodeMeta) -> None:
        """Say how the whole demonstration compares."""
        score = self.score
        if score is not None and score < self._base.rule.score:
            self.message = f"{DIFFERS} (compatibility {score:.2f}, want {self._base.rule.score:.2f})"
        else:
            self.message = ""

    def _new(self, first: int) -> np.ndarray:
        """Return which steps from ``first`` on are new, bool."""
        return np.array(self._novelty[first:]) >= self._base.rule.novelty

    def _say(self) -> str:
        recent = self.compatibility[-self._recent :]
        if len(recent) < self._recent:
            return ""
        if float(np.mean(recent)) < self._limit:
            return DIFFERS
        return NEW if self._new(-self._recent).mean() > 0.5 else ""


def stretch_limit(held_out: Sequence[Judged], recent: int, false_alarm: float) -> float:
    """Return the mean compatibility below which ``recent`` steps differ.

    So low that no more than ``false_alarm`` of the held-out base demonstrations ever come below it.
    """
    lowest = []
    for judged in held_out:
        total = np.concatenate([[0.0], np.cumsum(judged.compatibility)])
        if len(total) > recent:
            lowest.append(float(np.min(total[recent:] - total[:-recent])) / recent)
    return float(np.quantile(lowest, false_alarm)) if lowest else 0.0
