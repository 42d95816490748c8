"""`robopolicy data`: look at a dataset, check it, import one."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import positive

FORMATS = ("diffusion-policy",)


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser = commands.add_parser("data", help="look at a dataset, check it, import one")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    info = actions.add_parser("info", parents=[debug], help="what is in a dataset")
    info.add_argument("path", type=Path, metavar="D.zarr")
    info.set_defaults(run=run_info)
    check = actions.add_parser("check", parents=[debug], help="find what is wrong; exit 1 if anything is")
    check.add_argument("path", type=Path, metavar="D.zarr")
    check.set_defaults(run=run_check)
    load = actions.add_parser("import", parents=[debug], help="make a dataset of somebody else's format")
    load.add_argument("format", choices=FORMATS)
    load.add_argument("source", type=Path)
    load.add_argument("destination", type=Path, metavar="D.zarr")
    load.add_argument("--rate", type=positive, default=10.0, help="steps per second of the source (it does not say)")
    load.add_argument("--round", action="store_true", help="accept numbers that float32 cannot hold exactly")
    load.set_defaults(run=run_import)


def run_info(args: argparse.Namespace) -> None:
    """Print what is in a dataset."""
    from robopolicy_data.check import info

    for key, value in info(args.path).items():
        print(f"{key:<20} {_words(value)}")


def run_check(args: argparse.Namespace) -> int:
    """Print every problem; 1 if there is an error among them."""
    from robopolicy.cli.progress import say
    from robopolicy_data.check import check

    problems = check(args.path)
    for problem in problems:
        print(problem)
    errors = sum(problem.severity == "error" for problem in problems)
    if not problems:
        say((f"{args.path}: nothing wrong", "green"))
    return 1 if errors else 0


def run_import(args: argparse.Namespace) -> None:
    """Import and say what came of it."""
    from robopolicy.cli.progress import bar, say
    from robopolicy_data.importers.diffusion_policy import import_diffusion_policy

    with bar("import", None, "episodes") as progress:
        count = import_diffusion_policy(
            args.source, args.destination, rate_hz=args.rate, round_to_float32=args.round,
            progress=lambda done, total: progress.at(done, total),
        )  # fmt: skip
    command = shlex.join(["robopolicy", "data", "check", str(args.destination)])
    say(f"{args.destination}: {count} episodes. Next: ", (command, "bold"))


def _words(value: Any) -> str:
    """Return a value of ``info`` as a person would write it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key or '(none)'} {_words(part)}" for key, part in value.items()) or "none"
    if isinstance(value, tuple | list):
        if all(isinstance(part, int) for part in value):
            return "x".join(map(str, value))
        return " ".join(_words(part) for part in value)
    return str(value)
