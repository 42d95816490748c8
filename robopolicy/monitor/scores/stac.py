"""STAC: whether what the policy would do now is what it would have done a moment ago."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.replans import element_weights, overlap, require_candidates
from robopolicy.types import Decision

WIDTHS = ("decision", "fit")
ROUNDING = 1e-12  # of a squared distance, relative to the largest: chunks are float32


class TemporalConsistency:
    """Distance of two successive batches of candidates where they overlap in time: squared maximum mean discrepancy.

    Statistical temporal action consistency (Agia et al. 2024, Sentinel): the biased V-statistic of Gretton et al. 2012,
    eq. 5, mean k(x, x') + mean k(y, y') - 2 mean k(x, y), over chunks without their grippers, with the kernel
    exp(-gamma |x - y|^2) and gamma = 1 / (2 median |x - y|^2) over all pairs of the two batches. The first decision of
    an episode scores 0, and so does one whose candidates are those of the decision before, moved on in time.

    Each action element is divided by its spread in the fit: metres and radians do not add up.

    Args:
        layout: says which elements are grippers and how long a row lasts; None takes every element and trusts
            ``n_execute``.
        seed: nothing is drawn.
        width: ``decision`` takes the median of each decision's own pairs, as published; ``fit`` that of the fit's
            decisions, so that a change of mind by a metre scores more than one by a millimetre.

    Raises:
        MonitorError: if there is no such width.
    """

    name = "stac"
    requires: frozenset[str] = frozenset()
    min_candidates = 2

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0, width: str = "decision") -> None:
        if width not in WIDTHS:
            raise MonitorError(f"stac: no width {width!r}; valid: {', '.join(WIDTHS)}")
        self._of_fit = width == "fit"
        self._dt_s = None if layout is None else layout.dt_s
        self._gripper = () if layout is None else layout.gripper
        self._weight: np.ndarray | None = None  # (A,)
        self._median: float | None = None  # squared distance; of the fit, where it is to be
        self._previous: Decision | None = None

    def fit(self, episodes: Episodes) -> None:
        """Learn the spread of each action element, and how far apart candidates are if that is asked for.

        Raises:
            MonitorError: if there are no decisions, or one has one candidate only.
            ContractError: if the actions never change or are not finite, or candidates never differ.
        """
        require_candidates(self.name, episodes, self.min_candidates)
        self._weight = element_weights(episodes, left_out=self._gripper)
        if self._of_fit:
            pairs = (self._batches(*two) for e in episodes for two in pairwise(e))
            medians = [_median(_squared_distances(x, y)) for x, y in pairs if x.size]
            self._median = float(np.median(medians)) if medians else 0.0
            if not self._median > 0:
                raise ContractError("the candidates of successive decisions never differ; there is no width to learn")

    def update(self, decision: Decision) -> float:
        """Return the squared discrepancy from the batch before, 0 to 2; NaN if a chunk is not finite."""
        previous, self._previous = self._previous, decision
        if not np.isfinite(decision.chunks).all():
            return np.nan
        if previous is None:
            return 0.0
        x, y = self._batches(previous, decision)
        return discrepancy(x, y, self._median) if x.size else 0.0

    def reset(self) -> None:
        """Forget the batch before."""
        self._previous = None

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each episode's scores (T_i,); one spread an element is too little to have learnt an episode by."""
        return [score_episode(self, episode) for episode in episodes]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weight of each element, the width, and the time of a row; NaN where there is none."""
        if self._weight is None:
            raise ContractError("stac was never fitted; there is nothing to keep")
        known = [np.nan if value is None else value for value in (self._median, self._dt_s)]
        return {"weight": self._weight, "settings": np.array([self._of_fit, *known], np.float64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "TemporalConsistency":
        """Rebuild what ``arrays`` gave."""
        of_fit, *known = arrays["settings"]
        score = cls(width=WIDTHS[int(of_fit)])
        score._weight = arrays["weight"]
        score._median, score._dt_s = (None if np.isnan(value) else float(value) for value in known)
        return score

    def _batches(self, previous: Decision, decision: Decision) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows that both batches have, weighed and flat: (N, D) each, D 0 where there are none."""
        if self._weight is None:
            raise ContractError("stac was never fitted; it has no spread to compare chunks by")
        seen = self._weight > 0
        x, y = overlap(previous, decision, self._dt_s)
        return _ordered(x[..., seen] * self._weight[seen]), _ordered(y[..., seen] * self._weight[seen])


def discrepancy(x: np.ndarray, y: np.ndarray, median: float | None = None) -> float:
    """Return the biased squared maximum mean discrepancy of x (N, D) and y (M, D), 0 or more; 0 if they are the same.

    Args:
        x: a batch.
        y: another.
        median: squared distance that sets the kernel's width; None takes the median of all pairs of both batches.
    """
    if np.array_equal(x, y):
        return 0.0  # not but for rounding
    squares = _squared_distances(x, y)
    median = _median(squares) if median is None else median
    if median == 0:
        return 0.0  # but for rounding they are all the same
    k, n = np.exp(squares / (-2 * median)), len(x)
    value = k[:n, :n].mean() + k[n:, n:].mean() - 2 * k[:n, n:].mean()
    return float(np.maximum(value, 0.0))  # rounding; NaN stays NaN


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return those of both batches together, (N + M, N + M); what is but rounding is 0."""
    both = np.concatenate([x, y])
    both -= both.mean(axis=0)  # else large positions would leave little of small distances
    dots = both @ both.T
    norms = np.diagonal(dots)
    squares: np.ndarray = norms[:, None] + norms - 2 * dots
    squares[squares < ROUNDING * norms.max()] = 0.0
    return squares


def _median(squares: np.ndarray) -> float:
    """Return the median squared distance of all pairs; where most are the same, that of the others."""
    pairs = squares[np.tri(len(squares), k=-1, dtype=bool)]
    median = float(np.median(pairs))
    if median == 0 and pairs.any():
        median = float(np.median(pairs[pairs > 0]))
    return median


def _ordered(chunks: np.ndarray) -> np.ndarray:
    """Return chunks (N, R, A) flat, (N, D), in an order of their own: sums shall not depend on the one they came in."""
    flat = np.ascontiguousarray(chunks.reshape(len(chunks), -1))
    return flat[sorted(range(len(flat)), key=lambda i: flat[i].tobytes())]
