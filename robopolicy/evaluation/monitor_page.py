"""Self-contained pages of a monitor: what it is made of, and what it said of stored episodes."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from robopolicy.evaluation.monitor_plots import Line, distribution_plot, traces_plot, wealth_plot
from robopolicy.evaluation.page_measures import tile
from robopolicy.evaluation.report import document
from robopolicy.monitor.drift_journal import DriftJournal
from robopolicy.monitor.runtime import ConformalMonitor
from robopolicy.types import Verdict

STYLE = """
.plot .faint { stroke-width: 1; opacity: .4; }
.plot .trace.high { stroke: var(--bad); }
.plot .trace.minor { stroke: var(--soft); stroke-width: 1.2; }
"""
MOST_EPISODES = 60  # drawn on a page of replayed ones


@dataclass(frozen=True)
class Replayed:
    """What a monitor says of one stored episode, and how that differs from what is stored beside it."""

    name: str
    success: bool | None
    verdicts: Sequence[Verdict]
    difference: str | None  # the first; "" if there is none, None if nothing was stored to compare with


def write_inspection(path: str | Path, folder: Path, monitor: ConformalMonitor, journal: DriftJournal) -> Path:
    """Write the page of a monitor; return its path.

    Args:
        path: of the file.
        folder: of the monitor.
        monitor: that lies there.
        journal: of its drift.
    """
    title = f"Monitor {folder.name or folder}"
    made = f"calibrated {monitor.provenance.created}, {monitor.provenance.software}"
    sections = [
        f'<h1>{escape(title)}</h1><p class="soft">{escape(made)}</p><div class="cards tiles">{_tiles(monitor)}</div>',
        _calibration(monitor, journal),
        f'<h2>What it promises</h2><div class="card"><p>{escape(monitor.guarantee())}</p></div>',
        f'<h2>All of it</h2><div class="card">{_facts(monitor.describe())}</div>',
    ]
    return _write(path, title, sections)


def write_replay(
    path: str | Path, folder: Path, rollouts: Path, monitor: ConformalMonitor, replayed: Sequence[Replayed]
) -> Path:
    """Write the page of replayed episodes, those that differ and then failures first; return its path."""
    title = f"Monitor {folder.name or folder} over {rollouts.name or rollouts}"
    first = sorted(replayed, key=lambda one: (not one.difference, one.success is not False, one.name))
    compared = [one for one in replayed if one.difference is not None]
    equal = sum(one.difference == "" for one in compared)
    tiles = [
        tile("Verdicts as stored", f"{equal} of {len(compared)}", "episodes whose verdicts came out bit for bit"),
        *(
            tile(f"{word.capitalize()} alarmed", f"{_alarms(some)} of {len(some)}", "alarm, overrun or fault")
            for word, some in (
                ("successes", [one for one in replayed if one.success]),
                ("failures", [one for one in replayed if one.success is False]),
            )
        ),
    ]
    cards = "".join(_episode(one, monitor) for one in first[:MOST_EPISODES])
    more = f'<p class="soft">{len(first) - MOST_EPISODES} more are not drawn.</p>' if len(first) > MOST_EPISODES else ""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    sections = [
        f'<h1>{escape(title)}</h1><p class="soft">{escape(when)}</p><div class="cards tiles">{"".join(tiles)}</div>',
        f'<h2>Episodes</h2><div class="cards wide">{cards}</div>{more}',
    ]
    return _write(path, title, sections)


def _tiles(monitor: ConformalMonitor) -> str:
    calibration = monitor.calibration
    said = calibration.describe()
    low, high = said["false_alarm_rate_95"]
    return "".join(
        [
            tile("False alarms allowed", f"{calibration.alpha:.3g}", f"{low:.1%} to {high:.1%} with these episodes"),
            tile("Threshold", f"{calibration.threshold:.3g}", f"number {said['k']} of {calibration.n}, sorted"),
            tile("Overrun after", f"{calibration.longest}", f"decisions; false at {calibration.overrun_rate:.2g}"),
            tile("Warning from", f"p = {calibration.warn_rate:.2g}", "of an episode so far"),
        ]
    )  # fmt: skip


def _calibration(monitor: ConformalMonitor, journal: DriftJournal) -> str:
    calibration = monitor.calibration
    seeds = monitor.provenance.calibration_seeds or tuple(range(calibration.n))
    loud = sorted(range(calibration.n), key=lambda j: calibration.traces[j].max() > calibration.threshold)
    lines = [
        Line(
            calibration.traces[j].tolist(),
            "trace faint high" if calibration.traces[j].max() > calibration.threshold else "trace faint",
            f"episode {seeds[j]}: largest {calibration.traces[j].max():.4g}",
        )
        for j in loud
    ]
    plots = [
        ("Largest statistic of each episode", distribution_plot(
            calibration.z, calibration.threshold, what="largest statistic")),
        ("Over time", traces_plot(lines, calibration.threshold, what="statistic over decisions",
                                  longest=calibration.longest)),
        ("Length of each episode", distribution_plot(
            calibration.lengths, calibration.longest, what="decisions", mark="overrun after")),
    ]  # fmt: skip
    cards = "".join(
        f'<div class="card"><div class="head"><h3>{title}</h3></div>{plot}</div>' for title, plot in plots if plot
    )
    title = f"The {calibration.n} episodes that calibrated it"
    return f'<h2>{title}</h2><div class="cards wide">{cards}{_drift(journal)}</div>'


def _drift(journal: DriftJournal) -> str:
    drifts = [entry.drift for entry in journal.entries() if entry.drift is not None]
    said = journal.describe()
    plot, badge = "", ""
    if drifts:
        plot = wealth_plot([d.wealth_high for d in drifts], [d.wealth_low for d in drifts], journal.delta)
        kind, word = ("bad", f"too {said['warned']}") if said["warned"] else ("good", "none seen")
        badge = f'<span class="badge {kind}">{word}</span>'
    return (
        f'<div class="card"><div class="head"><h3>Drift since</h3>{badge}</div>{plot}'
        f'<p class="soft small">{escape(said["words"])}</p></div>'
    )


def _episode(one: Replayed, monitor: ConformalMonitor) -> str:
    verdicts = one.verdicts
    outcome = {True: ("good", "success"), False: ("bad", "failure"), None: ("open", "unlabelled")}[one.success]
    badges = f'<span class="badge {outcome[0]}">{outcome[1]}</span>'
    first = next((i for i, verdict in enumerate(verdicts, 1) if verdict.acts), None)
    if first is not None:
        badges += f' <span class="badge bad">{verdicts[first - 1].state}</span>'
    flags = [] if first is None else [(first, verdicts[first - 1].state)]
    plot = traces_plot(
        [Line([v.statistic for v in verdicts], "trace", "largest statistic so far")],
        monitor.threshold, what="largest statistic so far, over decisions", flags=flags,
        longest=monitor.calibration.longest if len(verdicts) > monitor.calibration.longest else None,
    )  # fmt: skip
    scores = "".join(
        traces_plot([Line([v.scores[name] for v in verdicts], "trace minor", name)], None, what=f"score {name}")
        for name in (verdicts[0].scores if verdicts else ())
    )
    said = {None: "nothing stored to compare with", "": "as stored, bit for bit"}.get(one.difference, one.difference)
    why = "" if first is None else f'<p class="soft small">{escape(verdicts[first - 1].reason)}</p>'
    return (
        f'<div class="card"><div class="head"><h3>Episode {escape(one.name)}</h3><span>{badges}</span></div>{plot}'
        f"<details><summary>scores</summary>{scores}</details>{why}"
        f'<p class="soft small">{escape(str(said))}</p></div>'
    )


def _alarms(episodes: Sequence[Replayed]) -> int:
    return sum(any(verdict.acts for verdict in one.verdicts) for one in episodes)


def _facts(facts: Mapping[str, Any], prefix: str = "") -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in flat(facts) if value)
    return f"<dl>{rows}</dl>"


def flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested facts as (dotted name, words) in a row."""
    rows = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value if isinstance(value, str) else _words(value)))
    return rows


def _words(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, str) else json.dumps(value)


def _write(path: str | Path, title: str, sections: Sequence[str]) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document(title, sections, STYLE))
    return path
