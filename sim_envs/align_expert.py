"""How to push a frame into its outline, from inside or from outside."""

import numpy as np

from robopolicy.types import Command, Observation
from sim_envs.align import SIDES
from sim_envs.balanced import balanced, check_mode
from sim_envs.push_expert import PushExpert
from sim_envs.push_planner import PushPlanner


class AlignExpert(PushExpert):
    """Pushes the frame as `PushExpert` does, from the one side that its seed draws, half of the seeds each.

    It sees tool_pos, frame and target.

    Args:
        mode: the side, inside or outside, in every episode; None draws it.

    Raises:
        UnknownName: naming the modes there are.
    """

    def __init__(self, mode: str | None = None) -> None:
        self._only = check_mode("align", mode, list(SIDES))
        self._planners = {side: PushPlanner(np.zeros(3), flat) for side, flat in SIDES.items()}
        super().__init__(self._planners["inside"], "frame")

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        super().reset(seed)
        self.mode = self._only or balanced(seed, list(SIDES))
        self._planner = self._planners[self.mode]

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        self._planner.goal = np.asarray(observation.state["target"], np.float64)
        return super().act(observation)
