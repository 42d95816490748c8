"""Small SVG plots of a sweep, in the page's own colours: success against severity, and one cell's rate."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from robopolicy.evaluation.statistics import Rate

COLOURS = 6  # of curves, in sweep.css; more of them repeat these, dashed
LEFT, RIGHT, TOP, BOTTOM = 34, 262, 12, 152  # of the area that curves are drawn in


def curves_plot(curves: Mapping[str, Sequence[tuple[float, Rate]]], axis: str, *, labels: int) -> str:
    """Draw success from 0 to 100 % over severity, a curve with its band for each policy.

    Args:
        curves: for each policy severities, ascending, and the success there; policies keep their places in colour.
        axis: name of the perturbation.
        labels: characters of the longest policy's name that are written beside a curve.
    """
    severities = sorted({severity for curve in curves.values() for severity, _ in curve})
    most = max(severities[-1], 1e-9)
    width = RIGHT + 14 + 8 * min(labels, 18)

    def x(severity: float) -> float:
        return LEFT + (RIGHT - LEFT) * severity / most

    grid = "".join(
        f'<line x1="{LEFT}" x2="{RIGHT}" y1="{_y(t):.1f}" y2="{_y(t):.1f}" class="grid"/>'
        f'<text x="{LEFT - 6}" y="{_y(t) + 4:.1f}" class="tick" text-anchor="end">{100 * t:g}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    ticks = "".join(
        f'<text x="{x(s):.1f}" y="{BOTTOM + 16}" class="tick" text-anchor="middle">{s:g}</text>' for s in severities
    )
    drawn = [(i, name, curve) for i, (name, curve) in enumerate(curves.items()) if curve]
    bands = "".join(_band(curve, x, i) for i, _, curve in drawn)
    lines = "".join(_line(name, curve, x, i) for i, name, curve in drawn)
    names = "".join(
        f'<text x="{RIGHT + 8}" y="{y + 4:.1f}" class="label c{i % COLOURS}">{_short(name)}</text>'
        for y, i, name in _apart([(_y(curve[-1][1].value), i, name) for i, name, curve in drawn])
    )
    label = f"success in percent against the severity of {axis}, one curve a checkpoint, with 95 % intervals"
    return (
        f'<svg viewBox="0 0 {width} {BOTTOM + 36}" class="plot" role="img" aria-label="{label}">{grid}{ticks}'
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 32}" class="tick" text-anchor="middle">severity</text>'
        f"{bands}{lines}{names}</svg>"
    )


def cell_plot(rate: Rate, colour: int) -> str:
    """Draw a rate as a dot on its interval, 0 to 100 % over a width of 110."""
    low, high = 5 + 100 * rate.low, 5 + 100 * rate.high
    return (
        f'<svg viewBox="0 0 110 12" class="cell" aria-hidden="true"><line x1="5" x2="105" y1="6" y2="6" class="grid"/>'
        f'<line x1="{low:.1f}" x2="{max(high, low + 1):.1f}" y1="6" y2="6" class="span c{colour % COLOURS}"/>'
        f'<circle cx="{5 + 100 * rate.value:.1f}" cy="6" r="4" class="dot c{colour % COLOURS}"/></svg>'
    )


def shares_plot(counts: Mapping[str, int]) -> str:
    """Draw how often each mode was taken as bars beside each other, scaled to the most frequent."""
    most = max([*counts.values(), 1])
    pitch = min(40.0, 220 / max(len(counts), 1))
    bars = "".join(
        f'<rect x="{i * pitch:.1f}" y="{34 - 32 * n / most:.1f}" width="{pitch - min(2, pitch / 4):.1f}" '
        f'height="{max(32 * n / most, 0.8):.1f}" class="good"><title>{escape(mode)}: {n}</title></rect>'
        for i, (mode, n) in enumerate(counts.items())
    )
    label = "; ".join(f"{mode} {n}" for mode, n in counts.items())
    size = f'viewBox="0 0 {pitch * len(counts):.0f} 35" width="{pitch * len(counts):.0f}" height="35"'
    return f'<svg {size} class="shares" role="img" aria-label="{escape(label)}">{bars}</svg>'


def _y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * value


def _band(curve: Sequence[tuple[float, Rate]], x: Callable[[float], float], i: int) -> str:
    above = [f"{x(severity):.1f},{_y(rate.high):.1f}" for severity, rate in curve]
    below = [f"{x(severity):.1f},{_y(rate.low):.1f}" for severity, rate in reversed(curve)]
    return f'<polygon points="{" ".join(above + below)}" class="band c{i % COLOURS}"/>'


def _line(name: str, curve: Sequence[tuple[float, Rate]], x: Callable[[float], float], i: int) -> str:
    points = " ".join(f"{x(severity):.1f},{_y(rate.value):.1f}" for severity, rate in curve)
    dash = " dashed" * (i >= COLOURS)
    dots = "".join(
        f'<circle cx="{x(severity):.1f}" cy="{_y(rate.value):.1f}" r="4" class="point c{i % COLOURS}">'
        f"<title>{escape(name)}, severity {severity:g}: {rate}</title></circle>"
        for severity, rate in curve
    )
    return f'<polyline points="{points}" class="curve c{i % COLOURS}{dash}"/>{dots}'


def _apart(ends: Sequence[tuple[float, int, str]], gap: float = 14.0) -> list[tuple[float, int, str]]:
    """Labels at their heights, moved so that none lies on another."""
    placed: list[tuple[float, int, str]] = []
    for y, i, name in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, i, name))
    over = max(placed[-1][0] - BOTTOM, 0.0) if placed else 0.0
    return [(y - over, i, name) for y, i, name in placed]


def _short(name: str, most: int = 18) -> str:
    return escape(name if len(name) <= most else name[: most - 1] + "…")
