"""How to push the T onto its mark, turning it either way."""

import numpy as np

from sim_envs.push_expert import PushExpert
from sim_envs.push_planner import PushPlanner
from sim_envs.pusht import GOAL

EITHER_WAY = 2.0  # rad: a T that has to turn by more is turned the longer way as often as the shorter one
NEARLY = 1.4  # rad, left to turn: from there on it goes straight to the mark
AHEAD = 1.0  # rad, of the goals on the longer way


class PushTExpert(PushExpert):
    """Pushes the T as `PushExpert` does; it sees tool_pos and block.

    From a start far turned its seed also draws which way round it goes.
    """

    def __init__(self) -> None:
        super().__init__(PushPlanner(GOAL), "block")

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        super().reset(seed)
        self._sign = 1.0 if np.random.default_rng((seed, 5)).random() < 0.5 else -1.0
        self._round: bool | None = None  # whether it is on its way round; None before the T is seen

    def _choose(self, pose: np.ndarray) -> None:
        left = float(self._sign * (GOAL[2] - pose[2]) % (2 * np.pi))  # rad, to turn in the drawn direction
        if self._round is None:
            self._round = EITHER_WAY < left < 2 * np.pi - EITHER_WAY
        self._round = self._round and left > NEARLY
        self._planner.goal = np.array([*GOAL[:2], pose[2] + self._sign * AHEAD]) if self._round else GOAL
        super()._choose(pose)
