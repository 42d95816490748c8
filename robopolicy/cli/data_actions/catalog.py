"""`robopolicy data catalog`: make a dataset ready to be read from a server."""

import argparse
from pathlib import Path
from typing import Any


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the action's arguments."""
    parser = actions.add_parser("catalog", parents=[debug], help="list the episodes in a file, for reading over HTTP")
    parser.add_argument("path", type=Path, metavar="D.zarr")
    parser.set_defaults(run=run_catalog)


def run_catalog(args: argparse.Namespace) -> None:
    """Write the catalog."""
    from robopolicy.cli.progress import say
    from robopolicy_data.catalog import CATALOG, write_catalog

    count = write_catalog(args.path)
    say(f"{args.path / CATALOG} lists {count} episodes; copy the folder to a server, and write it anew after changes")
