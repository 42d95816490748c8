"""How to put a peg into a hole: take it from above, go over the hole, down; a peg that lies is stood up first."""

import numpy as np

from robopolicy.rotations import quat_to_matrix
from robopolicy.types import Command, Decision, Observation
from sim_envs.grasping import Grasp, Hand, nearest_turn, plain, tilt_of, yaw_of
from sim_envs.peg import CHAMFER, HALF, HALF_LENGTH, RIM, UPRIGHT

HELD = (0.22, 0.40)  # the gripper's opening with the peg in it
STANDING = Grasp(held=HELD, depth=0.019, hover=0.085, clearance=0.065, funnel=(0.003, 0.02), reach=0.010)
LYING = Grasp(held=HELD, depth=-0.001, hover=0.08, clearance=0.045)
BEHIND = 0.018  # m, from a lying peg's middle, where it is taken: room for the hand under it once it stands
OVER = 0.014  # m, of a carried peg's lower end over the block
SLOW = 0.0045  # m, the lead going into the hole
ALIGNED = 0.004  # m beside the hole's middle
BENCH = (0.40, 0.09)  # m, x and z of the tool where a peg is stood up: the hand points back at the base there
ASIDE = 0.17  # m, along y, that the hand keeps from the block then
LAID = 1.35  # rad, tilt of the hand then: a peg that leans by the rest stands up when it is let go


class PegExpert:
    """A rule of what is seen now: whatever slipped, fell or missed is taken again from where it is."""

    def __init__(self) -> None:
        self.decision: Decision | None = None
        self._hand = Hand()
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._hand.reset(np.random.default_rng((seed, 1)))

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        state = plain(dict(observation.state))
        peg, tool = quat_to_matrix(state["peg_quat"]), quat_to_matrix(state["tool_quat"])
        along = peg[:, 2]
        between = HELD[0] < float(state["gripper"][0]) < HELD[1]
        near = float(np.linalg.norm(tool.T @ (state["peg_pos"] - state["tool_pos"]))) < 0.03
        if between and near and abs(along @ tool[:, 0]) > UPRIGHT:
            return self._stand_up(state, along)
        if tilt_of(state["tool_quat"]) > 0.1:
            return self._back_off(state, tool)
        if abs(along[2]) > UPRIGHT:
            return self._insert(state, peg)
        return self._take_lying(state, along)

    def _insert(self, state: dict[str, np.ndarray], peg: np.ndarray) -> Command:
        tool, place, hole = state["tool_pos"], state["peg_pos"], state["hole"]
        sides, opening = np.arctan2(peg[1, 0], peg[0, 0]), float(state["gripper"][0])
        turn = nearest_turn(sides - yaw_of(state["tool_quat"]), np.pi / 2)
        if not STANDING.holds(tool, place, turn, opening):
            goal, grip = STANDING.approach(tool, place, turn, opening)
            return self._hand.towards(state, goal, turn, grip)
        turn = nearest_turn(hole[2] - sides, np.pi / 2)
        beside, bottom = float(np.hypot(*(place[:2] - hole[:2]))), float(place[2]) - HALF_LENGTH
        inside = bottom < RIM - CHAMFER / 2 and beside < CHAMFER
        if inside or (beside < ALIGNED and abs(turn) < 0.08):
            goal = np.array([*hole[:2], HALF_LENGTH - 0.004])
            return self._hand.towards(state, goal + (tool - place), turn, 0.0, lead=SLOW)
        goal = np.array([*hole[:2], RIM + OVER + HALF_LENGTH])
        if bottom < RIM + 0.006:  # up before going anywhere
            goal[:2] = place[:2]
        return self._hand.towards(state, goal + (tool - place), turn, 0.0)

    def _take_lying(self, state: dict[str, np.ndarray], along: np.ndarray) -> Command:
        """Take it with the hand's x along the peg, a little behind its middle."""
        tool_yaw = yaw_of(state["tool_quat"])
        yaw = nearest_turn(float(np.arctan2(along[1], along[0])), np.pi)  # either end may be the lower one
        turn = yaw - tool_yaw
        spot = state["peg_pos"] - BEHIND * np.array([np.cos(yaw), np.sin(yaw), 0.0])
        goal, grip = LYING.approach(state["tool_pos"], spot, turn, float(state["gripper"][0]))
        return self._hand.towards(state, goal, turn, grip)

    def _stand_up(self, state: dict[str, np.ndarray], along: np.ndarray) -> Command:
        """Carry it near, tilt the hand back until the peg is upright, set it down, let go."""
        tool, tilt = state["tool_pos"], tilt_of(state["tool_quat"])
        turn = -yaw_of(state["tool_quat"])
        bottom = float(state["peg_pos"][2]) - HALF_LENGTH * abs(along[2])
        if tilt > LAID - 0.06:
            grip = 1.0 if bottom < 0.003 else 0.0
            goal = np.array([tool[0], tool[1], tool[2] - min(bottom, 0.02) + 0.001])
            return self._hand.towards(state, goal, 0.0, grip, lead=SLOW if bottom < 0.015 else 0.008, tilt=LAID)
        side = np.sign(tool[1] - state["hole"][1]) or 1.0
        if abs(state["hole"][1] + side * ASIDE) > 0.25:
            side = -side
        away = side * (tool[1] - state["hole"][1])  # m
        goal = np.array([BENCH[0], tool[1] if away > ASIDE - 0.01 else state["hole"][1] + side * ASIDE, BENCH[1]])
        if away < ASIDE - 0.03 and tool[2] < BENCH[1] - 0.01:  # over the block, not through it
            goal[:2] = tool[:2]
        ready = float(np.linalg.norm(goal - tool)) < 0.03 and abs(turn) < 0.1
        return self._hand.towards(state, goal, turn, 0.0, tilt=LAID if ready or tilt > 0.1 else 0.0)

    def _back_off(self, state: dict[str, np.ndarray], tool: np.ndarray) -> Command:
        """Draw the open fingers off the peg the way they point, then up, then point down again."""
        here, gap = state["tool_pos"], state["peg_pos"] - state["tool_pos"]
        if float(np.hypot(*gap[:2])) < HALF + 0.055 and here[2] < 2 * HALF_LENGTH + 0.06:
            goal = here - 0.02 * tool[:, 2] + np.array([0, 0, 0.002])
            return self._hand.towards(state, goal, 0.0, 1.0, tilt=LAID)
        goal = np.array([here[0], here[1], 0.16])
        return self._hand.towards(state, goal, 0.0, 1.0)
