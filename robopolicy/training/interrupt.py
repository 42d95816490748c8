"""Ctrl-C that waits for the step in hand to finish."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SAME_S = 1.0  # a key that is held down


@contextmanager
def interruptible(*, patient: bool = False) -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGINT or SIGTERM only sets a flag, which the yielded function reads.

    One that comes more than a second later raises KeyboardInterrupt at once. Outside the main thread, where Python
    allows no signal handlers, the flag is never set.

    Args:
        patient: all signals are one request, however late they come: torchrun passes on what the terminal has already
            told its processes, late on a busy machine, and a process that leaves the others in the middle of an
            exchange leaves them waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    received: list[float] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(time.monotonic())
        if not patient and received[-1] - received[0] > SAME_S:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
