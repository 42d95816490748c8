"""The small drawings of the quality page, as SVG that follows the reader's light or dark mode."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

POINTS = 120  # of a trace: more than the pixels of a small plot tell nothing


def strip_plot(values: np.ndarray, numbers: Sequence[int], odd: Sequence[int], label: str) -> str:
    """Draw one dot an episode along its value, outliers in red, the median dashed; width 320.

    Args:
        values: (E,), NaN is left out.
        numbers: of the episodes, for the dots' titles.
        odd: numbers of the outliers.
        label: of the plot, for readers that cannot see it.
    """
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        return '<p class="soft small">nothing to measure</p>'
    low, high = float(values[known].min()), float(values[known].max())

    def x(value: float) -> float:
        return 12 + 296 * ((value - low) / (high - low) if high > low else 0.5)

    order = known[np.argsort([numbers[i] in odd for i in known.tolist()], kind="stable")]  # outliers on top
    heights = 10 + 26 * ((np.arange(len(values)) * 0.618034) % 1.0)  # spread evenly, whatever the order
    dots = "".join(
        f'<circle cx="{x(values[i]):.1f}" cy="{heights[i]:.1f}" r="3.4" class="dot{" odd" * (numbers[i] in odd)}">'
        f"<title>episode {numbers[i]}: {values[i]:.4g}</title></circle>"
        for i in order
    )
    middle = x(float(np.median(values[known])))
    return (
        f'<svg viewBox="0 0 320 62" role="img" aria-label="{escape(label)}">'
        f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="2" y2="44" class="middle"/>'
        f'<line x1="8" x2="312" y1="44" y2="44" class="axis"/>{dots}'
        f'<text x="8" y="58" class="tick">{f"{low:.3g}" if high > low else "all"}</text>'
        f'<text x="312" y="58" class="tick" text-anchor="end">{high:.3g}</text></svg>'
    )


def trace_plot(values: np.ndarray, top: float, shaded: Mapping[str, Sequence[tuple[int, int]]], label: str) -> str:
    """Draw values (T,) over the steps, 0 to ``top``, above shaded spans; width 240.

    Args:
        values: (T,), not negative.
        top: value at the upper edge, so that episodes can be compared.
        shaded: {kind: (first, one past the last) steps}; the kind is the rectangle's class and title.
        label: of the plot.
    """
    count = len(values)
    at = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
    path = "L".join(f"{240 * i / max(count - 1, 1):.1f} {46 - 44 * min(values[i] / top, 1.0):.1f}" for i in at)
    spans = "".join(
        f'<rect x="{240 * a / count:.1f}" y="0" width="{240 * (b - a) / count:.1f}" height="48" '
        f'class="span {escape(kind)}"><title>{escape(kind)}, steps {a} to {b - 1}</title></rect>'
        for kind, parts in shaded.items()
        for a, b in parts
    )
    return (
        f'<svg viewBox="0 0 240 48" role="img" aria-label="{escape(label)}">{spans}'
        f'<line x1="0" x2="240" y1="46.5" y2="46.5" class="axis"/><path d="M{path}" class="trace"/></svg>'
    )
