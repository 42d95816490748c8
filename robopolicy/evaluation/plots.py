"""Small SVG plots for the report: no library, colours from the page's CSS variables, so they follow dark mode."""

from collections.abc import Mapping, Sequence
from html import escape
from math import log10

from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.statistics import Rate


def rate_plot(rate: Rate) -> str:
    """Draw a rate from 0 to 100 % as a dot on its confidence interval; width 320."""
    x = 300 * rate.value + 10
    low, high = 300 * rate.low + 10, 300 * rate.high + 10
    ticks = "".join(
        f'<line x1="{10 + 3 * t}" x2="{10 + 3 * t}" y1="25" y2="30" class="axis"/>'
        f'<text x="{10 + 3 * t}" y="43" class="tick" text-anchor="middle">{t}</text>'
        for t in (0, 25, 50, 75, 100)
    )
    label = f"{rate.value:.0%}, interval {rate.low:.1%} to {rate.high:.1%}"
    return (
        f'<svg viewBox="0 0 320 48" class="plot" role="img" aria-label="{label}">'
        f'<line x1="10" x2="310" y1="25" y2="25" class="axis"/>{ticks}'
        f'<rect x="{low:.1f}" y="9" width="{max(high - low, 1):.1f}" height="10" rx="5" class="interval"/>'
        f'<circle cx="{x:.1f}" cy="14" r="6.5" class="good dot"/></svg>'
    )


def count_plot(counts: Mapping[str, int], *, width: int = 560) -> str:
    """Draw how often each name came as horizontal bars, in the order given; names that never came stay in it."""
    most, row = max([1, *counts.values()]), 20
    left = 16 + 6.5 * min(max(map(len, counts), default=0), 26)  # px of the longest name, about
    bars = ""
    for i, (name, count) in enumerate(counts.items()):
        y, length = row * i, (width - left - 50) * count / most
        short = name if len(name) <= 26 else name[:25] + "…"
        bars += (
            f'<text x="{left - 8}" y="{y + 14}" class="tick" text-anchor="end">{escape(short)}</text>'
            f'<rect x="{left}" y="{y + 4}" width="{max(length, 1):.1f}" height="{row - 8}" class="good">'
            f"<title>{escape(name)}: {count}</title></rect>"
            f'<text x="{left + max(length, 1) + 6:.1f}" y="{y + 14}" class="tick">{count}</text>'
        )
    return (
        f'<svg viewBox="0 0 {width} {max(row * len(counts), row)}" class="plot counts" role="img" '
        f'aria-label="episodes by name">{bars}</svg>'
    )


def score_plot(outcomes: Sequence[Outcome]) -> str:
    """Draw each episode's score as a bar, worst first, coloured by success; 0 to 1 over a height of 120."""
    ranked = sorted(outcomes, key=lambda o: (o.success, o.score, o.seed))
    pitch = 640 / max(len(ranked), 1)
    width = max(pitch - min(2.0, pitch / 4), 0.5)
    bars = ""
    for i, o in enumerate(ranked):
        height = max(120 * o.score, 2)
        kind = "success" if o.success else "failure"
        bars += (
            f'<rect x="{40 + i * pitch:.2f}" y="{130 - height:.1f}" width="{width:.2f}" height="{height:.1f}" '
            f'class="{"good" if o.success else "bad"}"><title>seed {o.seed}: {kind}, {o.score:.2f}</title></rect>'
        )
    grid = "".join(
        f'<line x1="40" x2="680" y1="{130 - 120 * t}" y2="{130 - 120 * t}" class="grid"/>'
        f'<text x="34" y="{134 - 120 * t}" class="tick" text-anchor="end">{t:g}</text>'
        for t in (0, 0.5, 1)
    )
    return (
        '<svg viewBox="0 0 690 140" class="plot" role="img" aria-label="score of each episode, worst first">'
        f"{grid}{bars}</svg>"
    )


def trace_plot(outcome: Outcome, *, width: int = 420) -> str:
    """Draw the monitor's statistic over the steps of an episode, its threshold, the disturbance and the alarm.

    The scale is logarithmic where the statistic leaves the threshold far behind. Without verdicts it is empty.

    Args:
        outcome: with its marks.
        width: of the drawing, about the pixels it will get, so that the letters keep their size.
    """
    marks = [(mark.step, mark.statistic) for mark in outcome.marks if mark.statistic is not None]
    if not marks:
        return ""
    threshold = outcome.marks[0].threshold
    scale = _Scale([value for _, value in marks], threshold, max(outcome.steps, marks[-1][0], 1), width)
    level, right = scale.y(threshold), width - 8
    flags = [
        _flag(scale, outcome.disturb_step, "disturbed", "disturbance", "end"),
        _flag(scale, outcome.alarm_step, "alarm", "alarm", "start"),
    ]
    upright = [scale.x(step) for step in (outcome.disturb_step, outcome.alarm_step) if step is not None]
    parts = [
        f'<line x1="8" x2="{right}" y1="128" y2="128" class="axis"/>',
        f'<line x1="8" x2="{right}" y1="{level:.1f}" y2="{level:.1f}" class="threshold"/>',
        f'<path d="{_stairs(marks, scale)}" class="trace"/>',
        *(line for line, _ in flags),
        *(label for _, label in flags),  # on top of the lines
        _threshold(f"threshold {threshold:.3g}", level, [(scale.x(s), scale.y(v)) for s, v in marks], upright, width),
        '<text x="8" y="144" class="tick">step 0</text>',
        f'<text x="{right}" y="144" class="tick" text-anchor="end">{scale.last}</text>',
        f'<text x="{width / 2}" y="144" class="tick" text-anchor="middle">largest score so far{scale.note}</text>',
    ]
    label = "largest score of the monitor so far, over the steps of the episode"
    return f'<svg viewBox="0 0 {width} 150" class="plot" role="img" aria-label="{label}">{"".join(parts)}</svg>'


class _Scale:
    """Steps and values to pixels: the plot lies between y = 32 and 128, its flags' labels above."""

    def __init__(self, values: Sequence[float], threshold: float, last: int, width: int) -> None:
        self.last = last
        self.width = width
        self._top = max(*values, threshold, 1e-12)
        self._logarithmic = self._top > 8 * threshold > 0
        self._bottom = max(min(*values, threshold), threshold / 100)
        self.note = " (log scale)" if self._logarithmic else ""

    def x(self, step: float) -> float:
        return 8 + (self.width - 16) * step / self.last

    def y(self, value: float) -> float:
        if self._logarithmic:
            part = log10(max(value, self._bottom) / self._bottom) / log10(self._top / self._bottom)
        else:
            part = value / self._top
        return 128 - 96 * part


def _stairs(marks: Sequence[tuple[int, float]], scale: _Scale) -> str:
    path = f"M{scale.x(marks[0][0]):.1f} {scale.y(marks[0][1]):.1f}"
    for step, value in marks[1:]:
        path += f"H{scale.x(step):.1f}V{scale.y(value):.1f}"
    return f"{path}H{scale.x(scale.last):.1f}"


def _threshold(
    text: str, level: float, trace: Sequence[tuple[float, float]], upright: Sequence[float], width: int
) -> str:
    """The label of the line at height ``level``, at that end of it where the least else is drawn."""
    long = 6.5 * len(text)  # px, about

    def crossed(left: float, top: float) -> int:
        heights = zip(trace, (*trace[1:], (width - 8.0, trace[-1][1])), strict=True)
        stairs = [(x, nx, min(y, ny), max(y, ny)) for (x, y), (nx, ny) in heights]
        across = sum(x < left + long and nx > left and y <= top + 13 and below >= top for x, nx, y, below in stairs)
        return across + 2 * sum(left - 3 < x < left + long + 3 for x in upright)

    above, below = level - 16, level + 3
    highest = 28 if upright else 8  # clear of the flags' labels, and of the axis
    tops = [top for top in (above, below) if highest < top < 113] or [above]
    places = [(left, top) for top in tops for left in (8.0, width - 8 - long)]
    left, top = min(places, key=lambda place: crossed(*place))  # the first of equals
    x, anchor = (8, "start") if left == 8 else (width - 8, "end")
    return f'<text x="{x}" y="{top + 11:.1f}" class="tick" text-anchor="{anchor}">{text}</text>'


def _flag(scale: _Scale, step: int | None, label: str, css: str, anchor: str) -> tuple[str, str]:
    """A vertical line, and its label on the side ``anchor``, or on the other where there is no room."""
    if step is None:
        return "", ""
    x = scale.x(step)
    if x < 90:
        anchor = "start"
    elif x > scale.width - 70:
        anchor = "end"
    y = 12 if css == "alarm" else 25
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="128" class="{css}"/>',
        f'<text x="{x + (4 if anchor == "start" else -4):.1f}" y="{y}" class="label {css}" '
        f'text-anchor="{anchor}">{label} {step}</text>',
    )
