"""ACE: how many different things the policy would do now, from the entropy of its candidate chunks."""

from collections.abc import Mapping, Sequence

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes, score_episode
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.replans import require_candidates
from robopolicy.types import Decision

MARGIN = 0.01  # of a step's spread, by which its grid of cells begins before the least position


class ActionChunkEntropy:
    """Entropy of where the candidate chunks of one decision say that the tool will be, in bits.

    FIPER (2025), eq. 4, 10 and 11, as its code has it: at every row of the chunk, executed or not, the N positions are
    put into cells, each axis 0.03 of the range that the calibration's chunks have on it; the entropy of the share of
    positions a cell (all axes at once, plug-in, log2) is averaged over the rows. 0 where all candidates agree, log2(N)
    where no two do. Positions are those of the layout, without rotation and gripper; where the action is a step or a
    velocity they are summed up along the chunk; an axis without range takes the largest range there is.

    Args:
        layout: says which elements are positions; None takes every element.
        seed: nothing is drawn.
        cell: edge of a cell, as a share of an axis' range.

    Raises:
        MonitorError: if ``cell`` is not positive.
    """

    name = "ace"
    requires: frozenset[str] = frozenset()
    min_candidates = 2

    def __init__(self, *, layout: ActionLayout | None = None, seed: int = 0, cell: float = 0.03) -> None:
        if not cell > 0:
            raise MonitorError(f"ace: cell {cell}; want a positive share of the range")
        self._share = cell
        self._elements = None if layout is None else np.array(layout.moving, np.int64)
        per_row = {"delta": 1.0, "velocity": 0.0 if layout is None else layout.dt_s}
        self._per_row = 0.0 if layout is None else per_row.get(layout.kind, 0.0)  # 0: positions as they are
        self._cell: np.ndarray | None = None  # (P,)

    def fit(self, episodes: Episodes) -> None:
        """Learn the range of each position.

        Raises:
            MonitorError: if a decision has one candidate only: there is nothing to compare it with.
            ContractError: if a position is not finite, or none ever changes.
        """
        self._cell = self._cells(*self._ranges(episodes))

    def update(self, decision: Decision) -> float:
        """Return the mean entropy, bits; NaN if a position is not finite."""
        if self._cell is None:
            raise ContractError("ace was never fitted; it has no cells")
        x = self._positions(decision)  # (N, H, P)
        if not np.isfinite(x).all():
            return np.nan
        low = x.min(axis=0)
        start = low - MARGIN * (x.max(axis=0) - low)  # (H, P)
        return float(entropies(np.floor((x - start) / self._cell)).mean())

    def reset(self) -> None:
        """Nothing is carried from one decision to the next."""

    def held_out(self, episodes: Episodes) -> list[np.ndarray]:
        """Return each episode's scores (T_i,), in cells of the other episodes' range."""
        low, high = self._ranges(episodes)
        kept, scores = self._cell, []
        try:
            for i, episode in enumerate(episodes):
                others = np.arange(len(episodes)) != i if len(episodes) > 1 else np.array([True])
                self._cell = self._cells(low[others], high[others])
                scores.append(score_episode(self, episode))
        finally:
            self._cell = kept
        return scores

    def arrays(self) -> dict[str, np.ndarray]:
        """Return which elements are positions, how they add up and the edges of a cell."""
        if self._cell is None or self._elements is None:
            raise ContractError("ace was never fitted; there is nothing to keep")
        settings = np.array([self._share, self._per_row])
        return {"elements": self._elements, "cell": self._cell, "settings": settings}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "ActionChunkEntropy":
        """Rebuild what ``arrays`` gave."""
        share, per_row = arrays["settings"]
        score = cls(cell=float(share))
        score._per_row = float(per_row)
        score._elements, score._cell = arrays["elements"], arrays["cell"]
        return score

    def _positions(self, decision: Decision) -> np.ndarray:
        chunks = decision.chunks if self._elements is None else decision.chunks[..., self._elements]
        x: np.ndarray = chunks.astype(np.float64)
        return np.cumsum(x * self._per_row, axis=1) if self._per_row else x

    def _ranges(self, episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and the largest position of each episode's chunks, (n, P) each."""
        require_candidates(self.name, episodes, self.min_candidates)
        if self._elements is None:
            self._elements = np.arange(episodes[0][0].chunks.shape[2])
        edges = [_edges([self._positions(decision) for decision in episode]) for episode in episodes]
        low, high = (np.stack(part) for part in zip(*edges, strict=True))
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise ContractError("a chunk is not finite; the monitor cannot learn from it")
        return low, high

    def _cells(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        extent = high.max(axis=0) - low.min(axis=0)  # (P,)
        if not extent.any():
            raise ContractError("the positions never change; there is no range to make cells of")
        cells: np.ndarray = self._share * np.where(extent > 0, extent, extent.max())
        return cells


def entropies(cells: np.ndarray) -> np.ndarray:
    """Return the plug-in entropy (H,), bits, of the cells (N, H, P) that N points are in at each of H rows.

    Cells are counted in their own order, so that the points' order changes nothing, not even a rounding.
    """
    count, rows, axes = cells.shape
    flat = cells.transpose(1, 0, 2).reshape(rows * count, axes)
    row = np.repeat(np.arange(rows), count)
    order = np.lexsort((*flat.T, row))  # by row first
    flat = flat[order]
    new = np.ones(rows * count, bool)
    new[1:] = (flat[1:] != flat[:-1]).any(axis=1)
    new[::count] = True  # a row's first
    first = np.flatnonzero(new)
    share = np.diff(first, append=rows * count) / count
    return np.bincount(row[first], weights=share * np.log2(1 / share), minlength=rows)


def _edges(positions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest of several (N, H, P), (P,) each."""
    low = np.stack([x.min(axis=(0, 1)) for x in positions]).min(axis=0)
    high = np.stack([x.max(axis=(0, 1)) for x in positions]).max(axis=0)
    return low, high
