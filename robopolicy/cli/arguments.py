"""Types of command-line arguments that refuse what makes no sense, in argparse's own words."""

import argparse
import math
from collections.abc import Callable
from typing import Any

FASTEST_HZ = 1000.0


class EachOnce(argparse.Action):
    """Keeps the names that were given, in their order; one that is given twice is refused."""

    def __call__(self, parser: argparse.ArgumentParser, args: argparse.Namespace, names: Any, flag: Any = None) -> None:
        """Keep them, or raise ArgumentError."""
        if twice := [name for k, name in enumerate(names) if name in names[:k]]:
            raise argparse.ArgumentError(self, f"{twice[0]!r} is named twice; want each once")
        setattr(args, self.dest, names)


def at_least(low: int) -> Callable[[str], int]:
    """Return an argparse type: whole numbers from ``low`` up to what a seed or a count can be."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value < 2**63:
            raise argparse.ArgumentTypeError(f"{text} is out of range; want {low} or more")
        return value

    return parse


def positive(text: str) -> float:
    """Read a finite number greater than zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is out of range; want a finite number greater than 0")
    return value


def share(text: str) -> float:
    """Read a number above 0, and 1 at most."""
    value = positive(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range; want a share above 0 and at most 1")
    return value


def rate(text: str) -> float:
    """Read times a second, above 0, of something that a process can do: 1000 at most."""
    value = positive(text)
    if value > FASTEST_HZ:
        raise argparse.ArgumentTypeError(f"{text} is out of range; want {FASTEST_HZ:g} Hz at most")
    return value
