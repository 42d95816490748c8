"""Successes of one law to calibrate on, and the check that a way of making monitors keeps its promise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.monitor.conformal import conformal_rank
from robopolicy.monitor.episodes import score_episode
from robopolicy.types import Decision

Episode = list[Decision]
SIGMAS = 3.0  # standard errors by which a rate may miss before the promise counts as broken


@dataclass(frozen=True)
class Law:
    """Exchangeable episodes: what is usual differs from episode to episode, and wanders slowly within one."""

    rho: float = 0.8  # from one decision to the next
    between: float = 0.7  # spread of the episodes' own offsets; that of the wandering is 1
    shortest: int = 8
    longest: int = 24
    dim: int = 4  # of an embedding

    def wander(self, rng: np.random.Generator, columns: int, length: int | None = None) -> np.ndarray:
        """Return an AR(1) (T, columns) around an offset of its own."""
        length = length or int(rng.integers(self.shortest, self.longest + 1))
        x = rng.normal(size=(length, columns))
        x[1:] *= np.sqrt(1 - self.rho**2)
        for t in range(1, length):
            x[t] += self.rho * x[t - 1]
        return x + rng.normal(size=columns) * self.between

    def scores(self, rng: np.random.Generator, columns: int = 1, length: int | None = None) -> np.ndarray:
        """Return scores (T, columns) as distances have them: above 0, with a long tail upwards."""
        return np.exp(0.6 * self.wander(rng, columns, length))

    def episode(self, rng: np.random.Generator, candidates: int = 1) -> Episode:
        """Return decisions: the embedding wanders; ``Level`` reads a score with a long tail off the action."""
        x = self.wander(rng, self.dim)
        levels = self.scores(rng, 1, len(x)).astype(np.float32)
        chunks = np.repeat(levels[:, None, None, :], 4, axis=2)  # (T, 1, 4, 1)
        if candidates > 1:
            chunks = chunks * rng.normal(size=(len(x), candidates, 4, 3)).astype(np.float32)
        return [Decision(t, t, np.float32(x[t]), chunks[t], 2) for t in range(len(x))]

    def episodes(self, rng: np.random.Generator, n: int, **options: Any) -> list[Episode]:
        """Return ``n`` of them."""
        return [self.episode(rng, **options) for _ in range(n)]


class Level:
    """A score that was known before any episode: it learns nothing."""

    name = "level"

    def fit(self, episodes: Sequence[Episode]) -> None:
        pass

    def update(self, decision: Decision) -> float:
        return float(decision.chunks[0, 0, 0])

    def reset(self) -> None:
        pass

    def held_out(self, episodes: Sequence[Episode]) -> list[np.ndarray]:
        return [score_episode(self, episode) for episode in episodes]


@dataclass(frozen=True)
class Found:
    """False-alarm rates of several calibrations."""

    rates: np.ndarray  # (R,) share of fresh successes with an alarm
    alpha: float
    n: int  # calibration episodes

    @property
    def mean(self) -> float:
        return float(self.rates.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean over calibrations."""
        return float(self.rates.std(ddof=1) / np.sqrt(len(self.rates)))

    @property
    def too_many(self) -> bool:
        """Whether more successes are alarmed than alpha allows."""
        return self.mean > self.alpha + SIGMAS * self.error

    @property
    def too_few(self) -> bool:
        """Whether the threshold is higher than its rank: fewer than 1 - k / (n + 1)."""
        rank = conformal_rank(self.n, self.alpha)
        return self.mean < 1 - rank / (self.n + 1) - SIGMAS * self.error

    @property
    def valid(self) -> bool:
        return not (self.too_many or self.too_few)

    def __str__(self) -> str:
        return f"{self.mean:.1%} +- {self.error:.1%} false alarms at {self.alpha:.0%}, n = {self.n}"


def alarmed(monitor: Any, episode: Episode) -> bool:
    """Whether the monitor alarms in this episode, asked decision by decision as a robot does."""
    monitor.reset()
    return any(monitor.step(decision).state == "alarm" for decision in episode)


def false_alarms(
    make: Callable[[list[Episode], int], Any],
    *,
    alpha: float,
    n: int,
    episodes: int,
    recalibrations: int,
    fresh: int = 20,
    law: Law = Law(),
    candidates: int = 1,
    seed: int = 0,
) -> Found:
    """Calibrate again and again, each time on ``episodes`` new successes, and count alarms in fresh ones.

    Args:
        make: a monitor, of episodes and a seed.
        alpha, n: what it promises, of how many calibration episodes.
        episodes: successes that it is made of, those that fit it among them.
        recalibrations: how often.
        fresh: successes to judge, each time.
        law: of all of them.
        candidates: chunks a decision.
        seed: of everything.
    """
    rng, rates = np.random.default_rng(seed), []
    for i in range(recalibrations):
        monitor = make(law.episodes(rng, episodes, candidates=candidates), i)
        rates.append(np.mean([alarmed(monitor, one) for one in law.episodes(rng, fresh, candidates=candidates)]))
    return Found(np.array(rates), alpha, n)
