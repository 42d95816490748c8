"""What a monitor has to beat: an alarm at random as often, a stopwatch, and one that alarms falsely as often."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.monitor.conformal import conformal_threshold
from robopolicy.monitor.judged import Judged
from robopolicy.types import Decision, MonitorState, Verdict


@dataclass(frozen=True)
class Hazard:
    """The chance of an alarm at each decision."""

    per_decision: float  # h, 0 to 1

    @classmethod
    def fitted(cls, lengths: Sequence[int], rate: float) -> "Hazard":
        """Return the hazard at which successful episodes of these ``lengths`` are alarmed at ``rate`` in the mean.

        That is the root of mean(1 - (1 - h) ** T) = rate, by bisection to the last bit that matters.

        Args:
            lengths: decisions of each, T >= 1.
            rate: share of these episodes with an alarm, 0 to 1.

        Raises:
            ContractError: if there are no lengths, one is below 1, or the rate is none.
        """
        t = np.asarray(lengths, np.float64)
        if t.ndim != 1 or t.size == 0 or t.min() < 1 or not 0 <= rate <= 1:
            raise ContractError(f"a rate of {rate} over {t.size} episodes; want 0 to 1, and lengths of 1 or more")
        if rate in (0, 1):
            return cls(float(rate))
        low, high = 0.0, 1.0
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if np.mean(1 - (1 - middle) ** t) < rate else (low, middle)
        return cls((low + high) / 2)

    def rate(self, lengths: Sequence[int]) -> float:
        """Return the share of episodes of these lengths that are alarmed, in the mean."""
        return float(np.mean(1 - (1 - self.per_decision) ** np.asarray(lengths, np.float64)))


class RandomTrigger:
    """Alarms at any decision with the same chance, whatever is seen, and stays alarmed: a monitor that knows nothing.

    What it draws depends on its seed and on the episode's first decision alone, so that an episode is judged alike in
    whatever order and process it is run.

    Args:
        hazard: chance of an alarm at each decision.
        seed: of the draws.
    """

    def __init__(self, hazard: Hazard, seed: int = 0) -> None:
        self.hazard = hazard
        self.seed = seed
        self.candidates = 1  # chunks that it needs of a decision
        self.reset()

    @classmethod
    def like(cls, lengths: Sequence[int], rate: float, seed: int = 0) -> "RandomTrigger":
        """Return one with the false-alarm ``rate`` on nominal successes of these ``lengths``, decisions."""
        return cls(Hazard.fitted(lengths, rate), seed)

    def reset(self) -> None:
        """Start a new episode and re-arm."""
        self._rng: np.random.Generator | None = None
        self._alarmed = False
        self._statistic = 0.0

    def step(self, decision: Decision) -> Verdict:
        """Draw a number from 0 to 1; one above 1 - h is an alarm."""
        if self._rng is None:
            seen = zlib.crc32(np.ascontiguousarray(decision.chunks[0], np.float32).tobytes())
            self._rng = np.random.default_rng((self.seed, seen, zlib.crc32(decision.embedding.tobytes())))
        drawn, h = 1.0 - float(self._rng.random()), self.hazard.per_decision  # above 0, 1 at most
        self._alarmed = self._alarmed or drawn > 1 - h
        self._statistic = max(self._statistic, drawn)
        return Verdict(
            decision.stamp_ns,
            {"random": drawn},
            self._statistic,
            1 - h,
            1.0,
            "alarm" if self._alarmed else "nominal",
            reason=f"decision {decision.number}: drawn at random, {h:.2%} a decision",
        )


class Stopwatch:
    """Alarms once an episode has taken longer than successes do, calibrated by rank as any score is.

    It is `scores.clock` without an end: where a monitor no longer asks its scores, beyond the longest calibrated
    episode, this one goes on counting.

    Args:
        lengths: (n,) decisions of the successful calibration episodes.
        alpha: false-alarm rate per successful episode.

    Raises:
        NotEnoughCalibration: if n is too small for ``alpha``.
    """

    def __init__(self, lengths: Sequence[int], alpha: float) -> None:
        self.threshold = conformal_threshold(np.asarray(lengths, np.float64) - 1, alpha)  # of the last decision's index
        self.candidates = 1  # chunks that it needs of a decision
        self.reset()

    def reset(self) -> None:
        """Start a new episode."""
        self._count = 0

    def step(self, decision: Decision) -> Verdict:
        """Count the decision; its index is the statistic."""
        index = float(self._count)
        self._count += 1
        state: MonitorState = "alarm" if index > self.threshold else "nominal"
        reason = f"decision {decision.number}: by the clock, against {self.threshold:g}"
        return Verdict(decision.stamp_ns, {"clock": index}, index, self.threshold, 1.0, state, reason=reason)


def clock_at(judged: Sequence[Judged]) -> list[Judged]:
    """Return the same episodes as a stopwatch would have judged them that alarms falsely as often as the monitor did.

    Of all stopwatches this is the best that is not worse in false alarms: the earliest time that no larger a share of
    these very successes outlasts than had an alarm. It has seen the test episodes; no calibrated one has.
    """
    good = [episode for episode in judged if episode.success]
    lengths = np.array([episode.length for episode in good], np.int64)
    allowed = sum(episode.first is not None for episode in good)
    last = max(episode.length for episode in judged)
    # An alarm at decision t needs an episode of more than t decisions.
    level = next(t for t in range(last + 1) if np.count_nonzero(lengths > t) <= allowed)
    return [_timed(episode, level) for episode in judged]


def _timed(episode: Judged, level: int) -> Judged:
    alarm = level if episode.length > level else None
    states = tuple("nominal" if t < level else "alarm" for t in range(episode.length))
    ticks, level_at = np.arange(episode.length, dtype=np.float64), np.full(episode.length, level - 0.5)
    return replace(episode, statistic=ticks, threshold=level_at, states=states, alarm=alarm, overrun=None,
                   latency_s=np.zeros(0))  # fmt: skip
