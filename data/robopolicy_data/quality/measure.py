"""The quality of a whole dataset: every episode measured, idle spans marked, outliers and duplicates named."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.smoothness import log_dimensionless_jerk, spectral_arc_length, speeds
from robopolicy_data.quality.commands import follow_lag_s, saturated
from robopolicy_data.quality.likeness import coverage, duplicates, novelty
from robopolicy_data.quality.motion import only_long, path_length, spans
from robopolicy_data.quality.outliers import TRAITS, Outlier, find_outliers
from robopolicy_data.quality.signals import Motion, columns, find_motion, require_finite, state_space
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import Arrays, load_arrays

MARKS = "quality@1"  # the name of what is written into derived/


@dataclass(frozen=True)
class Options:
    """What counts as idle.

    Raises:
        ContractError: on a number out of its range.
    """

    idle_speed: float = 0.05  # of each stream's own brisk speed (95 % of all steps are slower): below is standing still
    idle_s: float = 0.5  # for at least so long
    motion: str | None = None  # state whose motion is the path; None finds it

    def __post_init__(self) -> None:
        if not 0 < self.idle_speed < 1:
            raise ContractError(f"idle_speed is {self.idle_speed}; want a share of the brisk speed between 0 and 1")
        if not self.idle_s >= 0:
            raise ContractError(f"idle_s is {self.idle_s}; want seconds, 0 or more")


@dataclass(frozen=True)
class EpisodeQuality:
    """One episode in numbers; NaN where a measure says nothing."""

    number: int
    success: bool | None
    steps: int
    duration_s: float
    idle_share: float  # of its steps
    idle: tuple[tuple[int, int], ...]  # spans, (first step, one past the last)
    path: float  # length, in Quality.unit
    sparc: float  # spectral arc length; larger (nearer 0) is smoother
    jerk: float  # log dimensionless jerk; larger is smoother
    coverage: float  # share of the space that the dataset visits
    novelty: float  # distance to the other episodes, 1 for the median
    saturated_share: float  # of its steps
    lag_s: float  # of the state behind the command


@dataclass(frozen=True)
class Quality:
    """A dataset in numbers."""

    path: str
    rate_hz: float
    motion: tuple[str, ...]  # streams and elements whose motion is the path
    unit: str  # of the path
    episodes: tuple[EpisodeQuality, ...]
    outliers: tuple[Outlier, ...]
    speeds: tuple[np.ndarray, ...]  # (T,) float32 an episode, unit/s
    idle: tuple[np.ndarray, ...]  # (T,) bool an episode

    def column(self, name: str) -> np.ndarray:
        """Return one measure of all episodes, (E,) float64."""
        return np.array([getattr(episode, name) for episode in self.episodes], np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers, without the per-step arrays; NaN becomes None."""
        episodes = [_finite(asdict(episode)) for episode in self.episodes]
        about = {key: getattr(self, key) for key in ("path", "rate_hz", "unit")}
        outliers = [asdict(outlier) for outlier in self.outliers]
        return {**about, "motion": list(self.motion), "episodes": episodes, "outliers": outliers}


def measure(
    dataset: Dataset, options: Options = Options(), *, progress: Callable[[int, int], None] | None = None
) -> Quality:
    """Measure every episode of ``dataset``; pictures are not read.

    Args:
        dataset: what to measure.
        options: what counts as idle.
        progress: called with (episodes read, episodes in all).

    Raises:
        DatasetError: if there are no episodes or no states, one is damaged, or holds NaN.
        UnknownName: if ``options.motion`` is no state.
    """
    arrays = load_arrays(dataset, cameras=(), progress=progress)
    require_finite(arrays, [episode.number for episode in dataset], dataset.where)
    motion = find_motion(arrays, dataset.spec, stream=options.motion)
    space, rate_hz = state_space(arrays, dataset.spec), dataset.spec.rate_hz
    ends = arrays.episode_ends
    rows = [slice(a, b) for a, b in zip(np.concatenate([[0], ends[:-1]]).tolist(), ends.tolist(), strict=True)]
    idle = _idle(arrays, motion, rows, rate_hz, options)
    positions, at_stop = motion.positions(arrays.state), saturated(arrays, dataset.spec)
    pace = [speeds(positions[r], rate_hz) for r in rows]
    covered, new = coverage(positions, ends), novelty(space, ends)
    episodes = tuple(
        EpisodeQuality(
            number=episode.number,
            success=episode.meta.success,
            steps=episode.length,
            duration_s=episode.length / rate_hz,
            idle_share=float(idle[i].mean()),
            idle=tuple(spans(idle[i])),
            path=path_length(positions[r]),
            sparc=spectral_arc_length(pace[i], rate_hz),
            jerk=log_dimensionless_jerk(positions[r], rate_hz),
            coverage=float(covered[i]),
            novelty=float(new[i]),
            saturated_share=float(at_stop[r].mean()),
            lag_s=_lag(arrays, motion, r, rate_hz),
        )
        for i, (episode, r) in enumerate(zip(dataset, rows, strict=True))
    )
    quality = Quality(
        path=dataset.where,
        rate_hz=rate_hz,
        motion=tuple(f"{name}[{i}]" for name, i in motion.path),
        unit=motion.unit,
        episodes=episodes,
        outliers=(),
        speeds=tuple(p.astype(np.float32) for p in pace),
        idle=tuple(idle),
    )
    return replace(quality, outliers=_outliers(quality, space, ends))


def step_marks(quality: Quality, index: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what ``derived/quality@1`` holds of the episode at position ``index``: arrays (T,) and attributes."""
    episode = quality.episodes[index]
    arrays = {"idle": quality.idle[index], "speed": quality.speeds[index]}
    attributes = {key: value for key, value in _finite(asdict(episode)).items() if key not in ("number", "success")}
    reasons = [o.reason for o in quality.outliers if o.episode == episode.number]
    return arrays, {**attributes, "unit": quality.unit, "outlier": reasons}


def write_marks(path: Path | str, quality: Quality) -> None:
    """Write ``derived/quality@1`` of every episode, replacing what an earlier run left."""
    from robopolicy_data.derived import write_derived

    for index, episode in enumerate(quality.episodes):
        arrays, attributes = step_marks(quality, index)
        write_derived(Path(path), episode.number, MARKS, arrays, attributes)


def _idle(arrays: Arrays, motion: Motion, rows: list[slice], rate_hz: float, options: Options) -> list[np.ndarray]:
    """Where every group of streams stands still at once, (T,) bool an episode."""
    still = np.ones(len(arrays.action), bool)
    for group in motion.groups:
        values = columns(arrays.state, group)
        pace = np.concatenate([speeds(values[r], rate_hz) for r in rows])
        moving = pace[pace > 1e-6]
        if len(moving):  # a stream that never moves has no say
            still &= pace < options.idle_speed * float(np.quantile(moving, 0.95))
    shortest = max(round(options.idle_s * rate_hz), 1)
    return [only_long(still[r], shortest) for r in rows]


def _lag(arrays: Arrays, motion: Motion, rows: slice, rate_hz: float) -> float:
    names = {pair.stream for pair in motion.pairs}
    state = {name: arrays.state[name][rows] for name in names}
    lag = follow_lag_s(arrays.action[rows], state, motion.pairs, rate_hz)
    return float("nan") if lag is None else lag


def _outliers(quality: Quality, space: np.ndarray, ends: np.ndarray) -> tuple[Outlier, ...]:
    numbers = [episode.number for episode in quality.episodes]
    found = find_outliers(numbers, {key: quality.column(key) for key in TRAITS}, quality.unit)
    twins = [
        Outlier(numbers[b], "duplicate", None, f"runs through the same states as episode {numbers[a]}")
        for a, b in duplicates(space, ends)
    ]
    failed = [Outlier(e.number, "label", None, "failed") for e in quality.episodes if e.success is False]
    return (*found, *twins, *failed)


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()}
