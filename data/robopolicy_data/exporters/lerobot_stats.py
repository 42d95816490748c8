"""The statistics that LeRobot's policies normalise by: of each episode, and of all of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Stats = dict[str, np.ndarray]  # min, max, mean, std, count, q01, q10, q50, q90, q99

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
MAX_PICTURES = 100  # an episode; the rest look like them
_PIXEL_STEP = 2  # every second pixel each way


def of_numbers(values: np.ndarray) -> Stats:
    """Return the statistics of (T,) or (T, D), each (D,); ``count`` is (1,)."""
    return _of(np.asarray(values, np.float64).reshape(len(values), -1))


def of_pictures(pictures: Iterable[np.ndarray]) -> Stats:
    """Return the statistics of colour (0 to 1) or depth (mm) pictures, a channel each, (C, 1, 1)."""
    thin = [np.atleast_3d(picture)[::_PIXEL_STEP, ::_PIXEL_STEP] for picture in pictures]
    scale = 255.0 if thin[0].dtype == np.uint8 else 1.0
    pixels = np.concatenate([picture.reshape(-1, picture.shape[-1]) for picture in thin]) / scale
    found = {name: value.reshape(-1, 1, 1) for name, value in _of(pixels).items()}
    return found | {"count": np.array([len(thin)])}


def chosen_rows(length: int) -> list[int]:
    """Return which of an episode's pictures its statistics look at."""
    rows: list[int] = np.unique(np.linspace(0, length - 1, min(length, MAX_PICTURES)).round().astype(int)).tolist()
    return rows


def of_all(episodes: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """Pool: exact for min, max, mean and std; a quantile is the mean of the episodes', as LeRobot does."""
    return {key: _pooled([stats[key] for stats in episodes]) for key in episodes[0]}


def to_plain(stats: Mapping[str, Stats]) -> dict[str, dict[str, Any]]:
    """Return lists in place of arrays."""
    return {key: {name: value.tolist() for name, value in each.items()} for key, each in stats.items()}


def _of(rows: np.ndarray) -> Stats:
    """Return the statistics over the first axis of (N, D)."""
    found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0)}
    quantiles = np.quantile(rows, list(_QUANTILES.values()), axis=0)
    return found | {"count": np.array([len(rows)])} | dict(zip(_QUANTILES, quantiles, strict=True))


def _pooled(parts: list[Stats]) -> Stats:
    counts = np.array([part["count"][0] for part in parts], np.float64)

    def average(values: list[np.ndarray]) -> np.ndarray:
        return np.average(values, axis=0, weights=counts)

    mean = average([part["mean"] for part in parts])
    square = average([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    return {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(square),
        "count": np.array([int(counts.sum())]),
        **{name: average([part[name] for part in parts]) for name in _QUANTILES},
    }
