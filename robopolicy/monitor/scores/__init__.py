"""Scores: one number a decision, larger is worse; what they learn, they learn from successful episodes."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from robopolicy.errors import MonitorError
from robopolicy.interfaces import Score
from robopolicy.monitor.layout import ActionLayout

SCORES: dict[str, str] = {  # name: module:Class, imported when it is asked for: some need torch
    "kernel_density": "kernel_density:KernelDensity",
    "rnd": "rnd:RND",
    "logpzo": "logpzo:LogpZO",
    "mahalanobis": "mahalanobis:Mahalanobis",
    "knn": "knn:NearestNeighbours",
    "pca_kmeans": "pca_kmeans:PcaKmeans",
    "supervised": "supervised:Supervised",
    "chunk_overlap": "chunk_overlap:ChunkOverlap",
    "clock": "clock:Clock",
    "ace": "ace:ActionChunkEntropy",
    "stac": "stac:TemporalConsistency",
    "denoise_variance": "denoise_variance:DenoiseVariance",
    "ensemble": "ensemble:EnsembleDisagreement",
    "view_gap": "tracks:ViewGap",
    "misfit": "tracks:Misfit",
    "displaced": "tracks:Displaced",
}


def score_class(name: str) -> Any:
    """Return the class of a score.

    Raises:
        MonitorError: if there is none of that name; those there are are named.
    """
    if name not in SCORES:
        raise MonitorError(f"no score {name!r}; valid: {', '.join(sorted(SCORES))}")
    module, _, attribute = SCORES[name].partition(":")
    return getattr(import_module(f"{__name__}.{module}"), attribute)


def make_score(name: str, *, layout: ActionLayout | None = None, seed: int = 0, **settings: Any) -> Score:
    """Return an unfitted score.

    Args:
        name: a key of ``SCORES``.
        layout: which elements of an action are what; None takes all for plain numbers.
        seed: of whatever it draws as it learns.
        settings: of this score alone.

    Raises:
        MonitorError: if there is no such score, or it has no such setting.
    """
    cls = score_class(name)
    try:
        score: Score = cls(layout=layout, seed=seed, **settings)
    except TypeError as error:
        raise MonitorError(f"score {name}: {error}") from error
    return score


def score_from_arrays(name: str, arrays: Mapping[str, np.ndarray]) -> Score:
    """Rebuild the score ``name`` from what its ``arrays`` gave."""
    score: Score = score_class(name).from_arrays(arrays)
    return score


def copied(score: Score) -> dict[str, np.ndarray]:
    """Return what ``score.arrays()`` gives in fresh arrays, row after row, as a file holds them."""
    return {name: np.array(array, order="C") for name, array in score.arrays().items()}
