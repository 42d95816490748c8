"""`robopolicy monitor`: measure a failure monitor, look at it, renew it; each action is a module."""

import argparse
from typing import Any

from robopolicy.cli.monitor_actions import evaluate, export_fiper, import_fiper, inspect, recalibrate, replay

ACTIONS = (evaluate, inspect, replay, recalibrate, import_fiper, export_fiper)


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's actions."""
    parser = commands.add_parser("monitor", help="measure a failure monitor, look at it, audit it, renew it")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action in ACTIONS:
        action.add_parser(actions, debug)
