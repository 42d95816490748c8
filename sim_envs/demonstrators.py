"""Demonstrators that are no experts: of another style, unsteady, hesitant, clumsy, wandering off."""

import numpy as np

from robopolicy.interfaces import Agent
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.types import Command, Decision, Observation
from sim_envs.grasping import DOWN, about_z, shorten
from sim_envs.lift_expert import CLEARANCE, GRASP_DEPTH, HELD, LEAD, LIFT_TO, LiftExpert

ASIDE = 0.10  # m beside the cube where the tool goes down
ALIGNED = 0.012  # m off the line through the cube at which the tool may go in


class DownThenAcross(LiftExpert):
    """Lifts a cube the other way: down beside it, then across with open fingers, close, lift.

    The expert goes across, then down. Both work; a policy that learns from both sees contradicting commands beside
    the cube. Looks at what `LiftExpert` looks at, and wanders as it does.
    """

    def where_to(self, state: dict[str, np.ndarray], tool_yaw: float, turn: float) -> tuple[np.ndarray, float]:
        """Return the point to go to (3,) m and the grip to command: aside, down, across, close, up."""
        return _go_in(state, tool_yaw + turn, abs(turn))


class Unsteady:
    """Does what another agent does with a shaking hand: slow large errors and fast small ones.

    Args:
        agent: the other; its action must be a tool pose.
        shake_m: standard deviation of the tool's position error.
    """

    def __init__(self, agent: Agent, shake_m: float = 0.006) -> None:
        self.decision: Decision | None = None
        self._agent, self._shake_m = agent, shake_m
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._agent.reset(seed)
        self._rng = np.random.default_rng([seed, 1])
        self._off = np.zeros(3)

    def act(self, observation: Observation) -> Command:
        """Return the other agent's command, displaced."""
        command = self._agent.act(observation)
        self._off += -0.3 * self._off + np.sqrt(0.51) * self._shake_m * self._rng.standard_normal(3)
        return _moved(command, self._off)


class Hesitant:
    """Stops now and then while another agent drives, and stays where it is for a while.

    Args:
        agent: the other; its action must be a tool pose.
        chance: of beginning to hesitate, a step.
        longest: steps.

    Attributes:
        spans: where it hesitated in this episode, (first step, one past the last).
    """

    def __init__(self, agent: Agent, chance: float = 0.03, longest: int = 25) -> None:
        self.decision: Decision | None = None
        self._agent, self._chance, self._longest = agent, chance, longest
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._agent.reset(seed)
        self._rng = np.random.default_rng([seed, 2])
        self._left = self._step = 0
        self._held: Command | None = None
        self.spans: list[tuple[int, int]] = []

    def act(self, observation: Observation) -> Command:
        """Return the other agent's command, or the last one again."""
        if self._left == 0 and self._held is not None and self._rng.random() < self._chance:
            self._left = int(self._rng.integers(8, self._longest + 1))
            self.spans.append((self._step, self._step + self._left))
            self._held = _stay(observation, self._held)
        self._step += 1
        if self._left > 0 and self._held is not None:
            self._left -= 1
            return self._held
        self._held = self._agent.act(observation)
        return self._held


class Clumsy:
    """Misses: aims beside the cube for a while, closes there, and then does what another agent does.

    Args:
        agent: the other; its action must be a tool pose.
        miss_m: how far beside.
    """

    def __init__(self, agent: Agent, miss_m: float = 0.05) -> None:
        self.decision: Decision | None = None
        self._agent, self._miss_m = agent, miss_m
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._agent.reset(seed)
        rng = np.random.default_rng([seed, 3])
        angle = rng.uniform(0, 2 * np.pi)
        self._miss = self._miss_m * np.array([np.cos(angle), np.sin(angle), 0.0])
        self._misses, self._closed = int(rng.integers(25, 45)), 0

    def act(self, observation: Observation) -> Command:
        """Return what the other agent would do if the cube stood elsewhere, then close, then the right thing."""
        if self._misses > 0:
            self._misses -= 1
            state = dict(observation.state)
            state["cube_pos"] = (state["cube_pos"] + self._miss).astype(np.float32)
            return self._agent.act(Observation(observation.stamp_ns, state))
        command = self._agent.act(observation)
        if self._closed < 8 and command.values is not None:
            self._closed += 1
            stay = np.array(_stay(observation, command).values)
            return Command(np.append(stay[:9], 0.0).astype(np.float32), command.source)
        return command


class Wandering:
    """Leaves the task once an episode, roams through the air, and goes on with it: an extraneous segment.

    Args:
        agent: does the task; its action must be a tool pose.
        shortest, longest: steps away.
        latest: the step before which it leaves.

    Attributes:
        spans: where it was away in this episode, (first step, one past the last).
    """

    def __init__(self, agent: Agent, shortest: int = 20, longest: int = 45, latest: int = 35) -> None:
        self.decision: Decision | None = None
        self._agent, self._range, self._latest = agent, (shortest, longest), latest
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode."""
        self._agent.reset(seed)
        self._rng = np.random.default_rng([seed, 4])
        first = int(self._rng.integers(3, self._latest))
        self.spans = [(first, first + int(self._rng.integers(*self._range)))]
        self._step = 0
        self._goal: np.ndarray | None = None

    def act(self, observation: Observation) -> Command:
        """Return the agent's command, or while away one towards a point of its own."""
        (first, end), step = self.spans[0], self._step
        self._step += 1
        command = self._agent.act(observation)
        if not first <= step < end or command.values is None:
            return command
        tool = np.asarray(observation.state["tool_pos"], np.float64)
        if self._goal is None or float(np.linalg.norm(self._goal - tool)) < 0.02:
            low, high = (0.40, -0.16, 0.12), (0.60, 0.16, 0.30)
            self._goal = self._rng.uniform(low, high)
        values = np.array(_stay(observation, command).values, np.float64)
        values[:3] = tool + shorten(self._goal - tool, LEAD)
        return Command(values.astype(np.float32), command.source)


def _go_in(state: dict[str, np.ndarray], yaw: float, turn: float) -> tuple[np.ndarray, float]:
    """Return the point to go to (3,) m and the grip: aside, down, across, close, up."""
    tool, cube, opening = state["tool_pos"], state["cube_pos"], float(state["gripper"][0])
    grasp = np.array([*cube[:2], cube[2] + GRASP_DEPTH])
    fingers = about_z(yaw) @ DOWN @ np.array([0.0, 1.0, 0.0])  # they close along the tool's y
    along = np.array([-fingers[1], fingers[0], 0.0])  # level, and across that: the way in
    along = -along if along @ (tool - cube) < 0 else along
    offset = tool - cube
    beside, off_line = float(np.hypot(*offset[:2])), abs(float(offset @ fingers))
    low = abs(offset[2] - GRASP_DEPTH) < 0.012
    if beside < ALIGNED and low:
        held = HELD[0] < opening < HELD[1]
        return (np.array([tool[0], tool[1], LIFT_TO]) if held else grasp), 0.0
    if opening < 0.9 and offset[2] < CLEARANCE:  # let go and rise before trying again
        return np.array([tool[0], tool[1], cube[2] + 2 * CLEARANCE]), 1.0
    if low and off_line < ALIGNED and turn < 0.15:
        return grasp, 1.0
    start = cube + ASIDE * along
    near = float(np.hypot(*(tool - start)[:2])) < ALIGNED and turn < 0.15
    height = GRASP_DEPTH if near else 0.06
    if not near and offset[2] < CLEARANCE and beside < 0.8 * ASIDE:  # too near and low: up first
        return np.array([tool[0], tool[1], cube[2] + 0.06]), 1.0
    return np.array([start[0], start[1], cube[2] + height]), 1.0


def _stay(observation: Observation, command: Command) -> Command:
    """Return the command that keeps the tool where it is, with the grip of ``command``."""
    grip = 1.0 if command.values is None else float(command.values[9])
    rotation = matrix_to_rot6d(quat_to_matrix(np.asarray(observation.state["tool_quat"], np.float64)))
    values = np.concatenate([observation.state["tool_pos"], rotation, [grip]]).astype(np.float32)
    return Command(values, command.source)


def _moved(command: Command, off: np.ndarray) -> Command:
    if command.values is None:
        return command
    values = command.values.copy()
    values[:3] += off.astype(np.float32)
    return Command(values, command.source, command.verdict, command.reason)
