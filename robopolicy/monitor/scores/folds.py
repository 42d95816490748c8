"""Leaving out whole episodes: which ones, and how a score's settings are kept beside what it learnt."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from robopolicy.errors import ContractError, MonitorError
from robopolicy.monitor.episodes import Episodes, embeddings, owners


def require_fitted(episodes: Episodes, fitted: int) -> None:
    """Refuse to leave out episodes that were not fitted.

    Raises:
        ContractError: if these are not as many episodes as were fitted.
        MonitorError: if there is none to learn from once one is left out.
    """
    if len(episodes) != fitted:
        raise ContractError(f"held_out got {len(episodes)} episodes; it was fitted on {fitted}")
    if fitted < 2:
        raise MonitorError("held-out scores need at least 2 episodes, one to score and one to learn from; got 1")


def folds(n: int, k: int, seed: int) -> list[np.ndarray]:
    """Return the episodes 0 to n - 1 in min(k, n) random parts, each episode in one of them."""
    order = np.random.default_rng(seed).permutation(n)
    return [np.sort(part) for part in np.array_split(order, min(k, n))]


def require_folds(name: str, k: int) -> int:
    """Return ``k``.

    Raises:
        MonitorError: if it is below 2.
    """
    if k < 2:
        raise MonitorError(f"score {name}: {k} folds; want 2 or more, or no episode is left out")
    return k


def scored_by_folds(
    episodes: Episodes,
    parts: list[np.ndarray],
    refit: Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]],
) -> list[np.ndarray]:
    """Return each episode's scores (T_i,) by what was learnt from the parts it is not in.

    Args:
        episodes: all of them.
        parts: `folds` of their numbers.
        refit: learns from embeddings (m, E) and their owners (m,); returns what maps embeddings to scores.
    """
    x, owner = embeddings(episodes), owners(episodes)
    scores = np.empty(len(x))
    for part in parts:
        out = np.isin(owner, part)
        scores[out] = refit(x[~out], owner[~out])(x[out])
    return [scores[owner == i] for i in range(len(episodes))]


def packed(settings: Mapping[str, Any]) -> np.ndarray:
    """Return settings as the bytes (n,) uint8 of their JSON: every format of arrays can hold them."""
    return np.frombuffer(json.dumps(settings).encode(), np.uint8).copy()


def unpacked(array: np.ndarray) -> dict[str, Any]:
    """Return what ``packed`` was given; tuples come back as lists."""
    settings: dict[str, Any] = json.loads(np.asarray(array, np.uint8).tobytes())
    return settings
