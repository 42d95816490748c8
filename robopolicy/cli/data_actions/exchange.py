"""`robopolicy data import | export`: other projects' formats."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from robopolicy.cli.arguments import positive

FORMATS = ("diffusion-policy",)


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
    load = actions.add_parser("import", parents=[debug], help="make a dataset of somebody else's format")
    load.add_argument("format", choices=FORMATS)
    load.add_argument("source", type=Path)
    load.add_argument("destination", type=Path, metavar="D.zarr")
    load.add_argument("--rate", type=positive, default=10.0, help="steps per second of the source (it does not say)")
    load.add_argument("--round", action="store_true", help="accept numbers that float32 cannot hold exactly")
    load.set_defaults(run=run_import)


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
