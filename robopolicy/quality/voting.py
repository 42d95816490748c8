"""Which steps other demonstrations recognise: nearest neighbours there and back, and a vote."""

from dataclasses import dataclass

import numpy as np

PAIRS = 4_000_000  # of steps compared at once: 32 MB however long the demonstrations are


@dataclass(frozen=True)
class Alignment:
    """How all steps fare among the other demonstrations."""

    votes: np.ndarray  # (N,) share of the asked demonstrations that recognise the step
    distance: np.ndarray  # (N,) to the third-nearest of their nearest steps


def align(
    embedded: np.ndarray,
    likeness: np.ndarray,
    episode_ends: np.ndarray,
    rng: np.random.Generator,
    *,
    voters: int = 40,
    tolerance: float = 0.08,
) -> Alignment:
    """Ask other demonstrations about every step, by embedding for the vote and by likeness for the distance.

    A demonstration recognises step t if t's nearest neighbour there has its own nearest neighbour back here within
    ``tolerance`` of t. A segment that leaves the task cycles back to the steps before or after it instead. This is the
    unsupervised voting of Zheng et al. (ICRA 2023, section III-C), which walks all demonstrations forward together and
    keeps the frames that most of them agree on, made a score for every step.

    Args:
        embedded: (N, D) for the vote.
        likeness: (N, F) for the distance.
        episode_ends: (E,) one past each episode's last row.
        rng: draws the demonstrations that are asked, if there are more than ``voters``.
        voters: demonstrations asked about each step at most.
        tolerance: share of the episode's length; 2 steps at least.
    """
    ends = np.asarray(episode_ends)
    starts = np.concatenate([[0], ends[:-1]])
    votes, distance = np.zeros(ends[-1]), np.zeros(ends[-1])
    for i, (a, b) in enumerate(zip(starts, ends, strict=True)):
        others = np.delete(np.arange(len(ends)), i)
        if len(others) > voters:
            others = rng.choice(others, voters, replace=False)
        now, near = np.arange(b - a), max(2.0, tolerance * (b - a))
        apart = np.empty((len(others), b - a))
        for row, j in enumerate(others):
            there = slice(starts[j], ends[j])
            to, fro, _ = _nearest(embedded[a:b], embedded[there])
            votes[a:b] += np.abs(fro[to] - now) <= near
            apart[row] = _nearest(likeness[a:b], likeness[there])[2]
        votes[a:b] /= len(others)
        third = min(2, len(others) - 1)
        distance[a:b] = np.sqrt(np.maximum(np.partition(apart, third, axis=0)[third], 0.0))
    return Alignment(votes, distance)


def smoothed(values: np.ndarray, episode_ends: np.ndarray, window: int) -> np.ndarray:
    """Return the running median (N,) over ``window`` steps (odd), within each episode."""
    out, half = np.empty(len(values)), window // 2
    starts = np.concatenate([[0], episode_ends[:-1]])
    for a, b in zip(starts, episode_ends, strict=True):
        padded = np.pad(values[a:b], half, mode="edge")
        out[a:b] = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1), axis=1)
    return out


def _nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the nearest of ``b`` (m, D) to each of ``a`` (n, D), that of ``a`` to each of ``b``, the first's distance.

    Returns:
        (n,) and (m,) rows, (n,) squared distances; a part at a time, since all pairs may not fit into memory.
    """
    to, fro, far = np.empty(len(a), int), np.zeros(len(b), int), np.empty(len(a))
    least = np.full(len(b), np.inf)
    rows = max(PAIRS // len(b), 1)
    for k in range(0, len(a), rows):
        apart = _squared(a[k : k + rows], b)
        to[k : k + rows] = apart.argmin(axis=1)
        far[k : k + rows] = apart.min(axis=1)
        nearest = apart.argmin(axis=0)
        here = apart[nearest, np.arange(len(b))]
        closer = here < least
        fro[closer], least[closer] = k + nearest[closer], here[closer]
    return to, fro, far


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the squared distances (n, m) of a (n, D) and b (m, D)."""
    far: np.ndarray = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return far
