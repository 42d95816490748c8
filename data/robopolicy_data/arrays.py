"""Episodes one after the other as a few big arrays in memory, pictures decoded."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import PolicySpec
from robopolicy_data.cache import BLOCK, decode_all
from robopolicy_data.episode import Episode
from robopolicy_data.parallel import in_parallel, stages
from robopolicy_data.reader import Dataset


@dataclass(frozen=True)
class Arrays:
    """Episodes one after the other; N steps in all, F pictures a camera."""

    state: Mapping[str, np.ndarray]  # {name: (N, D) float32}, units of the spec
    action: np.ndarray  # (N, A) float32, units of the spec
    images: Mapping[str, np.ndarray]  # {camera: (F, H, W, 3) uint8 RGB or (F, H, W) uint16 mm}
    episode_ends: np.ndarray  # (E,) int64: one past each episode's last row
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)  # {camera: (N,) which picture}; absent: one a step
    features: Mapping[str, np.ndarray] = field(default_factory=dict)  # {camera: (F, D) float32} instead of images


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
        progress: called with (pieces read, pieces in all), from this thread.

    Raises:
        UnknownCamera, UnknownName: naming the valid ones.
        DatasetError: if there is nothing to read, or something is damaged.
    """
    spec = dataset.spec.select(None if cameras is None else tuple(cameras), None if states is None else tuple(states))
    chosen: list[Episode] = [dataset[int(i)] for i in (range(len(dataset)) if episodes is None else episodes)]
    if not chosen:
        raise DatasetError(f"{dataset.where}: no episodes to read; it has {len(dataset)}")
    return decode_arrays(chosen, spec, progress)


def decode_arrays(
    episodes: Sequence[Episode],
    spec: PolicySpec,
    progress: Callable[[int, int], None] | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
) -> Arrays:
    """Read and decode at least one episode, of one dataset or of several; see `load_arrays`.

    Args:
        episodes: in order.
        spec: which states and cameras, as recorded.
        progress: called with (pieces read, pieces in all), from this thread.
        sizes: {camera: (H, W)} to make pictures smaller to, as `robopolicy_data.loader.Loader` does.
    """
    blocks = [-(-sum(episode.frame_count(name) for episode in episodes) // BLOCK) for name in spec.cameras]
    first, *rest = stages(progress, [len(episodes), *blocks])
    numbers = read_numbers(episodes, spec, first)
    images = {
        name: decode_all(name, episodes, camera, (sizes or {}).get(name), told)
        for (name, camera), told in zip(spec.cameras.items(), rest, strict=True)
    }
    return replace(numbers, images=images)


def read_numbers(
    episodes: Sequence[Episode], spec: PolicySpec, progress: Callable[[int, int], None] | None = None
) -> Arrays:
    """Read all but the pictures of at least one episode.

    Args:
        episodes: in order.
        spec: which states and cameras.
        progress: called with (episodes read, episodes in all), from this thread.

    Raises:
        DatasetError: if something is damaged.
    """
    ends = np.cumsum([episode.length for episode in episodes], dtype=np.int64)
    total = int(ends[-1])
    state = {k: np.empty((total, s.dim), np.float32) for k, s in spec.state.items()}
    action = np.empty((total, spec.action.dim), np.float32)
    seen = {k: np.empty(total, np.int64) for k in spec.cameras}
    first = {k: np.cumsum([0, *(episode.frame_count(k) for episode in episodes)]) for k in spec.cameras}

    def read(i: int) -> None:
        episode, rows = episodes[i], slice(ends[i] - episodes[i].length, ends[i])
        action[rows] = episode.action()
        for name, array in state.items():
            array[rows] = episode.state(name)
        for name, pictures in seen.items():
            pictures[rows] = first[name][i] + episode.frame_rows(name)

    # small files of a disk are read sooner by one thread than by two in each other's way; a server is far
    in_parallel(read, len(episodes), progress, 16 if episodes[0].far else 1)
    return Arrays(state, action, {}, ends, seen)
