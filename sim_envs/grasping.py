"""What scripted experts share: commands a little ahead of the tool, and the way over a thing, down and around it."""

from dataclasses import dataclass

import numpy as np

from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.types import Command

DOWN = np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]])  # R_base_tool of a tool that points down at yaw 0
TURN_LEAD = 0.06  # rad, how far ahead of the tool's yaw the command runs: 1 rad/s
TILT_LEAD = 0.08  # rad, the same of its tilt
WANDER_DECAY = 0.2  # a step: the wander forgets itself within a quarter of a second


class Hand:
    """Leads the tool to a goal at an episode's own pace, with a small slow wander that makes demonstrations differ.

    Args:
        wander_m: standard deviation of the wander along each axis, m.
    """

    def __init__(self, wander_m: float = 0.0015) -> None:
        self._wander_m = wander_m
        self.reset(np.random.default_rng(0))

    def reset(self, rng: np.random.Generator) -> None:
        """Start a new episode."""
        self._rng = rng
        self._pace = rng.uniform(0.85, 1.0)
        self._wander = np.zeros(3)  # m

    def towards(
        self,
        state: dict[str, np.ndarray],
        goal: np.ndarray,
        turn: float,
        grip: float,
        *,
        lead: float = 0.008,
        tilt: float = 0.0,
    ) -> Command:
        """Return the command that leads the tool to ``goal``.

        Args:
            state: as observed, float64.
            goal: (3,) m, of the tool.
            turn: rad, still to go about the vertical.
            grip: 0 closes, 1 opens.
            lead: m, at most so far ahead of the tool: a speed of about 20 times that a second.
            tilt: rad from pointing down towards pointing back, that the tool is to have.
        """
        spread = np.sqrt(1 - (1 - WANDER_DECAY) ** 2) * self._wander_m
        self._wander += -WANDER_DECAY * self._wander + spread * self._rng.standard_normal(3)
        reach = lead * self._pace
        move = shorten(goal - state["tool_pos"], reach) + self._wander * min(1.0, reach / 0.006)
        yaw = yaw_of(state["tool_quat"]) + float(np.clip(turn, -TURN_LEAD, TURN_LEAD))
        now = tilt_of(state["tool_quat"])
        lean = 0.0 if now == tilt == 0.0 else now + float(np.clip(tilt - now, -TILT_LEAD, TILT_LEAD))
        action = [*(state["tool_pos"] + move), *matrix_to_rot6d(about_z(yaw) @ about_y(lean) @ DOWN), grip]
        return Command(np.array(action, np.float32), "policy")


@dataclass(frozen=True)
class Grasp:
    """How a thing is taken from above: over it, down a funnel, closed; whatever goes wrong starts over."""

    held: tuple[float, float]  # the gripper's opening with the thing in it, least and most
    depth: float = -0.004  # m, of the tool over the thing's centre in the grasp
    hover: float = 0.08  # m over the centre, where the tool waits until it is above
    clearance: float = 0.045  # m over the centre under which the tool must not travel sideways
    funnel: tuple[float, float] = (0.004, 0.025)  # m beside it: within the first all the way down, else in between
    reach: float = 0.012  # m, within which the fingers may close

    def within(self, tool: np.ndarray, centre: np.ndarray, turn: float) -> bool:
        """Whether the fingers are around the thing."""
        beside, above = float(np.hypot(*(centre - tool)[:2])), float(tool[2] - centre[2])
        return beside < self.reach and abs(above - self.depth) < self.reach and abs(turn) < 0.15

    def holds(self, tool: np.ndarray, centre: np.ndarray, turn: float, opening: float) -> bool:
        """Whether the thing is between closed fingers."""
        return self.within(tool, centre, turn) and self.held[0] < opening < self.held[1]

    def approach(
        self, tool: np.ndarray, centre: np.ndarray, turn: float, opening: float, *, open_to: float = 1.0
    ) -> tuple[np.ndarray, float]:
        """Return where to go (3,) m and the grip to command while it is not held yet."""
        above = float(tool[2] - centre[2])
        if self.within(tool, centre, turn) and opening > self.held[0]:
            return np.array([*centre[:2], centre[2] + self.depth]), 0.0
        if opening < open_to - 0.1 and above < self.clearance:  # let go and rise before trying again
            return np.array([tool[0], tool[1], centre[2] + self.hover]), open_to
        beside = float(np.hypot(*(centre - tool)[:2]))
        miss = max((beside - self.funnel[0]) / (self.funnel[1] - self.funnel[0]), (abs(turn) - 0.05) / 0.3)
        height = self.depth + (self.hover - self.depth) * float(np.clip(miss, 0.0, 1.0))
        goal = np.array([*centre[:2], centre[2] + height])
        if above < self.clearance and miss > 1.0:  # beside it and low: up first, or the fingers would push it
            goal[:2] = tool[:2]
        return goal, open_to


def yaw_of(quat: np.ndarray) -> float:
    """Return the tool's yaw, rad, of its quaternion wxyz (4,): by the way its fingers open, level however it tilts."""
    rotation = quat_to_matrix(quat)
    return float(np.arctan2(rotation[0, 1], -rotation[1, 1]))


def tilt_of(quat: np.ndarray) -> float:
    """Return how far the tool leans from pointing down towards pointing back (against its x), rad, of wxyz (4,)."""
    rotation = quat_to_matrix(quat)
    return float(np.arctan2(-rotation[2, 0], np.hypot(rotation[0, 0], rotation[1, 0])))


def about_z(angle: float) -> np.ndarray:
    """Return the rotation (3, 3) by ``angle`` rad about the vertical."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def about_y(angle: float) -> np.ndarray:
    """Return the rotation (3, 3) by ``angle`` rad about y."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def shorten(vector: np.ndarray, length: float) -> np.ndarray:
    """Return ``vector`` (3,), no longer than ``length``."""
    return vector * min(1.0, length / (float(np.linalg.norm(vector)) + 1e-9))


def nearest_turn(angle: float, period: float) -> float:
    """Return ``angle`` (rad) shortened by whole ``period``s, within half of one either way."""
    return float((angle + period / 2) % period - period / 2)


def plain(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return an observation's state in float64."""
    return {name: np.asarray(value, np.float64) for name, value in state.items()}
