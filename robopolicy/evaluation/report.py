"""One self-contained HTML page of an evaluation, videos embedded, and the same as results.json."""

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from robopolicy.evaluation import page, page_measures
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.statistics import Summary

PACKAGES = ("robopolicy", "torch", "mujoco", "numpy", "zarr", "opencv-python")


def write_report(
    out: str | Path,
    outcomes: Sequence[Outcome],
    summary: Summary,
    films: Mapping[int, Outcome],
    *,
    title: str,
    facts: Mapping[str, str],
    deployed: Sequence[tuple[str, Outcome]] = (),
    monitor: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``out/report.html`` and ``out/results.json``; return the page's path.

    The page asks nothing of any network, holds its videos, and follows the reader's light or dark mode.

    Args:
        out: folder.
        outcomes: all episodes that were counted.
        summary: of them, from ``summarise``.
        films: outcomes of the filmed episodes by seed, ``Outcome.video`` a path; from ``film``.
        title: of the page.
        facts: what it takes to do this again: command, checkpoint and its sha, world, seeds, versions if others than
            our own packages' matter; ``pace`` only of episodes at the pace of the wall clock.
        deployed: single episodes that were not counted, each with a label; ``Outcome.video`` a path.
        monitor: ``ConformalMonitor.describe()``, for its promise.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    facts = {"versions": versions(), **facts, "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    results = {
        "title": title,
        "summary": asdict(summary),
        "facts": facts,
        "monitor": monitor,
        "deployed": [{"label": label, **outcome.to_json()} for label, outcome in deployed],
        "outcomes": [outcome.to_json() for outcome in outcomes],
    }
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sections = [
        page.header(title, facts, summary, outcomes),
        page.deployed(deployed),
        page.films(outcomes, films, realtime="pace" in facts),
        page_measures.failures(summary.causes, len(outcomes)),
        page_measures.modes(summary.entropy),
        page.scores(outcomes),
        page.table(outcomes),
        page.promise(monitor),
        page.again(facts),
    ]
    path = out / "report.html"
    path.write_text(document(title, sections))
    return path


def document(title: str, sections: Sequence[str], style: str = "") -> str:
    """Return a page of its own: the sections that are not empty, in this report's style and what is added to it."""
    css = Path(__file__).with_name("report.css").read_text() + style
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head>\n<body><main>"
        + "\n".join(section for section in sections if section)
        + "</main></body></html>\n"
    )


def versions(packages: Sequence[str] = PACKAGES) -> str:
    """Return the versions of Python and of those ``packages`` that are installed, in one line."""
    found = [f"Python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
