"""The quality of a dataset as one self-contained HTML page: what sticks out first, then every episode small."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from robopolicy_data.quality.measure import Quality
from robopolicy_data.quality.outliers import Outlier
from robopolicy_data.quality.plots import strip_plot, trace_plot

STRIPS = {
    "duration_s": ("Duration, s", "from the first step to the last"),
    "idle_share": ("Idle", "share of the steps at which everything stands still"),
    "path": ("Path", "way the robot travelled"),
    "sparc": ("Smoothness: spectral arc length", "nearer 0 is smoother"),
    "jerk": ("Smoothness: log dimensionless jerk", "larger is smoother"),
    "coverage": ("Coverage", "share of the space that the dataset visits"),
    "novelty": ("Novelty", "distance to the other episodes; 1 for the median one"),
    "lag_s": ("Lag, s", "of the state behind the command"),
}
EXTRANEOUS = "extraneous"
ROWS = 15  # of the table that are seen at once


def write_page(
    out: Path,
    quality: Quality,
    *,
    spans: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    extra: Sequence[Outlier] = (),
) -> Path:
    """Write the page and return its path; it asks nothing of any network.

    Args:
        out: file.
        quality: of a dataset.
        spans: extraneous spans by the episodes' numbers, if they were looked for.
        extra: more to say of single episodes, such as that they do not fit a base policy.
    """
    notes = [*extra, *quality.outliers]
    css = Path(__file__).with_name("page.css").read_text()
    parts = [
        _header(quality, notes, spans),
        _strips(quality, notes),
        _notes(notes),
        _traces(quality, notes, spans or {}),
    ]
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Quality of {escape(Path(quality.path).name)}</title><style>{css}</style></head>\n<body><main>"
        + "\n".join(parts)
        + "</main></body></html>\n"
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html)
    return out


def _header(quality: Quality, notes: Sequence[Outlier], spans: Mapping[int, Sequence[tuple[int, int]]] | None) -> str:
    steps = sum(episode.steps for episode in quality.episodes)
    idle = sum(int(marks.sum()) for marks in quality.idle) / steps
    tiles = {
        "episodes": str(len(quality.episodes)),
        "minutes": f"{steps / quality.rate_hz / 60:.1f}",
        "idle": f"{idle:.1%}",
        "stick out": str(len({note.episode for note in notes})),
    }
    if spans is not None:
        tiles["extraneous"] = f"{sum(b - a for parts in spans.values() for a, b in parts) / steps:.1%}"
    cards = "".join(
        f'<div class="card"><div class="number">{value}</div><div class="soft small">{name}</div></div>'
        for name, value in tiles.items()
    )
    moving = escape(" ".join(quality.motion))
    return (
        f"<h1>Quality of {escape(Path(quality.path).name)}</h1>"
        f'<p class="soft">The path is that of {moving} ({escape(quality.unit)}), at {quality.rate_hz:g} Hz.</p>'
        f'<div class="grid tiles">{cards}</div>'
    )


def _notes(notes: Sequence[Outlier]) -> str:
    if not notes:
        return '<h2>What sticks out</h2><div class="card">Nothing.</div>'
    rows = [
        f'<tr><td><a href="#e{number}">{number}</a></td><td>{escape("; ".join(reasons))}</td></tr>'
        for number, reasons in _reasons(notes).items()
    ]
    head = "<tr><th>Episode</th><th>Why</th></tr>"
    rest = ""
    if len(rows) > ROWS:
        more = f"<table>{head}{''.join(rows[ROWS:])}</table>"
        rest = f"<details><summary>{len(rows) - ROWS} more</summary>{more}</details>"
    return f'<h2>What sticks out</h2><div class="card"><table>{head}{"".join(rows[:ROWS])}</table>{rest}</div>'


def _reasons(notes: Sequence[Outlier]) -> dict[int, list[str]]:
    """Return what sticks out of each episode, those first that stick out in most."""
    found: dict[int, list[str]] = {}
    for note in notes:
        found.setdefault(note.episode, []).append(note.reason)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _strips(quality: Quality, notes: Sequence[Outlier]) -> str:
    numbers = [episode.number for episode in quality.episodes]
    cards = []
    for key, (title, about) in STRIPS.items():
        odd = [note.episode for note in notes if note.measure == key]
        plot = strip_plot(quality.column(key), numbers, odd, title)
        unit = f", {escape(quality.unit)}" if key == "path" else ""
        cards.append(f'<div class="card"><b>{title}{unit}</b><div class="soft small">{about}</div>{plot}</div>')
    return f'<h2>Every episode as a dot</h2><div class="grid strips">{"".join(cards)}</div>'


def _traces(quality: Quality, notes: Sequence[Outlier], spans: Mapping[int, Sequence[tuple[int, int]]]) -> str:
    top = float(np.quantile(np.concatenate(quality.speeds), 0.99)) or 1.0
    reasons = _reasons(notes)
    ranked = sorted(range(len(quality.episodes)), key=lambda i: (quality.episodes[i].number not in reasons, i))
    cards = []
    for i in ranked:
        episode = quality.episodes[i]
        why = escape("; ".join(reasons.get(episode.number, ())))
        badge = f'<span class="badge" title="{why}">odd</span>' if why else ""
        shaded = {"idle": episode.idle, EXTRANEOUS: spans.get(episode.number, ())}
        cards.append(
            f'<div class="card{" odd" if why else ""}" id="e{episode.number}"><div class="head">'
            f"<b>{episode.number}</b><span>{badge} {episode.duration_s:.1f} s</span></div>"
            f"{trace_plot(quality.speeds[i], top, shaded, f'speed of episode {episode.number}')}"
            f'<div class="soft small">{why}</div></div>'
        )
    legend = "Speed over time, all on one scale; shaded: idle" + (", and extraneous." if spans else ".")
    return f'<h2>Every episode</h2><p class="soft small">{legend}</p><div class="grid traces">{"".join(cards)}</div>'
