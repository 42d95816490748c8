"""What the numbers of a comparison say, a sentence each."""

from dataclasses import replace

import numpy as np

from robopolicy.monitor.comparison import ALONE, CLOCK, MATCHED, RANDOM, Comparison, Row
from robopolicy.monitor.measures import Panel, nominal_false_alarms, point
from robopolicy.monitor.resampled import Estimate

NAMES = {"twa": "TWA", "caught_in_time": "failures alarmed within the task time"}


def verdicts(comparison: Comparison) -> list[str]:
    """Return what the numbers say, a sentence each: of the promise, of time, of chance, of what was published."""
    ours, alpha = comparison.ours, comparison.alpha
    said = [_promise(ours, alpha)]
    for name, what in ((MATCHED, "a stopwatch that alarms falsely as often"), (RANDOM, "alarms drawn at random")):
        said += [_against(comparison.row(name), measure, what) for measure in ("twa", "caught_in_time")]
    said += [_against(row, "twa", row.name) for row in comparison.rows if row.kind == "published"]
    said.append(_early(ours, comparison.row(CLOCK)))
    if ours.measures["tpr"].value is None:
        said.append("No failure was tested: nothing is said of what the monitor catches.")
    else:
        said.append(_ahead(ours) or "No failure has an onset that its task stamped: nothing is said of the lead.")
    for row in comparison.rows:
        if row.name == f"{ours.name}, {ALONE}" and (ahead := _ahead(row)):
            said.append(f"Without overruns: {ahead}")
    return [sentence for sentence in said if sentence]


def _promise(ours: Row, alpha: float) -> str:
    found = ours.measures["nominal_false_alarms"]
    if found.value is None or found.counts is None:
        return "No nominal success was tested: nothing is said of the promised false-alarm rate."
    allowed = alpha + 1.64 * float(np.sqrt(alpha * (1 - alpha) / found.counts[1]))
    alone = float(np.mean([point(_alone(panel), nominal_false_alarms) for panel in ours.panels]))
    kept = "within" if alone <= allowed else "ABOVE"
    return (
        f"False alarms of the scores at {alone:.1%} of nominal successes ({found.value:.1%} with overruns, "
        f"{found.counts[1]} a split): {kept} the promised {alpha:.1%} + 1.64 standard errors = {allowed:.1%}."
    )


def _alone(panel: Panel) -> Panel:
    return replace(panel, episodes=tuple(episode.without_overrun() for episode in panel.episodes))


def _against(row: Row, measure: str, what: str) -> str:
    found = row.behind[measure]
    if found.value is None or found.low is None or found.high is None:
        return ""
    told = "is not told apart from" if not found.apart_from_zero else "beats" if found.value > 0 else "LOSES TO"
    return (
        f"By {NAMES[measure]} the monitor {told} {what}: {found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}], "
        "paired by episode."
    )


def _early(ours: Row, clock: Row) -> str:
    mine, its = ours.measures["auroc_50"], clock.measures["auroc_50"]
    if mine.value is None or its.value is None or mine.low is None:
        return ""
    return (
        f"At half the nominal task time failures rank above successes with AUROC {mine.value:.2f} "
        f"[{mine.low:.2f}, {mine.high:.2f}]; by the clock {its.value:.2f}."
    )


def _ahead(ours: Row) -> str:
    leads, found = ours.leads, ours.measures["median_lead_s"]
    stamped = leads["before"] + leads["after"] + leads["never"]
    if not stamped:
        return ""
    median = "" if found.value is None else f", median lead {_lead(found)} of those with an alarm"
    return (
        f"Of {stamped} failures with an onset {leads['before']} were alarmed before it, {leads['after']} at it or "
        f"after it, {leads['never']} never{median}."
    )


def _lead(found: Estimate) -> str:
    limits = "" if found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
    return f"{found.value:.2f}{limits} s"
