"""A drift watch that outlives the process: a line an episode beside the monitor, the newest state as JSON."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import MonitorError
from robopolicy.monitor.drift import DELTA, Drift, DriftWatch
from robopolicy.training.files import replace_file

JOURNAL, STATE = "drift.jsonl", "drift.json"
LABELS = {True: "success", False: "failure", None: "unlabelled"}
SCHEMA = 1
NONE_YET = Drift(0, 1.0, 1.0, 1.0, "", "no finished episode has been taken yet")


@dataclass(frozen=True)
class Entry:
    """One finished episode."""

    statistic: float  # its largest
    label: str  # "success", "unlabelled", or "failure", which is kept and not taken
    episode: str  # what names it, for a person
    when: str  # UTC
    drift: Drift | None  # after it; None of a failure


class DriftJournal:
    """Takes one finished episode after another into ``drift.jsonl`` of a monitor's folder.

    The journal is the truth: each line is on the disk before `record` returns, a line that a kill tore is dropped, and
    what has come of the lines is worked out anew from them. ``drift.json`` holds the newest of that for a person.
    Processes that share a monitor take turns. A journal of another calibration is renamed, not continued.

    Args:
        folder: of the monitor.
        z: (n,) the largest statistic of each of its calibration episodes.
        delta: see `DriftWatch`; of a journal that is there already its own counts.
        seed: the same.
    """

    def __init__(
        self, folder: str | Path, z: Sequence[float] | np.ndarray, *, delta: float = DELTA, seed: int = 0
    ) -> None:
        DriftWatch(z, delta=delta, seed=seed)  # refuses what makes no sense, before an episode has run
        self.folder = Path(folder)
        self._z = np.sort(np.asarray(z, dtype=np.float64))
        sha = hashlib.sha256(self._z.astype("<f8").tobytes()).hexdigest()
        self._header: dict[str, Any] = {
            "schema": SCHEMA,
            "calibration_sha256": sha,
            "n": len(self._z),
            "delta": delta,
            "seed": seed,
        }

    def record(self, statistic: float, *, success: bool | None, episode: str = "") -> Drift | None:
        """Take a finished episode and return where the watch stands; None, and nothing bet on, if it failed.

        Args:
            statistic: the largest of the episode.
            success: None if nobody has said.
            episode: what names it.

        Raises:
            ContractError: if the statistic is NaN.
            MonitorError: if the journal is damaged.
            DiskFull: if there is no room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _held(self.folder):
            watch, past, ours = self._read()
            drift = None if success is False else watch.update(statistic)
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            entry = Entry(float(statistic), LABELS[success], episode, when, drift)
            self._append(entry, ours=ours)
            state = self._described(watch, [*past, entry])
            replace_file(self.folder / STATE, (json.dumps(state, indent=2) + "\n").encode())
        return drift

    def entries(self) -> list[Entry]:
        """Return what the journal holds of this calibration, worked out anew; none if there is no journal.

        Raises:
            MonitorError: if it is damaged.
        """
        return self._read()[1]

    def describe(self) -> dict[str, Any]:
        """Return where the watch stands in words and numbers, JSON-able: what ``drift.json`` holds.

        Raises:
            MonitorError: if the journal is damaged.
        """
        watch, entries, _ = self._read()
        return self._described(watch, entries)

    @property
    def delta(self) -> float:
        """Chance of a warning, ever, while nothing drifts: of the journal, or of one that would be begun."""
        return self._read()[0].delta

    def _read(self) -> tuple[DriftWatch, list[Entry], bool]:
        """The watch, what it took, and whether the journal that is there is of this calibration."""
        lines = _whole_lines(self.folder / JOURNAL)
        ours = bool(lines) and lines[0].get("calibration_sha256") == self._header["calibration_sha256"]
        header = self._header | (lines[0] if ours else {})
        watch = DriftWatch(self._z, delta=header["delta"], seed=header["seed"])
        entries = []
        for number, line in enumerate(lines[1:] if ours else [], 2):
            try:
                statistic, label = float(line["statistic"]), line["label"]
                drift = None if label == "failure" else watch.update(statistic)
                entries.append(Entry(statistic, label, line["episode"], line["when"], drift))
            except (KeyError, TypeError, ValueError) as error:
                raise MonitorError(f"{self.folder / JOURNAL}: line {number} is no episode: {error}") from error
        return watch, entries, ours

    def _append(self, entry: Entry, *, ours: bool) -> None:
        path = self.folder / JOURNAL
        if not ours:
            _set_aside(path)
        drift = {} if entry.drift is None else {k: v for k, v in asdict(entry.drift).items() if k != "words"}
        line = {
            "statistic": entry.statistic if isfinite(entry.statistic) else str(entry.statistic),
            "label": entry.label,
            "episode": entry.episode,
            "when": entry.when,
            **drift,
        }
        begun = [] if path.exists() else [self._header]
        with open(path, "ab+") as file:
            file.truncate(_end_of_last_line(path))
            file.write("".join(json.dumps(one) + "\n" for one in [*begun, line]).encode())
            file.flush()
            os.fsync(file.fileno())

    def _described(self, watch: DriftWatch, entries: Sequence[Entry]) -> dict[str, Any]:
        newest = next((one.drift for one in reversed(entries) if one.drift), NONE_YET)
        return {
            **self._header,
            "delta": watch.delta,
            "seed": watch.seed,
            "failures_set_aside": len(entries) - watch.episodes,
            "warned_after": watch.warned_after,
            **asdict(newest),
        }


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_bytes()[: _end_of_last_line(path)].splitlines(), 1):
        try:
            line = json.loads(text)
        except ValueError as error:
            raise MonitorError(f"{path}: line {number} is not JSON; move the file away to begin anew") from error
        if not isinstance(line, dict):
            raise MonitorError(f"{path}: line {number} is no object; move the file away to begin anew")
        lines.append(line)
    return lines


def _end_of_last_line(path: Path) -> int:
    """Bytes up to and with the last line end: what follows was being written when the process was killed."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def _set_aside(path: Path) -> None:
    """Keep the journal of another calibration under a name of its own; one without a whole line is no journal."""
    lines = _whole_lines(path)
    if not lines:
        path.unlink(missing_ok=True)
    else:
        name = f"drift-{str(lines[0].get('calibration_sha256', 'unknown'))[:12]}"
        names = (path.with_name(f"{name}{'' if i == 1 else f'-{i}'}.jsonl") for i in count(1))
        path.rename(next(one for one in names if not one.exists()))


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Wait until no other process records; the lock goes with the process, however it ends."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
