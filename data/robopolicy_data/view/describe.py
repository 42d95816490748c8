"""What the page shows of a dataset and of an episode, as JSON; no pictures."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.spec import PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.info import any_in, seconds
from robopolicy_data.labels import mark_name
from robopolicy_data.layout import MONITOR, MONITOR_STATES, SOURCES
from robopolicy_data.reader import Dataset

POINTS = 700  # of a curve: about one a pixel
_QUALITY = "quality@1"
_ACTS = [MONITOR_STATES.index(state) for state in ("alarm", "overrun", "fault")]  # as `Verdict.acts`


def describe_dataset(dataset: Dataset, episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return what the list of episodes needs."""
    cameras = dataset.spec.cameras
    return {
        "name": Path(dataset.where).name,
        "path": dataset.where,
        "rate_hz": dataset.spec.rate_hz,
        "cameras": [{"name": k, "width": c.width, "height": c.height, "kind": c.kind} for k, c in cameras.items()],
        "episodes": [_row_or_damage(episode) for episode in episodes],
    }


def _row_or_damage(episode: Episode) -> dict[str, Any]:
    """Return one line of the list, also of an episode that cannot be read: it says so, the others are shown."""
    try:
        return describe_row(episode)
    except DatasetError as error:
        nothing = {"steps": 0, "seconds": 0, "success": None, "seed": None, "alarm": False, "score": None}
        words = dict.fromkeys(("task", "robot", "operator", "embodiment", "notes", "recorded"), "")
        more = {"sources": {}, "outlier": [], "marks": [], "extraneous": None}
        return {"number": episode.number, **nothing, **words, **more, "damaged": str(error)}


def describe_row(episode: Episode) -> dict[str, Any]:
    """Return one line of the list."""
    meta, own = episode.meta, episode.attributes
    sources = episode.sources()
    verdicts = episode.verdicts()
    quality = episode.derived_attributes(_QUALITY) if _QUALITY in episode.derived_names() else {}
    row = {
        "number": episode.number,
        "steps": episode.length,
        "seconds": round(seconds(episode), 3),
        "success": meta.success,
        "task": meta.task,
        "robot": meta.robot,
        "operator": meta.operator,
        "embodiment": meta.embodiment,
        "seed": meta.seed,
        "notes": meta.notes,
        "recorded": own.get("recorded", ""),
        "sources": {name: _share(sources == i) for i, name in enumerate(SOURCES) if np.any(sources == i)},
        "alarm": verdicts is not None and bool(np.isin(verdicts["state"], _ACTS).any()),
        "score": _number(meta.extra.get("score")),
        "outlier": [reason for reason in quality.get("outlier") or [] if reason != "failed"],  # the outcome says so
        "marks": [mark_name(mark) for mark in own.get("marks") or []],
        "extraneous": _extraneous_share(episode),
    }
    row |= {key: own[key] for key in ("recovered", "parent", "drops") if any_in(own.get(key))}
    if isinstance(quality.get("idle_share"), int | float):
        row["idle"] = round(float(quality["idle_share"]), 3)
    return row


def describe_episode(episode: Episode, spec: PolicySpec) -> dict[str, Any]:
    """Return the curves and bands of one episode; times are seconds since its first step."""
    stamps = episode.stamps_ns("step")
    since = (stamps - stamps[0]) / 1e9
    rows = np.unique(np.linspace(0, len(since) - 1, min(len(since), POINTS)).round().astype(int))
    return {
        "number": episode.number,
        "end": _number(since[-1]),
        "steps": len(since),
        "step": rows.tolist(),
        "time": _numbers(since[rows]),
        "plots": _plots(episode, spec, rows),
        "bands": _bands(episode, since),
        "marks": _marks(episode, since),
        "about": _about(episode),
    }


def frame_seconds(episode: Episode, camera: str) -> np.ndarray:
    """Return when each frame of a camera was taken, (N,) seconds since the episode's first step."""
    times: np.ndarray = (episode.frame_stamps_ns(camera) - episode.stamps_ns("step")[0]) / 1e9
    return times


def _plots(episode: Episode, spec: PolicySpec, rows: np.ndarray) -> list[dict[str, Any]]:
    """Return the plots: of each stream one for each unit."""
    plots = []
    for name, state in spec.state.items():
        names = [str(i) for i in range(state.dim)] if state.dim > 1 else [""]
        if state.dim in (3, 4) and name.endswith(("pos", "position")):
            names = ["x", "y", "z", ""][: state.dim]
        if state.dim == 4 and "quat" in state.units:
            names = ["w", "x", "y", "z"]
        plots += _by_unit(name, names, state.units, episode.state(name), rows)
    plots += _by_unit("action", list(spec.action.names), spec.action.units, episode.action(), rows)
    verdicts = episode.verdicts()
    if verdicts is not None:
        curves = np.stack([verdicts["statistic"], verdicts["threshold"]], axis=1)
        plots.append(_plot("monitor", ["statistic", "threshold"], "", curves[rows], steps=True))
        scores = episode.scores()
        plots += [_plot(f"score {name}", [""], "", one[rows, None], steps=True) for name, one in scores.items()]
    for tool, arrays in _derived(episode):
        numbers = {k: v for k, v in arrays.items() if v.dtype.kind == "f"}
        plots += [_plot(f"{name} ({tool})", [""], "", values[rows, None]) for name, values in numbers.items()]
    return plots


def _derived(episode: Episode) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield what each tool but the monitor has added, step by step: its arrays (T,)."""
    for tool in episode.derived_names():
        if tool != MONITOR.rpartition("/")[2]:
            arrays = episode.derived(tool) or {}
            yield tool, {name: values for name, values in arrays.items() if values.shape == (episode.length,)}


def _by_unit(
    title: str, names: list[str], units: Sequence[str], values: np.ndarray, rows: np.ndarray
) -> list[dict[str, Any]]:
    each = list(units) * len(names) if len(units) == 1 else list(units)
    found = []
    for unit in dict.fromkeys(each):
        columns = [i for i, u in enumerate(each) if u == unit]
        found.append(_plot(title, [names[i] for i in columns], unit, values[rows][:, columns]))
    return found


def _plot(title: str, names: list[str], unit: str, values: np.ndarray, *, steps: bool = False) -> dict[str, Any]:
    curves = [_numbers(values[:, i]) for i in range(values.shape[1])]
    return {"title": title, "names": names, "unit": unit, "curves": curves, **({"steps": True} if steps else {})}


def _bands(episode: Episode, since: np.ndarray) -> list[dict[str, Any]]:
    """Return who drove, what the monitor said, and every (T,) bool that a tool has marked, as spans in seconds."""
    bands = [{"name": "driver", "spans": _spans(np.array(SOURCES)[np.minimum(episode.sources(), 2)], since)}]
    verdicts = episode.verdicts()
    if verdicts is not None:
        states = np.array(MONITOR_STATES)[np.minimum(verdicts["state"], len(MONITOR_STATES) - 1)]
        bands.append({"name": "monitor", "spans": [s for s in _spans(states, since) if s[2] != "none"]})
    for _, arrays in _derived(episode):
        for name, values in arrays.items():
            if values.dtype == bool:
                marked = np.where(values, name, "")
                bands.append({"name": name, "spans": [s for s in _spans(marked, since) if s[2]]})
    return bands


def _spans(words: np.ndarray, since: np.ndarray) -> list[list[Any]]:
    """Return [first, last, word] of each run; a step lasts until the next."""
    edges = [0, *(np.flatnonzero(words[1:] != words[:-1]) + 1).tolist(), len(words)]
    step = float(np.median(np.diff(since))) if len(since) > 1 else 0.0
    ends = np.append(since[1:], since[-1] + step)
    return [[_number(since[a]), _number(ends[b - 1]), str(words[a])] for a, b in pairwise(edges)]


def _marks(episode: Episode, since: np.ndarray) -> list[dict[str, Any]]:
    found, start_ns = [], int(episode.stamps_ns("step")[0])
    for mark in episode.attributes.get("marks") or []:
        entry: dict[str, Any] = {"text": mark_name(mark)}
        if isinstance(mark, dict) and isinstance(mark.get("stamp_ns"), int):
            ends = int(mark["stamp_ns"]), int(mark.get("until_ns") or mark["stamp_ns"])
            times = [min(max((ns - start_ns) / 1e9, 0.0), float(since[-1])) for ns in ends]
            entry |= {"from": _number(times[0]), "to": _number(times[1])}
        found.append(entry)
    return found


def _about(episode: Episode) -> dict[str, Any]:
    """Return what is worth reading beside the pictures."""
    own, meta = episode.attributes, episode.meta
    said = {
        "software": meta.software,
        "uuid": own.get("uuid", ""),
        "timing": own.get("timing") or {},
        "drops": own.get("drops") or {},
        "recovered": own.get("recovered"),
        "parent": own.get("parent"),
        "extra": dict(meta.extra),
    }
    quality = episode.derived_attributes(_QUALITY) if _QUALITY in episode.derived_names() else {}
    said["quality"] = {k: v for k, v in quality.items() if isinstance(v, int | float | str) and not isinstance(v, bool)}
    return {key: value for key, value in said.items() if value not in (None, "", {})}


def _extraneous_share(episode: Episode) -> float | None:
    for tool in episode.derived_names():
        if tool.startswith("extraneous@"):
            arrays = episode.derived(tool) or {}
            if "extraneous" in arrays:
                return _share(arrays["extraneous"].astype(bool))
    return None


def _share(where: np.ndarray) -> float:
    return round(float(np.mean(where)), 3)


def _number(value: Any) -> float | None:
    """Return a JSON number of five digits, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(float(value)):
        return None
    return float(f"{float(value):.5g}")


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values.tolist()]
