"""How to push the T onto its mark."""

from sim_envs.push_expert import PushExpert
from sim_envs.push_planner import PushPlanner
from sim_envs.pusht import GOAL


class PushTExpert(PushExpert):
    """Pushes the T as `PushExpert` does; it sees tool_pos and block."""

    def __init__(self) -> None:
        super().__init__(PushPlanner(GOAL), "block")
