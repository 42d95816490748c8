"""`robopolicy twin`: the simulated double of a robot: serve it, keep it aligned, identify it."""

import argparse
from typing import Any

from robopolicy.cli import (
    twin_excite,
    twin_follow,
    twin_identify,
    twin_offline,
    twin_perturbations,
    twin_render,
    twin_serve,
)

SUBJECTS: tuple[Any, ...] = (
    twin_serve, twin_follow, twin_offline, twin_render, twin_excite, twin_identify, twin_perturbations,
)  # fmt: skip


def add_parser(commands: Any, debug: argparse.ArgumentParser) -> None:
    """Add the command's actions."""
    parser = commands.add_parser("twin", help="serve a simulated robot, keep a twin aligned, identify its parameters")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for subject in SUBJECTS:
        subject.add_action(actions, debug)
