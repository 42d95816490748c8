"""The sections of the evaluation's page, each a piece of HTML or nothing."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from robopolicy.evaluation import page_measures as measures
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.page_measures import tile
from robopolicy.evaluation.plots import rate_plot, score_plot, trace_plot
from robopolicy.evaluation.statistics import Rate, Summary
from robopolicy.evaluation.video import last_picture

TABLE_ROWS = 12  # shown at once; the others are behind a click


def failures_first(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return errors, then failures, then successes with an alarm, then the others, each by seed."""
    return sorted(outcomes, key=lambda o: (o.error is None, o.success, o.alarm_step is None, o.seed))


def header(title: str, facts: Mapping[str, str], summary: Summary, outcomes: Sequence[Outcome]) -> str:
    """Return the title and the headline numbers."""
    shown = ("env", "perturbations", "seeds", "solver", "goal", "pace")
    where = " · ".join(escape(str(facts[k])) for k in shown if k in facts)
    tiles = [
        _rate_tile("Success", summary.success, "episodes"),
        tile(
            "Mean score, 0 to 1",
            f"{summary.score.value:.2f}",
            f"{summary.score.confidence:.0%} interval {summary.score.low:.3f} to {summary.score.high:.3f} (Student's t)"
            if summary.score.low is not None
            else "the same in every episode",
        ),
    ]
    tiles += measures.tiles(summary, outcomes)
    if summary.false_alarms is not None:
        tiles.append(_rate_tile("False alarms", summary.false_alarms, "successful episodes"))
    if summary.caught is not None:
        tiles.append(_rate_tile("Failures with an alarm", summary.caught, "failed episodes"))
    if summary.noticed is not None:
        tiles.append(_rate_tile("Disturbances noticed", summary.noticed, "disturbed episodes"))
    errors = (
        f'<p><span class="badge bad">{summary.errors} errors</span> These episodes have no outcome and are not '
        "counted; the table says why.</p>"
        if summary.errors
        else ""
    )
    return f'<h1>{escape(title)}</h1><p class="soft">{where}</p><div class="cards tiles">{"".join(tiles)}</div>{errors}'


def _rate_tile(label: str, rate: Rate, of: str) -> str:
    method = {"clopper-pearson": "Clopper-Pearson", "wilson": "Wilson"}[rate.method]
    note = (
        f"{rate.successes} of {rate.n} {of}; {rate.confidence:.0%} interval "
        f"{rate.low:.1%} to {rate.high:.1%} ({method})"
    )
    return tile(label, f"{rate.value:.0%}", note, rate_plot(rate))


def deployed(deployed: Sequence[tuple[str, Outcome]]) -> str:
    """Return one card an episode: video, monitor trace, what happened."""
    cards = []
    for label, outcome in deployed:
        notes = [f"{outcome.steps} steps, score {outcome.score:.2f}"]
        if outcome.disturb_step is not None:
            notes.append(f"step {outcome.disturb_step}: {outcome.disturbance}")
        if outcome.alarm_step is not None:
            notes.append(f"step {outcome.alarm_step}: alarm. {outcome.alarm_reason}")
        lines = "".join(f'<p class="soft small">{escape(note)}</p>' for note in notes)
        cards.append(
            f'<div class="card"><div class="head"><h3>{escape(label)}</h3>{_badge(outcome)}</div>'
            f"{video(outcome.video)}{trace_plot(outcome)}{lines}</div>"
        )
    return f'<h2>Deployed</h2><div class="cards wide">{"".join(cards)}</div>' if cards else ""


def films(outcomes: Sequence[Outcome], films: Mapping[int, Outcome], *, realtime: bool = False) -> str:
    """Return the filmed episodes, failures first; a filmed run that differs from the counted one is said to."""
    how = ", in simulated time, which waits for plans" if realtime else ""
    cards = []
    for outcome in failures_first([outcome for outcome in outcomes if outcome.seed in films]):
        filmed = films[outcome.seed]
        note = f"{outcome.steps} steps, score {outcome.score:.2f}"
        if filmed.error is not None:
            note = f"not filmed: {filmed.error}"
        elif (filmed.success, filmed.steps) != (outcome.success, outcome.steps):
            note += f"; the filmed run differs: {'success' if filmed.success else 'failure'} in {filmed.steps} steps"
        cards.append(
            f'<div class="card"><div class="head"><h3>Seed {outcome.seed}</h3>{_badge(outcome)}</div>'
            f'{video(filmed.video)}{trace_plot(outcome, width=300)}<p class="soft small">{escape(note)}</p></div>'
        )
    if not cards:
        return ""
    return (
        '<h2>Episodes</h2><p class="soft">Failures first. Each was run once more from its seed with the camera on'
        f"{how}.</p>"
        f'<div class="cards films">{"".join(cards)}</div>'
    )


def scores(outcomes: Sequence[Outcome]) -> str:
    """Return the score of every episode as a plot."""
    valid = [outcome for outcome in outcomes if outcome.error is None]
    return (
        '<h2>Every episode</h2><div class="card"><div class="label-top">Score, worst episode first. '
        f'<span class="badge good">success</span> <span class="badge bad">failure</span></div>{score_plot(valid)}</div>'
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Return every episode in a row, failures first."""
    watched = any(outcome.marks for outcome in outcomes)
    head = '<tr><th>Seed</th><th>Outcome</th><th class="n">Score</th><th class="n">Steps</th>'
    head += ('<th class="n">Alarm at</th><th class="n">p-value</th>' if watched else "") + "<th>Notes</th></tr>"
    rows = [_row(outcome, watched) for outcome in failures_first(outcomes)]
    first = f'<div class="card gap scroll"><table>{head}{"".join(rows[:TABLE_ROWS])}</table></div>'
    if len(rows) <= TABLE_ROWS:
        return first
    rest = f'<div class="card scroll"><table>{head}{"".join(rows[TABLE_ROWS:])}</table></div>'
    return f"{first}<details><summary>{len(rows) - TABLE_ROWS} more episodes</summary>{rest}</details>"


def _row(outcome: Outcome, watched: bool) -> str:
    cells = f'<td>{outcome.seed}</td><td>{_badge(outcome)}</td><td class="n">{outcome.score:.3f}</td>'
    cells += f'<td class="n">{outcome.steps}</td>'
    if watched:
        alarm = "" if outcome.alarm_step is None else str(outcome.alarm_step)
        p = f"{min(mark.p_value for mark in outcome.marks):.3f}" if outcome.marks else ""
        cells += f'<td class="n">{alarm}</td><td class="n">{p}</td>'
    return f"<tr>{cells}<td>{escape(measures.note(outcome))}</td></tr>"


def promise(monitor: Mapping[str, Any] | None) -> str:
    """Return the monitor's guarantee in words."""
    if monitor is None:
        return ""
    return (
        f'<h2>What the monitor promises</h2><div class="card"><p>{escape(monitor["guarantee"])}</p>'
        f'<p class="soft small">Score {escape(monitor["score"])}; alpha {monitor["alpha"]:g}; threshold '
        f"{monitor['threshold']:.4g}, the {monitor['k']}th smallest of {monitor['n_calibration']} calibration episodes."
        "</p></div>"
    )


def again(facts: Mapping[str, str]) -> str:
    """Return what it takes to do this again."""
    command = f"<pre><code>{escape(facts['command'])}</code></pre>" if "command" in facts else ""
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items() if name != "command"
    )
    return f'<h2>Do it again</h2>{command}<div class="card"><dl>{rows}</dl></div>'


def _badge(outcome: Outcome) -> str:
    if outcome.error is not None:
        return '<span class="badge bad">error</span>'
    badge = '<span class="badge good">success</span>' if outcome.success else '<span class="badge bad">failure</span>'
    return badge if outcome.alarm_step is None else f'<span>{badge} <span class="badge bad">alarm</span></span>'


def video(path: str | None) -> str:
    """Return a video that is part of the page, its last picture before it is played; nothing if there is no file."""
    if path is None or not Path(path).exists():
        return ""
    picture = last_picture(path)
    poster = f'poster="data:image/jpeg;base64,{_base64(picture)}" ' if picture else ""
    source = f'src="data:video/webm;base64,{_base64(Path(path).read_bytes())}"'
    return f'<video controls loop muted playsinline preload="metadata" {poster}{source}></video>'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
