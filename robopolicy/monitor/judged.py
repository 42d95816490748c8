"""Test episodes with what came of them, and each as a monitor judged it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from robopolicy.errors import EvaluationError, MonitorError
from robopolicy.evaluation.failures import WORDS
from robopolicy.evaluation.outcomes import Outcome, load_counted
from robopolicy.interfaces import Monitor
from robopolicy.monitor.decisions import load_decisions
from robopolicy.types import Decision

NOMINAL = "nominal"  # the stratum of a world as it was calibrated in
LATCHED = ("alarm", "fault")  # states that are an alarm; an overrun is one of its own


@dataclass(frozen=True)
class Labelled:
    """The decisions of one episode, and what came of it."""

    name: str  # of the episode, no other's
    decisions: Sequence[Decision]  # T of them, at least one
    success: bool
    stratum: str = NOMINAL
    failure: str = ""  # why it failed, `Outcome.failure`
    onset: float | None = None  # when it failed, stamped by the task, in decisions: 7.5 is halfway from 7 to 8
    stalled: float | None = None  # last progress of one without such a stamp, found with hindsight, in decisions
    dt_s: float = 1.0  # from one decision to the next
    seed: int = 0  # of the episode, in its folder

    @property
    def ood(self) -> bool:
        """Whether the world was another than the calibrated one."""
        return self.stratum != NOMINAL


@dataclass(frozen=True)
class Judged:
    """One episode as a monitor judged it.

    Raises:
        MonitorError: if there is no decision, or the arrays differ in length.
    """

    name: str
    success: bool
    statistic: np.ndarray  # (T,) as each verdict had it; inf where that was no number
    threshold: np.ndarray  # (T,) the same; inf where nothing could have been exceeded
    states: tuple[str, ...]  # (T,)
    alarm: int | None  # first decision in alarm or fault
    overrun: int | None  # first decision in overrun
    stratum: str = NOMINAL
    failure: str = ""
    onset: float | None = None  # decisions
    stalled: float | None = None  # decisions
    dt_s: float = 1.0
    latency_s: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (T,) of each verdict, or none

    def __post_init__(self) -> None:
        if not len(self.statistic) == len(self.threshold) == len(self.states) >= 1:
            raise MonitorError(
                f"episode {self.name}: {len(self.statistic)} statistics, {len(self.threshold)} thresholds, "
                f"{len(self.states)} states; want the same number of each, one at least"
            )

    @property
    def length(self) -> int:
        """T, in decisions."""
        return len(self.statistic)

    @property
    def ood(self) -> bool:
        """Whether the world was another than the calibrated one."""
        return self.stratum != NOMINAL

    @property
    def first(self) -> int | None:
        """The first decision at which the monitor asked for a reaction, be it an alarm or an overrun."""
        return min((t for t in (self.alarm, self.overrun) if t is not None), default=None)

    @property
    def severity(self) -> np.ndarray:
        """How bad it looked, (T,): the statistic; above the threshold where that changes within the episode."""
        if np.all(self.threshold == self.threshold[0]):
            return self.statistic
        with np.errstate(invalid="ignore"):
            above = self.statistic - self.threshold
        return np.where(np.isnan(above), -np.inf, above)  # inf against inf is no alarm

    def without_overrun(self) -> "Judged":
        """Return the same with alarms of the scores alone."""
        return replace(self, overrun=None)


def judge(monitor: Monitor, episodes: Sequence[Labelled]) -> list[Judged]:
    """Let ``monitor`` judge stored decisions, one by one as it would have when they were made.

    Nothing of an episode's outcome reaches the monitor.

    Raises:
        MonitorError: if an episode has no decisions.
    """
    return [_judged(monitor, episode) for episode in episodes]


def read_labelled(folder: str | Path, *, name: str | None = None) -> list[Labelled]:
    """Read the episodes of an evaluation that kept its decisions (``robopolicy eval --decisions``).

    As in a comparison, of an evaluation that is under way or was killed those count that come before the first without
    an end: the successes behind it are the quick ones.

    Args:
        folder: of the evaluation.
        name: what its episodes' names begin with; None is the folder's.

    Raises:
        EvaluationError: if it holds no outcomes, or episodes without decisions.
        MonitorError: if a file of decisions is damaged.
    """
    folder = Path(folder)
    outcomes, _ = load_counted(folder)
    bare = [outcome.seed for outcome in outcomes if outcome.decisions is None]
    if bare or not outcomes:
        told = f"{len(bare)} of {len(outcomes)} episodes without decisions" if bare else "no finished episodes"
        raise EvaluationError(f"{folder} holds {told}; make it with: robopolicy eval --decisions")
    return [_labelled(outcome, folder, name or folder.name) for outcome in outcomes]


def _labelled(outcome: Outcome, folder: Path, name: str) -> Labelled:
    decisions = load_decisions(folder / str(outcome.decisions))
    disturbed = () if outcome.disturb_step is None else ("disturbed",)
    onset = None if outcome.onset_step is None else outcome.onset_step / decisions[0].n_execute
    stamped = bool(outcome.failure) and outcome.failure not in WORDS
    return Labelled(
        f"{name}/{outcome.seed}",
        decisions,
        outcome.success,
        " ".join((*outcome.perturbations, *disturbed)) or NOMINAL,
        outcome.failure,
        onset if stamped else None,
        onset if outcome.failure == "stalled" else None,
        _dt_s(decisions),
        outcome.seed,
    )


def _dt_s(decisions: Sequence[Decision]) -> float:
    """The median time between decisions; 1 where there is but one, and so nothing to scale."""
    stamps = np.array([decision.stamp_ns for decision in decisions], np.int64)
    return float(np.median(np.diff(stamps))) * 1e-9 if len(stamps) > 1 else 1.0


def _judged(monitor: Monitor, episode: Labelled) -> Judged:
    monitor.reset()
    verdicts = [monitor.step(decision) for decision in episode.decisions]
    states = tuple(verdict.state for verdict in verdicts)
    statistic = np.array([verdict.statistic for verdict in verdicts], np.float64)
    return Judged(
        episode.name,
        episode.success,
        np.where(np.isnan(statistic), np.inf, statistic),
        np.array([verdict.threshold for verdict in verdicts], np.float64),
        states,
        next((t for t, state in enumerate(states) if state in LATCHED), None),
        next((t for t, state in enumerate(states) if state == "overrun"), None),
        episode.stratum,
        episode.failure,
        episode.onset,
        episode.stalled,
        episode.dt_s,
        np.array([verdict.latency_s for verdict in verdicts], np.float64),
    )
