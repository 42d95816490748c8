"""`robopolicy data delete | undo | label | trim | split | merge | recover ...`: changes that lose nothing."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import at_least
from robopolicy.errors import UsageError


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""

    def action(name: str, help_: str, run: Any, *, episodes: bool = False) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(name, parents=[debug], help=help_)
        parser.add_argument("path", type=Path, metavar="D.zarr")
        if episodes:
            parser.add_argument("episodes", nargs="+", metavar="EPISODES", help="numbers and ranges, such as 3 5-8")
        parser.set_defaults(run=run)
        return parser

    action("delete", "move episodes to the trash", run_delete, episodes=True)
    action("undelete", "bring deleted episodes back", run_undelete, episodes=True)
    action("undo", "undo the latest edit", run_undo)
    action("history", "what was edited", run_history)
    _add_label(
        action("label", "say what an episode is: success, task, notes, marks, cameras", run_label, episodes=True)
    )
    _add_trim(action("trim", "keep a part of an episode", run_trim))
    parts = action("split", "new datasets of shares of a dataset, by links", run_split)
    parts.add_argument("parts", nargs="+", metavar="NEW.zarr=SHARE", help="such as train.zarr=0.9 val.zarr=0.1")
    parts.add_argument("--seed", type=int, default=0)
    parts.add_argument("--by", choices=("success", "operator", "task"), help="give each part the same mix of it")
    merge: argparse.ArgumentParser = actions.add_parser("merge", parents=[debug], help="one new dataset of several")
    merge.add_argument("sources", type=Path, nargs="+", metavar="D.zarr")
    merge.add_argument("--out", type=Path, required=True, metavar="NEW.zarr")
    merge.add_argument("--skip-duplicates", action="store_true", help="take a recording that is in several once")
    merge.set_defaults(run=run_merge)
    action("recover", "make episodes of recordings that were interrupted", run_recover)
    gc = action("gc", "empty the trash for good", run_gc)
    gc.add_argument("--yes", action="store_true", help="do not ask")


def _add_label(label: argparse.ArgumentParser) -> None:
    label.add_argument("--success", choices=("true", "false", "unknown"))
    label.add_argument("--task")
    label.add_argument("--notes")
    label.add_argument("--mark", action="append", default=[], metavar="NAME[@STEP[-STEP]]", help="add one")
    label.add_argument("--unmark", action="append", default=[], metavar="NAME", help="take a mark away")
    label.add_argument(
        "--calibration", type=Path, metavar="CAMS.yaml", help="where the cameras stood, as calibrate-cameras writes it"
    )


def _add_trim(trim: argparse.ArgumentParser) -> None:
    trim.add_argument("episode", type=at_least(0))
    what = trim.add_mutually_exclusive_group(required=True)
    what.add_argument("--steps", metavar="START:STOP", help="kept, STOP excluded; either may be left out")
    what.add_argument("--seconds", metavar="START:STOP", help="likewise, since the first step")
    what.add_argument("--idle", action="store_true", help="drop the idle head and tail that `data quality` marked")


def run_delete(args: argparse.Namespace) -> None:
    """Delete and say how to get it back."""
    from robopolicy.cli.progress import say
    from robopolicy_data.edit import delete
    from robopolicy_data.numbers import numbers_in_words, parse_numbers

    numbers = parse_numbers(args.episodes)
    delete(args.path, numbers)
    say(f"{args.path}: deleted {numbers_in_words(numbers)}. Back with: ", (_command("undo", args.path), "bold"))


def run_undelete(args: argparse.Namespace) -> None:
    """Bring episodes back."""
    from robopolicy.cli.progress import say
    from robopolicy_data.edit import undelete
    from robopolicy_data.numbers import numbers_in_words, parse_numbers

    numbers = parse_numbers(args.episodes)
    undelete(args.path, numbers)
    say(f"{args.path}: {numbers_in_words(numbers)} back from the trash")


def run_undo(args: argparse.Namespace) -> None:
    """Undo and say what was undone."""
    from robopolicy.cli.progress import say
    from robopolicy_data.edit import undo

    for edit in undo(args.path):
        say(f"{args.path}: undid: {edit.words} ({edit.when})")


def run_history(args: argparse.Namespace) -> None:
    """Print every edit, oldest first."""
    from robopolicy.cli.progress import say
    from robopolicy_data.history import edits
    from robopolicy_data.metadata import read_root, writable_folder

    read_root(writable_folder(args.path))
    log = edits(args.path)
    undone = {edit.undoes for edit in log}
    for edit in log:
        say(f"{edit.id:>4}  {edit.when}  {edit.words}", ("  (undone)" if edit.id in undone else "", "dim"))
    if not log:
        say(f"{args.path}: never edited")


def run_label(args: argparse.Namespace) -> None:
    """Label episodes and say what changed."""
    from robopolicy.cli.progress import say
    from robopolicy_data.labels import label
    from robopolicy_data.numbers import parse_numbers

    success: Any = {"true": True, "false": False, "unknown": "unknown", None: None}[args.success]
    edits = label(
        args.path, parse_numbers(args.episodes), success=success, task=args.task, notes=args.notes,
        marks=[_mark(text) for text in args.mark], unmark=args.unmark, calibration=args.calibration,
    )  # fmt: skip
    for edit in edits:
        say(f"{args.path}: {edit.words}")
    if not edits:
        say(f"{args.path}: labelled so already")


def run_trim(args: argparse.Namespace) -> None:
    """Trim and say what came of it."""
    from robopolicy.cli.progress import say
    from robopolicy_data.trim import active_steps, steps_of_seconds, trim

    if args.idle:
        start, stop = active_steps(args.path, args.episode)
    else:
        low, high = _span(args.steps or args.seconds, float if args.seconds else int)
        start, stop = steps_of_seconds(args.path, args.episode, *((low, high) if args.seconds else (None, None)))
        start, stop = (start, stop) if args.seconds else (low or 0, stop if high is None else high)
    _, edit = trim(args.path, args.episode, start, stop)
    say(f"{args.path}: {edit.words}. Back with: ", (_command("undo", args.path), "bold"))


def run_split(args: argparse.Namespace) -> None:
    """Split and say what came of it."""
    from robopolicy.cli.progress import say
    from robopolicy_data.split import split

    shares: dict[Path | str, float] = {}
    for part in args.parts:
        place, _, share = part.rpartition("=")
        try:
            shares[Path(place)] = float(share)
        except ValueError:
            raise UsageError(f"{part!r} is no part; want NEW.zarr=SHARE, such as train.zarr=0.9") from None
        if not place:
            raise UsageError(f"{part!r} is no part; want NEW.zarr=SHARE, such as train.zarr=0.9")
    for made in split(args.path, shares, seed=args.seed, by=args.by):
        say(f"{made.path}: {made.episodes} episodes, {'linked' if made.linked else 'copied'}")


def run_merge(args: argparse.Namespace) -> None:
    """Merge and say what came of it."""
    from robopolicy.cli.progress import say
    from robopolicy_data.merge import merge

    made = merge(args.sources, args.out, duplicates="skip" if args.skip_duplicates else "refuse")
    skipped = f"; {made.skipped} that were there already left out" if made.skipped else ""
    say(f"{made.path}: {made.episodes} episodes, {'linked' if made.linked else 'copied'}{skipped}")


def run_recover(args: argparse.Namespace) -> None:
    """Make episodes of interrupted recordings."""
    from robopolicy.cli.progress import say
    from robopolicy_data.recovery import recover

    found = recover(args.path)
    for one in found:
        became = f"is episode {one.number} now" if one.number is not None else f"stays in {one.folder}"
        why = f"; {one.reason}" if one.reason else ""
        say(f"{args.path}: a recording of {one.task!r}, {one.steps} whole steps, {became}{why}")
    if not found:
        say(f"{args.path}: no interrupted recording")


def run_gc(args: argparse.Namespace) -> int:
    """Empty the trash after asking."""
    from robopolicy.cli.progress import say
    from robopolicy_data.edit import empty_trash
    from robopolicy_data.info import trash_in_words
    from robopolicy_data.metadata import read_root, writable_folder

    read_root(writable_folder(args.path))
    words = trash_in_words(args.path)
    if words is None:
        say(f"{args.path}: the trash is empty")
        return 0
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{args.path}: the trash holds {words}; deleting it for good wants --yes")
        say(f"{args.path}: the trash holds {words}.")
        if input("Delete it for good? [y/N] ").strip().lower() not in ("y", "yes"):
            say("Nothing was deleted.")
            return 1
    folders, size = empty_trash(args.path)
    say(f"{args.path}: {folders} folders, {size / 1e6:.1f} MB deleted for good")
    return 0


def _span(text: str, number: Any) -> tuple[Any, Any]:
    """Return (start, stop) of ``START:STOP``, None where one is left out."""
    start, colon, stop = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return (number(start) if start else None), (number(stop) if stop else None)
    except ValueError:
        raise UsageError(f"{text!r} is no span; want START:STOP, such as 10:180 or 0.5:9") from None


def _mark(text: str) -> dict[str, Any]:
    """Return the mark of ``slip@12-20``, both steps included."""
    words, at, steps = text.rpartition("@")
    first, dash, last = steps.partition("-")
    if not at or not first.isdigit() or (dash and not last.isdigit()):
        return {"name": text}
    return {"name": words, "start": int(first), **({"stop": int(last) + 1} if dash else {})}


def _command(*words: object) -> str:
    return shlex.join(["robopolicy", "data", *map(str, words)])
