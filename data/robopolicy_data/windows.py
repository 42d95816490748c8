"""A dataset as a few big arrays, and the windows of observations and actions that a policy learns from."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, DatasetError
from robopolicy_data.episode import Episode
from robopolicy_data.reader import Dataset


@dataclass(frozen=True)
class Arrays:
    """Episodes one after the other; N steps in all."""

    state: Mapping[str, np.ndarray]  # {name: (N, D) float32}, units of the spec
    action: np.ndarray  # (N, A) float32, units of the spec
    images: Mapping[str, np.ndarray]  # {camera: (N, H, W, 3) uint8 RGB}
    episode_ends: np.ndarray  # (E,) int64: one past each episode's last row


def load_arrays(
    dataset: Dataset,
    *,
    cameras: Sequence[str] | None = None,
    states: Sequence[str] | None = None,
    episodes: Iterable[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Arrays:
    """Read and decode into memory, a few episodes at a time.

    Args:
        dataset: where from.
        cameras: which; None is all of the spec, ``()`` decodes nothing.
        states: which; None is all of the spec.
        episodes: positions in the dataset; None is all.
        progress: called with (episodes read, episodes in all), from this thread.

    Raises:
        UnknownCamera, UnknownName: naming the valid ones.
        DatasetError: if there is nothing to read, or something is damaged.
    """
    spec = dataset.spec.select(None if cameras is None else tuple(cameras), None if states is None else tuple(states))
    chosen: list[Episode] = [dataset[int(i)] for i in (range(len(dataset)) if episodes is None else episodes)]
    if not chosen:
        raise DatasetError(f"{dataset.path}: no episodes to read; it has {len(dataset)}")
    ends = np.cumsum([episode.length for episode in chosen], dtype=np.int64)
    total = int(ends[-1])
    state = {k: np.empty((total, s.dim), np.float32) for k, s in spec.state.items()}
    action = np.empty((total, spec.action.dim), np.float32)
    images = {k: np.empty((total, c.height, c.width, 3), np.uint8) for k, c in spec.cameras.items()}

    def read(episode: Episode, end: int) -> None:
        rows = slice(end - episode.length, end)
        action[rows] = episode.action()
        for name, array in state.items():
            array[rows] = episode.state(name)
        for name, pictures in images.items():
            episode.images(name, out=pictures[rows])

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders let go of the interpreter lock
        jobs = [pool.submit(read, episode, int(end)) for episode, end in zip(chosen, ends, strict=True)]
        try:
            for done, job in enumerate(jobs, 1):
                job.result()
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Arrays(state, action, images, ends)


class WindowSampler:
    """Every step of every episode as one window.

    Window i has its newest observation at step t: observations t-n_obs+1 .. t, repeating the episode's first
    step before its start, and actions t .. t+horizon-1, repeating its last action after its end.

    Args:
        arrays: what to cut the windows from.
        n_obs: observations a window.
        horizon: actions a window.
        n_execute: rows a policy will play; only checked against the horizon.

    Attributes:
        obs_rows: (W, n_obs) int64 rows of ``arrays``, oldest first.
        action_rows: (W, horizon) int64 rows of ``arrays``.

    Raises:
        ContractError: on counts that make no sense.
    """

    def __init__(self, arrays: Arrays, n_obs: int, horizon: int, *, n_execute: int = 1) -> None:
        if n_obs < 1 or not 1 <= n_execute <= horizon:
            raise ContractError(
                f"n_obs {n_obs}, n_execute {n_execute}, horizon {horizon}: want n_obs >= 1, 1 <= n_execute <= horizon"
            )
        self.arrays = arrays
        lengths = np.diff(arrays.episode_ends, prepend=0)  # (E,)
        first = np.repeat(arrays.episode_ends - lengths, lengths)[:, None]  # (W, 1): first row of the own episode
        last = np.repeat(arrays.episode_ends - 1, lengths)[:, None]
        now = np.arange(len(first))[:, None]
        self.obs_rows = np.maximum(now + np.arange(1 - n_obs, 1), first)
        self.action_rows = np.minimum(now + np.arange(horizon), last)

    def __len__(self) -> int:
        return len(self.obs_rows)

    def index(self, i: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows (..., n_obs) of the observations and (..., horizon) of the actions of window(s) ``i``."""
        return self.obs_rows[i], self.action_rows[i]

    def batch(self, ids: np.ndarray) -> dict[str, Any]:
        """Gather windows.

        Args:
            ids: (B,) windows.

        Returns:
            ``state {name: (B, n_obs, D) float32}``, ``images {camera: (B, n_obs, H, W, 3) uint8}`` and
            ``action (B, horizon, A) float32``.
        """
        observed, acted = self.index(ids)
        return {
            "state": {name: array[observed] for name, array in self.arrays.state.items()},
            "images": {name: array[observed] for name, array in self.arrays.images.items()},
            "action": self.arrays.action[acted],
        }
