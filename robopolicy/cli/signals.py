"""Signals that end a program end it in order: the robot is stopped, what was recorded is kept."""

import ctypes
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_WRAPPED = re.compile(r"argument \d+: (?:SystemExit: (\d+)|(KeyboardInterrupt))")  # what ctypes makes of an exception


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make SIGTERM, SIGHUP and SIGQUIT end the block as an exception does: everything is closed and put back."""

    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)}
    try:
        with _unwrapped():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ended_once() -> Iterator[None]:
    """Make the first signal, Ctrl-C too, end the block as an exception does, and ignore those that follow it.

    A launch system sends what the terminal has sent already: the second one must not interrupt the stop of the robot.
    SIGKILL remains to whoever has no patience.
    """
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

    def end(number: int, frame: Any) -> None:
        for each in ending:
            signal.signal(each, lambda *_: None)  # SIG_IGN would make Python complain of one that is on its way
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in ending}
    try:
        with _unwrapped():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise a signal's exception as itself, that came while ctypes, which DDS goes through, converted an argument."""
    try:
        yield
    except ctypes.ArgumentError as error:
        found = _WRAPPED.match(str(error))
        if found is None:
            raise
        raise (KeyboardInterrupt() if found[2] else SystemExit(int(found[1]))) from error
