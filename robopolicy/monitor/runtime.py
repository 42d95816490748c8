"""The failure monitor at run time: scores, their statistic, an episode's largest so far, a threshold by rank."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

import robopolicy
from robopolicy.errors import SpecMismatch
from robopolicy.interfaces import Score
from robopolicy.monitor.alike import IN_THE_LOOP
from robopolicy.monitor.calibration import Calibration
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.statistic import Statistic
from robopolicy.types import Decision, MonitorState, Verdict


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
    sampler: str = ""  # the policy's solver, in words
    env: str = ""  # world or robot of the episodes that calibrated; "" if nobody said
    timing: str = IN_THE_LOOP  # how plans came to the robot there
    seed: int = 0  # of the split, and of what the scores draw
    fit_seeds: tuple[int, ...] = ()  # episodes that the scores learnt from
    calibration_seeds: tuple[int, ...] = ()  # episodes that the threshold comes from, in the order of the traces
    failure_seeds: tuple[int, ...] = ()  # failed episodes that weights or a supervised score learnt from
    failed: int = 0  # failed episodes among the rollouts, set aside
    parent: str = ""  # sha256 of the monitor.json that this one was recalibrated from
    software: str = field(default_factory=lambda: f"robopolicy {robopolicy.__version__}, numpy {np.__version__}")
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Provenance":
        """Rebuild what ``dataclasses.asdict`` and JSON made of it."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**fields)


class ConformalMonitor:
    """Judges each decision; what it says stays said until ``reset`` or ``acknowledge``.

    ``alarm``: the episode's largest statistic so far exceeds the threshold. The calibrated number is the maximum over
    a whole successful episode, so an episode of any length is covered; there is no threshold per step whose false
    alarms would add up. ``overrun``: it has taken more decisions than its own alpha allows; beyond the longest
    calibrated episode the scores no longer count, and only this and ``fault`` can fire. ``fault``: a decision or a
    score is no finite number. ``warn``: the p-value of the episode so far is at most ``alpha_warn``.
    ``uncalibrated``: a person has acknowledged an overrun, and nothing was calibrated for what follows.

    Args:
        scores: fitted on other episodes than those of the calibration.
        statistic: of these scores.
        calibration: its traces over the calibration episodes, and the alphas.
        shape: of the decisions seen in calibration.
        layout: of the actions.
        provenance: where the monitor comes from.
    """

    def __init__(
        self,
        scores: Sequence[Score],
        statistic: Statistic,
        calibration: Calibration,
        shape: DecisionShape,
        layout: ActionLayout,
        provenance: Provenance | None = None,
    ) -> None:
        self.scores = tuple(scores)
        self.statistic = statistic
        self.calibration = calibration
        self.shape = shape
        self.layout = layout
        self.provenance = provenance or Provenance()
        self.reset()

    def reset(self) -> None:
        """Start a new episode and re-arm."""
        for score in self.scores:
            score.reset()
        self.statistic.reset()
        self._count = 0
        self._timed = True  # until an overrun is acknowledged
        self._rearm()

    def acknowledge(self) -> None:
        """Re-arm within the episode: a person has looked. Scores know what they saw; window and patience start anew.

        The promise is of an episode's first alarm: a second look at the same episode may alarm falsely once more.
        """
        self._timed = self._timed and self._latched != "overrun"
        if self._latched == "fault":  # what was no number may sit in a memory
            for score in self.scores:
                score.reset()
        self.statistic.reset(self._count)  # else what was acknowledged would alarm again out of the window
        self._rearm()

    def step(self, decision: Decision) -> Verdict:
        """Return the verdict on the episode up to and including ``decision``.

        Raises:
            SpecMismatch: if the decision's shape is not the calibrated one.
            MonitorError: if the decision lacks what a score needs.
        """
        start_s = time.perf_counter()
        if (shape := DecisionShape.of(decision)) != self.shape:
            raise SpecMismatch(f"monitor was calibrated on {self.shape}; the policy gives {shape}")
        self._count += 1
        scores, broken = self._ask(decision)
        if self._count <= self.calibration.calibrated and not broken:
            now = self.statistic.push(np.fromiter(scores.values(), np.float64, len(scores)))
            self._largest = max(self._largest, now)
            if not isfinite(now):
                broken = "the statistic"
        if broken:
            self._latched, self._largest, self._why = "fault", np.inf, f"{broken} is not finite"
        p = self.calibration.p(self._largest)
        state = self._state(p)
        return Verdict(
            stamp_ns=decision.stamp_ns,
            scores=scores,
            statistic=self._largest,
            threshold=self.calibration.threshold,
            p_value=p,
            state=state,
            latency_s=time.perf_counter() - start_s,
            reason=self._reason(decision.number, state, p),
        )

    @property
    def candidates(self) -> int:
        """Chunks that the policy has to draw a decision."""
        return self.shape.candidates

    @property
    def threshold(self) -> float:
        """What the statistic must exceed for an alarm."""
        return self.calibration.threshold

    def guarantee(self) -> str:
        """Return what the threshold promises, and what it does not, in words."""
        return self.calibration.guarantee()

    def describe(self) -> dict[str, Any]:
        """Return all that a person wants to know of this monitor, JSON-able: what ``monitor.json`` holds."""
        return {
            "score": " + ".join(score.name for score in self.scores),
            **self.calibration.describe(),
            "statistic": self.statistic.describe(),
            "decision": asdict(self.shape),
            "layout": self.layout.to_json(),
            "provenance": asdict(self.provenance),
        }

    def save(self, folder: str | Path) -> Path:
        """Write the monitor into ``folder`` and return it; see `robopolicy.monitor.artefact`.

        Raises:
            DiskFull: if there is no room.
            MonitorError: if a score is not one of `SCORES`, which could not be loaded by its name.
        """
        from robopolicy.monitor.artefact import save_monitor

        return save_monitor(self, folder)

    def _rearm(self) -> None:
        self._latched: MonitorState | None = None
        self._largest = -np.inf
        self._why = ""

    def _ask(self, decision: Decision) -> tuple[dict[str, float], str]:
        """Return each score, and which number is not finite, "" if all are."""
        if self._latched == "fault":  # what is no number may sit in a score's memory: none of them is asked again
            return {score.name: np.nan for score in self.scores}, self._why.removesuffix(" is not finite")
        if not np.all(np.isfinite(decision.embedding)):
            return {score.name: np.nan for score in self.scores}, "the policy's embedding"
        if not np.all(np.isfinite(decision.chunks)):
            return {score.name: np.nan for score in self.scores}, "a chunk of the policy"
        scores = {score.name: float(score.update(decision)) for score in self.scores}
        return scores, next((f"score {name}" for name, value in scores.items() if not isfinite(value)), "")

    def _state(self, p: float) -> MonitorState:
        if self._latched != "fault":
            if self._largest > self.calibration.threshold:
                self._latched = "alarm"
            elif self._timed and self._count > self.calibration.longest and self._latched is None:
                self._latched = "overrun"
        if self._latched is not None:
            return self._latched
        if self._count > self.calibration.calibrated:
            return "uncalibrated"
        return "warn" if p <= self.calibration.warn_rate else "nominal"

    def _words(self) -> str:
        """Return what the scores have to say of the decision in words, those that do."""
        said = [words for score in self.scores if (words := getattr(score, "words", str)())]
        return "".join(f"; {words}" for words in said)

    def _reason(self, number: int, state: MonitorState, p: float) -> str:
        name = " + ".join(score.name for score in self.scores)
        comparison = f"{name} {self._largest:.3g} against a threshold of {self.calibration.threshold:.3g}"
        told = f"decision {number}"
        match state:
            case "fault":
                return f"{told}: {self._why}"
            case "alarm":
                return f"{told}: {comparison}; at most {p:.1%} of successful episodes come this far out{self._words()}"
            case "overrun":
                return f"{told}: more than the {self.calibration.longest} decisions of successful episodes"
            case "uncalibrated":
                return f"{told}: beyond the {self.calibration.calibrated} decisions that were calibrated"
            case _:
                return f"{told}: {comparison}, as in a successful episode (p = {p:.2f})"


def file_sha(path: Path) -> str:
    """Return the sha256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
