"""Episodes one after the other as a few big arrays in memory, pictures decoded."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.episode import Episode
from robopolicy_data.reader import Dataset


@dataclass(frozen=True)
class Arrays:
    """Episodes one after the other; N steps in all, F pictures a camera."""

    state: Mapping[str, np.ndarray]  # {name: (N, D) float32}, units of the spec
    action: np.ndarray  # (N, A) float32, units of the spec
    images: Mapping[str, np.ndarray]  # {camera: (F, H, W, 3) uint8 RGB or (F, H, W) uint16 mm}
    episode_ends: np.ndarray  # (E,) int64: one past each episode's last row
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)  # {camera: (N,) which picture}; absent: one a step


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

    def read(i: int) -> None:
        episode, rows = chosen[i], slice(ends[i] - chosen[i].length, ends[i])
        action[rows] = episode.action()
        for name, array in state.items():
            array[rows] = episode.state(name)
        for name, pictures in images.items():
            episode.images(name, out=pictures[rows])

    in_parallel(read, len(chosen), progress)
    return Arrays(state, action, images, ends)


def in_parallel(
    job: Callable[[int], None],
    count: int,
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> None:
    """Call ``job(0)`` .. ``job(count - 1)`` in threads (decoders let go of the interpreter lock), telling progress."""
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        jobs = [pool.submit(job, i) for i in range(count)]
        try:
            for done, one in enumerate(jobs, 1):
                one.result()
                if progress is not None:
                    progress(done, count)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
