"""Films of a sweep's failures: the first of each cell, run once more from their seeds with the camera on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from robopolicy.evaluation.outcomes import Outcome, OutcomeLog
from robopolicy.evaluation.suite import Cell, Item
from robopolicy.evaluation.sweep import Executor, Recipe, outcome_from, run_benches

MOST = 60  # films of one page: some 100 KB each


def chosen(items: Sequence[Item], rows: Sequence[Mapping[str, Any]], a_cell: int, most: int = MOST) -> list[Item]:
    """Return the failures to film: the first ``a_cell`` seeds of each cell, undisturbed cells first, ``most`` in all.

    Where there are too many, every cell gets its first before one gets its second.

    Args:
        items: of the sweep.
        rows: of the same items.
        a_cell: films of one cell at most.
        most: films at most.
    """
    failed: dict[Cell, list[Item]] = {}
    for item, row in zip(items, rows, strict=True):
        if not row["success"] and row.get("error") is None:
            failed.setdefault(item.cell, []).append(item)
    cells = sorted(failed, key=lambda cell: bool(cell.perturbations))  # stable
    rounds = zip_longest(*(sorted(failed[cell], key=lambda item: item.seed)[:a_cell] for cell in cells))
    return [item for each in rounds for item in each if item is not None][:most]


def film_failures(
    items: Sequence[Item],
    recipes: Mapping[Cell, Recipe],
    folder: Path,
    executor: Executor,
    on_progress: Callable[[], None] = lambda: None,
) -> dict[Cell, list[Outcome]]:
    """Film ``items``, each only once however often it is asked for; return the filmed episodes by cell.

    ``Outcome.video`` is the path, or None with the reason in ``Outcome.error``.

    Args:
        items: from `chosen`.
        recipes: of their cells; ``Recipe.folder`` tells cells and policies apart.
        folder: of the films.
        executor: that shares this machine's disk.
        on_progress: told of each.
    """
    logs = {item.cell: OutcomeLog(folder / recipes[item.cell].folder, recipes[item.cell].folder) for item in items}
    films: dict[Cell, list[Outcome]] = {}
    wanted = []
    for item in items:
        found = logs[item.cell].finished().get(item.seed)
        if found is not None and found.video and (folder / found.video).exists():
            films.setdefault(item.cell, []).append(found)
            on_progress()
        else:
            wanted.append(item)
    if wanted:
        filming = {
            cell: replace(recipe, options=replace(recipe.options, video_every=2)) for cell, recipe in recipes.items()
        }
        for result in run_benches(executor, filming, wanted, out=folder):
            outcome = outcome_from(result)
            (folder / recipes[result.item.cell].folder).mkdir(parents=True, exist_ok=True)
            logs[result.item.cell].append(outcome)
            films.setdefault(result.item.cell, []).append(outcome)
            on_progress()
    return {
        cell: [replace(o, video=str(folder / o.video)) if o.video else o for o in sorted(found, key=lambda o: o.seed)]
        for cell, found in films.items()
    }
