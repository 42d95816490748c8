"""How a robot moved in one episode: idle spans and the way it went; smoothness is in `robopolicy.smoothness`."""

import numpy as np


def spans(marked: np.ndarray, shortest: int = 1) -> list[tuple[int, int]]:
    """Return the runs of True in ``marked`` (T,) of at least ``shortest`` steps as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a >= shortest]


def only_long(marked: np.ndarray, shortest: int) -> np.ndarray:
    """Return ``marked`` (T,) bool with the runs shorter than ``shortest`` steps taken out."""
    kept = np.zeros(len(marked), bool)
    for first, end in spans(marked, shortest):
        kept[first:end] = True
    return kept


def path_length(positions: np.ndarray) -> float:
    """Return the way travelled through ``positions`` (T, P), in their unit."""
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
