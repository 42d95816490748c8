"""The rows of a sweep by cell, each cell in numbers, and its checkpoints compared."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from robopolicy.evaluation.comparison import Comparison, Of, compare, decide
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.statistics import Summary, summarise
from robopolicy.evaluation.suite import Cell, Suite
from robopolicy.evaluation.sweep_table import outcome_of


@dataclass(frozen=True)
class CellResult:
    """One cell; episodes that crashed, hung or raised have no outcome and are counted apart, not as failures."""

    cell: Cell
    summary: Summary | None  # None if no episode has an outcome
    outcomes: tuple[Outcome, ...]  # by seed

    @property
    def errors(self) -> int:
        """Episodes without an outcome."""
        return sum(outcome.error is not None for outcome in self.outcomes)


@dataclass(frozen=True)
class Compared:
    """Two checkpoints in one condition of one world."""

    world: str
    perturbations: tuple[str, ...]
    comparison: Comparison


def cells_of(rows: Iterable[Mapping[str, Any]]) -> dict[Cell, list[Outcome]]:
    """Return the outcomes of every cell, in the order in which cells first come, each by seed."""
    cells: dict[Cell, list[Outcome]] = {}
    for row in rows:
        cell = Cell(row["checkpoint"], row["world"], tuple(row["perturbations"]))
        cells.setdefault(cell, []).append(outcome_of(row))
    return {cell: sorted(outcomes, key=lambda outcome: outcome.seed) for cell, outcomes in cells.items()}


def summarise_cells(
    suite: Suite, rows: Iterable[Mapping[str, Any]], modes: Mapping[str, Sequence[str]]
) -> list[CellResult]:
    """Return the cells of ``suite`` for which there are rows, in its order.

    Args:
        suite: of the sweep.
        rows: of its table.
        modes: that each world enumerates, by its name.
    """
    cells = cells_of(rows)
    return [_result(cell, cells[cell], modes.get(cell.world, ())) for cell in suite.cells() if cell in cells]


def compare_cells(
    results: Sequence[CellResult], seeds: Sequence[int], *, of: Of = "success", alpha: float = 0.05
) -> list[Compared]:
    """Compare every two checkpoints in every condition of every world, on the starts that they share.

    In a sweep that is not complete only those seeds of a cell count that come before its first that has no row yet:
    where a success ends an episode, successes come first, and would speak for who is under way.

    Worlds as they are make one family, perturbed ones another: among the verdicts of each, one or more is false with
    chance ``alpha`` at most, however often one looked and however many seeds were added after that.

    Args:
        results: of the cells.
        seeds: of each cell, in the order in which they are run.
        of: what verdicts are of.
        alpha: see above.
    """
    results = [CellResult(result.cell, result.summary, counted(result, seeds)) for result in results]
    pairs = [
        Compared(
            a.cell.world,
            a.cell.perturbations,
            compare(a.cell.checkpoint, a.outcomes, b.cell.checkpoint, b.outcomes, alpha=alpha, of=of),
        )
        for i, a in enumerate(results)
        for b in results[i + 1 :]
        if (a.cell.world, a.cell.perturbations) == (b.cell.world, b.cell.perturbations) and _share_starts(a, b)
    ]
    families = [[pair for pair in pairs if bool(pair.perturbations) is perturbed] for perturbed in (False, True)]
    return [
        Compared(pair.world, pair.perturbations, decided)
        for family in families
        for pair, decided in zip(family, decide([pair.comparison for pair in family]), strict=True)
    ]


def counted(result: CellResult, seeds: Sequence[int]) -> tuple[Outcome, ...]:
    """Return the outcomes of a cell up to the first of its ``seeds`` that has none."""
    ended = {outcome.seed for outcome in result.outcomes}
    whole = set(takewhile(ended.__contains__, seeds))
    return tuple(outcome for outcome in result.outcomes if outcome.seed in whole)


def _result(cell: Cell, outcomes: Sequence[Outcome], modes: Sequence[str]) -> CellResult:
    some = any(outcome.error is None for outcome in outcomes)
    return CellResult(cell, summarise(outcomes, modes=modes) if some else None, tuple(outcomes))


def _share_starts(a: CellResult, b: CellResult) -> bool:
    """Whether there is a start from which both have an outcome."""
    first, second = ({o.seed for o in result.outcomes if o.error is None} for result in (a, b))
    return bool(first & second)
