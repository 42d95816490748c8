"""How to open a drawer: over the handle, down, close, pull; the seed says which of the two."""

import numpy as np

from robopolicy.types import Command, Decision, Observation
from sim_envs.balanced import balanced, check_mode
from sim_envs.drawer import HANDLE_Z, Drawer
from sim_envs.grasping import Grasp, Hand, nearest_turn, plain, yaw_of

HANDLE = Grasp(held=(0.12, 0.26), depth=0.0, hover=0.07, clearance=0.04, funnel=(0.003, 0.014))
PULL = 0.03  # m, how far ahead of the handle the tool is sent


class DrawerExpert:
    """A rule of what is seen now; a handle that was missed or slipped away is taken again.

    Args:
        mode: the drawer to open in every episode, left or right; None draws it.

    Raises:
        UnknownName: naming the modes there are.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.decision: Decision | None = None
        self._only = check_mode("drawer", mode, Drawer.modes)
        self._hand = Hand()
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode; whichever drawer is to be opened, it stays so."""
        self._side = self._only or balanced(seed, Drawer.modes)
        self._hand.reset(np.random.default_rng((seed, 1)))  # another stream than the world's start

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        state = plain(dict(observation.state))
        tool, opening = state["tool_pos"], float(state["gripper"][0])
        handle, yaw = np.array([*state[f"{self._side}_handle"], HANDLE_Z]), float(state["chest"][2])
        turn = nearest_turn(yaw - yaw_of(state["tool_quat"]), np.pi)
        if HANDLE.holds(tool, handle, turn, opening):
            out = -np.array([np.cos(yaw), np.sin(yaw), 0.0])
            return self._hand.towards(state, handle + PULL * out, turn, 0.0, lead=0.0075)
        goal, grip = HANDLE.approach(tool, handle, turn, opening)
        return self._hand.towards(state, goal, turn, grip)
