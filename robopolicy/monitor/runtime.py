"""The failure monitor at run time: one score, the running maximum of an episode, a threshold by rank."""

import hashlib
import io
import json
import time
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

import robopolicy
from robopolicy.errors import SpecMismatch
from robopolicy.interfaces import Score
from robopolicy.monitor.conformal import GUARANTEE, conformal_rank, conformal_threshold, false_alarm_interval, p_value
from robopolicy.training.files import replace_file
from robopolicy.types import Decision, MonitorState, Verdict

SCHEMA = 1


@dataclass(frozen=True)
class DecisionShape:
    """The shape of the decisions a monitor was calibrated on; those it judges must have the same."""

    embedding: int  # E
    candidates: int  # N chunks a decision
    horizon: int  # H rows a chunk
    action: int  # A
    n_execute: int

    @classmethod
    def of(cls, decision: Decision) -> "DecisionShape":
        """Read it off one decision."""
        candidates, horizon, action = decision.chunks.shape
        return cls(len(decision.embedding), candidates, horizon, action, decision.n_execute)

    def __str__(self) -> str:
        return (
            f"embedding ({self.embedding},), {self.candidates} chunks of ({self.horizon}, {self.action}), "
            f"{self.n_execute} rows executed"
        )


@dataclass(frozen=True)
class Provenance:
    """Where a monitor comes from; written beside it, compared when it is loaded."""

    policy_sha: str = ""
    seed: int = 0  # of the split
    fit_seeds: tuple[int, ...] = ()  # episodes that the score learnt from
    calibration_seeds: tuple[int, ...] = ()  # episodes that the threshold comes from
    software: str = field(default_factory=lambda: f"robopolicy {robopolicy.__version__}, numpy {np.__version__}")
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Provenance":
        """Rebuild what ``dataclasses.asdict`` and JSON made of it."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**fields)


class ConformalMonitor:
    """Alarms, and stays alarmed until ``reset``, when the episode's largest score so far exceeds the threshold.

    The calibrated number is the maximum over a whole successful episode, so an episode of any length is covered;
    there is no threshold per step whose false alarms would add up.

    Args:
        score: fitted on other episodes than those in ``z``.
        z: (n,) the largest score of each calibration episode.
        alpha: false-alarm rate per successful episode.
        shape: of the decisions seen in calibration.
        provenance: where the monitor comes from.

    Raises:
        NotEnoughCalibration: if n is too small for ``alpha``.
    """

    def __init__(
        self, score: Score, z: np.ndarray, alpha: float, shape: DecisionShape, provenance: Provenance | None = None
    ) -> None:
        self.score = score
        self.z = np.sort(np.asarray(z, dtype=np.float64))  # (n,)
        self.alpha = alpha
        self.shape = shape
        self.threshold = conformal_threshold(self.z, alpha)
        self.provenance = provenance or Provenance()
        self.reset()

    def reset(self) -> None:
        """Start a new episode and re-arm."""
        self.score.reset()
        self._statistic = -np.inf

    def step(self, decision: Decision) -> Verdict:
        """Return the verdict on the episode up to and including ``decision``.

        A decision that holds a number that is not finite, or whose score is not finite, counts as infinitely bad.

        Raises:
            SpecMismatch: if the decision's shape is not the calibrated one.
        """
        start_s = time.perf_counter()
        if (shape := DecisionShape.of(decision)) != self.shape:
            raise SpecMismatch(f"monitor was calibrated on {self.shape}; the policy gives {shape}")
        finite = bool(np.all(np.isfinite(decision.embedding)) and np.all(np.isfinite(decision.chunks)))
        score = self.score.update(decision) if finite else np.inf
        score = score if isfinite(score) else np.inf  # max(x, nan) is x: it would be nominal for ever
        self._statistic = max(self._statistic, score)
        state: MonitorState = "alarm" if self._statistic > self.threshold else "nominal"
        p = p_value(self.z, self._statistic)
        return Verdict(
            stamp_ns=decision.stamp_ns,
            scores={self.score.name: score},
            statistic=self._statistic,
            threshold=self.threshold,
            p_value=p,
            state=state,
            latency_s=time.perf_counter() - start_s,
            reason=self._reason(decision.index, state, p),
        )

    @property
    def candidates(self) -> int:
        """Chunks that the policy has to draw a decision."""
        return self.shape.candidates

    def guarantee(self) -> str:
        """Return what the threshold promises, and what it does not, in words."""
        low, high = false_alarm_interval(len(self.z), self.alpha)
        return (
            f"{GUARANTEE.format(n=len(self.z), alpha=self.alpha)} With these {len(self.z)} episodes "
            f"the rate itself lies between {low:.1%} and {high:.1%} with probability 95 %."
        )

    def describe(self) -> dict[str, Any]:
        """Return all that a person wants to know of this monitor, JSON-able: what ``monitor.json`` holds."""
        n = len(self.z)
        return {
            "schema": SCHEMA,
            "score": self.score.name,
            "alpha": self.alpha,
            "n_calibration": n,
            "k": conformal_rank(n, self.alpha),
            "threshold": self.threshold,
            "false_alarm_rate_95": false_alarm_interval(n, self.alpha),
            "guarantee": self.guarantee(),
            "decision": asdict(self.shape),
            "provenance": asdict(self.provenance),
        }

    def save(self, folder: str | Path) -> Path:
        """Write ``arrays.npz`` (no pickle), then ``monitor.json`` (to be read), into ``folder``; return it.

        Each file is replaced in one stroke and the json names the sha of the arrays: a monitor is whole or none.

        Raises:
            DiskFull: if there is no room.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {"calibration": self.z, **{f"score/{k}": v for k, v in self.score.arrays().items()}}
        archive = io.BytesIO()
        np.savez(archive, **arrays)  # type: ignore[arg-type]
        replace_file(folder / "arrays.npz", archive.getvalue())
        described = self.describe() | {"arrays_sha256": hashlib.sha256(archive.getvalue()).hexdigest()}
        replace_file(folder / "monitor.json", (json.dumps(described, indent=2) + "\n").encode())
        return folder

    def _reason(self, index: int, state: MonitorState, p: float) -> str:
        comparison = f"{self.score.name} {self._statistic:.3g} against a threshold of {self.threshold:.3g}"
        if not isfinite(self._statistic):
            return f"decision {index}: the policy's output or its score is not finite"
        if state == "alarm":
            return f"decision {index}: {comparison}; at most {p:.1%} of successful episodes come this far out"
        return f"decision {index}: {comparison}, as in a successful episode (p = {p:.2f})"


def file_sha(path: Path) -> str:
    """Return the sha256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
