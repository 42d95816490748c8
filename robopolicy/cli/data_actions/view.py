"""`robopolicy data view`: a dataset as a page to look at."""

import argparse
from typing import Any


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
