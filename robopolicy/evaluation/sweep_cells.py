"""The rows of a sweep by cell."""

from collections.abc import Iterable, Mapping
from typing import Any

from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.suite import Cell
from robopolicy.evaluation.sweep_table import outcome_of


def cells_of(rows: Iterable[Mapping[str, Any]]) -> dict[Cell, list[Outcome]]:
    """Return the outcomes of every cell, in the order in which cells first come, each by seed."""
    cells: dict[Cell, list[Outcome]] = {}
    for row in rows:
        cell = Cell(row["checkpoint"], row["world"], tuple(row["perturbations"]))
        cells.setdefault(cell, []).append(outcome_of(row))
    return {cell: sorted(outcomes, key=lambda outcome: outcome.seed) for cell, outcomes in cells.items()}
