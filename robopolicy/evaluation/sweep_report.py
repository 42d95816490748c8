"""One self-contained HTML page of a sweep, and its cells as results.json."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robopolicy.evaluation import sweep_page as page
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.report import document
from robopolicy.evaluation.suite import Cell, Suite
from robopolicy.evaluation.sweep_cells import CellResult, Compared, compare_cells, summarise_cells

# Columns of the table, told of the whole sweep.
WHERE = {"software": "versions", "git_sha": "git commit", "host": "machines", "gl_renderer": "drawn by"}


def write_sweep_report(
    out: str | Path,
    suite: Suite,
    rows: Sequence[Mapping[str, Any]],
    films: Mapping[Cell, Sequence[Outcome]],
    *,
    title: str,
    facts: Mapping[str, str],
    modes: Mapping[str, Sequence[str]],
) -> list[Compared]:
    """Write ``out/report.html`` and ``out/results.json``; return what can be said of which checkpoint is better.

    The page asks nothing of any network, holds its videos, and follows the reader's light or dark mode.

    Args:
        out: folder.
        suite: what was asked for.
        rows: of the table: every episode of the suite that there is.
        films: filmed failures by cell, ``Outcome.video`` a path.
        title: of the page.
        facts: what it takes to do this again.
        modes: that each world enumerates, by its name.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    results = summarise_cells(suite, rows, modes)
    compared = compare_cells(results, suite.seeds, of=suite.compare)
    facts = {**facts, **where_run(rows), "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    (out / "results.json").write_text(json.dumps(_json(title, facts, results, compared), indent=1) + "\n")
    sections = [
        page.header(title, suite, results),
        page.verdicts(compared, suite.compare),
        *(page.world(name, suite, results) for name in suite.worlds),
        page.measures(results),
        page.failures(results),
        page.films(results, films),
        page.errors(results),
        page.again(facts),
    ]
    style = Path(__file__).with_name("sweep.css").read_text()
    (out / "report.html").write_text(document(title, sections, style))
    return compared


def where_run(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return in words with which versions, on which machines and with which renderer the episodes ran."""
    found = {name: sorted({str(row.get(name) or "") for row in rows} - {""}) for name in WHERE}
    return {label: "; ".join(found[name]) for name, label in WHERE.items() if found[name]}


def _json(
    title: str, facts: Mapping[str, str], results: Sequence[CellResult], compared: Sequence[Compared]
) -> dict[str, Any]:
    cells = [
        {**asdict(result.cell), "summary": result.summary and asdict(result.summary), "errors": result.errors}
        for result in results
    ]
    verdicts = [
        {"world": c.world, "perturbations": c.perturbations, "a": c.comparison.a, "b": c.comparison.b,
         "pairs": c.comparison.pairs, "better": c.comparison.better, "verdict": c.comparison.verdict()}
        for c in compared
    ]  # fmt: skip
    return {"title": title, "facts": dict(facts), "cells": cells, "verdicts": verdicts}
