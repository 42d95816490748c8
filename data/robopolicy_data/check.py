"""Looks over a dataset: what is broken, and what would quietly spoil the training. Renders nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.info import count_folders, info
from robopolicy_data.layout import WIP, camera_path, state_path
from robopolicy_data.metadata import unfinished_import
from robopolicy_data.reader import Dataset

__all__ = ["Problem", "check", "info"]

Severity = Literal["error", "warning"]

MAX_RATE_ERROR = 0.05  # of the labelled rate
MAX_JITTER = 0.2  # 99th percentile of |dt - median|, of the period
MAX_CAMERA_AGE = 2.0  # periods a frame may be older than its step
MAX_FROZEN = 0.1  # share of an episode's frames equal to the one before while the state moved
BLACK = 8  # a frame with no brighter value is black, 0..255


@dataclass(frozen=True)
class Problem:
    """One finding; an ``error`` means that data are missing or wrong, a ``warning`` that they look odd."""

    severity: Severity
    where: str  # "episode 12, obs/cam/front", or "" for the whole dataset
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}{': ' if self.where else ''}{self.message}"


def check(path: Path | str, *, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Read every byte of a dataset and return what is wrong with it, worst first; empty is good.

    Args:
        path: the dataset.
        progress: called with (episodes checked, episodes in all).

    Raises:
        DatasetError, NewerFormat: if it cannot be opened at all.
    """
    dataset = Dataset(path, unfinished=True)
    problems = [] if len(dataset) else [Problem("warning", "", "there are no episodes")]
    if line := unfinished_import(dataset.attrs, dataset.path):
        problems.append(Problem("error", "", line))
    ranges = _Ranges(dataset.spec)
    for done, episode in enumerate(dataset, 1):
        problems += _check_episode(episode, dataset.spec, ranges)
        if progress is not None:
            progress(done, len(dataset))
    problems += ranges.constant(len(dataset))
    if unfinished := count_folders(dataset.path / WIP):
        text = f"{unfinished} unfinished recording(s) in {WIP}: one is being made, or the next recording puts it aside"
        problems.append(Problem("warning", "", text))
    return sorted(problems, key=lambda problem: problem.severity)


def _check_episode(episode: Episode, spec: PolicySpec, ranges: "_Ranges") -> Iterator[Problem]:
    """Yield the findings of one episode; a stream that cannot be read is reported and left out of the rest."""
    try:
        _ = episode.length, episode.meta
    except DatasetError as error:
        yield Problem("error", f"episode {episode.number}", str(error))
        return
    numbers: dict[str, np.ndarray] = {}
    readers: dict[str, Callable[[], np.ndarray]] = {
        **{state_path(name): lambda name=name: episode.state(name) for name in spec.state},  # type: ignore[misc]
        "action/command": episode.action,
        "action/source": episode.sources,
        **{f"time/{name}": lambda name=name: episode.stamps_ns(name) for name in ("step", "action", *spec.cameras)},  # type: ignore[misc]
    }
    for stream, read in readers.items():
        try:
            numbers[stream] = read()
        except DatasetError as error:
            yield Problem("error", f"episode {episode.number}", str(error))
    try:
        episode.verdicts()
    except DatasetError as error:
        yield Problem("error", f"episode {episode.number}", str(error))
    yield from _check_numbers(episode, numbers, ranges)
    yield from _check_times(episode, spec, {k[5:]: v for k, v in numbers.items() if k.startswith("time/")})
    for camera in spec.cameras:
        yield from _check_camera(episode, spec, camera, numbers)


def _check_numbers(episode: Episode, numbers: dict[str, np.ndarray], ranges: "_Ranges") -> Iterator[Problem]:
    for stream, values in numbers.items():
        if values.dtype != np.float32:
            continue
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            text = f"{len(bad)} of {len(values)} steps hold NaN or infinity, the first at step {bad[0]}"
            yield Problem("error", f"episode {episode.number}, {stream}", text)
        ranges.add(stream, values)


def _check_times(episode: Episode, spec: PolicySpec, stamps: dict[str, np.ndarray]) -> Iterator[Problem]:
    for name, ns in stamps.items():
        # an image may be seen twice, and a set-point may be due with the one before; a step has its own instant
        back = np.flatnonzero(np.diff(ns) <= 0 if name == "step" else np.diff(ns) < 0)
        if len(back):
            text = f"time does not go on at {len(back)} of {len(ns)} steps, the first after step {back[0]}"
            yield Problem("error", f"episode {episode.number}, time/{name}", text)
    step = stamps.get("step")
    if step is None or len(step) < 3:
        return
    dt, where = np.diff(step), f"episode {episode.number}, time/step"
    period = float(np.median(dt))
    if period <= 0:
        return
    if abs(1e9 / period / spec.rate_hz - 1) > MAX_RATE_ERROR:
        yield Problem("warning", where, f"labelled {spec.rate_hz:g} Hz, recorded at {1e9 / period:.4g} Hz")
    jitter = float(np.quantile(np.abs(dt - period), 0.99))
    if jitter > MAX_JITTER * period:
        yield Problem(
            "warning", where, f"jitter: 1 % of steps are {jitter / 1e6:.3g} ms off a {period / 1e6:.4g} ms period"
        )
    for camera in spec.cameras:
        if camera in stamps and (age := float(np.max(step - stamps[camera]))) > MAX_CAMERA_AGE * period:
            text = f"frames are up to {age / 1e6:.4g} ms older than their step"
            yield Problem("warning", f"episode {episode.number}, {camera_path(spec, camera)}", text)


def _check_camera(episode: Episode, spec: PolicySpec, camera: str, numbers: dict[str, np.ndarray]) -> Iterator[Problem]:
    where = f"episode {episode.number}, {camera_path(spec, camera)}"
    try:
        images = episode.images(camera)  # (T, H, W, 3) or (T, H, W)
    except DatasetError as error:
        yield Problem("error", f"episode {episode.number}", str(error))
        return
    black = np.flatnonzero(images.reshape(len(images), -1).max(axis=1) <= BLACK)
    if len(black):
        yield Problem("warning", where, f"{len(black)} of {len(images)} frames are black, the first at step {black[0]}")
    same = np.array([np.array_equal(a, b) for a, b in zip(images[1:], images[:-1], strict=True)], bool)
    states = [v for k, v in numbers.items() if k.startswith("obs/state/")]
    moved = np.any([np.any(np.diff(v, axis=0) != 0, axis=1) for v in states], axis=0) if states else np.ones_like(same)
    frozen = int(np.sum(same & moved))
    if frozen > MAX_FROZEN * len(images):
        yield Problem("warning", where, f"{frozen} of {len(images)} frames repeat the one before while the state moves")


class _Ranges:
    """The extremes of every stream over all episodes.

    Parts of a rotation may stay what they are: a tool that always points down has such, and no policy scales them.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._low: dict[str, np.ndarray] = {}
        self._high: dict[str, np.ndarray] = {}
        self._rotation = {state_path(name): np.array(stream.unscaled) for name, stream in spec.state.items()}
        if spec.action.kind == "tool_pose":
            self._rotation["action/command"] = (np.arange(spec.action.dim) >= 3) & (np.arange(spec.action.dim) < 9)

    def add(self, stream: str, values: np.ndarray) -> None:
        """Take in (T, D)."""
        low, high = values.min(axis=0), values.max(axis=0)
        self._low[stream] = np.fmin(self._low.get(stream, low), low)
        self._high[stream] = np.fmax(self._high.get(stream, high), high)

    def constant(self, episodes: int) -> Iterator[Problem]:
        """Yield the elements that never change."""
        for stream, low in self._low.items():
            still = np.flatnonzero((self._high[stream] == low) & ~self._rotation.get(stream, False)).tolist()
            if still:
                yield Problem("warning", stream, f"element(s) {still} never change in {episodes} episode(s)")
