"""Policy decisions and what a monitor said of them, kept in one npz an episode each, never a pickle."""

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np

from robopolicy.errors import MonitorError
from robopolicy.types import Decision, Verdict

DAMAGED = (OSError, EOFError, ValueError, KeyError, IndexError, BadZipFile, ZlibError)  # what a broken npz raises
UNKNOWN = -1  # in place of no ``Decision.after``
NUMBERS = ("statistic", "threshold", "p_value", "latency_s")  # of a verdict


class DecisionLog:
    """A monitor that finds everything nominal and keeps what it saw, to calibrate a real one from.

    ``Guarded(Chunked(policy), log)`` gathers calibration episodes through the very loop that will be guarded.
    """

    def __init__(self) -> None:
        self.episodes: list[list[Decision]] = []

    def step(self, decision: Decision) -> Verdict:
        """Keep the decision."""
        if not self.episodes:
            self.reset()
        self.episodes[-1].append(decision)
        return Verdict(decision.stamp_ns, {}, 0.0, np.inf, 1.0, "uncalibrated", reason="collecting calibration data")

    def reset(self) -> None:
        """Start a new episode; one without decisions is not kept."""
        if not self.episodes or self.episodes[-1]:
            self.episodes.append([])


def save_decisions(path: str | Path, decisions: Sequence[Decision]) -> Path:
    """Write one episode's decisions, T of them with equal shapes, to ``path`` (.npz) and return it.

    Raises:
        MonitorError: if there are none.
    """
    if not decisions:
        raise MonitorError(f"{path}: an episode without decisions cannot be saved")
    arrays = {
        "index": np.array([d.index for d in decisions], dtype=np.int64),
        "stamp_ns": np.array([d.stamp_ns for d in decisions], dtype=np.int64),
        "n_execute": np.array([d.n_execute for d in decisions], dtype=np.int64),
        "after": np.array([UNKNOWN if d.after is None else d.after for d in decisions], dtype=np.int64),
        "embedding": np.stack([d.embedding for d in decisions]).astype(np.float32),
        "chunks": np.stack([d.chunks for d in decisions]).astype(np.float32),
    }
    for name in decisions[0].aux:
        arrays[f"aux/{name}"] = np.stack([d.aux[name] for d in decisions])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, **arrays)  # type: ignore[arg-type]
    return scratch.replace(path)


def load_decisions(path: str | Path) -> list[Decision]:
    """Read what ``save_decisions`` wrote.

    Raises:
        MonitorError: if the file is not one of ours.
    """
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        aux = {name.removeprefix("aux/"): a for name, a in arrays.items() if name.startswith("aux/")}
        after = arrays.get("after", np.full(len(arrays["index"]), UNKNOWN))  # files of before do not say
        return [
            Decision(
                int(arrays["index"][t]),
                int(arrays["stamp_ns"][t]),
                arrays["embedding"][t],
                arrays["chunks"][t],
                int(arrays["n_execute"][t]),
                {name: a[t] for name, a in aux.items()},
                None if after[t] == UNKNOWN else int(after[t]),
            )
            for t in range(len(arrays["index"]))
        ]
    except DAMAGED as error:
        raise MonitorError(f"{path} does not hold an episode's decisions: {error}") from error


def verdicts_path(decisions: str | Path) -> Path:
    """Return where the verdicts on the decisions in ``decisions`` (.npz) lie: beside them."""
    path = Path(decisions)
    return path.with_name(f"{path.stem}.verdicts.npz")


def save_verdicts(path: str | Path, verdicts: Sequence[Verdict]) -> Path:
    """Write what a monitor said of an episode, T verdicts of the same scores, to ``path`` (.npz) and return it.

    All but the reasons: stamps, each score, statistic, threshold, p-value, state, latency.

    Raises:
        MonitorError: if there are none, or they differ in their scores.
    """
    path = Path(path)
    if not verdicts:
        raise MonitorError(f"{path}: an episode without verdicts cannot be saved")
    names = tuple(verdicts[0].scores)
    if any(tuple(verdict.scores) != names for verdict in verdicts):
        raise MonitorError(f"{path}: the verdicts of an episode differ in their scores; want {', '.join(names)} in all")
    arrays = {
        "stamp_ns": np.array([v.stamp_ns for v in verdicts], dtype=np.int64),
        "state": np.array([v.state for v in verdicts], dtype=np.str_),
        **{name: np.array([getattr(v, name) for v in verdicts], dtype=np.float64) for name in NUMBERS},
        **{f"score/{name}": np.array([v.scores[name] for v in verdicts], dtype=np.float64) for name in names},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp.npz")
    np.savez(scratch, **arrays)  # type: ignore[arg-type]
    return scratch.replace(path)


def load_verdicts(path: str | Path) -> list[Verdict]:
    """Read what ``save_verdicts`` wrote; reasons are empty.

    Raises:
        MonitorError: if the file is not one of ours.
    """
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        scores = {name.removeprefix("score/"): a for name, a in arrays.items() if name.startswith("score/")}
        return [
            Verdict(
                int(arrays["stamp_ns"][t]),
                {name: float(values[t]) for name, values in scores.items()},
                state=str(arrays["state"][t]),  # type: ignore[arg-type]
                **{name: float(arrays[name][t]) for name in NUMBERS},
            )
            for t in range(len(arrays["stamp_ns"]))
        ]
    except DAMAGED as error:
        raise MonitorError(f"{path} does not hold an episode's verdicts: {error}") from error
