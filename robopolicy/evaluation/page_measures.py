"""The parts of a report that tell how episodes went: times, smoothness, modes, and why they failed."""

from collections.abc import Sequence
from html import escape

from robopolicy.evaluation.entropy import Entropy
from robopolicy.evaluation.failures import Cause
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.plots import count_plot
from robopolicy.evaluation.statistics import Median, Summary

SEEDS_SHOWN = 12


def tile(label: str, number: str, note: str, plot: str = "") -> str:
    """Return one number with its name, a note and perhaps a drawing."""
    return (
        f'<div class="card"><div class="label-top">{escape(label)}</div><div class="number">{escape(number)}</div>'
        f'{plot}<div class="soft small">{escape(note)}</div></div>'
    )


def tiles(summary: Summary, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the tiles of time to success, smoothness and behaviour entropy, as far as they are known."""
    found = []
    steps = sorted(outcome.steps for outcome in outcomes if outcome.success)
    if summary.success_s is not None:
        words = f"{_interval(summary.success_s, ' s')}; from {steps[0]} to {steps[-1]} steps"
        found.append(tile("Time to success, median", f"{summary.success_s.value:.3g} s", words))
    elif steps:
        words = f"from {steps[0]} to {steps[-1]} steps"
        found.append(tile("Steps to success, median", str(steps[len(steps) // 2]), words))
    if summary.smoothness is not None:
        words = f"{_interval(summary.smoothness)}; SPARC of the tool's speed, nearer 0 is smoother"
        found.append(tile("Smoothness, median of successes", f"{summary.smoothness.value:.2f}", words))
    if (entropy := summary.entropy) is not None:
        words = f"{entropy.confidence:.0%} interval {entropy.low:.2f} to {entropy.high:.2f}; {entropy.n} successes"
        found.append(tile("Behaviour entropy, 0 to 1", f"{entropy.value:.2f}", words))
    return found


def modes(entropy: Entropy | None) -> str:
    """Return how often each mode was taken, and what the entropy says; nothing without modes."""
    if entropy is None:
        return ""
    notes = [
        "Entropy of the modes of successful episodes, as D3IL defines it: 0 is always the same way, 1 every way "
        "equally often."
    ]
    if entropy.scarce:
        notes.append(
            f"{entropy.n} successes are few for {len(entropy.counts)} modes: a policy that takes all equally often "
            f"would score {entropy.ceiling:.2f} with so many."
        )
    if entropy.undecided:
        notes.append(f"{entropy.undecided} successes had no mode and are not counted.")
    return (
        f'<h2>Modes</h2><div class="card">{count_plot(entropy.counts)}'
        f'<p class="soft small">{escape(" ".join(notes))}</p></div>'
    )


def failures(causes: Sequence[Cause], episodes: int) -> str:
    """Return why episodes failed, a row a reason; nothing without failures.

    Args:
        causes: from `failures.taxonomy`.
        episodes: all of them, successes and errors too.
    """
    if not causes:
        return ""
    head = (
        '<tr><th>Failure</th><th class="n">Episodes</th><th class="n">of all</th><th class="n">Onset, median step</th>'
        "<th>Seeds</th></tr>"
    )
    rows = ""
    for cause in causes:
        seeds = ", ".join(map(str, cause.seeds[:SEEDS_SHOWN]))
        if (more := len(cause.seeds) - SEEDS_SHOWN) > 0:
            seeds += f" and {more} more"
        onset = "" if cause.onset_step is None else f"{cause.onset_step:g}"
        told = f'<br><span class="soft small">{escape(cause.words)}</span>' if cause.words != cause.failure else ""
        rows += (
            f'<tr><td class="cause">{escape(cause.failure)}{told}</td><td class="n">{len(cause.seeds)}</td>'
            f'<td class="n">{len(cause.seeds) / episodes:.0%}</td><td class="n">{onset}</td>'
            f'<td class="soft small">{seeds}</td></tr>'
        )
    return (
        f'<h2>Why episodes failed</h2><div class="card scroll"><table>{head}{rows}</table>'
        '<p class="soft small">By what went wrong first and was not made good again; the onset is the step at which '
        "it did.</p></div>"
    )


def note(outcome: Outcome) -> str:
    """Return what is to be said of an episode in a few words."""
    parts = [outcome.error or outcome.stopped or outcome.lost]
    if outcome.failure and not (outcome.stopped or outcome.lost):
        onset = "" if outcome.onset_step is None else f" from step {outcome.onset_step} on"
        parts.append(outcome.failure.replace("_", " ") + onset)
    if outcome.mode is not None and outcome.success:
        parts.append(outcome.mode)
    parts += [outcome.disturbance, outcome.drawn]
    return "; ".join(part for part in parts if part)


def _interval(median: Median, unit: str = "") -> str:
    if median.low is None:
        return f"{median.n} successes, too few for an interval"
    return f"{median.confidence:.0%} interval {median.low:.3g} to {median.high:.3g}{unit}, {median.n} successes"
