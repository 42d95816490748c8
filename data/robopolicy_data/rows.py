"""A step as one fixed-size record: what the journal holds, and what the arrays are cut from."""

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy.types import Step
from robopolicy_data.layout import (
    MONITOR,
    MONITOR_STATES,
    SOURCES,
    camera_path,
    monitor_streams,
    state_path,
    streams,
    time_path,
)


def row_dtype(spec: PolicySpec) -> np.dtype:
    """Return one journal record: a row of every stream, where each frame lies in its shard, a CRC-32C."""
    rows = [(s.path, np.dtype(s.dtype).newbyteorder("<"), s.shape(0)[1:]) for s in (*streams(spec), *monitor_streams())]
    frames = [(camera_path(k), np.dtype("<u8"), (2,)) for k in spec.cameras]  # offset, bytes
    return np.dtype([*rows, *frames, ("crc32c", np.dtype("<u4"))])


def record(step: Step, spec: PolicySpec, dtype: np.dtype) -> np.ndarray:
    """Return one record with everything but the places of the frames and the checksum.

    Raises:
        ContractError: if a state is missing or a shape is not the spec's.
    """
    seen, verdict = step.observation, step.verdict
    row = np.zeros((), dtype)
    for name, state in spec.state.items():
        if name not in seen.state:
            raise ContractError(f"state {name!r} is not in the observation; it has {sorted(seen.state)}")
        row[state_path(name)] = _vector(f"state {name!r}", seen.state[name], state.dim)
    for name in spec.cameras:
        row[time_path(name)] = seen.image_stamps_ns.get(name, seen.stamp_ns)
    row["action/command"] = _vector("action", step.sent, spec.action.dim)
    row["action/source"] = SOURCES.index(step.source)
    row["time/step"], row["time/action"] = seen.stamp_ns, step.due_ns
    numbers = (verdict.statistic, verdict.threshold, verdict.p_value) if verdict else (np.nan, np.nan, np.nan)
    row[f"{MONITOR}/statistic"], row[f"{MONITOR}/threshold"], row[f"{MONITOR}/p_value"] = numbers
    row[f"{MONITOR}/state"] = MONITOR_STATES.index(verdict.state if verdict else "none")
    return row


def picture(step: Step, spec: PolicySpec, name: str) -> np.ndarray:
    """Return the camera's picture (H, W, 3) uint8.

    Raises:
        ContractError: if it is missing, or its size or dtype is not the spec's.
    """
    if name not in step.observation.images:
        raise ContractError(f"camera {name!r} is not in the observation; it has {sorted(step.observation.images)}")
    image, size = step.observation.images[name], spec.cameras[name]
    if image.shape != (size.height, size.width, 3) or image.dtype != np.uint8:
        raise ContractError(
            f"camera {name!r}: picture is {image.dtype} {image.shape}, want uint8 {(size.height, size.width, 3)}"
        )
    return image


def _vector(what: str, value: np.ndarray, dim: int) -> np.ndarray:
    vector = np.asarray(value)
    if vector.shape != (dim,):
        raise ContractError(f"{what}: shape {vector.shape}, want ({dim},)")
    return vector
