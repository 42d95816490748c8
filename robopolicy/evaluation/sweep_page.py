"""The sections of a sweep's page, each a piece of HTML or nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from robopolicy.evaluation import page, page_measures
from robopolicy.evaluation.failures import Cause, taxonomy
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.statistics import Rate
from robopolicy.evaluation.suite import Cell, Suite, parsed
from robopolicy.evaluation.sweep_cells import CellResult, Compared
from robopolicy.evaluation.sweep_plots import COLOURS, cell_plot, curves_plot, shares_plot

VERDICTS = 12  # shown at once; the others are behind a click
ERRORS = 30  # listed; of more only the number is told
EARLY = (
    "Where a success ends an episode, successes come first: the rates of a cell that is under way flatter it. Verdicts "
    "count each cell's seeds only up to the first that has not come to an end."
)


def header(title: str, suite: Suite, results: Sequence[CellResult]) -> str:
    """Return the title, what was run, and the headline numbers."""
    done = sum(len(result.outcomes) for result in results)
    wanted = len(suite.cells()) * len(suite.seeds)
    errors = sum(result.errors for result in results)
    what = " · ".join(
        _many(n, name)
        for n, name in (
            (len(suite.checkpoints), "checkpoint"), (len(suite.worlds), "world"),
            (len(suite.perturbations), "condition"), (len(suite.seeds), "seed"),
        )
    )  # fmt: skip
    told = "all of the suite" if done == wanted else f"of {wanted} in the suite: the sweep is not complete"
    tiles = [page_measures.tile("Episodes", f"{done:,}", told)]
    if errors:
        tiles.append(page_measures.tile("Without an outcome", f"{errors:,}", "crashed, hung or raised; not counted"))
    for result in results:
        if not result.cell.perturbations and result.summary is not None and len(tiles) < 8:
            where = f" in {result.cell.world}" if len(suite.worlds) > 1 else ""
            rate = result.summary.success
            early = f", under way to {len(suite.seeds)}" if _under_way(result, suite) else ""
            note = f"{rate.successes} of {rate.n} undisturbed{early}; 95 % interval {rate.low:.1%} to {rate.high:.1%}"
            label = f"{result.cell.checkpoint}{where}"
            tiles.append(page_measures.tile(label, f"{rate.value:.0%}", note, page.rate_plot(rate)))
    early = "" if done == wanted else f"<p>{escape(EARLY)}</p>"
    return f'<h1>{escape(title)}</h1><p class="soft">{what}</p><div class="cards tiles">{"".join(tiles)}</div>{early}'


def verdicts(compared: Sequence[Compared], of: str = "success") -> str:
    """Return which checkpoint is better, in words: undisturbed first, then what was decided, then the rest."""
    if not compared:
        return ""
    ranked = sorted(compared, key=lambda c: (bool(c.perturbations), not c.comparison.better))
    lines = [
        f'<li><span class="where">{escape(c.world)}{escape(_with(c.perturbations))}:</span> '
        f"{escape(c.comparison.verdict())}</li>"
        for c in ranked
    ]
    more = "".join(lines[VERDICTS:])
    rest = f'<details><summary>{len(lines) - VERDICTS} more</summary><ul class="verdicts">{more}</ul></details>'
    return (
        f'<h2>Which is better</h2><div class="card"><ul class="verdicts">{"".join(lines[:VERDICTS])}</ul>'
        f"{rest if more else ''}"
        f'<p class="soft small">Of {of}, on the same starts, by an anytime-valid test: it holds however often one '
        "looked and however many seeds are added. Among the verdicts on undisturbed worlds one or more is false with a "
        "chance of 5 % at most, and the same among those on perturbed ones.</p></div>"
    )


def world(name: str, suite: Suite, results: Sequence[CellResult]) -> str:
    """Return success in one world: a row a condition, a column a checkpoint; and against severity."""
    here = {
        (result.cell.perturbations, result.cell.checkpoint): result for result in results if result.cell.world == name
    }
    if not here:
        return ""
    names = list(suite.checkpoints)
    head = "".join(f'<th><span class="swatch c{i % COLOURS}"></span>{escape(n)}</th>' for i, n in enumerate(names))
    rows = ""
    for condition in suite.perturbations:
        cells = "".join(f"<td>{_rate(here.get((condition, n)), i, suite)}</td>" for i, n in enumerate(names))
        rows += f'<tr><td class="condition">{escape(" + ".join(condition) or "undisturbed")}</td>{cells}</tr>'
    table = f'<div class="card scroll"><table><tr><th>Condition</th>{head}</tr>{rows}</table></div>'
    note = '<p class="soft">Success with its 95 % Clopper-Pearson interval.</p>'
    return f"<h2>{escape(name)}</h2>{note}{table}{_curves(suite, here)}"


def measures(results: Sequence[CellResult]) -> str:
    """Return every cell in numbers: score, time, smoothness, behaviour entropy; perturbed ones behind a click."""
    known = [(result, result.summary) for result in results if result.summary is not None]
    if not known:
        return ""
    modes = any(summary.entropy is not None for _, summary in known)
    head = (
        '<th>Cell</th><th class="n">Mean score</th><th class="n">Time to success, s</th><th class="n">Smoothness</th>'
    )
    head += "<th>Behaviour entropy</th><th>Modes</th>" if modes else ""
    rows = []
    for result, summary in known:
        numbers = (summary.score, summary.success_s, summary.smoothness)
        cells = [f'<td class="n nobreak">{"" if n is None else escape(str(n))}</td>' for n in numbers]
        if modes:
            entropy = summary.entropy
            told, drawn = ("", "") if entropy is None else (escape(str(entropy)), shares_plot(entropy.counts))
            cells += [f"<td>{told}</td>", f"<td>{drawn}</td>"]
        rows.append((result.cell, "".join(cells)))
    return (
        f'<h2>How episodes went</h2><div class="card scroll">{_by_cell(head, rows)}<p class="soft small">Medians '
        "over successes, with 95 % intervals. Smoothness is SPARC of the tool's speed, nearer 0 is smoother. Entropy "
        "of the modes of successes: 0 is always the same way, 1 every way equally often.</p></div>"
    )


def failures(results: Sequence[CellResult]) -> str:
    """Return why episodes failed: a row a cell, a column a reason, the most frequent first."""
    causes = {result.cell: {cause.failure: cause for cause in taxonomy(result.outcomes)} for result in results}
    totals: Counter[str] = Counter()
    words: dict[str, str] = {}
    for failure, cause in (pair for of_cell in causes.values() for pair in of_cell.items()):
        totals[failure] += len(cause.seeds)
        words[failure] = cause.words
    if not totals:
        return ""
    reasons = sorted(totals, key=lambda reason: (-totals[reason], reason))
    head = "<th>Cell</th>" + "".join(f'<th class="n">{escape(reason.replace("_", " "))}</th>' for reason in reasons)
    rows = [(cell, "".join(_count(found.get(r)) for r in reasons)) for cell, found in causes.items() if found]
    meanings = "; ".join(f"{r.replace('_', ' ')}: {words[r]}" for r in reasons if words[r] != r.replace("_", " "))
    return (
        f'<h2>Why episodes failed</h2><div class="card scroll">{_by_cell(head, rows)}'
        '<p class="soft small">By what went wrong first and was not made good again; behind @ the median step at which '
        f"it did. {escape(meanings)}</p></div>"
    )


def films(results: Sequence[CellResult], filmed: Mapping[Cell, Sequence[Outcome]]) -> str:
    """Return the filmed failures, cell by cell; a filmed run that differs from the counted one is said to."""
    cards = []
    for result in results:
        counted = {outcome.seed: outcome for outcome in result.outcomes}
        for film in filmed.get(result.cell, ()):
            outcome = counted[film.seed]
            note = page_measures.note(outcome) or f"score {outcome.score:.2f}"
            if film.error is not None:
                note += f"; not filmed: {film.error}"
            elif (film.success, film.steps) != (outcome.success, outcome.steps):
                note += f"; the filmed run differs: {'success' if film.success else 'failure'} in {film.steps} steps"
            cards.append(
                f'<div class="card"><div class="head"><h3>{escape(result.cell.checkpoint)}, seed {film.seed}</h3></div>'
                f'{page.video(film.video)}<p class="small">{escape(result.cell.world)}'
                f'{escape(_with(result.cell.perturbations))}</p><p class="soft small">{escape(note)}</p></div>'
            )
    if not cards:
        return ""
    failed = sum(not o.success and o.error is None for result in results for o in result.outcomes)
    note = f"{len(cards)} of {failed}: the first of each cell, run once more from their seeds with the camera on."
    return f'<h2>Failures</h2><p class="soft">{note}</p><div class="cards films">{"".join(cards)}</div>'


def errors(results: Sequence[CellResult]) -> str:
    """Return the episodes that crashed, hung or raised, with their seeds."""
    broken = [(result.cell, outcome) for result in results for outcome in result.outcomes if outcome.error is not None]
    if not broken:
        return ""
    rows = "".join(
        f'<tr><td>{escape(str(cell))}</td><td class="n">{outcome.seed}</td><td>{escape(outcome.error or "")}</td></tr>'
        for cell, outcome in broken[:ERRORS]
    )
    more = f'<p class="soft small">and {len(broken) - ERRORS} more</p>' if len(broken) > ERRORS else ""
    return (
        '<h2>Without an outcome</h2><div class="card scroll"><table><tr><th>Cell</th><th class="n">Seed</th>'
        f"<th>What happened</th></tr>{rows}</table>{more}"
        '<p class="soft small">Not counted as failures. The sweep with --retry-errors runs them again.</p></div>'
    )


def again(facts: Mapping[str, str]) -> str:
    """Return what it takes to do this again: command, suite, seeds, hashes, versions."""
    suite = f"<pre><code>{escape(facts['suite'])}</code></pre>" if "suite" in facts else ""
    rest = {name: value for name, value in facts.items() if name != "suite"}
    return page.again(rest).replace('<div class="card"><dl>', f'{suite}<div class="card"><dl>', 1)


def _curves(suite: Suite, here: Mapping[tuple[tuple[str, ...], str], CellResult]) -> str:
    """A card an axis that was tried by itself: success against its severity."""
    axes: dict[str, list[tuple[float, tuple[str, ...]]]] = {}
    for condition in suite.perturbations:
        if len(condition) == 1:
            axis, severity = parsed(condition[0])
            axes.setdefault(axis, []).append((severity, condition))
    cards = ""
    for axis, conditions in axes.items():
        points = sorted(([(0.0, ())] if () in suite.perturbations else []) + conditions)
        curves = {name: _curve(name, points, here) for name in suite.checkpoints}
        if any(curves.values()) and len(points) > 1:
            drawn = curves_plot(curves, axis, labels=max(map(len, curves)))
            cards += f'<div class="card"><div class="label-top">Success, %, against {escape(axis)}</div>{drawn}</div>'
    return f'<div class="cards curves gap">{cards}</div>' if cards else ""


def _curve(
    name: str,
    points: Sequence[tuple[float, tuple[str, ...]]],
    here: Mapping[tuple[tuple[str, ...], str], CellResult],
) -> list[tuple[float, Rate]]:
    found = [(severity, here.get((condition, name))) for severity, condition in points]
    return [(s, result.summary.success) for s, result in found if result is not None and result.summary is not None]


def _by_cell(head: str, rows: Sequence[tuple[Cell, str]]) -> str:
    """A table of cells; those of perturbed worlds behind a click, unless there are only such."""
    lines = [(cell, f'<tr><td class="nobreak">{escape(str(cell))}</td>{cells}</tr>') for cell, cells in rows]
    calm = "".join(line for cell, line in lines if not cell.perturbations)
    rest = [line for cell, line in lines if cell.perturbations]
    hidden = f"<table><tr>{head}</tr>{''.join(rest)}</table>" if rest else ""
    if not calm:
        return hidden
    shown = f"<table><tr>{head}</tr>{calm}</table>"
    return shown + (f"<details><summary>{len(rest)} perturbed</summary>{hidden}</details>" if rest else "")


def _count(cause: Cause | None) -> str:
    if cause is None:
        return '<td class="n"></td>'
    onset = "" if cause.onset_step is None else f' <span class="of">@{cause.onset_step:g}</span>'
    return f'<td class="n nobreak">{len(cause.seeds)}{onset}</td>'


def _under_way(result: CellResult, suite: Suite) -> bool:
    return len(result.outcomes) < len(suite.seeds)


def _rate(result: CellResult | None, colour: int, suite: Suite) -> str:
    if result is None:
        return '<span class="soft small">not run</span>'
    early = f'<span class="badge open">under way to {len(suite.seeds)}</span>' if _under_way(result, suite) else ""
    broken = f'<span class="badge bad">{_many(result.errors, "error")}</span>' if result.errors else ""
    badges = early + broken
    if result.summary is None:
        return f'<span class="soft small">no outcome</span>{badges}'
    rate = result.summary.success
    return (
        f'<span class="percent">{rate.value:.0%}</span> <span class="of">[{100 * rate.low:.0f}, {100 * rate.high:.0f}] '
        f"{rate.successes}/{rate.n}</span>{cell_plot(rate, colour)}{badges}"
    )


def _with(perturbations: Sequence[str]) -> str:
    return f" with {' + '.join(perturbations)}" if perturbations else ""


def _many(n: int, name: str) -> str:
    return f"{n} {name}{'' if n == 1 else 's'}"
