"""How to push a flat thing onto its mark: plan a short push, go around, push, look, plan again."""

import numpy as np

from robopolicy.rotations import matrix_to_rot6d
from robopolicy.types import Command, Decision, Observation
from sim_envs.planar import place
from sim_envs.push_planner import Push, PushPlanner

PUSH_Z, TRAVEL_Z = 0.008, 0.055  # m, of the stick's tip; the things are 3 cm high
TRAVEL_LEAD, PUSH_LEAD = 0.010, 0.006  # m, how far ahead of the tool the command runs
STAND_OFF = 0.008  # m between stick and thing where the stick comes down
LOST = 0.02  # m between stick and contact beyond which they touch no more: the thing was taken away
DOWN = matrix_to_rot6d(np.diag([1.0, -1.0, -1.0]))
PATIENCE = 60  # steps after which a push is given up: the thing hangs or the stick slipped


class PushExpert:
    """Closed loop over pushes: each push follows the thing as it is seen, and ends when it stops helping.

    Its seed hides a random part of the contacts from each plan, so that demonstrations take different ways.

    Args:
        planner: finds the pushes; its goal may be set anew at each observation.
        state: name of the observed pose (3,) of the thing: x m, y m, yaw rad.
    """

    def __init__(self, planner: PushPlanner, state: str) -> None:
        self.decision: Decision | None = None
        self._planner, self._state = planner, state
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._rng = np.random.default_rng(seed)
        self._push: Push | None = None
        self._touching = False
        self._contact: int | None = None

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        tool = np.asarray(observation.state["tool_pos"], np.float64)
        pose = np.asarray(observation.state[self._state], np.float64)
        if self._touching and self._contact is not None and self._is_lost(self._contact, tool, pose):
            self._push, self._contact, self._touching = None, None, False
        if self._push is None:
            self._choose(pose)
        if self._push is None:  # nothing helps: wait above
            goal = tool + _shorten(np.array([0, 0, TRAVEL_Z - tool[2]]), TRAVEL_LEAD)
        elif self._touching:
            goal = self._follow(self._push, tool, pose)
        else:
            goal = self._approach(self._push, tool, pose)
        return Command(np.concatenate([goal, DOWN, [0.0]]).astype(np.float32), "policy")

    def _is_lost(self, contact: int, tool: np.ndarray, pose: np.ndarray) -> bool:
        there = place(self._planner.points[contact][None], pose)[0]
        return bool(np.linalg.norm(there - tool[:2]) > LOST)

    def _choose(self, pose: np.ndarray) -> None:
        for share in (0.6, 1.0):
            keep = self._rng.random(len(self._planner.points)) < share
            if self._contact is not None:
                keep[self._contact] = True
            self._push = self._planner.plan(pose, keep, self._contact)
            if self._push is not None:
                break
        self._touching = self._push is not None and self._push.contact == self._contact
        self._start, self._left = pose, PATIENCE
        self._least = float(self._planner.error(pose))

    def _approach(self, push: Push, tool: np.ndarray, pose: np.ndarray) -> np.ndarray:
        away = push.point - STAND_OFF * push.inward
        spot = place(away[None], pose)[0]
        gap = spot - tool[:2]
        beside = float(np.linalg.norm(gap))
        if beside < 0.003 and tool[2] < PUSH_Z + 0.003:
            self._touching, self._contact, self._start = True, push.contact, pose
            return self._follow(push, tool, pose)
        if beside > 0.006 and tool[2] < TRAVEL_Z - 0.008:  # up before going anywhere
            return np.array([*tool[:2], min(tool[2] + TRAVEL_LEAD, TRAVEL_Z + 0.004)])
        height = PUSH_Z if beside < 0.004 else TRAVEL_Z
        return tool + _shorten(np.array([*gap, height - tool[2]]), TRAVEL_LEAD)

    def _follow(self, push: Push, tool: np.ndarray, pose: np.ndarray) -> np.ndarray:
        ends = place(np.stack([push.point, push.point + push.along]), pose)
        along = ends[1] - ends[0]
        done = float(np.linalg.norm(ends[0] - place(push.point[None], self._start)[0]))
        now = float(self._planner.error(pose))
        self._least = min(self._least, now)
        self._left -= 1
        left = push.length - done
        if left < 0.0005 or now > self._least + 0.0015 or self._left < 0:
            self._contact = push.contact if self._left >= 0 else None
            self._push = None
            return np.array([*tool[:2], PUSH_Z])
        step = ends[0] - tool[:2]  # to the contact, as the thing is seen now
        target = tool[:2] + _shorten(step + along * min(PUSH_LEAD, left + 0.0005), PUSH_LEAD)
        return np.array([*target, PUSH_Z])


def _shorten(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / (float(np.linalg.norm(vector)) + 1e-9))
