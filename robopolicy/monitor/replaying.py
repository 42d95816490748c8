"""What a monitor says of stored decisions, held against what was stored beside them, bit for bit."""

from collections.abc import Sequence

import numpy as np

from robopolicy.interfaces import Monitor
from robopolicy.types import Decision, Verdict

NUMBERS = ("statistic", "threshold", "p_value")  # of a verdict; how long it took differs each time


def verdicts_of(monitor: Monitor, decisions: Sequence[Decision]) -> list[Verdict]:
    """Return what ``monitor`` says of one episode's decisions, as it would while the episode runs."""
    monitor.reset()
    return [monitor.step(decision) for decision in decisions]


def first_difference(ours: Sequence[Verdict], stored: Sequence[Verdict]) -> str:
    """Return in words where two rows of verdicts first differ, in any bit of any number but the latency; "" if nowhere.

    Args:
        ours: worked out now.
        stored: beside the episode, while it ran.
    """
    if ours and stored and ours[0].threshold != stored[0].threshold:
        return f"threshold {ours[0].threshold!r} now, {stored[0].threshold!r} stored: they are of another monitor"
    for i, (mine, theirs) in enumerate(zip(ours, stored, strict=False), 1):
        if mine.stamp_ns != theirs.stamp_ns:
            return f"decision {i}: stamp {mine.stamp_ns} ns now, {theirs.stamp_ns} ns stored"
        if tuple(mine.scores) != tuple(theirs.scores):
            return f"decision {i}: scores {', '.join(mine.scores)} now, {', '.join(theirs.scores)} stored"
        pairs = [(name, value, theirs.scores[name]) for name, value in mine.scores.items()]
        pairs += [(name, getattr(mine, name), getattr(theirs, name)) for name in NUMBERS]
        for name, now, then in pairs:
            if np.float64(now).tobytes() != np.float64(then).tobytes():
                return f"decision {i}: {name} {now!r} now, {then!r} stored"
        if mine.state != theirs.state:
            return f"decision {i}: {mine.state} now, {theirs.state} stored"
    if len(ours) != len(stored):
        return f"{len(ours)} verdicts now, {len(stored)} stored"
    return ""
