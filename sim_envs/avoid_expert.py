"""How to pass between posts: the seed draws a way, the tool goes from gap to gap as it is seen now."""

import numpy as np

from robopolicy.rotations import matrix_to_rot6d
from robopolicy.types import Command, Decision, Observation
from sim_envs.avoid import FINISH_Y, POSTS, ROWS, Avoid
from sim_envs.balanced import balanced, check_mode
from sim_envs.grasping import DOWN, shorten

LEAD = 0.010  # m, how far ahead of the tool the command runs: 0.17 m/s
HEIGHT = 0.015  # m, of the tip
OUTSIDE = 0.072  # m beside the last post of a row
ASIDE = 0.010  # m, +-, of a gap's middle: demonstrations differ
BEFORE = 0.062  # m before a row where the tool must be in line with its gap
FUNNEL = 0.020  # m beside the gap's line: within the tool goes on, beyond it goes across first
ROTATION = matrix_to_rot6d(DOWN)


class AvoidExpert:
    """Goes through the gaps of a mode that its seed draws, each of the 24 as often.

    It sees tool_pos. Whatever pushed it aside, it goes across to the line of the next gap first, then through.

    Args:
        wander_m: standard deviation of a small slow wander of the commands, m.
        mode: the one way to go in every episode; None draws it.

    Raises:
        UnknownName: naming the modes there are.
    """

    def __init__(self, wander_m: float = 0.001, mode: str | None = None) -> None:
        self.decision: Decision | None = None
        self._wander_m, self._only = wander_m, check_mode("avoid", mode, Avoid.modes)
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._rng = np.random.default_rng(seed)
        self.mode = self._only or balanced(seed, Avoid.modes)
        gaps = [int(gap) for gap in self.mode.split("-")]
        self._lines = [middle(row, gap) + self._rng.uniform(-ASIDE, ASIDE) for row, gap in enumerate(gaps)]
        self._pace = self._rng.uniform(0.85, 1.0)
        self._wander = np.zeros(2)  # m

    def act(self, observation: Observation) -> Command:
        """Return the tool pose a little ahead of where the tool is."""
        tool = np.asarray(observation.state["tool_pos"], np.float64)
        goal = np.array([*self._next(tool), HEIGHT])
        self._wander += -0.2 * self._wander + 0.6 * self._wander_m * self._rng.standard_normal(2)
        target = tool + shorten(goal - tool, LEAD * self._pace)
        target[:2] += self._wander
        return Command(np.concatenate([target, ROTATION, [0.0]]).astype(np.float32), "policy")

    def _next(self, tool: np.ndarray) -> np.ndarray:
        """Return the point to go to (2,) m: across to the next row's line, through it, at last over the finish."""
        row = int(np.searchsorted(np.asarray(ROWS) + BEFORE, tool[1]))  # the first row not yet left behind
        if row == len(ROWS):
            return np.array([tool[0], FINISH_Y + 0.03])
        line = self._lines[row]
        beside = abs(line - tool[0])
        if beside < FUNNEL or tool[1] > ROWS[row] - BEFORE / 2:
            return np.array([line if tool[1] < ROWS[row] else tool[0], ROWS[row] + BEFORE + 0.02])
        return np.array([line, max(ROWS[row] - BEFORE, tool[1])])


def middle(row: int, gap: int) -> float:
    """Return where gap ``gap`` (from 1) of row ``row`` (from 0) has its middle, x in m."""
    xs = POSTS[row]
    if gap == 1:
        return xs[0] - OUTSIDE
    if gap > len(xs):
        return xs[-1] + OUTSIDE
    return (xs[gap - 2] + xs[gap - 1]) / 2
