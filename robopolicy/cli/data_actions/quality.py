"""`robopolicy data quality`: idle spans, smoothness, outliers, compatibility and extraneous segments."""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least, positive
from robopolicy.errors import UsageError

TABLE = ("duration_s", "idle_share", "path", "sparc", "jerk", "coverage", "novelty", "saturated_share", "lag_s")


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("quality", parents=[debug], help="measure demonstrations, name what sticks out")
    parser.add_argument("path", metavar="D.zarr", help="a folder, a .zip or a URL")
    parser.add_argument("--write", action="store_true", help="write the marks into derived/, for training and viewing")
    parser.add_argument("--html", type=Path, metavar="FILE", help="a page with plots")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--motion", metavar="STATE", help="state whose motion is the path")
    parser.add_argument("--idle-seconds", type=positive, default=0.5, help="standing still for so long is idle")
    compared = parser.add_argument_group("compared with other demonstrations")
    base = compared.add_mutually_exclusive_group()
    base.add_argument("--base", metavar="D.zarr", help="how well each episode fits the ones in there")
    base.add_argument("--base-first", type=at_least(1), metavar="N", help="how well the others fit the first N")
    compared.add_argument("--drop", action="store_true", help="delete those that do not fit (robopolicy data undo)")
    compared.add_argument("--extraneous", action="store_true", help="mark segments that no other episode has")
    compared.add_argument("--states", nargs="+", metavar="NAME", help="default: all but speeds, joints")
    parser.set_defaults(run=run_quality)


def run_quality(args: argparse.Namespace) -> None:
    """Measure, compare, and print, write or draw what came of it."""
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.quality.measure import Options, measure, write_marks
    from robopolicy_data.quality.motion import spans
    from robopolicy_data.quality.page import write_page
    from robopolicy_data.reader import Dataset

    if args.drop and args.base is None and args.base_first is None:
        raise UsageError("--drop deletes what does not fit a base; name it with --base or --base-first")
    if args.base is not None and Path(args.base).resolve() == Path(args.path).resolve():
        raise UsageError("--base is the dataset itself, and what it learnt it would find fitting; use --base-first N")
    if (args.write or args.drop) and not Path(args.path).is_dir():
        raise UsageError(f"{args.path} is only read; --write and --drop want a folder")
    dataset = Dataset(args.path)
    with bar("read", len(dataset), "episodes") as progress:
        quality = measure(dataset, Options(idle_s=args.idle_seconds, motion=args.motion), progress=progress.at)
    misfits, report = _compare(args)
    found = _find_extraneous(args)
    if args.write:
        write_marks(args.path, quality)
    if args.html is not None:
        marked = None if found is None else {number: spans(marks) for number, _, marks in found}
        write_page(args.html, quality, spans=marked, extra=misfits)
    if args.json:
        parts = {} if found is None else {"extraneous": {number: spans(marks) for number, _, marks in found}}
        print(json.dumps({**quality.to_json(), **report, **parts}, indent=1))
    else:
        _print_table(quality)
        _print_scores(report)
        for note in (*misfits, *quality.outliers):
            print(note)
        _print_extraneous(found)
    if args.drop:
        _drop(args.path, [note.episode for note in misfits])
    if args.write and not args.json:
        say(f"{args.path}: marks of {len(dataset)} episodes are in derived/")
    if args.html is not None and not args.json:
        say(f"page: {args.html}")


def _compare(args: argparse.Namespace) -> tuple[list[Any], dict[str, Any]]:
    """Return what does not fit the base as `Outlier`s, and the scores of all as plain data."""
    from robopolicy_data.quality.outliers import Outlier

    if args.base is None and args.base_first is None:
        return [], {}
    from robopolicy.cli.data_actions.judging import base_policy, compare

    path = args.base or args.path
    base = base_policy(path, states=args.states, first=args.base_first)
    judged = compare(args.path, base, path, first=args.base_first or 0)
    limit = base.rule.score
    misfits = [
        Outlier(number, "compatibility", None, f"does not fit the base: compatibility {j.score:.2f}, want {limit:.2f}")
        for number, j in judged
        if not base.fits(j)
    ]
    new = {n: float(j.new.mean()) for n, j in judged}
    scores = [{"number": n, "compatibility": j.score, "new_share": new[n], "fits": base.fits(j)} for n, j in judged]
    return misfits, {"compatibility": {"limit": limit, "episodes": scores}}


def _find_extraneous(args: argparse.Namespace) -> Any:
    """Return (number, score, marks) of every episode, written if asked for, or None if nobody asked."""
    if not args.extraneous:
        return None
    from robopolicy.cli.data_actions.judging import extraneous, write_extraneous

    found = extraneous(args.path, states=args.states)
    if args.write:
        write_extraneous(args.path, found)
    return found


def _drop(path: str, numbers: list[int]) -> None:
    """Delete the episodes in one edit, which can be undone."""
    from robopolicy.cli.progress import say
    from robopolicy_data.edit import delete

    if not numbers:
        say(f"{path}: nothing to drop")
        return
    delete(Path(path), numbers)
    command = shlex.join(["robopolicy", "data", "undo", path])
    say(f"{path}: {len(numbers)} episodes deleted; undone by ", (command, "bold"))


def _print_extraneous(found: Any) -> None:
    from robopolicy_data.quality.motion import spans

    for number, _, marks in found or ():
        for first, end in spans(marks):
            print(f"episode {number}: steps {first} to {end - 1} look extraneous")


def _print_scores(report: dict[str, Any]) -> None:
    """The scores against the base, as further lines of the table."""
    import numpy as np

    episodes = report.get("compatibility", {}).get("episodes", ())
    for key in ("compatibility", "new_share") if episodes else ():
        values = [episode[key] for episode in episodes]
        print(f"{key:<16} {np.median(values):>10.4g} {min(values):>10.4g} {max(values):>10.4g}")


def _print_table(quality: Any) -> None:
    """One line a measure: its median and range."""
    import numpy as np

    print(f"{len(quality.episodes)} episodes; the path is that of {' '.join(quality.motion)}, {quality.unit}")
    print(f"{'':<16} {'median':>10} {'least':>10} {'most':>10}")
    for key in TABLE:
        values = quality.column(key)
        if np.isfinite(values).any():
            print(f"{key:<16} {np.nanmedian(values):>10.4g} {np.nanmin(values):>10.4g} {np.nanmax(values):>10.4g}")
