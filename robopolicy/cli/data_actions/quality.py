"""`robopolicy data quality`: idle spans, smoothness, outliers, compatibility and extraneous segments."""

import argparse
from typing import Any


def add_actions(actions: Any, debug: argparse.ArgumentParser) -> None:
    """Add the actions' arguments."""
