"""The report of a monitor's evaluation: one self-contained page, and the same numbers as results.json."""

import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from robopolicy.evaluation.compare_page import difference_plot
from robopolicy.evaluation.page import again
from robopolicy.evaluation.page_measures import tile
from robopolicy.evaluation.paired import Difference
from robopolicy.evaluation.report import document, versions
from robopolicy.monitor import comparison_plots as plots
from robopolicy.monitor.comparison import CLOCK, MATCHED, Comparison, Row
from robopolicy.monitor.comparison_verdicts import verdicts
from robopolicy.monitor.judged import Judged
from robopolicy.monitor.measures import budget, roc
from robopolicy.monitor.resampled import Estimate

COLUMNS: Mapping[str, tuple[str, str]] = {  # measure: head of its column, what it is
    "balanced_accuracy": ("Balanced accuracy", "mean of failures alarmed and successes without alarm"),
    "tpr": ("Failures alarmed", "TPR"),
    "tnr": ("Successes calm", "TNR, over all successes, perturbed ones too"),
    "twa": ("TWA", "as FIPER defines it: earlier alarms count more"),
    "detection_time": ("DT", "mean time of alarm of detected failures, 1 is the longest episode's end"),
    "auroc": ("AUROC", "at each episode's own end"),
    "auroc_25": ("AUROC, 25 %", "by what was seen in 25 % of the nominal task time"),
    "auroc_50": ("AUROC, 50 %", "by what was seen in 50 % of the nominal task time"),
    "caught_in_time": ("In task time", "failures alarmed within the nominal task time"),
    "nominal_false_alarms": ("False, nominal", "alarms at successes of the calibrated world"),
    "ood_false_alarms": ("False, perturbed", "alarms at successes of perturbed worlds: no promise covers these"),
    "median_lead_s": ("Lead, s", "median from alarm to the stamped onset, of detected failures; below 0 is after it"),
}
TABLES = (tuple(COLUMNS)[:5], tuple(COLUMNS)[5:])  # so that each is as wide as the page
SHOWN = 12  # failures in cards


def write_results(
    out: str | Path, comparison: Comparison, *, title: str, facts: Mapping[str, str], protocol: str = ""
) -> Path:
    """Write ``out/report.html`` and ``out/results.json``; return the page's path.

    Args:
        out: folder.
        comparison: of the methods.
        title: of the page.
        facts: what it takes to do this again: command, checkpoint, rollouts.
        protocol: sha256 of the frozen protocol.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    facts = {**facts, "versions": versions(), "written": when, **({"protocol": protocol} if protocol else {})}
    said = verdicts(comparison)
    results = {"title": title, "facts": facts, "verdicts": said, **comparison.to_json()}
    (out / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
    path = out / "report.html"
    path.write_text(page(comparison, said, title=title, facts=facts))
    return path


def page(comparison: Comparison, said: Sequence[str], *, title: str, facts: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        comparison: of the methods.
        said: its verdicts.
        title: of the page.
        facts: what it takes to do this again.
    """
    sections = [
        _header(comparison, title, facts),
        _verdicts(said, comparison.notes),
        _table(comparison),
        _differences(comparison),
        _drawings(comparison),
        _strata(comparison),
        _failures(comparison.ours),
        _promise(comparison),
        _explained(comparison),
        again(facts),
    ]
    return document(title, sections, plots.STYLE)


def number(found: Estimate) -> str:
    """Return an estimate in digits: a share in percent, what is never reached in words, nothing for nothing."""
    if found.value is None:
        return ""
    if not np.isfinite(found.value):
        return "never"
    return f"{found.value:.0%}" if found.method == "clopper-pearson" else f"{found.value:.2f}"


def limits(found: Estimate) -> str:
    """Return its interval in digits."""
    if found.low is None or found.high is None:
        return ""
    share = found.method == "clopper-pearson"
    low, high = (
        "never" if not np.isfinite(v) else f"{v:.1%}" if share else f"{v:.2f}" for v in (found.low, found.high)
    )
    return f"{low} to {high}"


def _header(comparison: Comparison, title: str, facts: Mapping[str, str]) -> str:
    ours = comparison.ours
    panel = ours.panels[0]
    successes = int(np.count_nonzero(panel.success))
    where = " · ".join(escape(str(facts[k])) for k in ("env", "scores") if k in facts)
    told = (
        f"{len(ours.panels)} splits; {successes} successes and {len(panel.episodes) - successes} failures tested on in "
        f"each, {int(np.count_nonzero(panel.ood))} of them in perturbed worlds"
    )
    chosen = ("balanced_accuracy", "twa", "auroc_50", "median_lead_s", "nominal_false_alarms")
    tiles = "".join(
        tile(COLUMNS[name][0], number(found) or "none", _noted(name, found))
        for name, found in ((name, ours.measures[name]) for name in chosen)
    )
    return (
        f'<h1>{escape(title)}</h1><p class="soft">{where}</p><p class="soft">{escape(told)}</p>'
        f'<div class="cards tiles">{tiles}</div>'
    )


def _noted(name: str, found: Estimate) -> str:
    interval = f"; {found.confidence:.0%} interval {limits(found)}" if limits(found) else ""
    return f"{COLUMNS[name][1]}{interval}"


def _verdicts(said: Sequence[str], notes: Sequence[str]) -> str:
    lines = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    more = "".join(f'<p class="soft small">{escape(note)}</p>' for note in notes)
    return f'<h2>What the numbers say</h2><div class="card">{lines}{more}</div>'


def _table(comparison: Comparison) -> str:
    tables = "".join(_columns(comparison.rows, names) for names in TABLES)
    return f"<h2>Every monitor on the same episodes</h2>{tables}"


def _columns(rows: Sequence[Row], names: Sequence[str]) -> str:
    head = "".join(f'<th class="n" title="{escape(COLUMNS[n][1])}">{escape(COLUMNS[n][0])}</th>' for n in names)
    told = names is TABLES[0]  # what each is, once
    body = "".join(
        f'<tr><td class="cause"><b>{escape(row.name)}</b>'
        + (f'<br><span class="soft small">{escape(row.words)}</span>' if told and row.words else "")
        + f"</td>{''.join(_cell(row.measures[n]) for n in names)}</tr>"
        for row in rows
    )
    return f'<div class="card gap scroll"><table><tr><th>Monitor</th>{head}</tr>{body}</table></div>'


def _cell(found: Estimate) -> str:
    return f'<td class="n whole">{number(found)}<br><span class="soft small">{limits(found)}</span></td>'


def _differences(comparison: Comparison) -> str:
    cards = []
    for row in comparison.rows[1:]:
        drawn = ""
        for name in ("twa", "balanced_accuracy", "auroc_50"):
            found = row.behind[name]
            if found.value is None or found.low is None or found.high is None:
                continue
            interval = Difference(found.value, found.low, found.high, found.confidence)
            drawn += (
                f'<p class="small">{escape(COLUMNS[name][0])}: {found.value:+.3f} '
                f"[{found.low:+.3f}, {found.high:+.3f}]</p>{difference_plot(interval, 'ours', 'this')}"
            )
        if drawn:
            cards.append(f'<div class="card"><div class="head"><h3>against {escape(row.name)}</h3></div>{drawn}</div>')
    return (
        '<h2>Differences, paired by episode</h2><p class="soft">The monitor minus the other one; bootstrap over '
        f'episodes, both judging the same.</p><div class="cards wide">{"".join(cards)}</div>'
    )


def _drawings(comparison: Comparison) -> str:
    ours, clock = comparison.ours.panels[0], comparison.row(CLOCK).panels[0]
    curves = [
        ("monitor, at the end", "", *roc(ours)),
        ("monitor, half the task time", "half", *roc(ours, 0.5)),
        ("clock, at the end", "clock", *roc(clock)),
        ("clock, half the task time", "clock half", *roc(clock, 0.5)),
    ]
    leads = ours.lead_s[np.isfinite(ours.lead_s)]
    never = int(np.count_nonzero(np.isneginf(ours.lead_s)))
    lead = plots.histogram_plot(
        leads.tolist(), what="s from the alarm to the onset; red: the alarm came after it", never=never
    )
    left = plots.histogram_plot(
        ours.left_s[~np.isnan(ours.left_s)].tolist(),
        what="s from the alarm to the end of failures",
        never=int(np.count_nonzero(~ours.success & np.isinf(ours.first))),
    )
    cards = [
        ("ROC", plots.roc_plot(curves)),
        ("Lead before the onset that the task stamped", lead or '<p class="soft">No failure has one.</p>'),
        ("Time left at the alarm", left or '<p class="soft">No episode failed.</p>'),
    ]
    drawn = "".join(f'<div class="card"><div class="head"><h3>{t}</h3></div>{plot}</div>' for t, plot in cards)
    return (
        '<h2>Largest statistic so far</h2><div class="card"><div class="label-top">First split. '
        '<span class="badge good">success</span> <span class="badge bad">failure</span> A ring is an alarm, a triangle '
        f"the onset of a failure.</div>{plots.traces_plot(ours.episodes, base=330)}</div>"
        f'<div class="cards wide gap">{drawn}</div>'
    )


def _strata(comparison: Comparison) -> str:
    rows = ""
    for stratum in comparison.strata:
        part = comparison.ours.panels[0].only(stratum)
        good = 0 if part is None else int(np.count_nonzero(part.success))
        bad = 0 if part is None else len(part.episodes) - good
        mine = comparison.ours.strata[stratum]
        clock = comparison.row(MATCHED).strata[stratum]
        cells = "".join(_cell(found) for found in (mine["tpr"], mine["false_alarm_free"], mine["twa"]))
        rows += (
            f'<tr><td>{escape(stratum)}</td><td class="n">{good}</td><td class="n">{bad}</td>{cells}'
            f"{_cell(clock['twa'])}{_cell(mine['median_lead_s'])}</tr>"
        )
    head = "".join(
        f'<th class="n">{name}</th>'
        for name in ("Successes", "Failures", "Failures alarmed", "Successes calm", "TWA", f"TWA, {MATCHED}", "Lead, s")
    )
    return f'<h2>By perturbation</h2><div class="card scroll"><table><tr><th>World</th>{head}</tr>{rows}</table></div>'


def _failures(ours: Row) -> str:
    """Cards of failures and of successes with an alarm, missed failures first."""
    panel = ours.panels[0]
    failed = sorted((e for e in panel.episodes if not e.success), key=lambda e: (e.first is not None, e.name))
    false = [e for e in panel.episodes if e.success and e.first is not None]
    chosen = [*failed[:SHOWN], *false[: SHOWN // 2]]
    if not chosen:
        return ""
    cards = "".join(_card(e) for e in chosen)
    return (
        f'<h2>Episodes</h2><p class="soft">{min(len(failed), SHOWN)} of {len(failed)} failures, those without alarm '
        f"first, and {min(len(false), SHOWN // 2)} of {len(false)} successes with an alarm.</p>"
        f'<div class="cards films">{cards}</div>'
    )


def _card(e: Judged) -> str:
    badge = '<span class="badge good">success</span>' if e.success else '<span class="badge bad">failure</span>'
    notes = [e.stratum, e.failure.replace("_", " ")]
    notes.append("no alarm" if e.first is None else f"alarm at {e.first * e.dt_s:.2f} s")
    if e.onset is not None:
        notes.append(f"onset at {e.onset * e.dt_s:.2f} s")
    told = "; ".join(note for note in notes if note)
    return (
        f'<div class="card"><div class="head"><h3>{escape(e.name)}</h3>{badge}</div>{plots.episode_plot(e)}'
        f'<p class="soft small">{escape(told)}</p></div>'
    )


def _promise(comparison: Comparison) -> str:
    if not comparison.guarantee:
        return ""
    return f'<h2>What the monitor promises</h2><div class="card"><p>{escape(comparison.guarantee)}</p></div>'


def _explained(comparison: Comparison) -> str:
    panel = comparison.ours.panels[0]
    half, quarter = budget(panel, 0.5), budget(panel, 0.25)
    lines = [f"{name}: {what}." for name, what in COLUMNS.values()]
    lines.append(
        f"Nominal task time: {panel.task_time:g} decisions, the median of the successes that fitted and calibrated; 25 "
        f"and 50 % of it are the first {quarter} and {half} decisions, what ended before keeps its last value. T_max: "
        f"{panel.longest} decisions."
    )
    lines.append(
        "Values are means over the splits. Intervals of shares: Clopper and Pearson, for the episodes of one split; of "
        "balanced accuracy from both at 97.5 %; of the rest a bootstrap by episode."
    )
    told = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<details><summary>How it was measured</summary><ul class="small">{told}</ul></details>'
