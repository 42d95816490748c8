"""The numbers of a dataset: every stream's range and quantiles, lengths, rates, success by operator and task."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.episode import Episode
from robopolicy_data.info import seconds
from robopolicy_data.layout import SOURCES
from robopolicy_data.reader import Dataset

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def stats(path: Path | str, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return the numbers of a dataset as plain data; pictures are counted, not decoded.

    ``streams`` holds for each state and the action, element by element, count, min, max, mean, std and `QUANTILES`;
    steps with NaN or infinity are counted apart and left out. ``damaged`` says of each episode that cannot be read why;
    those are in no other number.

    Args:
        path: the dataset.
        progress: called with (episodes read, episodes in all).

    Raises:
        DatasetError: if it cannot be opened.
    """
    dataset, whole, damaged = Dataset(path), [], {}
    rows: dict[str, list[np.ndarray]] = {}
    lasts, steps, sources = [], [], np.zeros(len(SOURCES), int)
    rates: dict[str, list[float]] = {}
    cameras: dict[str, list[int]] = {name: [] for name in dataset.spec.cameras}
    sizes: dict[str, list[float]] = {name: [] for name in dataset.spec.cameras}
    for done, episode in enumerate(dataset, 1):
        try:
            read = _read(episode, dataset.spec)
        except DatasetError as error:
            damaged[episode.number] = str(error)
        else:
            whole.append(episode)
            steps.append(episode.length)
            lasts.append(seconds(episode))
            sources += np.bincount(read.sources, minlength=len(SOURCES))[: len(SOURCES)]
            for name, values in read.rows.items():
                rows.setdefault(name, []).append(values)
            for stream, stamps in read.stamps.items():
                if len(stamps) > 1 and stamps[-1] > stamps[0]:
                    rates.setdefault(stream, []).append(1e9 * (len(stamps) - 1) / float(stamps[-1] - stamps[0]))
            for name, frames in read.frames.items():
                cameras[name].append(len(frames))
                sizes[name].append(float(frames.sum()))
        if progress is not None:
            progress(done, len(dataset))
    return {
        "path": dataset.where,
        "episodes": len(whole),
        "damaged": damaged,
        "steps": _spread(steps),
        "seconds": {**_spread(lasts), "sum": float(np.sum(lasts))},
        "rate_hz": {name: _spread(values) for name, values in rates.items()},
        "sources": {name: int(n) for name, n in zip(SOURCES, sources, strict=True)},
        "success": _outcomes(whole),
        "by_operator": _by(whole, "operator"),
        "by_task": _by(whole, "task"),
        "cameras": {
            name: {
                "frames": sum(cameras[name]),
                "kilobytes_a_frame": sum(sizes[name]) / max(sum(cameras[name]), 1) / 1e3,
            }
            for name in cameras
        },
        "streams": {name: _stream(np.concatenate(parts)) for name, parts in rows.items()},
    }


@dataclass(frozen=True)
class _Read:
    """All of an episode that is counted."""

    meta: EpisodeMeta
    rows: dict[str, np.ndarray]  # {state or action: (T, D)}
    sources: np.ndarray  # (T,)
    stamps: dict[str, np.ndarray]  # {"step" or camera: (T,) or (N,) int64 ns}
    frames: dict[str, np.ndarray]  # {camera: (N,) bytes}


def _read(episode: Episode, spec: PolicySpec) -> _Read:
    """Read an episode; DatasetError if it is damaged."""
    return _Read(
        episode.meta,
        {**{name: episode.state(name) for name in spec.state}, "action": episode.action()},
        episode.sources(),
        {"step": episode.stamps_ns("step"), **{name: episode.frame_stamps_ns(name) for name in spec.cameras}},
        {name: episode.frame_sizes(name) for name in spec.cameras},
    )


def _stream(values: np.ndarray) -> dict[str, Any]:
    """Return the numbers of (N, D), each a list of D."""
    whole = np.isfinite(values).all(axis=1)
    good = values[whole].astype(np.float64)
    if not len(good):
        return {"count": 0, "not_finite": len(values)}
    found = {"min": good.min(axis=0), "max": good.max(axis=0), "mean": good.mean(axis=0), "std": good.std(axis=0)}
    quantiles = dict(zip(map(str, QUANTILES), np.quantile(good, QUANTILES, axis=0).tolist(), strict=True))
    plain = {name: value.tolist() for name, value in found.items()}
    return {"count": len(good), "not_finite": int((~whole).sum()), **plain, "quantiles": quantiles}


def _spread(values: list[float] | list[int]) -> dict[str, float]:
    """Return smallest, median and largest; nothing of nothing."""
    if not values:
        return {}
    return {"min": float(np.min(values)), "median": float(np.median(values)), "max": float(np.max(values))}


def _outcomes(episodes: Iterable[Episode]) -> dict[str, Any]:
    """Return how many succeeded, failed and are unlabelled, and the share of successes among the labelled."""
    labels = [episode.meta.success for episode in episodes]
    good, bad = labels.count(True), labels.count(False)
    rate = good / (good + bad) if good + bad else None
    return {"true": good, "false": bad, "unknown": labels.count(None), "rate": rate}


def _by(episodes: Iterable[Episode], what: str) -> dict[str, Any]:
    kinds: dict[str, list[Episode]] = {}
    for episode in episodes:
        kinds.setdefault(getattr(episode.meta, what), []).append(episode)
    return {
        kind: {**_outcomes(members), "seconds": float(np.median([seconds(episode) for episode in members]))}
        for kind, members in sorted(kinds.items())
    }
