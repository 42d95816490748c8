"""Clocks: wall time that waits, simulated time that jumps."""

import time


class WallClock:
    """The machine's monotonic clock; ``sleep_until`` keeps absolute deadlines, so lateness never adds up."""

    def now_ns(self) -> int:
        """Return nanoseconds since an arbitrary start."""
        return time.monotonic_ns()

    def sleep_until(self, stamp_ns: int) -> None:
        """Sleep until the clock shows ``stamp_ns``."""
        while (left := stamp_ns - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)


class SimClock:
    """Time that stands still while the program thinks and jumps when it sleeps."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Return the simulated time in nanoseconds."""
        return self._now_ns

    def sleep_until(self, stamp_ns: int) -> None:
        """Jump to ``stamp_ns``; never back."""
        self._now_ns = max(self._now_ns, stamp_ns)
