"""A self-contained page of policies compared: their numbers, the verdicts in words, and how each came about."""

import time
from collections.abc import Mapping, Sequence
from html import escape
from math import log10
from pathlib import Path

from robopolicy.evaluation.comparison import Comparison
from robopolicy.evaluation.paired import Difference
from robopolicy.evaluation.plots import rate_plot
from robopolicy.evaluation.report import document
from robopolicy.evaluation.runs import Run
from robopolicy.evaluation.statistics import Summary


def write_page(
    path: str | Path,
    runs: Sequence[Run],
    summaries: Mapping[str, Summary],
    comparisons: Sequence[Comparison],
    notes: Sequence[str] = (),
) -> Path:
    """Write the page; return its path.

    Args:
        path: of the file.
        runs: that were compared.
        summaries: of each, by name.
        comparisons: of every two.
        notes: what else is to be said, a line each.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    world = runs[0].about.get("env", "")
    title = "Which policy is better" + (f": {world}" if world else "")
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    several = any(summary.entropy is not None for summary in summaries.values())
    entropy = ("Behaviour entropy",) if several else ()
    columns = ("Policy", "Success", "", "Mean score", "Time to success", *entropy, "Evaluation")
    rows = "".join(_row(run, summaries[run.name], entropy=several) for run in runs)
    head = f"<tr>{''.join(f'<th>{column}</th>' for column in columns)}</tr>"
    sections = [
        f'<h1>{escape(title)}</h1><p class="soft">{escape(when)}</p>',
        f'<div class="card gap scroll"><table>{head}{rows}</table></div>',
        verdicts(comparisons),
        "".join(f'<p class="soft small">{escape(note)}</p>' for note in notes),
        f'<p class="soft small">{escape(explained(comparisons))}</p>',
    ]
    path.write_text(document(title, sections))
    return path


def verdicts(comparisons: Sequence[Comparison]) -> str:
    """Return a card for every comparison: the verdict, the difference on its interval, the evidence over the pairs."""
    return f'<h2>Verdicts</h2><div class="cards wide">{"".join(map(_card, comparisons))}</div>'


def explained(comparisons: Sequence[Comparison]) -> str:
    """Return what the verdicts promise, in words."""
    first = comparisons[0]
    among = f" among all {first.family} comparisons (Holm 1979)" if first.family > 1 else ""
    promise = f"Policies that do equally well get a verdict with chance {first.alpha:g} at most{among}"
    sure = f"{100 * (1 - first.alpha):g} %"
    if first.fixed:
        return (
            f"{promise}, if the number of seeds was fixed before anybody looked (exact McNemar test). Intervals are of "
            f"{sure} each."
        )
    return (
        f"{promise}, however often one looks and whenever one stops: e is the capital won by betting against "
        "“equally well”, pair by pair in the order of the seeds; the differences' intervals, of "
        f"{sure} each, hold the same way. Those of the table are of {sure} for the seeds that there are."
    )


def difference_plot(difference: Difference, a: str, b: str) -> str:
    """Draw a difference as a dot on its interval, 0 in the middle; width 420."""
    widest = max(abs(difference.low), abs(difference.high))
    end = next(end for end in (0.1, 0.25, 0.5, 1.0) if widest <= end or end == 1.0)

    def x(value: float) -> float:
        return 210 + 200 * value / end

    kind = "good" if difference.low > 0 else "bad" if difference.high < 0 else "soft-dot"
    ticks = "".join(
        f'<text x="{x(t)}" y="44" class="tick" text-anchor="{side}">{t:+g}</text>'
        for t, side in ((-end, "start"), (end, "end"))
    )
    return (
        f'<svg viewBox="0 0 420 48" class="plot counts" role="img" aria-label="difference {escape(str(difference))}">'
        '<line x1="10" x2="410" y1="25" y2="25" class="axis"/>'
        '<line x1="210" x2="210" y1="4" y2="30" class="threshold"/>'
        f'<rect x="{x(difference.low):.1f}" y="9" width="{max(x(difference.high) - x(difference.low), 1):.1f}" '
        'height="10" rx="5" class="interval"/>'
        f'<circle cx="{x(difference.value):.1f}" cy="14" r="6.5" class="{kind} dot"/>{ticks}'
        f'<text x="56" y="44" class="tick">{escape(_short(b))} better</text>'
        f'<text x="364" y="44" class="tick" text-anchor="end">{escape(_short(a))} better</text></svg>'
    )


def evidence_plot(comparison: Comparison) -> str:
    """Draw e over the pairs on a log scale against what it had to reach; empty for a fixed number of pairs."""
    if comparison.fixed or not comparison.log_e:
        return ""
    values = [0.0, *(value / 2.302585 for value in comparison.log_e)]  # powers of ten
    level = log10(comparison.threshold)
    top, bottom = max(*values, level) + 0.3, min(*values, 0.0) - 0.1

    def y(value: float) -> float:
        return 118 - 106 * (value - bottom) / (top - bottom)

    def x(pair: int) -> float:
        return 40 + 370 * pair / (len(values) - 1)

    path = "M" + "L".join(f"{x(i):.1f} {y(value):.1f}" for i, value in enumerate(values))
    after = comparison.decided_after
    flag = (
        ""
        if after is None
        else f'<line x1="{x(after):.1f}" x2="{x(after):.1f}" y1="8" y2="118" class="alarm decided"/>'
    )
    ticks = "".join(
        f'<text x="34" y="{y(power) + 4:.1f}" class="tick" text-anchor="end">{10.0**power:g}</text>'
        for power in range(int(bottom) if bottom > -1 else int(bottom) - 1, int(top) + 1)
        if bottom <= power <= top and power % max(1, round((top - bottom) / 5)) == 0
    )
    return (
        '<svg viewBox="0 0 420 140" class="plot counts" role="img" aria-label="evidence over the pairs">'
        f'<line x1="40" x2="410" y1="118" y2="118" class="axis"/>{ticks}'
        f'<line x1="40" x2="410" y1="{y(level):.1f}" y2="{y(level):.1f}" class="threshold"/>'
        f'<path d="{path}" class="trace"/>{flag}'
        f'<text x="44" y="{y(level) - 4:.1f}" class="tick">{comparison.threshold:.3g} decides</text>'
        f'<text x="410" y="133" class="tick" text-anchor="end">{len(values) - 1} pairs</text>'
        '<text x="40" y="133" class="tick">e, over the pairs in the order of their seeds</text></svg>'
    )


def _card(comparison: Comparison) -> str:
    kind, word = ("good", "decided") if comparison.better else ("open", "open")
    title = f"{comparison.a} and {comparison.b}"
    table = (
        f"both {comparison.both}, only {comparison.a} {comparison.a_only}, only {comparison.b} {comparison.b_only}, "
        f"neither {comparison.neither}; McNemar p = {comparison.p_value:.2g}"
    )
    return (
        f'<div class="card"><div class="head"><h3>{escape(title)}</h3><span class="badge {kind}">{word}</span></div>'
        f"<p>{escape(comparison.verdict())}</p>{difference_plot(comparison.interval, comparison.a, comparison.b)}"
        f'{evidence_plot(comparison)}<p class="soft small">{escape(table)}</p></div>'
    )


def _row(run: Run, summary: Summary, *, entropy: bool) -> str:
    rate = summary.success
    seconds = "" if summary.success_s is None else f"{summary.success_s} s"
    ways = f"<td>{'' if summary.entropy is None else escape(str(summary.entropy))}</td>" if entropy else ""
    interval = f"{rate.successes} of {rate.n}, {rate.low:.1%} to {rate.high:.1%}"
    return (
        f"<tr><td><b>{escape(run.name)}</b></td>"
        f'<td>{rate.value:.0%}<br><span class="soft small whole">{interval}</span></td>'
        f'<td class="plot-cell">{rate_plot(rate)}</td><td class="whole">{escape(str(summary.score))}</td>'
        f'<td>{escape(seconds)}</td>{ways}<td class="soft small">{escape(str(run.folder))}</td></tr>'
    )


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
