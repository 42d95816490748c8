"""Segments of demonstrations that do not belong to the task: what no other demonstration does."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.quality.embedding import EmbeddingConfig, fit_embedding
from robopolicy.quality.features import Features
from robopolicy.quality.threads import one_thread
from robopolicy.quality.voting import align, smoothed
from robopolicy.spec import PolicySpec


@dataclass(frozen=True)
class ExtraneousConfig:
    """What counts as extraneous; the score of a step is 0 where it is typical."""

    look_ahead_s: float = 0.6  # of the actions by which a step is known
    action_weight: float = 2.0  # of the actions against the state, where steps are compared
    smooth_s: float = 0.4  # window of the running median
    sure: float = 0.5  # score that begins a segment
    unsure: float = 0.3  # and the one to which it reaches on both sides
    shortest_s: float = 0.5
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)


@dataclass(frozen=True)
class Extraneous:
    """Every step of some demonstrations, judged by the others."""

    score: np.ndarray  # (N,) float32, far + unknown; larger is less like any other demonstration
    far: np.ndarray  # (N,) float32: how far its like is, 0 for the median step
    unknown: np.ndarray  # (N,) float32: share of the others that do not recognise it in the embedding, less one half
    marked: np.ndarray  # (N,) bool
    episode_ends: np.ndarray  # (E,) one past each episode's last row

    def episodes(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return score and marks (T,) of each episode."""
        cuts = self.episode_ends[:-1]
        return list(zip(np.split(self.score, cuts), np.split(self.marked, cuts), strict=True))


@one_thread()
def find_extraneous(
    arrays: Any, spec: PolicySpec, config: ExtraneousConfig | None = None, *, seed: int = 0
) -> Extraneous:
    """Score and mark every step.

    The score adds two answers of the other demonstrations: how far the step's state and actions lie from the
    third-nearest of them, as the logarithm over the median step, and the share of them that do not recognise it in the
    learnt embedding (`voting.align`), less one half.

    Args:
        arrays: of the demonstrations: state {name: (N, D)}, action (N, A), episode_ends (E,).
        spec: which states to look at, and the action.
        config: what counts as extraneous.
        seed: of the embedding, and of who is asked.

    Raises:
        ContractError: if there are fewer than two episodes.
    """
    config = config or ExtraneousConfig()
    ends = np.asarray(arrays.episode_ends)
    features = Features(spec, max(round(config.look_ahead_s * spec.rate_hz), 1))
    features.fit(arrays)
    seen = features.state(arrays.state)
    done = features.action(seen, arrays.action, ends).clamp(-5, 5)
    embedded = fit_embedding(seen, done, ends, config.embedding, seed=seed).numpy()
    weight = config.action_weight / np.sqrt(features.horizon)
    likeness = np.concatenate([seen.numpy(), weight * done.numpy()], axis=1)
    asked = align(embedded, likeness, ends, np.random.default_rng(seed))
    window = 2 * round(config.smooth_s * spec.rate_hz / 2) + 1
    far = _spread(np.log(np.maximum(smoothed(asked.distance, ends, window), 1e-9)))
    unknown = 0.5 - smoothed(asked.votes, ends, window)
    score = far + unknown
    marked = grown(score, config.sure, config.unsure, ends, max(round(config.shortest_s * spec.rate_hz), 1))
    return Extraneous(score.astype(np.float32), far.astype(np.float32), unknown.astype(np.float32), marked, ends)


def _spread(far: np.ndarray) -> np.ndarray:
    """Return log distances (N,) about their median, shrunk where demonstrations differ much anyway.

    How much they do, the steps below the median tell, for what is extraneous lies above it.
    """
    away = far - np.median(far)
    spread: np.ndarray = away / max(3 * 1.4826 * float(np.median(-away[away <= 0])), 1.0)
    return spread


def grown(
    score: np.ndarray, sure: float, unsure: float, episode_ends: Sequence[int] | np.ndarray, shortest: int
) -> np.ndarray:
    """Return (N,) bool: runs of at least ``shortest`` steps above ``unsure`` that somewhere come above ``sure``."""
    marked, a = np.zeros(len(score), bool), 0
    for b in episode_ends:
        above = np.concatenate([[0], (score[a:b] > unsure).astype(np.int8), [0]])
        for first, end in np.flatnonzero(np.diff(above)).reshape(-1, 2):
            if end - first >= shortest and score[a + first : a + end].max() > sure:
                marked[a + first : a + end] = True
        a = int(b)
    return marked
