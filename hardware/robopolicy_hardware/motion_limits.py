"""Limits of a whole motion: each of its points is what the safety layer lets through after the one before it."""

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from robopolicy.types import ActionChunk, Observation

SETTLE_S = 2.0  # at most, for a motion that the limits slowed down to come to where it ends
ONE_NS = 10_000_000  # between the points of a motion that has only one
SAME = 1e-6  # units of the action


def limit_motion(
    safety: Any,
    chunk: ActionChunk,
    velocities: np.ndarray,
    observation: Observation,
    told: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[ActionChunk, np.ndarray]:
    """Return the motion (H', A) and its velocities (H', A) as ``safety`` allows it, which itself stays as it is.

    It goes on from what the robot was told, or from the command that ``safety`` let through last. What no limit touches
    stays as it is; else velocities are the slopes between the points, and the motion lasts longer, up to `SETTLE_S`, to
    end at rest.

    Args:
        safety: a `robopolicy_hardware.safety.SafetyLayer` of a robot whose period is the distance of the points.
        chunk: (H, A) points, the first due a period after the last command.
        velocities: (H, A) per second.
        observation: newest; how old it is was judged with the last command.
        told: position (A,) and velocity (A,) of the motion that this one takes over from, now; None without one.

    Raises:
        UnsafeCommand: if a point may not be sent at all; then nothing of it may.
    """
    step_ns = int(np.diff(chunk.stamps_ns)[0]) if len(chunk.stamps_ns) > 1 else ONE_NS
    if told is None:  # what it remembers is replaced by `limit`, never changed in place
        ahead = copy.copy(safety)
        ahead.counts = Counter()
    else:
        ahead = safety.going_on(*told, int(chunk.stamps_ns[0]) - step_ns)
    wanted, stamps = list(chunk.values), list(map(int, chunk.stamps_ns))
    allowed: list[np.ndarray] = []
    for k in range(len(wanted) + round(SETTLE_S * 1e9 / step_ns)):
        stamp_ns = stamps[k] if k < len(stamps) else stamps[-1] + (k + 1 - len(stamps)) * step_ns
        then = replace(observation, stamp_ns=stamp_ns, images={}, image_stamps_ns={}, encoded={})
        allowed.append(ahead.limit(wanted[min(k, len(wanted) - 1)], then, stamp_ns))
        if k >= len(wanted) - 1 and _rests(allowed, wanted[-1]):
            break
    values = np.stack(allowed)
    if len(values) == len(wanted) and np.allclose(values, chunk.values, rtol=0, atol=SAME):
        return chunk, velocities
    stamps_ns = stamps[0] + step_ns * np.arange(len(values), dtype=np.int64)
    return ActionChunk(stamps_ns, values, chunk.made_ns), _slopes(values, step_ns)


def _rests(allowed: list[np.ndarray], goal: np.ndarray) -> bool:
    """Whether the motion has come to its end, or stands before it."""
    if np.allclose(allowed[-1], goal, rtol=0, atol=SAME):
        return True
    return len(allowed) > 1 and np.allclose(allowed[-1], allowed[-2], rtol=0, atol=SAME)


def _slopes(values: np.ndarray, step_ns: int) -> np.ndarray:
    """Central differences (H, A) per second; at rest after the last."""
    if len(values) < 2:
        return np.zeros(values.shape)
    slopes = np.gradient(values.astype(np.float64), step_ns / 1e9, axis=0)
    slopes[-1] = 0.0
    return slopes
