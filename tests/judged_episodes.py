"""Judged episodes and stored ones of a few numbers, for the tests of the monitor's evaluation."""

import numpy as np

from robopolicy.monitor.judged import Judged, Labelled
from robopolicy.types import Decision


def judged(name, success, trace, threshold=1.0, **rest):
    """An episode whose statistic is ``trace``; it alarms where that is above the threshold, unless told otherwise."""
    trace = np.array(trace, np.float64)
    over = np.flatnonzero(trace > threshold)
    alarm = rest.pop("alarm", int(over[0]) if len(over) else None)
    states = tuple("nominal" if alarm is None or t < alarm else "alarm" for t in range(len(trace)))
    return Judged(
        name, success, trace, np.full(len(trace), threshold), states, alarm, rest.pop("overrun", None), **rest
    )  # fmt: skip


def labelled(name, success, values, *, seed=0, **rest):
    """An episode whose decisions have ``values`` in the first element of their embedding, and chunks of noise."""
    rng = np.random.default_rng((seed, len(values)))
    decisions = [
        Decision(t, t * 200_000_000, np.array([v, *rng.normal(size=2)], np.float32),
                 rng.normal(size=(2, 8, 2)).astype(np.float32), 4)
        for t, v in enumerate(values)
    ]  # fmt: skip
    return Labelled(name, decisions, success, dt_s=0.2, **rest)
