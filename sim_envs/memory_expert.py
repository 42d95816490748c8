"""How to touch the pad that was shown: keep the cue in mind, wait for the lamp, go over the pad and down."""

import numpy as np

from robopolicy.rotations import matrix_to_rot6d
from robopolicy.types import Command, Decision, Observation
from sim_envs.grasping import DOWN, shorten
from sim_envs.memory import PADS

LEAD = 0.010  # m, how far ahead of the tool the command runs
HOVER = 0.05  # m, of the tip, until it is over the pad
OVER = 0.015  # m beside the pad's middle, within which the tip goes down
PRESS_Z = 0.004  # m
ROTATION = matrix_to_rot6d(DOWN)


class MemoryExpert:
    """Remembers the one thing that it must, and stands still until the lamp is on.

    It sees tool_pos, cue and go. An expert that never saw the ball guesses by its seed.
    """

    def __init__(self, wander_m: float = 0.001) -> None:
        self.decision: Decision | None = None
        self._wander_m = wander_m
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._rng = np.random.default_rng(seed)
        self._pace = self._rng.uniform(0.85, 1.0)
        self._side = str(self._rng.choice(list(PADS)))
        self._at = self._rng.uniform(-0.01, 0.01, 2)  # m, where on the pad
        self._wander = np.zeros(3)

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        tool = np.asarray(observation.state["tool_pos"], np.float64)
        cue = float(observation.state["cue"][0])
        if cue:
            self._side = "left" if cue > 0 else "right"
        target = tool
        if observation.state["go"][0] > 0:
            self._wander += -0.2 * self._wander + 0.6 * self._wander_m * self._rng.standard_normal(3)
            target = tool + shorten(self._goal(tool) - tool, LEAD * self._pace) + self._wander
        return Command(np.concatenate([target, ROTATION, [0.0]]).astype(np.float32), "policy")

    def _goal(self, tool: np.ndarray) -> np.ndarray:
        pad = PADS[self._side][:2] + self._at
        beside = float(np.hypot(*(pad - tool[:2])))
        return np.array([*pad, PRESS_Z if beside < OVER else max(HOVER, PRESS_Z + 0.3 * beside)])
