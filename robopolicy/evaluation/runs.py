"""Evaluations as they lie in folders, made sure to be comparable: same world, same options, same starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from robopolicy.errors import EvaluationError, UsageError
from robopolicy.evaluation.outcomes import Outcome, Unfinished, load_about, load_counted

ALIKE = ("env", "perturbations", "options")  # what must be the same of two evaluations
ALL_THERE = Unfinished()
WORTH_SAYING = ("software",)  # what may differ, but is to be said


@dataclass(frozen=True)
class Run:
    """One evaluation."""

    name: str
    folder: Path
    about: dict[str, str]
    outcomes: tuple[Outcome, ...]  # that count, in the order of their seeds; errors are not among them
    unfinished: Unfinished = ALL_THERE

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that its world enumerates; () if none, or if the evaluation does not say."""
        return tuple(mode for mode in self.about.get("modes", "").split(", ") if mode)


def read_runs(words: Sequence[str]) -> list[Run]:
    """Read evaluations from folders, each called ``FOLDER`` or ``NAME=FOLDER``; others get what sets them apart.

    Raises:
        UsageError: if there are less than two, or two have one name.
        EvaluationError: if a folder holds no evaluation.
    """
    given = [word.partition("=") if "=" in word else ("", "", word) for word in words]
    folders = [Path(folder) for _, _, folder in given]
    if len(words) < 2:
        raise UsageError(f"{len(words)} evaluation to compare; want two or more folders that robopolicy eval wrote")
    names = [name or own for (name, _, _), own in zip(given, short_names(folders), strict=True)]
    for first, second in combinations(range(len(names)), 2):
        if names[first] == names[second]:
            raise UsageError(
                f"{words[first]} and {words[second]} would both be called {names[first]!r}; name them, as in "
                f"old={folders[first]} new={folders[second]}"
            )
    return [read_run(folder, name) for name, folder in zip(names, folders, strict=True)]


def read_run(folder: str | Path, name: str = "") -> Run:
    """Read the evaluation in ``folder``, called ``name`` or as the folder is.

    Raises:
        EvaluationError: if it holds none, or none of its episodes counts yet.
    """
    folder = Path(folder)
    outcomes, unfinished = load_counted(folder)
    run = Run(name or folder.name, folder, load_about(folder), tuple(outcomes), unfinished)
    if not outcomes:
        why = unfinished_words(run)
        raise EvaluationError(f"{folder} has no outcome yet that counts" + (f"; {why}" if why else ""))
    return run


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the parts of each path in which they differ: ``a`` and ``b`` of ``runs/a/eval`` and ``runs/b/eval``."""
    parts = [folder.parts for folder in folders]
    shared = 0
    while all(len(p) > shared for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    parts = [p[shared:] for p in parts]
    ends = 0
    while all(len(p) > ends + 1 for p in parts) and len({p[-1 - ends] for p in parts}) == 1:
        ends += 1
    return ["/".join(p[: len(p) - ends]) or folder.name for p, folder in zip(parts, folders, strict=True)]


def require_alike(runs: Sequence[Run]) -> list[str]:
    """Make sure that evaluations differ in nothing but the policy; return what else is worth saying, a line each.

    Raises:
        UsageError: with both sides, if two are of different worlds, options, disturbances or perturbations.
    """
    for first, second in combinations(runs, 2):
        for key in ALIKE:
            _same(first, second, key, first.about.get(key, ""), second.about.get(key, ""))
        if all("rate" in run.about and "step" in run.about.get("options", "") for run in (first, second)):
            _same(first, second, "rate", first.about["rate"], second.about["rate"])  # of the steps that options count
        _same(first, second, "the disturbance", _disturbed(first), _disturbed(second))
        theirs = {outcome.seed: ", ".join(outcome.perturbations) for outcome in second.outcomes}
        for mine in first.outcomes:
            own = ", ".join(mine.perturbations)
            _same(first, second, f"seed {mine.seed}", own, theirs.get(mine.seed, own))
    notes = [words for run in runs if (words := unfinished_words(run))]
    for key in WORTH_SAYING:
        values = {run.about.get(key, "not recorded") for run in runs}
        if len(values) > 1:
            each = "; ".join(f"{run.name}: {run.about.get(key, 'not recorded')}" for run in runs)
            notes.append(f"{key} differs ({each}): starts may differ too where it decides them")
    for first, second in combinations(runs, 2):
        if first.about.get("policy_sha") and first.about.get("policy_sha") == second.about.get("policy_sha"):
            notes.append(f"{first.name} and {second.name} are the same policy")
    return notes


def unfinished_words(run: Run) -> str:
    """Return what of an evaluation is not there yet, and what does not count for that; "" if it is complete."""
    if not run.unfinished.waiting:
        return ""
    left, aside = run.unfinished.waiting, run.unfinished.aside
    told = f"{run.name} is not complete, {left} episode{'s' * (left > 1)} to go"
    if aside:
        told += f"; of those that ended {aside} do not count yet: the ones that end before their turn are successes"
    return told


def _disturbed(run: Run) -> str:
    """When its episodes were disturbed, of an evaluation that does not say it of itself."""
    if run.about.get("options"):
        return ""
    steps = sorted({outcome.disturb_step for outcome in run.outcomes if outcome.disturb_step is not None})
    return ", ".join(f"at step {step}" for step in steps)


def _same(first: Run, second: Run, what: str, mine: str, theirs: str) -> None:
    if mine != theirs:
        raise UsageError(
            f"{first.folder} and {second.folder} were not evaluated alike: {what} is {mine or 'plain'!r} in the first, "
            f"{theirs or 'plain'!r} in the second; compare evaluations that differ in the policy only"
        )
