"""How episodes lie to one another: what of the dataset's space each visits, how new it is, which are the same twice."""

import numpy as np

POINTS = 32  # of each episode, equally spaced in time
NEIGHBOURS = 3
BINS = 12  # a coarse grid, an axis
SAME = 0.02  # of the typical distance between two episodes: nearer is the same episode twice


def thin(values: np.ndarray, episode_ends: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Return ``points`` steps of each episode, equally spaced in time: (N, F) to (E, points, F)."""
    starts = np.concatenate([[0], episode_ends[:-1]])
    rows = [np.round(np.linspace(a, b - 1, points)).astype(int) for a, b in zip(starts, episode_ends, strict=True)]
    thinned: np.ndarray = values[np.stack(rows)]
    return thinned


def novelty(space: np.ndarray, episode_ends: np.ndarray) -> np.ndarray:
    """Return how far each episode's steps lie from the steps of all others, (E,), 1 for the median episode.

    The mean distance to the third nearest step of another episode, in the scaled state space (N, F).
    """
    from scipy.spatial import cKDTree

    points = thin(space, episode_ends)
    count = len(points)
    if count < 2:
        return np.ones(count)
    flat = points.reshape(-1, points.shape[2])
    owner = np.repeat(np.arange(count), POINTS)
    # at most POINTS of the nearest are its own, so so many suffice to hold NEIGHBOURS of others
    distance, index = cKDTree(flat).query(flat, k=min(POINTS + NEIGHBOURS, len(flat)))
    foreign = np.where(owner[index] != owner[:, None], distance, np.inf)
    nearest = np.sort(foreign, axis=1)[:, min(NEIGHBOURS, len(flat) - POINTS) - 1]
    each = nearest.reshape(count, POINTS).mean(axis=1)
    typical = float(np.median(each))
    return each / typical if typical > 0 else np.ones(count)


def coverage(positions: np.ndarray, episode_ends: np.ndarray) -> np.ndarray:
    """Return the share of the dataset's visited space that each episode visits, (E,), 0 to 1.

    Space is a grid of `BINS` cells an axis over the robot's path (N, P); what nobody visits does not count.
    """
    low, high = positions.min(axis=0), positions.max(axis=0)
    scaled = (positions - low) / np.where(high > low, high - low, 1.0)
    cells = np.minimum((scaled * BINS).astype(np.int64), BINS - 1)
    number = cells @ (BINS ** np.arange(cells.shape[1], dtype=np.int64))
    total = len(np.unique(number))
    starts = np.concatenate([[0], episode_ends[:-1]])
    return np.array([len(np.unique(number[a:b])) / total for a, b in zip(starts, episode_ends, strict=True)])


def duplicates(space: np.ndarray, episode_ends: np.ndarray) -> list[tuple[int, int]]:
    """Return the episodes that run through the same states in the same time as an earlier one.

    Positions (earlier, later), each later one once.
    """
    from scipy.spatial.distance import pdist

    lengths = np.diff(episode_ends, prepend=0)
    if len(lengths) < 2:
        return []
    flat = thin(space, episode_ends).reshape(len(lengths), -1)
    apart = pdist(flat)
    first, second = np.triu_indices(len(lengths), 1)
    near = (apart <= SAME * np.median(apart)) & (np.abs(lengths[first] - lengths[second]) <= 0.02 * lengths[first])
    earliest: dict[int, int] = {}
    for a, b in zip(first[near].tolist(), second[near].tolist(), strict=True):  # the earlier ones come first
        earliest.setdefault(b, a)
    return [(a, b) for b, a in sorted(earliest.items())]
