"""Small SVG plots of judged episodes: traces with thresholds and alarms, ROC curves, lead times; for the report."""

from collections.abc import Callable, Sequence
from html import escape
from math import asinh, isfinite

import numpy as np

from robopolicy.monitor.judged import Judged

LOWEST = -1e300  # below: of a decision at which nothing could be exceeded yet
LEFT, TOP, BASE = 46, 14, 178  # px: where a plot begins, ends above and below
STYLE = """
.plot .line-good { fill: none; stroke: var(--good); stroke-width: 1; opacity: 0.45; }
.plot .line-bad { fill: none; stroke: var(--bad); stroke-width: 1; opacity: 0.6; }
.plot .curve { fill: none; stroke: var(--good); stroke-width: 2; }
.plot .curve.half { stroke-dasharray: 6 3; }
.plot .curve.clock { stroke: var(--soft); }
.plot .onset { fill: var(--mark); }
.plot .clear { fill: none; stroke: var(--good); stroke-width: 2; }
.plot .fixed { fill: none; stroke: var(--bad); stroke-width: 2; }
"""


def traces_plot(episodes: Sequence[Judged], *, width: int = 1000, base: int = BASE, most: int = 80) -> str:
    """Draw how bad episodes looked over time: successes and failures, the threshold, alarms, and onsets of failures.

    The height is that of asinh, linear about the threshold and logarithmic far from it.

    Args:
        episodes: of one monitor; all have its threshold.
        width: about the pixels it will get.
        base: px where the plot ends below.
        most: as many successes and failures are drawn, evenly taken from all.
    """
    chosen = [e for success in (True, False) for e in _some([e for e in episodes if e.success == success], most)]
    values = np.concatenate([e.severity for e in chosen])
    values = values[np.isfinite(values) & (values > LOWEST)]
    if not values.size:
        return ""
    threshold = _threshold(chosen)
    y = _height([*values, threshold] if isfinite(threshold) else list(values), threshold, base)
    last_s = max((e.length - 1) * e.dt_s for e in chosen) or 1.0

    def x(seconds: float) -> float:
        return LEFT + (width - 10 - LEFT) * min(seconds / last_s, 1.0)

    lines = "".join(_line(e, x, y) for e in chosen)
    dots = "".join(_marks(e, x, y, base) for e in chosen)
    few = [e.success for e in chosen]
    drawn = (
        f"{sum(few)} of {sum(e.success for e in episodes)} successes, "
        f"{len(few) - sum(few)} of {sum(not e.success for e in episodes)} failures"
    )
    level = ""
    if isfinite(threshold):
        level = (
            f'<line x1="{LEFT}" x2="{width - 10}" y1="{y(threshold):.1f}" y2="{y(threshold):.1f}" class="threshold"/>'
            f'<text x="{LEFT + 4}" y="{y(threshold) - 4:.1f}" class="tick">threshold {threshold:.3g}</text>'
        )
    return _svg(
        f"{_axis(width, base)}{lines}{level}{dots}{_time(width, last_s, base)}"
        f'<text x="{(LEFT + width) / 2}" y="{base + 16}" class="tick" text-anchor="middle">{drawn}</text>',
        width,
        f"how bad episodes looked over time: {drawn}",
        base + 22,
    )


def episode_plot(episode: Judged, *, width: int = 300) -> str:
    """Draw one episode: how bad it looked, the threshold, its alarm and the onset of its failure."""
    return traces_plot([episode], width=width, most=1)


def roc_plot(curves: Sequence[tuple[str, str, np.ndarray, np.ndarray]]) -> str:
    """Draw ROC curves: (label, css class, false alarms (G,), failures alarmed (G,)) each; width 420."""
    size, drawn = 240, ""
    for i, (label, css, false, true) in enumerate(curves):
        points = "L".join(f"{LEFT + size * f:.1f} {TOP + size * (1 - t):.1f}" for f, t in zip(false, true, strict=True))
        y = TOP + 130 + 18 * i
        drawn += (
            f'<path d="M{points}" class="curve {css}"><title>{escape(label)}</title></path>'
            f'<line x1="{LEFT + size + 14}" x2="{LEFT + size + 36}" y1="{y}" y2="{y}" class="curve {css}"/>'
            f'<text x="{LEFT + size + 42}" y="{y + 4}" class="tick">{escape(label)}</text>'
        )
    ticks = "".join(
        f'<text x="{LEFT - 6}" y="{TOP + size * (1 - t) + 4:.1f}" class="tick" text-anchor="end">{t:g}</text>'
        f'<text x="{LEFT + size * t:.1f}" y="{TOP + size + 15}" class="tick" text-anchor="middle">{t:g}</text>'
        for t in (0, 0.5, 1)
    )
    bottom = TOP + size
    return (
        f'<svg viewBox="0 0 480 {bottom + 36}" class="plot counts" role="img" aria-label="ROC curves">'
        f'<line x1="{LEFT}" x2="{LEFT + size}" y1="{bottom}" y2="{bottom}" class="axis"/>'
        f'<line x1="{LEFT}" x2="{LEFT}" y1="{TOP}" y2="{bottom}" class="axis"/>'
        f'<line x1="{LEFT}" x2="{LEFT + size}" y1="{bottom}" y2="{TOP}" class="threshold"/>{ticks}{drawn}'
        f'<text x="{LEFT + size / 2}" y="{bottom + 31}" class="tick" text-anchor="middle">false alarms</text>'
        f'<text x="{LEFT + 6}" y="{TOP + 10}" class="tick">failures alarmed</text></svg>'
    )


def histogram_plot(values_s: Sequence[float], *, what: str, never: int = 0, width: int = 420) -> str:
    """Draw how often each number of seconds came, those above 0 apart from the rest; and how often it was never.

    Args:
        values_s: finite.
        what: they are, in words.
        never: bar beside the others.
        width: about the pixels it will get.
    """
    x_s = np.asarray(values_s, np.float64)
    if not x_s.size and not never:
        return ""
    edges = _edges(x_s)
    counts = np.histogram(x_s, edges)[0] if x_s.size else np.zeros(len(edges) - 1, np.int64)
    most, bars = max(int(counts.max()), never, 1), ""
    room = width - 10 - LEFT - (60 if never else 0)
    pitch = room / len(counts)
    for i, count in enumerate(counts):
        height = (BASE - TOP - 14) * count / most
        css = "good" if edges[i] >= 0 else "bad"
        bars += (
            f'<rect x="{LEFT + i * pitch:.1f}" y="{BASE - height:.1f}" width="{max(pitch - 2, 0.5):.1f}" '
            f'height="{height:.1f}" class="{css}"><title>{edges[i]:.2g} to {edges[i + 1]:.2g} s: {count}</title></rect>'
        )
    if never:
        height = (BASE - TOP - 14) * never / most
        bars += (
            f'<rect x="{width - 48}" y="{BASE - height:.1f}" width="30" height="{height:.1f}" class="soft-dot">'
            f"<title>never: {never}</title></rect>"
            f'<text x="{width - 33}" y="{BASE + 15}" class="tick" text-anchor="middle">never {never}</text>'
        )
    every = max(1, len(counts) // 5)
    ticks = "".join(
        f'<text x="{LEFT + i * pitch:.1f}" y="{BASE + 15}" class="tick" text-anchor="middle">{edges[i]:.3g}</text>'
        for i in range(0, len(edges), every)
    )
    return _svg(
        f'<line x1="{LEFT}" x2="{width - 10}" y1="{BASE}" y2="{BASE}" class="axis"/>{bars}{ticks}'
        f'<text x="{LEFT - 6}" y="{TOP + 18}" class="tick" text-anchor="end">{most}</text>'
        f'<text x="{LEFT}" y="{BASE + 31}" class="tick">{escape(what)}</text>',
        width,
        what,
        BASE + 36,
    )


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of about 12 bins of a round width, one of them at 0."""
    low, high = (min(float(values.min()), 0.0), max(float(values.max()), 0.0)) if values.size else (0.0, 0.0)
    raw = max(high - low, 1e-3) / 12
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw)
    return step * np.arange(np.floor(low / step), np.floor(high / step) + 2)


def _some(episodes: Sequence[Judged], most: int) -> list[Judged]:
    if len(episodes) <= most:
        return list(episodes)
    return [episodes[i] for i in np.linspace(0, len(episodes) - 1, most).astype(int)]


def _threshold(episodes: Sequence[Judged]) -> float:
    """The level that ``severity`` is held against."""
    first = episodes[0]
    return float(first.threshold[0]) if np.all(first.threshold == first.threshold[0]) else 0.0


def _height(values: Sequence[float], threshold: float, base: int) -> Callable[[float], float]:
    low, high = float(np.min(values)), float(np.max(values))
    middle = threshold if isfinite(threshold) else low
    scale = max(middle - low, 1e-9) if middle > low else max(high - low, 1e-9)
    bottom, top = asinh((low - middle) / scale), asinh((high - middle) / scale)
    gap = max(top - bottom, 1e-9)

    def y(value: float) -> float:
        if not isfinite(value) or value < LOWEST:
            return float(TOP) if value > 0 else float(base)
        return base - (base - TOP - 8) * (asinh((value - middle) / scale) - bottom) / gap

    return y


def _line(e: Judged, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    points = [(x(t * e.dt_s), y(float(v))) for t, v in enumerate(e.severity) if v > LOWEST]
    if not points:
        return ""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{px:.1f}V{py:.1f}" for px, py in points[1:])
    css = "good" if e.success else "bad"
    told = f"{e.name}: {'success' if e.success else e.failure or 'failure'}, {e.stratum}"
    return f'<path d="{path}" class="line-{css}"><title>{escape(told)}</title></path>'


def _marks(e: Judged, x: Callable[[float], float], y: Callable[[float], float], base: int) -> str:
    marks = ""
    if e.onset is not None:
        at = x(e.onset * e.dt_s)
        marks += (
            f'<path d="M{at:.1f} {base - 8}l4 8h-8z" class="onset">'
            f"<title>{escape(e.name)}: {escape(e.failure)} at {e.onset * e.dt_s:.2f} s</title></path>"
        )
    if e.first is not None:
        height = y(float(e.severity[e.first]))
        what = "overrun" if e.alarm is None or (e.overrun is not None and e.overrun < e.alarm) else "alarm"
        css = "clear" if e.success else "fixed"
        marks += (
            f'<circle cx="{x(e.first * e.dt_s):.1f}" cy="{height:.1f}" r="3.5" class="{css}">'
            f"<title>{escape(e.name)}: {what} at {e.first * e.dt_s:.2f} s</title></circle>"
        )
    return marks


def _axis(width: int, base: int) -> str:
    return f'<line x1="{LEFT}" x2="{width - 10}" y1="{base}" y2="{base}" class="axis"/>'


def _time(width: int, last_s: float, base: int) -> str:
    return (
        f'<text x="{LEFT}" y="{base + 16}" class="tick">0 s</text>'
        f'<text x="{width - 10}" y="{base + 16}" class="tick" text-anchor="end">{last_s:.3g} s</text>'
    )


def _svg(parts: str, width: int, label: str, height: int) -> str:
    return f'<svg viewBox="0 0 {width} {height}" class="plot" role="img" aria-label="{escape(label)}">{parts}</svg>'
