"""`robopolicy data delete | undo | label | trim | split | merge | recover`: changes that lose nothing."""

import argparse
from typing import Any


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
