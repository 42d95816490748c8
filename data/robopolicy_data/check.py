"""Looks over a dataset: what is broken, and what would quietly spoil the training. Renders nothing."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import PolicySpec
from robopolicy_data.check_frames import check_frames, state_moved
from robopolicy_data.check_time import check_camera_time, check_time
from robopolicy_data.episode import Episode
from robopolicy_data.info import count_folders, info
from robopolicy_data.layout import DERIVED, EPISODES, MONITOR, WIP, camera_path, groups, state_path, streams
from robopolicy_data.metadata import json_in, unfinished_import
from robopolicy_data.problem import Problem
from robopolicy_data.reader import Dataset
from robopolicy_data.source import Source, open_source

__all__ = ["Problem", "check", "info"]


def check(path: Path | str, *, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Read every byte of a dataset and return what is wrong with it, worst first; empty is good.

    Args:
        path: the dataset: a folder, a zip or a URL.
        progress: called with (episodes checked, episodes in all).

    Raises:
        DatasetError, NewerFormat: if it cannot be opened at all.
    """
    dataset, source = Dataset(path, unfinished=True), open_source(path)
    problems = [] if len(dataset) else [Problem("warning", "", "there are no episodes")]
    if line := unfinished_import(dataset.attrs, dataset.where):
        problems.append(Problem("error", "", line))
    problems += _check_groups("", source, "", [f"{EPISODES}/any"])
    ranges = _Ranges(dataset.spec)
    for done, episode in enumerate(dataset, 1):
        problems += _check_episode(episode, dataset.spec, source, ranges)
        if progress is not None:
            progress(done, len(dataset))
    problems += ranges.constant(len(dataset))
    if source.folder is not None and (unfinished := count_folders(source.folder / WIP)):
        text = f"{unfinished} unfinished recording(s) in {WIP}: one is being made, or the next recording puts it aside"
        problems.append(Problem("warning", "", text))
    return sorted(problems, key=lambda problem: problem.severity)


def _check_episode(episode: Episode, spec: PolicySpec, source: Source, ranges: "_Ranges") -> Iterator[Problem]:
    """Yield the findings of one episode; a stream that cannot be read is reported and left out of the rest."""
    where = f"episode {episode.number}"
    try:
        own, _ = episode.attributes, episode.meta
    except DatasetError as error:
        yield Problem("error", where, str(error))
        return
    yield from _check_notes(where, own)
    at = f"{EPISODES}/{episode.number:06d}"
    derived = _derived_names(source, at)
    paths = [*(stream.path for stream in streams(spec)), *(camera_path(spec, name) for name in spec.cameras)]
    paths = [
        path for path in paths if not path.startswith("align/") or source.exists(f"{at}/{path}")
    ]  # none in format 1
    yield from _check_groups(where, source, at, [*paths, *(f"{DERIVED}/{name}/any" for name in derived)])
    readers: dict[str, Callable[[], Any]] = {
        **{state_path(name): partial(episode.state, name) for name in spec.state},
        "action/command": episode.action,
        "action/source": episode.sources,
        **{f"time/{name}": partial(episode.stamps_ns, name) for name in ("step", "action")},
        **{f"{DERIVED}/{name}": partial(episode.derived, name) for name in derived},
        MONITOR: episode.verdicts,
        f"{MONITOR}/scores": episode.scores,
    }
    numbers: dict[str, np.ndarray] = {}
    for stream, read in readers.items():
        try:
            numbers[stream] = read()
        except DatasetError as error:
            yield Problem("error", where, str(error))
    numbers = {stream: values for stream, values in numbers.items() if not stream.startswith(DERIVED)}
    yield from _check_numbers(episode, numbers, ranges)
    yield from check_time(where, spec, {k[5:]: v for k, v in numbers.items() if k.startswith("time/")})
    for camera in spec.cameras:
        yield from _check_camera(episode, spec, camera, numbers)


def _check_notes(where: str, own: dict[str, Any]) -> Iterator[Problem]:
    """Yield what the recording itself says went wrong."""
    drops = own.get("drops") or {}
    if steps := drops.get("steps"):
        text = f"{steps} step(s) were dropped while recording: the disk or the processor could not keep up"
        yield Problem("error", where, text)
    for camera, count in drops.get("frames", {}).items():
        text = f"{count} frame(s) came so torn that they were left out; the steps saw the one before"
        yield Problem("warning", f"{where}, {camera}", text)
    if recovered := own.get("recovered"):
        yield Problem("warning", where, str(recovered.get("reason", recovered)))


def _derived_names(source: Source, at: str) -> list[str]:
    """Return every folder of an episode's derived ones, also one that lost its zarr.json."""
    names = source.list(f"{at}/{DERIVED}") if source.exists(f"{at}/{DERIVED}") else []
    return sorted(name for name in names if name != "zarr.json" and not name.startswith("."))


def _check_groups(where: str, source: Source, at: str, arrays: list[str]) -> Iterator[Problem]:
    """Yield every folder above an array that is no zarr group."""
    for group in groups(arrays):
        path = "/".join(part for part in (at, group, "zarr.json") if part)
        try:
            kind = json_in(source, path).get("node_type")
        except DatasetError as error:
            yield Problem("error", where, str(error))
            continue
        if kind != "group":
            yield Problem("error", where, f"{path} is a zarr {kind}, want a group")


def _check_camera(episode: Episode, spec: PolicySpec, camera: str, numbers: dict[str, np.ndarray]) -> Iterator[Problem]:
    """Yield what is wrong with a camera: its times if they can be read, then every frame."""
    moved = None
    try:
        stamps, align = episode.frame_stamps_ns(camera), episode.frame_rows(camera)
        if "time/step" in numbers:
            yield from check_camera_time(f"episode {episode.number}", spec, camera, stamps, align, numbers["time/step"])
        states = [values for stream, values in numbers.items() if stream.startswith("obs/state/")]
        moved = state_moved(states, align, len(stamps))
    except DatasetError as error:
        yield Problem("error", f"episode {episode.number}", str(error))
    try:
        count = episode.frame_count(camera)
    except DatasetError:
        return  # said above
    yield from check_frames(episode, spec, camera, np.ones(count, bool) if moved is None else moved)


def _check_numbers(episode: Episode, numbers: dict[str, np.ndarray], ranges: "_Ranges") -> Iterator[Problem]:
    for stream, values in numbers.items():
        if values.dtype != np.float32:
            continue
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            text = f"{len(bad)} of {len(values)} steps hold NaN or infinity, the first at step {bad[0]}"
            yield Problem("error", f"episode {episode.number}, {stream}", text)
        ranges.add(stream, values)


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
