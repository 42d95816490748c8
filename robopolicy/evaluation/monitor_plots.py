"""Small SVG plots of a monitor: what it was calibrated on, and what it said of an episode; style as in `plots`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, isfinite, log10

import numpy as np

from robopolicy.monitor.statistic import LOWEST

HEIGHT, LEFT, TOP, BASE = 170, 46, 22, 138  # px: of the drawing, where its plot begins, ends above and below
MOST_DOTS = 14  # in a column of the distribution


@dataclass(frozen=True)
class Line:
    """One curve over decisions 1 to T."""

    values: Sequence[float]  # those that are not finite, or that patience still waits at, are gaps
    css: str = "trace faint"
    title: str = ""


def distribution_plot(
    values: Sequence[float] | np.ndarray, threshold: float, *, what: str, mark: str = "threshold", width: int = 500
) -> str:
    """Draw each value as a dot in its column, and the threshold; beyond it dots are red.

    Args:
        values: (n,) those that are not finite, or that patience never let go, are counted at the left end.
        threshold: drawn as a line.
        what: the values are, in words.
        mark: name of the line.
        width: about the pixels it will get.
    """
    every = np.asarray(values, np.float64)
    kept = every[np.isfinite(every) & (every > LOWEST)]
    if not len(kept):
        return ""
    low, high = _range([*kept, threshold])
    right, columns = width - 10, 48

    def x(value: float) -> float:
        return LEFT + (right - LEFT) * (value - low) / (high - low)

    column = np.minimum(((kept - low) / (high - low) * columns).astype(int), columns - 1)
    each = ceil(max(np.bincount(column)) / MOST_DOTS)  # episodes a dot
    dots = ""
    for i in np.unique(column):
        members = np.sort(kept[column == i])
        for j, value in enumerate(members[::each]):
            kind = "bad" if value > threshold else "good"
            dots += (
                f'<circle cx="{x(low + (i + 0.5) * (high - low) / columns):.1f}" cy="{BASE - 5 - 8 * j:.1f}" r="3.6" '
                f'class="{kind}"><title>{value:.4g}</title></circle>'
            )
    at, side = x(threshold), "end" if x(threshold) > width / 2 else "start"
    aside = len(every) - len(kept)
    note = f"{what}, {len(every)} episodes" + (f", {each} a dot" if each > 1 else "")
    note += f"; {aside} without a value" if aside else ""
    ticks = "".join(
        f'<text x="{x(value):.1f}" y="{BASE + 14}" class="tick" text-anchor="middle">{value:.3g}</text>'
        for value in _ticks(low, high)
    )
    return _svg(
        f'<line x1="{LEFT}" x2="{right}" y1="{BASE}" y2="{BASE}" class="axis"/>{ticks}{dots}'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="8" y2="{BASE}" class="threshold"/>'
        f'<text x="{at + (-4 if side == "end" else 4):.1f}" y="16" class="tick" text-anchor="{side}">'
        f"{escape(mark)} {threshold:.4g}</text>"
        f'<text x="{LEFT}" y="{HEIGHT - 4}" class="tick">{escape(note)}</text>',
        width,
        note,
    )


def traces_plot(
    lines: Sequence[Line],
    threshold: float | None,
    *,
    what: str,
    longest: int | None = None,
    flags: Sequence[tuple[int, str]] = (),
    level: str = "threshold {:.4g}",
    steps: str = "decision",
    width: int = 500,
) -> str:
    """Draw curves over decisions, the threshold as a level, and the decision from which on an overrun is told.

    Args:
        lines: the curves.
        threshold: a level, or None.
        what: the curves are, in words.
        longest: decisions that time allows, or None.
        flags: (decision, counted from 1; its label).
        level: what stands at the threshold.
        steps: what is counted from 1 on.
        width: about the pixels it will get.
    """
    shown = [value for line in lines for value in line.values if _real(value)]
    if not shown:
        return ""
    low, high = _range([*shown, *([threshold] if threshold is not None and isfinite(threshold) else [])])
    last = max([len(line.values) for line in lines] + ([longest + 1] if longest else []))
    right = width - 10

    def x(decision: float) -> float:
        return LEFT + (right - LEFT) * (decision - 1) / max(last - 1, 1)

    def y(value: float) -> float:
        return BASE - (BASE - TOP) * (value - low) / (high - low)

    parts = "".join(
        f'<line x1="{LEFT}" x2="{right}" y1="{y(value):.1f}" y2="{y(value):.1f}" class="grid"/>'
        f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" class="tick" text-anchor="end">{value:.3g}</text>'
        for value in _ticks(low, high, 4)
    )
    for line in lines:
        parts += f'<path d="{_path(line.values, x, y)}" class="{line.css}"><title>{escape(line.title)}</title></path>'
    if threshold is not None and isfinite(threshold):
        at = y(threshold)
        parts += (
            f'<line x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" class="threshold"/>'
            f'<text x="{LEFT + 4}" y="{at - 4:.1f}" class="tick">{level.format(threshold)}</text>'
        )
    if longest is not None:
        parts += _upright(x(longest), f"overrun after {longest}", "disturbance", width)
    for decision, label in flags:
        parts += _upright(x(decision), label, "alarm", width)
    parts += (
        f'<line x1="{LEFT}" x2="{right}" y1="{BASE}" y2="{BASE}" class="axis"/>'
        f'<text x="{LEFT}" y="{BASE + 14}" class="tick">{steps} 1</text>'
        f'<text x="{right}" y="{BASE + 14}" class="tick" text-anchor="end">{last}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}" class="tick">{escape(what)}</text>'
    )
    return _svg(parts, width, what)


def wealth_plot(high: Sequence[float], low: Sequence[float], delta: float, *, width: int = 500) -> str:
    """Draw what betting on too high and on too low statistics has come to, logarithmic, against 1 / delta."""
    lines = [
        Line([log10(max(value, 1e-12)) for value in high], "trace high", "statistics too high"),
        Line([log10(max(value, 1e-12)) for value in low], "trace", "statistics too low"),
    ]
    what = "log10 of what betting on too high (red) and too low (blue) has come to"
    level = "their mean warns at {:.3g}"
    return traces_plot(lines, -log10(delta), what=what, level=level, steps="episode", width=width)


def _real(value: float) -> bool:
    return isfinite(value) and value > LOWEST


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    gap = (high - low) or abs(high) or 1.0
    return low - 0.04 * gap, high + 0.06 * gap


def _ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Round numbers between, about n of them."""
    raw = (high - low) / n
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    first = ceil(low / step)
    return [float(i * step) for i in range(first, int(np.floor(high / step)) + 1)]


def _path(values: Sequence[float], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    path, drawn = "", False
    for i, value in enumerate(values, 1):
        if not _real(value):
            drawn = False
            continue
        path += f"{'L' if drawn else 'M'}{x(i):.1f} {y(value):.1f}"
        drawn = True
    return path


def _upright(x: float, label: str, css: str, width: int) -> str:
    side, gap = ("end", -4) if x > width / 2 else ("start", 4)
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="6" y2="{BASE}" class="{css}"/>'
        f'<text x="{x + gap:.1f}" y="14" class="label {css}" text-anchor="{side}">{escape(label)}</text>'
    )


def _svg(parts: str, width: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {HEIGHT}" class="plot" role="img" aria-label="{escape(label)}">{parts}</svg>'
