"""`robopolicy compare`: which of several evaluated policies is better, and how sure that is."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("compare", parents=[debug], help="which of several evaluated policies is better")
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="folders that robopolicy eval wrote, of the same world; or NAME=FOLDER"
    )
    parser.add_argument(
        "--alpha", type=_chance, default=0.05, help="chance of a false verdict among all of them (default 0.05)"
    )
    parser.add_argument(
        "--fixed",
        action="store_true",
        help="the number of seeds was fixed before anybody looked: the exact test of McNemar decides, which sees more; "
        "without, the verdict holds however often you look and whenever you stop",
    )
    parser.add_argument("--score", action="store_true", help="compare the scores: they tell more where success is rare")
    parser.add_argument(
        "--unpaired",
        action="store_true",
        help="the policies were tried on different starts, in numbers fixed before anybody looked: the exact test of "
        "Boschloo decides, which sees less",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from robopolicy.cli.progress import say
    from robopolicy.errors import UsageError
    from robopolicy.evaluation.compare_page import write_page
    from robopolicy.evaluation.comparison import compare_all
    from robopolicy.evaluation.runs import read_runs, require_alike
    from robopolicy.evaluation.statistics import summarise
    from robopolicy.evaluation.unpaired import compare_unpaired

    if args.fixed and args.score:
        raise UsageError("--fixed is McNemar's test of success; --score is compared by the sequential test: take one")
    if args.unpaired and (args.fixed or args.score or args.html):
        raise UsageError("--unpaired is Boschloo's test of success, printed: take it without --fixed, --score, --html")
    runs = read_runs(args.runs)
    notes = require_alike(runs)
    outcomes = {run.name: run.outcomes for run in runs}
    summaries = {run.name: summarise(run.outcomes, confidence=1 - args.alpha, modes=run.modes) for run in runs}
    if args.unpaired:
        _say(summaries, compare_unpaired(outcomes, alpha=args.alpha), notes)
        return
    found = compare_all(outcomes, alpha=args.alpha, of="score" if args.score else "success", fixed=args.fixed)
    notes += [f"{c.a} and {c.b}: {c.left_out} seeds left out, which only one of them has" for c in found if c.left_out]
    _say(summaries, found, notes)
    if args.html is not None:
        write_page(args.html, runs, summaries, found, notes)
        say("page: ", (str(args.html), "bold"))


def _say(summaries: Mapping[str, Any], comparisons: Sequence[Any], notes: Sequence[str]) -> None:
    """Print each policy's numbers, each verdict, and what else is to be said."""
    from robopolicy.cli.progress import say

    wide = max(len(name) for name in summaries)
    for name, summary in summaries.items():
        time = "" if summary.success_s is None else f"   {summary.success_s} s"
        ways = "" if summary.entropy is None else f"   entropy {summary.entropy}"
        say((f"{name:{wide}}", "bold"), f"   success {summary.success}   score {summary.score}{time}{ways}")
    for found in comparisons:
        say(("better: ", "green") if found.better else ("open:   ", "yellow"), found.verdict())
    for note in notes:
        say(("note:   ", "yellow"), note)


def _chance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no chance; want above 0 and below 1, such as 0.05")
    return value
