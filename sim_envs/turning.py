"""Which way a thing was turned on its way: the mode of a push."""

import numpy as np

TURNS = ("clockwise", "counter-clockwise")
DECIDED = 0.001  # rad: less is neither


class Turning:
    """Sums up the yaw of a thing over an episode; whole turns count.

    Args:
        positive: how a growing yaw is called, one of `TURNS`.
    """

    def __init__(self, positive: str = "counter-clockwise") -> None:
        self._names = {1: positive, -1: TURNS[1 - TURNS.index(positive)]}
        self.begin()

    def begin(self) -> None:
        """Start a new episode."""
        self._turned = 0.0  # rad
        self.lift()

    def lift(self) -> None:
        """Take what comes next as no turn: the thing was moved by nobody in the episode."""
        self._yaw: float | None = None

    def see(self, yaw: float) -> None:
        """Take the yaw as it is now, rad; between two looks it turns by less than half a turn."""
        if self._yaw is not None:
            self._turned += float((yaw - self._yaw + np.pi) % (2 * np.pi) - np.pi)
        self._yaw = yaw

    def mode(self) -> str | None:
        """Return one of `TURNS`, by the whole turn so far; None while there is hardly any."""
        return None if abs(self._turned) < DECIDED else self._names[1 if self._turned > 0 else -1]
