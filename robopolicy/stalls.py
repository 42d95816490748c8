"""A late observation in mid-episode: the set-point in force once more, rather than the end of a demonstration."""

from collections.abc import Callable

import numpy as np

from robopolicy.errors import LateCommand
from robopolicy.interfaces import Safety
from robopolicy.types import Observation

STALLS = 3  # late steps in a row; the third is one too many


class SurvivesStalls:
    """A safety layer that sends the set-point in force again when the newest observation is too old for a new one.

    Args:
        safety: decides; the third `LateCommand` in a row, and whatever else it raises, is raised.
        set_point: (A,) in force when the episode begins.
        tell: takes one line for each late step.
    """

    def __init__(self, safety: Safety, set_point: np.ndarray, tell: Callable[[str], None]) -> None:
        self._safety, self._sent, self._tell, self._stalls = safety, set_point, tell, 0

    def reset(self) -> None:
        """Start a new episode."""
        self._safety.reset()

    def limit(self, action: np.ndarray, observation: Observation, now_ns: int) -> np.ndarray:
        """Return what is to be sent (A,): the action as far as safety allows, or the set-point in force."""
        try:
            self._sent = self._safety.limit(action, observation, now_ns)
        except LateCommand as error:
            self._stalls += 1
            if self._stalls == STALLS:
                raise
            self._tell(str(error))
        else:
            self._stalls = 0
        return self._sent.copy()
