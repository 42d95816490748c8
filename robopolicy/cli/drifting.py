"""After an episode of a real robot: does the monitor's calibration still hold?"""

from collections.abc import Sequence
from math import inf, isnan
from pathlib import Path
from typing import Any

from robopolicy.types import EpisodeMeta


def note_drift(folder: Path, marks: Sequence[Any], meta: EpisodeMeta, robot: str) -> None:
    """Give a finished episode to the drift journal of the monitor in ``folder``, and say so once it warns.

    A robot does not know of success: its episodes are unlabelled, and taken as they are. After an alarm that stopped
    the robot nobody knows what would have come: the episode counts with what was seen, which is over the threshold.
    So the watch sees what the monitor saw, and failures among it make scores look higher than the calibration's. What
    a watchdog touched is left out, for only a part of it was the policy's.

    Args:
        folder: of the monitor.
        marks: its verdicts, `Mark`; nothing is done without one.
        meta: of the episode; one that failed is counted and not bet on.
        robot: name, for the journal.

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
        say((drift.words, "bold red"))
