"""`robopolicy sweep`: checkpoints x worlds x perturbations x seeds into one table that survives, and a report."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive
from robopolicy.cli.together import add_together
from robopolicy.errors import UsageError


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser(
        "sweep", parents=[debug], help="checkpoints x worlds x perturbations x seeds, on one machine or many"
    )
    parser.add_argument("suite", type=Path, metavar="SUITE.yaml", help="checkpoints, worlds, perturbations, seeds")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="of the table and the report; what it holds is not run again (default: the suite's path without .yaml)",
    )
    parser.add_argument("--jobs", type=at_least(1), metavar="N", help="processes (default 2; on Ray: all its CPUs)")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: HOST:PORT, auto, or local")
    parser.add_argument("--shard", metavar="I/N", help="only the I-th of N parts, I from 0; all may share one --out")
    parser.add_argument("--dry-run", action="store_true", help="check the suite and say what would be run")
    parser.add_argument("--report-only", action="store_true", help="run nothing; a report of what there is so far")
    parser.add_argument("--device", default="cpu", help="where policies compute: cpu, cuda (default cpu)")
    parser.add_argument(
        "--episode-timeout", type=positive, default=600.0, metavar="S",
        help="an episode that takes longer by the wall clock is recorded as hung; where several share a process they "
        "have so much each (default 600)",
    )  # fmt: skip
    parser.add_argument(
        "--retries", type=at_least(0), default=1, metavar="N",
        help="how often an episode whose process died is run again before it is recorded as crashed (default 1)",
    )  # fmt: skip
    parser.add_argument(
        "--retry-errors", action="store_true", help="run again what is recorded as crashed, hung or raised"
    )
    parser.add_argument(
        "--videos", type=at_least(0), default=2, metavar="N", help="failures filmed a cell, for the report (default 2)"
    )
    add_together(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say
    from robopolicy.cli.signals import ended_by_signals
    from robopolicy.cli.sweep_plan import plan
    from robopolicy.evaluation.suite import parse_shard, read_suite, shard_of
    from robopolicy.evaluation.sweep import look
    from robopolicy.evaluation.sweep_page import EARLY

    shard = None if args.shard is None else parse_shard(args.shard)
    out = _folder(args.out or args.suite.with_suffix(""))
    planned = plan(read_suite(args.suite), args.device, args.envs, exact=args.exact)
    items = planned.items if shard is None else shard_of(planned.items, shard)
    tally = look(out, items, retry_errors=args.retry_errors)
    if tally.strangers:
        say(f"{tally.strangers} rows in {out} are of other seeds, weights, software versions or suites; not counted")
    for note in planned.notes:
        say(("note:   ", "yellow"), note)
    if args.dry_run:
        _foretell(items, tally.missing)
        return
    with ended_by_signals():
        if args.report_only:
            if tally.missing:
                say(f"{len(tally.missing)} of {len(items)} episodes are to be run yet. ", EARLY)
            items = [item for item in items if item.identity in tally.rows]
            rows = [tally.rows[item.identity] for item in items]
            if not rows:
                raise UsageError(f"{out} holds no episode of this suite yet")
        else:
            rows = _run(args, planned, items, out)
        _tell(rows)
        if shard is not None:
            say(f"shard {args.shard} is done; for the report: robopolicy sweep {args.suite} --out {out}")
            return
        _report(args, planned, items, rows, out)
    say("report: ", (str(out / "report.html"), "bold"))


def _folder(out: Path) -> Path:
    """Return ``out`` if a sweep may be kept there; raises UsageError if it is something else."""
    from robopolicy.evaluation.sweep_table import JOURNALS

    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; name a folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / JOURNALS).is_dir():
        raise UsageError(f"{out} holds something else than a sweep; name another folder with --out")
    return out


def _foretell(items: Sequence[Any], missing: Sequence[Any]) -> None:
    from robopolicy.cli.progress import say

    todo = Counter(str(item.cell) for item in missing)
    for cell, n in Counter(str(item.cell) for item in items).items():
        say(f"{cell}: {n} seeds, {todo[cell]} to run")
    say(f"{len(items)} episodes in {len({item.cell for item in items})} cells, {len(missing)} to run")


def _executor(args: argparse.Namespace) -> Any:
    from robopolicy.evaluation.sweep import Processes

    if args.ray is None:
        return Processes(args.jobs or 2, _patience(args))
    from robopolicy.evaluation.sweep_ray import RayActors

    return RayActors(args.ray, args.jobs, _patience(args))


def _patience(args: argparse.Namespace) -> Any:
    from robopolicy.evaluation.results import Patience

    return Patience.with_episodes(args.episode_timeout, args.retries)


def _run(args: argparse.Namespace, planned: Any, items: Sequence[Any], out: Path) -> list[dict[str, Any]]:
    """Run what is missing, with a bar that tells of the cell at hand."""
    from robopolicy.cli.progress import bar
    from robopolicy.evaluation.sweep import sweep

    total, done, good = Counter(item.cell for item in items), Counter(), Counter()
    errors = 0
    with bar("sweep", len(items), "episodes") as progress:

        def show(item: Any, row: Any, fresh: bool) -> None:
            nonlocal errors
            errors += row.get("error") is not None
            done[item.cell] += 1
            good[item.cell] += bool(row["success"])
            note = f"{item.cell.checkpoint} {item.cell.condition}: {good[item.cell]}/{done[item.cell]} succeeded"
            whole = sum(done[cell] == n for cell, n in total.items())
            progress.at(done.total(), note=f"{whole}/{len(total)} cells; {note}" + f"; {errors} errors" * bool(errors))

        return sweep(
            items, planned.recipes, out, facts=planned.facts, executor=_executor(args), gl_renderer=gl_renderer,
            retry_errors=args.retry_errors, on_progress=show,
        )  # fmt: skip


def _tell(rows: Sequence[dict[str, Any]]) -> None:
    """Say the success of every cell, and of errors how many."""
    from robopolicy.cli.progress import say
    from robopolicy.evaluation.statistics import success_rate
    from robopolicy.evaluation.sweep_cells import cells_of

    for cell, outcomes in cells_of(rows).items():
        valid = [outcome for outcome in outcomes if outcome.error is None]
        errors = f"; {len(outcomes) - len(valid)} errors" if len(valid) < len(outcomes) else ""
        rate = str(success_rate(sum(o.success for o in valid), len(valid))) if valid else "no episode has an outcome"
        say(f"{cell}: {rate}{errors}")


def _report(args: argparse.Namespace, planned: Any, items: Sequence[Any], rows: Sequence[Any], out: Path) -> None:
    """Film failures and write the page; say which checkpoint is better."""
    from robopolicy.cli.progress import bar, say
    from robopolicy.evaluation.statistics import seed_words
    from robopolicy.evaluation.sweep import Processes
    from robopolicy.evaluation.sweep_films import chosen, film_failures
    from robopolicy.evaluation.sweep_report import write_sweep_report

    shown, films = chosen(items, rows, args.videos), {}
    if shown:
        with bar("film", len(shown), "videos") as progress:
            films = film_failures(
                shown, planned.recipes, out / "videos", Processes(args.jobs or 2, _patience(args)), progress.advance
            )
    shas = {f"checkpoint {name}": f"{path}, sha {sha}" for name, (path, sha) in planned.facts.checkpoints.items()}
    compared = write_sweep_report(
        out, planned.suite, rows, films, title=args.suite.stem, modes=planned.modes,
        facts={"command": shlex.join(["robopolicy", *sys.argv[1:]]), "suite": args.suite.read_text(), **shas,
               "seeds": seed_words(planned.suite.seeds),
               **({"unseen": "; ".join(planned.notes)} if planned.notes else {})},
    )  # fmt: skip
    for one in compared:
        if not one.perturbations:
            say(f"{one.world}: {one.comparison.verdict()}")


def gl_renderer() -> str:
    """Return what draws on this machine; "" if nothing can."""
    from robopolicy.errors import NoGLBackend
    from sim_envs.rendering import probe

    try:
        return probe()
    except NoGLBackend:
        return ""
