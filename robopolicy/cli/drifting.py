"""After an episode of a real robot: does the monitor's calibration still hold?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf, isnan
from pathlib import Path
from typing import Any

from robopolicy.session import MONITOR
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Step, Verdict


def note_drift(
    folder: Path, marks: Sequence[Any], meta: EpisodeMeta, robot: str, tell: Callable[[str], None] | None = None
) -> None:
    """Give a finished episode to the drift journal of the monitor in ``folder``, and say so once it warns.

    A robot does not know of success: its episodes are unlabelled, and taken as they are, unless a person has told.
    After an alarm that stopped the robot nobody knows what would have come: the episode counts with what was seen,
    which is over the threshold. So the watch sees what the monitor saw, and failures among it make scores look higher
    than the calibration's. What a watchdog touched is left out, for only a part of it was the policy's. Evaluations
    are not taken: their worlds are chosen ones, perturbed or not.

    Args:
        folder: of the monitor.
        marks: its verdicts, `Mark` or `Verdict`; nothing is done without one.
        meta: of the episode; one that failed is counted and not bet on.
        robot: name, for the journal.
        tell: takes the warning; None prints it.

    Raises:
        MonitorError: if the journal is damaged.
        DiskFull: if there is no room.
    """
    from robopolicy.cli.progress import say
    from robopolicy.monitor.artefact import load_monitor
    from robopolicy.monitor.drift_journal import DriftJournal

    values = [inf if mark.statistic is None or isnan(mark.statistic) else mark.statistic for mark in marks]
    if not values or meta.extra.get("watchdogs"):
        return
    journal = DriftJournal(folder, load_monitor(folder).calibration.z)
    drift = journal.record(max(values), success=meta.success, episode=robot)
    if drift is not None and drift.warned:
        say((drift.words, "bold red")) if tell is None else tell(drift.words)


class Judged:
    """A watcher that keeps what a monitor says of the running episode.

    Args:
        robot: driven; one that is watched tells of its watchdogs.
    """

    def __init__(self, robot: Any) -> None:
        self._robot = robot
        self.verdicts: list[Verdict] = []

    @property
    def alone(self) -> bool:
        """Whether the episode was the policy's: no watchdog touched it, and no person drove before an alarm."""
        return not self._by_hand and len(self._trips()) == self._tripped

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Forget the episode before."""
        self.verdicts, self._by_hand, self._alarmed, self._tripped = [], False, False, len(self._trips())

    def on_step(self, step: Step) -> None:
        """Keep the verdict; note who drives."""
        if step.verdict is not None:
            self.verdicts.append(step.verdict)
            self._alarmed = self._alarmed or step.verdict.acts
        self._by_hand = self._by_hand or (step.source == "human" and not self._alarmed)

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing is done with it yet."""

    def _trips(self) -> Sequence[str]:
        trips: Sequence[str] = getattr(self._robot, "trips", ())
        return trips


class SessionDrift(Judged):
    """Gives each episode of a session that was brought to its end to the drift journal, as ``deploy`` does.

    The person says of success. What they drove themselves before any alarm is left out, and so is what they discard.

    Args:
        robot: driven.
        folder: of the monitor.
        name: of the robot, for the journal.
        tell: takes a warning.
    """

    def __init__(self, robot: Any, folder: Path, name: str, tell: Callable[[str], None]) -> None:
        super().__init__(robot)
        self._folder, self._name, self._tell = folder, name, tell

    def on_end(self, meta: EpisodeMeta) -> None:
        """Take the episode; one that the monitor ended has no label, for nobody knows what would have come."""
        ended = meta.extra.get("ended")
        if ended in (None, "discard", "redo", "quit") or not self.alone:  # None: an error ended it
            return
        label = None if ended == MONITOR else meta.success
        note_drift(self._folder, self.verdicts, replace(meta, success=label), self._name, self._tell)
