"""A step as one fixed-size record: what the journal holds, and what the arrays are cut from."""

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy.types import Step
from robopolicy_data.layout import (
    MONITOR,
    MONITOR_STATES,
    MOST_SCORES,
    SOURCES,
    align_path,
    camera_path,
    monitor_streams,
    scores_stream,
    state_path,
    streams,
    time_path,
)


def row_dtype(spec: PolicySpec) -> np.dtype:
    """Return one journal record: a row of every stream, where the frames it saw lie in their shards, a CRC-32C.

    It has room for `MOST_SCORES` scores: which there are is known only when a monitor has spoken.
    """
    every = (*streams(spec), *monitor_streams(), scores_stream([""] * MOST_SCORES))
    rows = [(s.path, np.dtype(s.dtype).newbyteorder("<"), s.shape(0)[1:]) for s in every]
    frames = [(camera_path(spec, k), np.dtype("<u8"), (2,)) for k in spec.cameras]  # offset, bytes
    return np.dtype([*rows, *frames, ("crc32c", np.dtype("<u4"))])


def scores_of(step: Step, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of an episode's scores, by its steps so far and this one: those that were known, or its own.

    Raises:
        ContractError: if they are too many, or one is not among those of the episode.
    """
    found = () if step.verdict is None else tuple(step.verdict.scores)
    if not known:
        if len(found) > MOST_SCORES:
            raise ContractError(f"the monitor has {len(found)} scores; at most {MOST_SCORES} are recorded")
        return found
    if more := [name for name in found if name not in known]:
        raise ContractError(f"score {more[0]!r} is not among those of this episode: {', '.join(known)}")
    return known


def fill(row: np.ndarray, step: Step, spec: PolicySpec, scores: tuple[str, ...] = ()) -> None:
    """Put all of a step but its frames and the checksum into a record.

    Args:
        row: the record.
        step: what happened.
        spec: of the dataset.
        scores: names of the episode's, as `scores_of` has them.

    Raises:
        ContractError: if a state is missing or a shape is not the spec's.
    """
    seen, verdict = step.observation, step.verdict
    for name, state in spec.state.items():
        if name not in seen.state:
            raise ContractError(f"state {name!r} is not in the observation; it has {sorted(seen.state)}")
        row[state_path(name)] = _vector(f"state {name!r}", seen.state[name], state.dim)
    row["action/command"] = _vector("action", step.sent, spec.action.dim)
    row["action/source"] = SOURCES.index(step.source)
    row["time/step"], row["time/action"] = seen.stamp_ns, step.due_ns
    numbers = (verdict.statistic, verdict.threshold, verdict.p_value) if verdict else (np.nan, np.nan, np.nan)
    row[f"{MONITOR}/statistic"], row[f"{MONITOR}/threshold"], row[f"{MONITOR}/p_value"] = numbers
    row[f"{MONITOR}/state"] = MONITOR_STATES.index(verdict.state if verdict else "none")
    row[f"{MONITOR}/latency_s"] = verdict.latency_s if verdict else np.nan
    row[f"{MONITOR}/scores"] = np.nan
    if verdict is not None:
        row[f"{MONITOR}/scores"][: len(scores)] = [verdict.scores.get(name, np.nan) for name in scores]


def point(row: np.ndarray, spec: PolicySpec, camera: str, frame: int, stamp_ns: int, place: tuple[int, int]) -> None:
    """Say which frame of a camera the step saw, when it was taken, its offset and bytes in the shard."""
    row[align_path(camera)], row[time_path(camera)], row[camera_path(spec, camera)] = frame, stamp_ns, place


def require_forward(row: np.ndarray, before: np.ndarray | None) -> None:
    """Refuse a step whose stamps lie before those of the step before; ContractError naming the stream."""
    if before is None:
        return
    for name in ("step", "action"):
        require_later(f"time/{name}", int(row[time_path(name)]), int(before[time_path(name)]))


def require_later(stream: str, stamp_ns: int, before_ns: int) -> None:
    """Refuse a stamp that goes back; ContractError naming the stream."""
    if stamp_ns < before_ns:
        raise ContractError(
            f"{stream} goes back in time: {stamp_ns} ns after {before_ns} ns, by {(before_ns - stamp_ns) / 1e6:.6g} ms"
        )


def _vector(what: str, value: np.ndarray, dim: int) -> np.ndarray:
    vector = np.asarray(value)
    if vector.shape != (dim,):
        raise ContractError(f"{what}: shape {vector.shape}, want ({dim},)")
    return vector
