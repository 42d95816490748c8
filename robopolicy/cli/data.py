"""`robopolicy data`: look at a dataset, check, view, edit, exchange it; each subject is a module of `data_actions`."""

import argparse
from typing import Any

from robopolicy.cli import replay
from robopolicy.cli.data_actions import catalog, edit, exchange, look, multiply, quality, view

SUBJECTS = (look, view, edit, quality, multiply, exchange, catalog)


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's actions."""
    parser = commands.add_parser("data", help="look at a dataset, check, view, edit, exchange it")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for subject in SUBJECTS:
        subject.add_actions(actions, debug)
    replay.add_parser(actions, debug)
