"""`robopolicy data info | check`: what is in a dataset, and what is wrong with it."""

import argparse
from pathlib import Path
from typing import Any


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
    info = actions.add_parser("info", parents=[debug], help="what is in a dataset")
    info.add_argument("path", type=Path, metavar="D.zarr")
    info.set_defaults(run=run_info)
    check = actions.add_parser("check", parents=[debug], help="find what is wrong; exit 1 if anything is")
    check.add_argument("path", type=Path, metavar="D.zarr")
    check.set_defaults(run=run_check)


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
