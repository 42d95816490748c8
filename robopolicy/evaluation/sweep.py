"""Running a sweep: what the table lacks, each episode once, whatever dies meanwhile."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from robopolicy.evaluation.batched import Batched, Share
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.results import Patience, Raised, Result
from robopolicy.evaluation.rollouts import MakeAgent, MakeSafety, MakeWorld, Options, Rollout
from robopolicy.evaluation.suite import Cell, Item
from robopolicy.evaluation.sweep_table import Journal, Row, read_rows, seal_abandoned
from robopolicy.evaluation.workers import run_items

AS_IS = Options()
ONCE_MORE = Patience(retries=1)


@dataclass(frozen=True)
class Recipe:
    """How the episodes of one cell are run, ready for other processes."""

    make_world: MakeWorld
    make_agent: MakeAgent
    make_safety: MakeSafety
    options: Options = AS_IS
    draws: bool = False  # whether pictures decide how an episode goes
    folder: str = ""  # of its films: another for each cell, and for each policy
    envs: int = 1  # episodes at once in each process
    rows: int | None = None  # plans of a batch, see `Batched`; None: every plan is made alone


@dataclass(frozen=True)
class Machine:
    """Where an episode ran."""

    host: str
    gl_renderer: str = ""


@dataclass(frozen=True)
class Episode:
    """What a worker hands back of one item."""

    outcome: Outcome
    machine: Machine


class Bench:
    """Runs items of any cell; worlds and agents are kept while their cells come.

    Args:
        recipes: of the cells.
        gl_renderer: says what draws on this machine; asked once, where pictures matter.
        out: folder of videos, for options that ask for them; None keeps none.
        keep: how many cells are held ready.
        share: gives agents their policy where several benches of a process use one, see `Batched`.
    """

    def __init__(
        self,
        recipes: Mapping[Cell, Recipe],
        gl_renderer: Callable[[], str] = str,
        out: Path | None = None,
        keep: int = 4,
        share: Share | None = None,
    ) -> None:
        self._recipes, self._gl_renderer, self._out, self._keep = recipes, gl_renderer, out, keep
        self._share = share
        self._ready: dict[Cell, Rollout] = {}
        self._renderer: str | None = None

    def prepare(self, item: Item) -> None:
        """Make the world and the agent of the item's cell, unless they are there."""
        rollout = self._ready.pop(item.cell, None)
        while rollout is None and len(self._ready) >= self._keep:
            self._ready.pop(next(iter(self._ready))).close()  # the one that was not used for longest
        recipe = self._recipes[item.cell]
        if rollout is None:
            made = (recipe.make_world, recipe.make_agent, recipe.make_safety)
            rollout = Rollout(*made, recipe.options, self._out, recipe.folder, share=self._share)
        if recipe.draws and self._renderer is None:
            self._renderer = self._gl_renderer()
        self._ready[item.cell] = rollout

    def run(self, item: Item) -> Episode:
        """Run one episode."""
        outcome = replace(self._ready[item.cell].run(item.seed), perturbations=item.cell.perturbations)
        drawn = self._renderer if self._recipes[item.cell].draws else None
        return Episode(outcome, Machine(socket.gethostname(), drawn or ""))

    def close(self) -> None:
        """Close every world."""
        while self._ready:
            self._ready.popitem()[1].close()


class Executor(Protocol):
    """Runs items somewhere: on this machine's cores, on a cluster."""

    def run(self, build: Callable[[], Any], items: Sequence[Item], envs: int = 1) -> Iterator[Result]:
        """Yield one result an item, in the order they finish.

        Args:
            build: picklable; makes an `ItemRunner`, or what has `Batched`'s ``serve``.
            items: picklable.
            envs: items at a time in each process.
        """
        ...


@dataclass(frozen=True)
class Processes:
    """Executor: processes of this machine."""

    jobs: int = 2
    patience: Patience = ONCE_MORE

    def run(self, build: Callable[[], Any], items: Sequence[Item], envs: int = 1) -> Iterator[Result]:
        """Yield one result an item, in the order they finish."""
        return run_items(build, items, jobs=self.jobs, patience=self.patience, envs=envs)


@dataclass(frozen=True)
class Facts:
    """What every row tells of where it came from."""

    checkpoints: Mapping[str, tuple[str, str]]  # name: path, sha
    software: str
    git_sha: str = ""


@dataclass
class Tally:
    """What is known of a sweep's items."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)  # by identity
    missing: list[Item] = field(default_factory=list)
    strangers: int = 0  # rows of the folder that belong to no item: of another suite, other versions, other weights


def look(folder: Path, items: Sequence[Item], *, retry_errors: bool = False) -> Tally:
    """Return which items the table of ``folder`` holds, and which are to be run: with ``retry_errors`` errors too.

    Rows get the names that the suite has for their checkpoints now.
    """
    wanted = {item.identity: item for item in items}
    tally = Tally()
    for row in read_rows(folder):
        item = wanted.get(row["identity"])
        if item is None:
            tally.strangers += 1
        elif not (retry_errors and row.get("error") is not None):
            tally.rows[row["identity"]] = row | {"checkpoint": item.cell.checkpoint}
    tally.missing = [item for item in items if item.identity not in tally.rows]
    return tally


def sweep(
    items: Sequence[Item],
    recipes: Mapping[Cell, Recipe],
    folder: str | Path,
    *,
    facts: Facts,
    executor: Executor = Processes(),
    gl_renderer: Callable[[], str] = str,
    retry_errors: bool = False,
    on_progress: Callable[[Item, Mapping[str, Any], bool], None] = lambda item, row, fresh: None,
) -> list[dict[str, Any]]:
    """Run the items that the table in ``folder`` lacks; return the rows of all, in the order of ``items``.

    A row is on the disk before the next result is waited for: who is killed loses only the episodes that were under
    way, and who calls again runs only those that are missing. Episodes that crashed, hung or raised are rows too and
    are not run again unless ``retry_errors``.

    Args:
        items: no identity twice.
        recipes: of every cell; picklable.
        folder: of the table; others may write to it too.
        facts: for the rows.
        executor: where to run.
        gl_renderer: see `Bench`.
        retry_errors: run again what has only an error.
        on_progress: told of each item, its row and whether it was run just now.

    Raises:
        EvaluationError: if worker processes die before they run anything, or a sealed part of the table is damaged.
    """
    folder = Path(folder)
    seal_abandoned(folder)
    tally = look(folder, items, retry_errors=retry_errors)
    for item in items:
        if item.identity in tally.rows:
            on_progress(item, tally.rows[item.identity], False)
    if tally.missing:
        journal = Journal(folder)
        try:
            for result in run_benches(executor, recipes, tally.missing, gl_renderer):
                row = row_of(result, facts)
                journal.append(row)
                tally.rows[row["identity"]] = row
                on_progress(result.item, row, True)
        finally:
            journal.close()
    return [tally.rows[item.identity] for item in items]


def run_benches(
    executor: Executor,
    recipes: Mapping[Cell, Recipe],
    items: Sequence[Item],
    gl_renderer: Callable[[], str] = str,
    out: Path | None = None,
) -> Iterator[Result]:
    """Yield one result an item; episodes that plan in batches of one size run together.

    Args:
        executor: where to run.
        recipes: of the items' cells.
        items: to run.
        gl_renderer: see `Bench`.
        out: folder of videos, on this machine.
    """
    groups: dict[tuple[int, int | None], list[Item]] = {}
    for item in items:
        recipe = recipes[item.cell]
        groups.setdefault((recipe.envs, recipe.rows), []).append(item)
    for (envs, rows), group in groups.items():
        cells = {item.cell for item in group}
        keep = max(2, len({cell.checkpoint for cell in cells}))
        bench = partial(Bench, {cell: recipes[cell] for cell in cells}, gl_renderer, out, keep)
        build = bench if rows is None and envs == 1 else partial(Batched, bench, envs, rows)
        with closing(executor.run(build, group, envs)) as results:  # its workers end before the journal is sealed
            yield from results


def row_of(result: Result, facts: Facts) -> dict[str, Any]:
    """Return the row of one result: `Row`'s fields and `Outcome`'s."""
    item: Item = result.item
    outcome, machine = outcome_from(result), Machine(socket.gethostname())
    if isinstance(result.value, Episode):
        machine = result.value.machine
    path, sha = facts.checkpoints[item.cell.checkpoint]
    axis, severity = Row.axis_of(item.cell.perturbations)
    row = Row(
        identity=item.identity, checkpoint=item.cell.checkpoint, checkpoint_path=path, checkpoint_sha=sha,
        world=item.cell.world, axis=axis, severity=severity, seed=item.seed, software=facts.software,
        git_sha=facts.git_sha, host=machine.host, gl_renderer=machine.gl_renderer, attempts=result.attempts,
        recorded_s=round(time.time(), 3),
    )  # fmt: skip
    return {**asdict(row), **outcome.to_json()}


def outcome_from(result: Result) -> Outcome:
    """Return what came of an item; a crash, a hang and what was raised are outcomes with an error."""
    item: Item = result.item
    if isinstance(result.value, Episode):
        return result.value.outcome
    error = result.value.what if isinstance(result.value, Raised) else result.value.words(result.attempts)
    return Outcome(item.seed, error=error, perturbations=item.cell.perturbations)


def git_sha(folder: Path | None = None) -> str:
    """Return the commit of the checkout that this code runs from, ``+`` behind it if it was changed; or ""."""
    import subprocess

    here = folder or Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "." if folder else Path(__file__).name)  # not that of a venv's surroundings
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return ""
