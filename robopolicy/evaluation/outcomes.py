"""What came of an episode, one JSON line each, appended as they come, so that an evaluation can be resumed."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from pathlib import Path, PurePath
from typing import Any

from robopolicy.errors import EvaluationError
from robopolicy.training.files import replace_file

OUTCOMES, CURRENT = "outcomes.jsonl", "current.json"


@dataclass(frozen=True)
class Mark:
    """One verdict of the monitor, at the step whose decision it judged."""

    step: int
    statistic: float | None  # None where it was not finite
    threshold: float
    p_value: float
    state: str


@dataclass(frozen=True)
class Outcome:
    """One episode of an evaluation.

    Raises:
        EvaluationError: if ``decisions`` lead out of the evaluation's folder, which may come from anywhere.
    """

    seed: int
    success: bool = False
    score: float = 0.0  # 0 to 1
    steps: int = 0  # commands sent
    alarm_step: int | None = None  # of the first alarm, overrun or fault
    alarm_reason: str = ""
    disturb_step: int | None = None  # if it was disturbed
    disturbance: str = ""  # what was done, in words
    marks: tuple[Mark, ...] = ()
    decisions: str | None = None  # file of its decisions, relative to the evaluation's folder
    video: str | None = None  # the same, of its video
    wall_s: float = 0.0
    skipped_ticks: int = 0  # control steps that passed without a command, at the pace of the wall clock
    stopped: str = ""  # why safety ended it before its time
    lost: str = ""  # why the policy had no plan for what it saw, which ended it before its time
    error: str | None = None  # why there is no outcome, in one line
    mode: str | None = None  # which of the world's enumerated behaviours it was; None if it has none, or undecided
    failure: str = ""  # why it failed, as a slug: the task's own, or one of `failures.WORDS`; "" after a success
    onset_step: int | None = None  # step from which on it failed and never recovered
    success_s: float | None = None  # from the first observation to the one that showed success, s of the robot's clock
    smoothness: float | None = None  # of the tool's path as observed, SPARC: see `ToolPath.smoothness`; 0 at most
    perturbations: tuple[str, ...] = ()  # what the world was changed by, each as AXIS:SEVERITY
    drawn: str = ""  # what they were in this episode, in words

    def __post_init__(self) -> None:
        path = PurePath(self.decisions or "")
        if path.is_absolute() or ".." in path.parts:
            raise EvaluationError(
                f"episode {self.seed}: its decisions {self.decisions!r} lie outside of the evaluation's folder; want a "
                f"file in it, such as decisions/{self.seed:06d}.npz"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts, lists and finite numbers."""
        data: dict[str, Any] = _finite(asdict(self))
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Outcome":
        """Rebuild what ``to_json`` gave; keys of a later version are ignored."""
        known = {field.name for field in fields(cls)}
        kept = {name: value for name, value in data.items() if name in known}
        marks = tuple(Mark(**mark) for mark in kept.get("marks", ()))
        return cls(**{**kept, "marks": marks, "perturbations": tuple(kept.get("perturbations", ()))})


@dataclass(frozen=True)
class Unfinished:
    """What keeps outcomes of an evaluation from being counted."""

    waiting: int = 0  # seeds that were asked for, and whose episodes have not come to an end
    aside: int = 0  # outcomes that are not counted for that


class OutcomeLog:
    """The outcomes in ``folder/outcomes.jsonl`` that belong to one identity; other lines are left alone.

    Args:
        folder: of the evaluation; made if absent.
        identity: of world, policy, monitor and options: an outcome counts only for the identity it was got with.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._path = folder / OUTCOMES
        self._identity = identity

    def begin(self, about: Mapping[str, str], seeds: Sequence[int]) -> None:
        """Make this evaluation the folder's current one, with what is worth knowing ``about`` it.

        The ``seeds`` that are to be run, in order, are kept beside those that were asked for before.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        from robopolicy.evaluation.statistics import seed_words

        asked, words = self._asked(), seed_words(seeds)
        mine = [*(other for other in asked.get(self._identity, []) if other != words), *([words] if words else [])]
        current = {"identity": self._identity, "about": dict(about), "asked": asked | {self._identity: mine}}
        replace_file(self._path.with_name(CURRENT), (json.dumps(current, indent=1) + "\n").encode())

    def finished(self) -> dict[int, Outcome]:
        """Return the outcomes by seed, the newest of each; those that ended in an error are to be run again."""
        outcomes = {}
        for line in _lines(self._path):
            if line.get("identity") == self._identity and line.get("error") is None:
                outcome = Outcome.from_json(line)
                outcomes[outcome.seed] = outcome
        return outcomes

    def counted(self) -> tuple[dict[int, Outcome], Unfinished]:
        """Return the outcomes by seed that may be held against another policy's, and what else there is.

        Where a success ends an episode, successes come first: those that there are of an evaluation that is under way,
        was killed or was ended early flatter it. So of the seeds asked for at once only those count that come before
        the first that has not come to its end.
        """
        from robopolicy.evaluation.statistics import parse_seeds

        finished, ended = self.finished(), self._ended()
        whole, rest = set[int](), set[int]()
        for seeds in map(parse_seeds, self._asked().get(self._identity, [])):
            first = next((i for i, seed in enumerate(seeds) if seed not in ended), len(seeds))
            whole |= set(seeds[:first])
            rest |= set(seeds[first:])
        aside = (rest - whole) & finished.keys()
        kept = {seed: outcome for seed, outcome in finished.items() if seed not in aside}
        return kept, Unfinished(len(rest - ended), len(aside))

    def _ended(self) -> set[int]:
        """The seeds whose episodes came to an end, be it an error."""
        return {line["seed"] for line in _lines(self._path) if line.get("identity") == self._identity}

    def _asked(self) -> dict[str, list[str]]:
        """The seeds of each call, by identity; none are known of what earlier versions wrote."""
        try:
            asked: dict[str, list[str]] = _current(self._path.parent).get("asked", {})
        except EvaluationError:
            return {}
        return asked

    def append(self, outcome: Outcome) -> None:
        """Add one line in one write; after a crash a half line is closed first, and ignored from then on."""
        line = json.dumps({"identity": self._identity, **outcome.to_json()}) + "\n"
        with self._path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode())  # appended, wherever the file was read
            file.flush()
            os.fsync(file.fileno())


def load_outcomes(folder: str | Path) -> list[Outcome]:
    """Read all outcomes of the evaluation that was run last in ``folder``, in order of their seeds, but no errors.

    Raises:
        EvaluationError: if the folder holds none.
    """
    folder = Path(folder)
    if not (folder / OUTCOMES).exists():
        raise EvaluationError(f"{folder} holds no outcomes (no {OUTCOMES}); is it the folder of an evaluation?")
    outcomes = OutcomeLog(folder, _current(folder)["identity"]).finished()
    return [outcomes[seed] for seed in sorted(outcomes)]


def load_counted(folder: str | Path) -> tuple[list[Outcome], Unfinished]:
    """Read as `load_outcomes` does what may be held against another policy's outcomes: `OutcomeLog.counted`.

    Raises:
        EvaluationError: if the folder holds none.
    """
    folder = Path(folder)
    outcomes, unfinished = OutcomeLog(folder, _current(folder)["identity"]).counted()
    return [outcomes[seed] for seed in sorted(outcomes)], unfinished


def load_about(folder: str | Path) -> dict[str, str]:
    """Read what the evaluation that was run last in ``folder`` says of itself.

    Raises:
        EvaluationError: if the folder holds none.
    """
    about: dict[str, str] = _current(Path(folder))["about"]
    return about


def _current(folder: Path) -> dict[str, Any]:
    try:
        current: dict[str, Any] = json.loads((folder / CURRENT).read_bytes())
        _ = current["identity"], current["about"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{folder} is not the folder of an evaluation: cannot read {CURRENT}: {error}") from error
    return current


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a run that was killed
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not isfinite(value) else value
