"""The stopwatch that every other score has to beat."""

from collections.abc import Mapping

import numpy as np

from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.types import Decision


class Clock:
    """The stopwatch: a decision's index. Failures are often time-outs, so any other score has to beat this one."""

    name = "clock"
    requires: frozenset[str] = frozenset()
    min_candidates = 1

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0) -> None:
        """Nothing to set."""

    def fit(self, episodes: Episodes) -> None:
        """There is nothing to learn; calibration finds how long a success takes."""

    def update(self, decision: Decision) -> float:
        """Return the number of decisions before this one."""
        return float(decision.index)

    def reset(self) -> None:
        """The index starts anew with the episode."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each episode's scores (T_i,)."""
        return [score_episode(self, episode) for episode in episodes]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return nothing."""
        return {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Clock":
        """Return a new one."""
        return cls()
