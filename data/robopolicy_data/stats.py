"""The numbers of a dataset: every stream's range and quantiles, lengths, rates, success by operator and task."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy_data.episode import Episode
from robopolicy_data.info import seconds
from robopolicy_data.layout import SOURCES
from robopolicy_data.reader import Dataset

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def stats(path: Path | str, *, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Return the numbers of a dataset as plain data; pictures are counted, not decoded.

    ``streams`` holds for each state and the action, element by element, count, min, max, mean, std and `QUANTILES`;
    steps with NaN or infinity are counted apart and left out.

    Args:
        path: the dataset.
        progress: called with (episodes read, episodes in all).

    Raises:
        DatasetError: if it cannot be read, or an episode is damaged.
    """
    dataset = Dataset(path)
    rows: dict[str, list[np.ndarray]] = {}
    lasts, steps, sources = [], [], np.zeros(len(SOURCES), int)
    rates: dict[str, list[float]] = {}
    cameras: dict[str, list[int]] = {name: [] for name in dataset.spec.cameras}
    sizes: dict[str, list[float]] = {name: [] for name in dataset.spec.cameras}
    for done, episode in enumerate(dataset, 1):
        for name in dataset.spec.state:
            rows.setdefault(name, []).append(episode.state(name))
        rows.setdefault("action", []).append(episode.action())
        steps.append(episode.length)
        lasts.append(seconds(episode))
        sources += np.bincount(episode.sources(), minlength=len(SOURCES))[: len(SOURCES)]
        for stream, stamps in _stamps(episode, dataset.spec.cameras):
            if len(stamps) > 1 and stamps[-1] > stamps[0]:
                rates.setdefault(stream, []).append(1e9 * (len(stamps) - 1) / float(stamps[-1] - stamps[0]))
        for name in cameras:
            cameras[name].append(episode.frame_count(name))
            sizes[name].append(float(episode.frame_sizes(name).sum()))
        if progress is not None:
            progress(done, len(dataset))
    return {
        "path": dataset.where,
        "episodes": len(dataset),
        "steps": _spread(steps),
        "seconds": {**_spread(lasts), "sum": float(np.sum(lasts))},
        "rate_hz": {name: _spread(values) for name, values in rates.items()},
        "sources": {name: int(n) for name, n in zip(SOURCES, sources, strict=True)},
        "success": _outcomes(dataset),
        "by_operator": _by(dataset, "operator"),
        "by_task": _by(dataset, "task"),
        "cameras": {
            name: {
                "frames": sum(cameras[name]),
                "kilobytes_a_frame": sum(sizes[name]) / max(sum(cameras[name]), 1) / 1e3,
            }
            for name in cameras
        },
        "streams": {name: _stream(np.concatenate(parts)) for name, parts in rows.items()},
    }


def _stamps(episode: Episode, cameras: Iterable[str]) -> list[tuple[str, np.ndarray]]:
    return [("step", episode.stamps_ns("step")), *((name, episode.frame_stamps_ns(name)) for name in cameras)]


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


def _by(dataset: Dataset, what: str) -> dict[str, Any]:
    kinds: dict[str, list[Episode]] = {}
    for episode in dataset:
        kinds.setdefault(getattr(episode.meta, what), []).append(episode)
    return {
        kind: {**_outcomes(members), "seconds": float(np.median([seconds(episode) for episode in members]))}
        for kind, members in sorted(kinds.items())
    }
