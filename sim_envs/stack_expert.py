"""How to stack two cubes: take the one, go over the other, set it down, let go; the seed says which goes on top."""

import numpy as np

from robopolicy.rotations import quat_to_matrix
from robopolicy.types import Command, Decision, Observation
from sim_envs.balanced import balanced, check_mode
from sim_envs.grasping import Hand, nearest_turn, plain, yaw_of
from sim_envs.lift_expert import CUBE
from sim_envs.stack import HALF, PAIRS, Stack

CARRY = 0.055  # m, of a carried cube's centre over where it will rest
RELEASE = 0.0025  # m over that, at which it is let go
ALIGNED = 0.006  # m beside the base's centre
NEAR = 0.095  # m: a cube so near is in the way of a finger


class StackExpert:
    """A rule of what is seen now; a cube that was dropped or knocked off is taken again.

    Args:
        mode: which cube is on top in every episode; None draws it.

    Raises:
        UnknownName: naming the modes there are.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.decision: Decision | None = None
        self._only = check_mode("stack", mode, Stack.modes)
        self._hand = Hand()
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode; whichever cube is to be on top, it stays so."""
        mode = self._only or balanced(seed, Stack.modes)
        self._top, self._base = PAIRS[Stack.modes.index(mode)]
        self._hand.reset(np.random.default_rng((seed, 1)))  # another stream than the world's start

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        state = plain(dict(observation.state))
        tool, opening = state["tool_pos"], float(state["gripper"][0])
        top, base = state[f"{self._top}_pos"], state[f"{self._base}_pos"]
        turn = self._turn(state, top, base)
        offset = top - base
        beside = float(np.hypot(*offset[:2]))
        if beside < 0.012 and abs(offset[2] - 2 * HALF) < 0.004 and opening > CUBE.held[1]:  # it stands: leave it
            return self._hand.towards(state, np.array([*tool[:2], top[2] + CUBE.hover]), 0.0, 1.0)
        if not CUBE.holds(tool, top, turn, opening):
            goal, grip = CUBE.approach(tool, top, turn, opening)
            return self._hand.towards(state, goal, turn, grip)
        turn = nearest_turn(_yaw_of_sides(state[f"{self._base}_quat"]) - yaw_of(state["tool_quat"]), np.pi / 2)
        over = offset[2] - 2 * HALF  # m, still to go down
        if beside < ALIGNED and over < RELEASE and abs(turn) < 0.1:
            return self._hand.towards(state, tool, 0.0, 1.0)
        miss = max((beside - 0.003) / 0.02, (abs(turn) - 0.05) / 0.3)
        goal = base + np.array([0, 0, 2 * HALF + CARRY * float(np.clip(miss, 0.0, 1.0))])
        if miss > 1.0 and over < 0.02:  # low and beside: up first
            goal[:2] = top[:2]
        return self._hand.towards(state, goal + (tool - top), turn, 0.0)

    def _turn(self, state: dict[str, np.ndarray], top: np.ndarray, base: np.ndarray) -> float:
        """Return the turn to the nearest sides of the cube, or to those that the other cube leaves free."""
        tool_yaw = yaw_of(state["tool_quat"])
        turn = nearest_turn(_yaw_of_sides(state[f"{self._top}_quat"]) - tool_yaw, np.pi / 2)
        gap = base - top
        if np.hypot(*gap[:2]) < NEAR and gap[2] > -HALF:
            across = np.arctan2(gap[1], gap[0]) - (tool_yaw + turn)  # 0: the other cube is ahead, the fingers beside
            if abs(np.sin(across)) > 0.75:
                turn += np.pi / 2 if turn < 0 else -np.pi / 2
        return turn


def _yaw_of_sides(quat: np.ndarray) -> float:
    """Return the direction of an edge of a cube that lies level, rad."""
    rotation = quat_to_matrix(quat)
    level = int(np.argmin(np.abs(rotation[2])))
    return float(np.arctan2(rotation[1, level], rotation[0, level]))
