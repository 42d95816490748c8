"""From several scores to the one number that is calibrated: standardise, combine, smooth, align in time, be patient."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robopolicy.errors import MonitorError

Combine = Literal["sum", "max", "min", "logistic"]
Shape = Literal["const", "band"]
COMBINATIONS: tuple[str, ...] = ("sum", "max", "min", "logistic")
SHAPES: tuple[str, ...] = ("const", "band")
LOWEST = float(np.finfo(np.float64).min)  # of a decision that patience still waits at: finite, and over no threshold
MIN_FAILURES = 10  # failed episodes that a logistic combination learns its weights from
FLOOR = 0.25  # smallest spread of a band, as a share of the spread over all times


@dataclass(frozen=True)
class Combination:
    """How scores become one number; all of it is inside what is calibrated.

    Raises:
        MonitorError: if a word or number makes no sense.
    """

    combine: Combine = "sum"  # of the standardised scores
    window: int = 1  # decisions that are averaged, the newest last; fewer at the start
    patience: int = 0  # decisions beside the newest that must be over the threshold too
    shape: Shape = "const"  # threshold over time: one, or a band around what is usual at each decision

    def __post_init__(self) -> None:
        if self.combine not in COMBINATIONS:
            raise MonitorError(f"combination {self.combine!r}; valid: {', '.join(COMBINATIONS)}")
        if self.shape not in SHAPES:
            raise MonitorError(f"shape {self.shape!r}; valid: {', '.join(SHAPES)}")
        if self.window < 1 or self.patience < 0:
            raise MonitorError(f"window {self.window}, patience {self.patience}; want at least 1 and at least 0")


class Statistic:
    """Scores (m,) of a decision in, one number out; larger is worse. Causal: it looks at the past only.

    1. standardise: each score less its mean over the fit episodes, by its spread there (both of held-out scores);
    2. combine: sum, max, min, or a sum with weights learnt from failures;
    3. window: mean of the last w;
    4. shape: with a band, less what is usual at this decision and by the spread there. Where fewer fit episodes were
       still running, the band goes over into the constant: weights n_t / N;
    5. patience: the smallest of the last p + 1, so that a threshold is exceeded when p + 1 in a row exceed it.

    An alarm at a time t then is ``push(...) > threshold``, and an episode's calibrated number is the largest value.
    """

    def __init__(self, names: Sequence[str], how: Combination, arrays: Mapping[str, np.ndarray]) -> None:
        self.names = tuple(names)
        self.how = how
        self._arrays = dict(arrays)
        self._mean, self._scale, self._weights = (
            np.asarray(arrays[k], np.float64) for k in ("mean", "scale", "weights")
        )
        band = np.asarray(arrays["band"], np.float64)  # (L + 1, 2): centre and spread; the last row for ever after
        self._centre, self._spread = band[:, 0], band[:, 1]
        self.reset()

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        successes: Sequence[np.ndarray],
        how: Combination,
        failures: Sequence[np.ndarray] = (),
    ) -> "Statistic":
        """Learn scales, weights and band.

        Args:
            names: of the m scores, the columns.
            successes: (T_i, m) held-out scores of each fit episode.
            how: of the combination.
            failures: (T_i, m) scores of failed episodes, for ``logistic``.

        Raises:
            MonitorError: if a score never changes over the fit episodes, or ``logistic`` has too few failures.
        """
        pooled = np.concatenate(list(successes))  # (M, m)
        mean, scale = pooled.mean(axis=0), pooled.std(axis=0)
        dull = [name for name, s, m in zip(names, scale, mean, strict=True) if not s > 1e-9 * (1e-6 + abs(m))]
        if dull:
            raise MonitorError(
                f"score {', '.join(dull)} is the same at every decision of the fit episodes; leave it out, it has no "
                "scale that others could be added to"
            )
        weights = np.ones(len(names))
        if how.combine == "logistic":
            weights = _logistic([(s - mean) / scale for s in successes], [(f - mean) / scale for f in failures])
        arrays = {"mean": mean, "scale": scale, "weights": weights, "band": np.array([[0.0, 1.0]])}
        if how.shape == "band":
            smooth = cls(names, Combination(how.combine, how.window), arrays)
            arrays["band"] = _band([smooth.trace(scores) for scores in successes])
        return cls(names, how, arrays)

    def reset(self, count: int = 0) -> None:
        """Start a new episode, or afresh after ``count`` decisions of one: the band goes by the episode's time."""
        self._recent: deque[float] = deque(maxlen=self.how.window)  # combined, newest first
        self._shaped: deque[float] = deque(maxlen=self.how.patience + 1)
        self._count = count

    def push(self, scores: np.ndarray) -> float:
        """Return the statistic of the newest decision, given its scores (m,)."""
        self._recent.appendleft(float(self._combine(np.asarray(scores, np.float64)[None])[0]))
        total = 0.0
        for value in self._recent:
            total += value
        row = min(self._count, len(self._centre) - 1)
        self._shaped.append((total / len(self._recent) - float(self._centre[row])) / float(self._spread[row]))
        self._count += 1
        return min(self._shaped) if len(self._shaped) > self.how.patience else LOWEST

    def trace(self, scores: np.ndarray) -> np.ndarray:
        """Return what ``push`` would give over an episode's scores (T, m): (T,), the same to the bit."""
        combined = self._combine(np.asarray(scores, np.float64))
        length = len(combined)
        steps, total = np.arange(length), np.zeros(length)
        for lag in range(min(self.how.window, length)):
            total[lag:] += combined[: length - lag]
        rows = np.minimum(steps, len(self._centre) - 1)
        shaped = (total / np.minimum(steps + 1, self.how.window) - self._centre[rows]) / self._spread[rows]
        patient = shaped.copy()
        for lag in range(1, self.how.patience + 1):
            patient[lag:] = np.minimum(patient[lag:], shaped[: max(length - lag, 0)])
        patient[: self.how.patience] = LOWEST
        return patient

    def arrays(self) -> dict[str, np.ndarray]:
        """Return all that was learnt: mean, scale, weights (m,), band (L + 1, 2)."""
        return dict(self._arrays)

    def describe(self) -> dict[str, Any]:
        """Return it in words and numbers, JSON-able."""
        return {
            "scores": list(self.names),
            "combine": self.how.combine,
            "window": self.how.window,
            "patience": self.how.patience,
            "shape": self.how.shape,
            "weights": [float(w) for w in self._weights],
        }

    def _combine(self, scores: np.ndarray) -> np.ndarray:
        if scores.shape[1:] != (len(self.names),):
            raise MonitorError(f"scores of shape {scores.shape}; want (T, {len(self.names)}) of {self.names}")
        columns = [(scores[:, i] - self._mean[i]) / self._scale[i] * self._weights[i] for i in range(len(self.names))]
        combined: np.ndarray = columns[0]
        for column in columns[1:]:
            match self.how.combine:
                case "max":
                    combined = np.maximum(combined, column)
                case "min":
                    combined = np.minimum(combined, column)
                case _:
                    combined = combined + column
        return combined


def _band(traces: Sequence[np.ndarray]) -> np.ndarray:
    """Return centre and spread (L + 1, 2) over time of ragged traces, blended with the constant by coverage n_t / N."""
    pooled = np.concatenate(list(traces))
    mean, spread = float(pooled.mean()), float(pooled.std()) or 1.0
    rows = []
    for t in range(max(len(trace) for trace in traces)):
        alive = np.array([trace[t] for trace in traces if len(trace) > t])
        share = len(alive) / len(traces)
        width = max(float(alive.std()), FLOOR * spread)
        rows.append((share * alive.mean() + (1 - share) * mean, share * width + (1 - share) * spread))
    return np.array([*rows, (mean, spread)])


def _logistic(successes: Sequence[np.ndarray], failures: Sequence[np.ndarray], ridge: float = 1.0) -> np.ndarray:
    """Return weights (m,), none negative, that tell failed episodes by the largest value of each score.

    Ridge-penalised logistic regression on (n, m) episode maxima; larger is worse for every score, so none may count
    the other way.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    if len(failures) < MIN_FAILURES:
        raise MonitorError(
            f"{len(failures)} failed episodes; a logistic combination learns from {MIN_FAILURES} or more: collect "
            "them, or combine by sum"
        )
    x = np.array([scores.max(axis=0) for scores in (*successes, *failures)])
    y = np.repeat([0.0, 1.0], [len(successes), len(failures)])
    balance = np.where(y > 0, 0.5 / len(failures), 0.5 / len(successes))  # both kinds weigh the same

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w[:-1] + w[-1]
        gap = balance * (expit(z) - y)
        value = float(balance @ (np.logaddexp(0.0, z) - y * z)) + ridge * float(w[:-1] @ w[:-1]) / (2 * len(x))
        return value, np.append(x.T @ gap + ridge * w[:-1] / len(x), gap.sum())

    m = x.shape[1]
    found = minimize(loss, np.append(np.ones(m), 0.0), jac=True, bounds=[(0.0, None)] * m + [(None, None)])
    weights: np.ndarray = found.x[:-1]
    if not weights.max() > 0:
        raise MonitorError("no score is larger in the failed episodes than in the successes: nothing to weigh them by")
    return weights / weights.max()
