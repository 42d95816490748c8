"""How much memory a loader will take, worked out before anything is loaded, and where its pictures go by it."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy_data.arrays import Arrays
from robopolicy_data.cache import BLOCK, CACHES, Decoded, Encoded, Pictures, decode_all
from robopolicy_data.episode import Episode
from robopolicy_data.parallel import stages

_INDEX = 32  # bytes a picture: where it lies in its shard, in the shard's reader and in the cache
_WINDOW = 40  # bytes a window: its row, the first and last of its episode, its place in this epoch's order and the next


@dataclass(frozen=True)
class Plan:
    """Bytes a loader holds."""

    cache: str  # decoded, compressed or disk
    pictures: int
    numbers: int  # states, actions, which picture each step saw, where each picture lies, rows of the windows
    batches: int
    limit: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.pictures + self.numbers + self.batches

    def __str__(self) -> str:
        words = {"decoded": "decoded in memory", "compressed": "compressed in memory", "disk": "left where they are"}
        return (
            f"pictures {words[self.cache]}, {self.pictures / 1e6:,.0f} MB; numbers {self.numbers / 1e6:,.0f} MB; "
            f"batches {self.batches / 1e6:,.0f} MB; {self.total / 1e6:,.0f} of at most {self.limit / 1e6:,.0f} MB"
        )


def plan_memory(
    episodes: Sequence[Episode],
    spec: PolicySpec,
    arrays: Arrays,
    *,
    cache: str,
    windows: int,
    batch_bytes: int,
    limit_gb: float | None = None,
) -> Plan:
    """Choose where the pictures go.

    Args:
        episodes: all that will be loaded.
        spec: cameras at the size they are decoded to.
        arrays: the numbers, already loaded.
        cache: one of `CACHES`.
        windows: how many there are.
        batch_bytes: of all batches made ahead together.
        limit_gb: GB of 1e9 bytes; None is half of what the machine has to spare.

    Raises:
        ContractError: if ``cache`` is none of `CACHES`, or what it asks for is beyond the limit; says what fits.
    """
    if cache not in CACHES:
        raise ContractError(f"loader: cache is {cache!r}; want one of {', '.join(CACHES)}")
    if limit_gb is not None and not 0 < limit_gb < math.inf:
        raise ContractError(f"loader: memory_limit_gb is {limit_gb}; want a number above 0")
    limit = int(spare_bytes() / 2 if limit_gb is None else limit_gb * 1e9)
    counts = {name: sum(episode.frame_count(name) for episode in episodes) for name in spec.cameras}
    decoded = sum(n * _picture_bytes(spec, name) for name, n in counts.items())
    compressed = sum(int(episode.frame_sizes(name).sum()) for name in spec.cameras for episode in episodes)
    numbers = sum(array.nbytes for array in (*arrays.state.values(), *arrays.seen.values(), arrays.action))
    numbers += sum(counts.values()) * _INDEX + windows * _WINDOW
    plans = {
        name: Plan(name, size, numbers, batch_bytes, limit)
        for name, size in (("decoded", decoded), ("compressed", compressed), ("disk", 0))
    }
    if limit_gb is not None and plans["disk"].total > limit:
        raise ContractError(f"loader: {plans['disk']}; raise the limit, or make batch_size or prefetch smaller")
    if cache == "auto":
        fitting = [plan for plan in plans.values() if plan.total <= limit]
        return fitting[0] if fitting else plans["disk"]
    if plans[cache].total > limit and cache != "disk":
        fitting_names = [name for name, plan in plans.items() if plan.total <= limit or name == "disk"]
        raise ContractError(f"loader: {plans[cache]}; raise the limit or use {' or '.join(fitting_names)}")
    return plans[cache]


def open_pictures(
    episodes: Sequence[Episode],
    spec: PolicySpec,
    cache: str,
    recorded: PolicySpec,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Pictures]:
    """Return the pictures of each camera, loaded as planned.

    Args:
        episodes: in order.
        spec: cameras at the size to decode to.
        cache: decoded, compressed or disk.
        recorded: cameras at the size they were recorded in.
        progress: called with (pieces loaded, pieces in all).

    Raises:
        DatasetError: if something is damaged.
    """
    sizes: dict[str, tuple[int, int] | None] = {}
    for name, camera in spec.cameras.items():
        sizes[name] = None if camera == recorded.cameras[name] else (camera.height, camera.width)
    counts = [sum(episode.frame_count(name) for episode in episodes) for name in spec.cameras]
    pieces = [-(-n // BLOCK) if cache == "decoded" else len(episodes) for n in counts]
    pictures: dict[str, Pictures] = {}
    for (name, size), told in zip(sizes.items(), stages(progress, pieces), strict=True):
        if cache == "decoded":
            pictures[name] = Decoded(decode_all(name, episodes, recorded.cameras[name], size, told))
        else:
            pictures[name] = Encoded(
                name, episodes, recorded.cameras[name], size, hold=cache == "compressed", progress=told
            )
    return pictures


def spare_bytes() -> int:
    """Return how much memory this machine could give away now, by /proc/meminfo."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _picture_bytes(spec: PolicySpec, camera: str) -> int:
    part = spec.cameras[camera]
    return math.prod(part.shape) * np.dtype(part.dtype).itemsize
