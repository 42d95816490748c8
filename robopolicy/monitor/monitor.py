"""Make a failure monitor from successful episodes, and load one that was saved."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import MonitorError, NotEnoughCalibration, SpecMismatch
from robopolicy.interfaces import Score
from robopolicy.monitor.conformal import min_calibration
from robopolicy.monitor.runtime import SCHEMA, ConformalMonitor, DecisionShape, Provenance, file_sha
from robopolicy.monitor.episodes import score_episode
from robopolicy.monitor.scores import make_score, score_from_arrays
from robopolicy.types import Decision

MIN_FIT = 2  # episodes a score learns from, beside those that calibrate it


def fit_monitor(
    episodes: Sequence[Sequence[Decision]],
    *,
    alpha: float,
    seed: int = 0,
    score: str | Score = "kernel_density",
    policy_sha: str = "",
    seeds: Sequence[int] = (),
) -> ConformalMonitor:
    """Fit and calibrate a monitor on successful episodes of one policy.

    The episodes are split at random, whole: half of them, but no fewer than ``min_calibration(alpha)``, calibrate;
    the others fit the score. No episode does both, or the threshold would promise nothing.

    Args:
        episodes: decisions of each *successful* episode.
        alpha: false-alarm rate per successful episode.
        seed: of the split.
        score: a name in ``SCORES``, or a score of one's own (which cannot be saved and loaded by name).
        policy_sha: identifies the policy; ``load_monitor`` compares it.
        seeds: of the episodes, in their order, for the record.

    Raises:
        NotEnoughCalibration: naming how many episodes there are and how many it takes.
        MonitorError: if the score does not exist, or an episode has no decision or decisions of another shape.
    """
    needed = min_calibration(alpha) + MIN_FIT
    if len(episodes) < needed:
        raise NotEnoughCalibration(
            f"{len(episodes)} successful episodes; a false-alarm rate of {alpha:g} needs at least {needed}: "
            f"{min_calibration(alpha)} to calibrate and {MIN_FIT} to fit the score"
        )
    shape = _common_shape(episodes)
    order = np.random.default_rng(seed).permutation(len(episodes))
    n_calibration = max(min_calibration(alpha), len(episodes) // 2)
    calibration, fit = np.sort(order[:n_calibration]), np.sort(order[n_calibration:])
    fitted = make_score(score) if isinstance(score, str) else score
    fitted.fit([episodes[i] for i in fit])
    z = np.array([score_episode(fitted, episodes[i]).max() for i in calibration])
    provenance = Provenance(
        policy_sha=policy_sha,
        seed=seed,
        fit_seeds=tuple(int(seeds[i]) for i in fit) if seeds else (),
        calibration_seeds=tuple(int(seeds[i]) for i in calibration) if seeds else (),
    )
    return ConformalMonitor(fitted, z, alpha, shape, provenance)


def load_monitor(
    folder: str | Path, *, policy_sha: str | None = None, embedding_dim: int | None = None
) -> ConformalMonitor:
    """Load what ``save`` wrote.

    Args:
        folder: with ``monitor.json`` and ``arrays.npz``.
        policy_sha: of the policy to be guarded; None does not compare.
        embedding_dim: of the policy to be guarded; None leaves it to the first decision.

    Raises:
        MonitorError: if the folder holds no monitor, one of a newer format, or a damaged one.
        SpecMismatch: if it was calibrated on another policy; both are named.
    """
    described, arrays = _read(Path(folder))
    try:
        shape = DecisionShape(**described["decision"])
        provenance = Provenance.from_json(described["provenance"])
    except (KeyError, TypeError, AttributeError) as error:
        raise MonitorError(f"{folder} is not a monitor of schema {SCHEMA}: {error}") from error
    if policy_sha is not None and policy_sha != provenance.policy_sha:
        raise SpecMismatch(
            f"monitor {folder} was calibrated on policy {provenance.policy_sha[:12] or '(unnamed)'}, "
            f"this policy is {policy_sha[:12]}; calibrate anew"
        )
    if embedding_dim is not None and embedding_dim != shape.embedding:
        raise SpecMismatch(
            f"monitor {folder} was calibrated on embeddings of {shape.embedding}, this policy gives {embedding_dim}"
        )
    score = score_from_arrays(described["score"], {k[6:]: v for k, v in arrays.items() if k.startswith("score/")})
    return ConformalMonitor(score, arrays["calibration"], described["alpha"], shape, provenance)


def _common_shape(episodes: Sequence[Sequence[Decision]]) -> DecisionShape:
    for i, episode in enumerate(episodes):
        if not episode:
            raise MonitorError(f"calibration episode {i} has no decisions")
    shapes = {DecisionShape.of(decision) for episode in episodes for decision in episode}
    if len(shapes) > 1:
        raise MonitorError("calibration episodes differ: " + " and ".join(sorted(str(s) for s in shapes)))
    return shapes.pop()


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        described = json.loads((folder / "monitor.json").read_text())
        if described["schema"] > SCHEMA:
            raise MonitorError(f"{folder} has schema {described['schema']}, this robopolicy reads up to {SCHEMA}")
        if file_sha(folder / "arrays.npz") != described["arrays_sha256"]:
            raise MonitorError(f"{folder}: arrays.npz is not the file that monitor.json was written with")
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            return described, {name: file[name] for name in file.files}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise MonitorError(f"{folder} is not a monitor (monitor.json and arrays.npz): {error}") from error
