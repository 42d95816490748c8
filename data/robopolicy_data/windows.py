"""The windows that a policy learns from: which rows each is made of, and where it is padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy_data.arrays import Arrays, load_arrays

__all__ = ["Arrays", "Rows", "WindowSampler", "Windows", "load_arrays"]


@dataclass(frozen=True)
class Rows:
    """The rows of B windows, and which of them only repeat another because the episode has no more."""

    obs: np.ndarray  # (B, n_obs) int64, oldest first
    action: np.ndarray  # (B, past + horizon) int64
    padded_obs: np.ndarray  # (B, n_obs) bool
    padded_action: np.ndarray  # (B, past + horizon) bool


class Windows:
    """Every step of every episode as one window, in numbers of rows.

    The window of step t has the observations t-(n_obs-1)*every .. t, repeating the episode's first step before its
    start, and the actions t-past*every .. t+(horizon-1)*every, repeating its first one before its start and its last
    one after its end.

    Args:
        episode_ends: (E,) one past each episode's last row.
        n_obs: observations a window.
        horizon: actions a window, from that of the newest observation on.
        every: rows of the data a step of the policy; 5 makes a 20 Hz policy of 100 Hz data, each phase used.
        past: actions before that of the newest observation that a window has besides.
        skip: marks, each (N,) bool, of rows to leave out: no window is of a marked row, and where the actions would
            run into one they end as at an episode's end. What lies before a window's step is never left out: the
            robot saw it, and did it.

    Attributes:
        now: (W,) int64, the row of each window's newest observation.

    Raises:
        ContractError: on counts that make no sense, or marks of another length.
    """

    def __init__(
        self,
        episode_ends: np.ndarray,
        n_obs: int,
        horizon: int,
        *,
        every: int = 1,
        past: int = 0,
        skip: Sequence[np.ndarray] | None = None,
    ) -> None:
        if n_obs < 1 or horizon < 1 or every < 1 or past < 0:
            raise ContractError(
                f"n_obs {n_obs}, horizon {horizon}, every {every}, past {past}: want at least 1, of past 0"
            )
        lengths = np.diff(episode_ends, prepend=0)  # (E,)
        self.n_obs, self.horizon, self.every, self.past = n_obs, horizon, every, past
        self._first = np.repeat(episode_ends - lengths, lengths)  # (W,): first row of the own episode
        self._last = np.repeat(episode_ends - 1, lengths)
        self.now = np.arange(len(self._first))
        self._before, self._acted = np.arange(1 - n_obs, 1) * every, np.arange(-past, horizon) * every
        if skip:
            self._leave_out(_any(skip, len(self.now)))

    def __len__(self) -> int:
        return len(self.now)

    def rows(self, ids: Any = slice(None)) -> Rows:
        """Return the rows of window(s) ``ids``, an index or (B,) of them; all by default."""
        now, first, last = self.now[ids][..., None], self._first[ids][..., None], self._last[ids][..., None]
        seen, acted = now + self._before, now + self._acted
        beyond = (acted < first) | (acted > last)
        return Rows(np.maximum(seen, first), np.clip(acted, first, last), seen < first, beyond)

    def ahead(self, ids: Any, share: np.ndarray | float) -> np.ndarray:
        """Return the row (B,) a ``share``, 0 to 1, of the way from the newest step of windows ``ids`` to the last."""
        now, last = self.now[ids], self._last[ids]
        rows: np.ndarray = now + np.rint(share * (last - now)).astype(np.int64)
        return rows

    def _leave_out(self, marked: np.ndarray) -> None:
        total = len(marked)
        ends = np.where(marked, self.now, total)
        following = np.minimum.accumulate(ends[::-1])[::-1]  # the next marked row at or after each
        kept = np.flatnonzero(~marked)
        self._last = np.minimum(self._last, following - 1)[kept]
        self.now, self._first = self.now[kept], self._first[kept]


class WindowSampler:
    """Windows cut from arrays in memory, all their rows laid out for a device to gather.

    Args:
        arrays: what to cut the windows from.
        n_obs: observations a window.
        horizon: actions a window.
        n_execute: rows a policy will play; only checked against the horizon.
        every: rows a step of the policy; see `Windows`.
        past: actions before the newest observation's; see `Windows`.
        skip: marks of rows to leave out; see `Windows`.

    Attributes:
        obs_rows: (W, n_obs) int64 rows of ``arrays``, oldest first.
        past: actions of a window before the newest observation's.
        action_rows: (W, past + horizon) int64 rows of ``arrays``.
        last_rows: (W,) int64, the last step that each window's own episode has.
        padded_obs: (W, n_obs) bool, which observations repeat the episode's first.
        padded_action: (W, past + horizon) bool, which actions repeat the first or the last.

    Raises:
        ContractError: on counts that make no sense.
    """

    def __init__(
        self,
        arrays: Arrays,
        n_obs: int,
        horizon: int,
        *,
        n_execute: int = 1,
        every: int = 1,
        past: int = 0,
        skip: Sequence[np.ndarray] | None = None,
    ) -> None:
        if n_obs < 1 or not 1 <= n_execute <= horizon:
            raise ContractError(
                f"n_obs {n_obs}, n_execute {n_execute}, horizon {horizon}: want n_obs >= 1, 1 <= n_execute <= horizon"
            )
        self.arrays, self.past = arrays, past
        windows = Windows(arrays.episode_ends, n_obs, horizon, every=every, past=past, skip=skip)
        rows, self.last_rows = windows.rows(), windows.ahead(slice(None), 1.0)
        self.obs_rows, self.action_rows = rows.obs, rows.action
        self.padded_obs, self.padded_action = rows.padded_obs, rows.padded_action

    def __len__(self) -> int:
        return len(self.obs_rows)

    def rows(self) -> Rows:
        """Return the rows of ``arrays`` that every window is made of."""
        return Rows(self.obs_rows, self.action_rows, self.padded_obs, self.padded_action)

    def index(self, i: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (..., n_obs) of the observations and (..., past + horizon) of the actions of ``i``."""
        return self.obs_rows[i], self.action_rows[i]

    def batch(self, ids: np.ndarray) -> dict[str, Any]:
        """Gather windows.

        Args:
            ids: (B,) windows.

        Returns:
            ``state {name: (B, n_obs, D) float32}``, ``images {camera: (B, n_obs, H, W, 3) uint8}``,
            ``action (B, past + horizon, A) float32``, ``padded_obs (B, n_obs) bool`` and ``padded_action
            (B, past + horizon) bool``.
        """
        observed, acted = self.index(ids)
        return {
            "state": {name: array[observed] for name, array in self.arrays.state.items()},
            "images": {name: array[self._seen(name, observed)] for name, array in self.arrays.images.items()},
            "action": self.arrays.action[acted],
            "padded_obs": self.padded_obs[ids],
            "padded_action": self.padded_action[ids],
        }

    def _seen(self, camera: str, rows: np.ndarray) -> np.ndarray:
        seen = self.arrays.seen.get(camera)
        pictures: np.ndarray = rows if seen is None else seen[rows]
        return pictures


def _any(marks: Sequence[np.ndarray], rows: int) -> np.ndarray:
    for mark in marks:
        if np.shape(mark) != (rows,):
            raise ContractError(f"marks to skip have the shape {np.shape(mark)}; want ({rows},), one a row")
    marked: np.ndarray = np.logical_or.reduce([np.asarray(mark, bool) for mark in marks])
    return marked
