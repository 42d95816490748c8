"""An agent that plays recombined segments of a few demonstrations from a new start, after MimicGen."""

from collections.abc import Callable, Sequence

import numpy as np

from robopolicy.errors import ContractError, UnknownTask
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix, rot6d_to_matrix
from robopolicy.types import Command, Decision, Observation
from sim_envs.segments import Demonstration, Frame, Segment, bridge, cut

SPEED, TURN_SPEED = 0.15, 1.0  # m/s and rad/s between two segments
ONWARD_S = 1.0
REACH_M = 0.10  # m, of the tool from the object, within which the demonstrated way there is kept
WANDER_DECAY = 0.2  # a step, of the noise
SQUARE = 4  # turns after which a cube, a square peg or its hole looks the same


class Multiplied:
    """Plays, for each object in turn, what one of the demonstrations did about it, moved to where it is now.

    In between it goes straight there. When it is through it goes on for a second as it last went, for a demonstration
    ends at the very step of its success, which noise may put off. Each episode's seed chooses the demonstrations; a
    small slow noise is added to the positions.

    Args:
        plans: the segments of each demonstration; those about the same objects in the same order may be recombined.
        rate_hz: commands a second.
        noise_m: standard deviation of the noise along each axis.

    Raises:
        ContractError: if there are no plans.
    """

    def __init__(self, plans: Sequence[Sequence[Segment]], rate_hz: float, *, noise_m: float = 0.001) -> None:
        if not plans:
            raise ContractError("there are no segments to play")
        self.decision: Decision | None = None
        self._plans, self._rate_hz, self._noise_m = plans, rate_hz, noise_m
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Start a new episode: choose what is played in it."""
        self._rng = np.random.default_rng([seed, 6])
        order = _order(self._plans[int(self._rng.integers(len(self._plans)))])
        alike = [plan for plan in self._plans if _order(plan) == order]
        self.chosen = [alike[int(self._rng.integers(len(alike)))][i] for i in range(len(order))]
        self._left = list(self.chosen)
        self._rows: list[np.ndarray] = []
        self._last: np.ndarray | None = None
        self._noise = np.zeros(3)

    def act(self, observation: Observation) -> Command:
        """Return the next tool pose."""
        if not self._rows and self._left:
            self._rows = self._plan(self._left.pop(0), observation)
        if self._rows:
            self._last = self._rows.pop(0)
        assert self._last is not None
        spread = np.sqrt(1 - (1 - WANDER_DECAY) ** 2) * self._noise_m
        self._noise += -WANDER_DECAY * self._noise + spread * self._rng.standard_normal(3)
        values = self._last.copy()
        values[:3] += self._noise
        return Command(values.astype(np.float32), "policy")

    def about(self) -> dict[str, object]:
        """Return what this episode was made of, for its record."""
        parts = [{"from": segment.source, "object": segment.frame.name} for segment in self.chosen]
        return {"multiplied": {"segments": parts, "noise_m": self._noise_m}}

    def _plan(self, segment: Segment, observation: Observation) -> list[np.ndarray]:
        last = _pose(observation) if self._last is None else self._last
        rows = segment.carried(observation.state, rot6d_to_matrix(last[3:9]))
        between = bridge(last, rows[0], step_m=SPEED / self._rate_hz, step_rad=TURN_SPEED / self._rate_hz)
        return [*between, *rows] if self._left else [*between, *rows, *_onward(rows, round(ONWARD_S * self._rate_hz))]


def _pose(observation: Observation) -> np.ndarray:
    rotation = quat_to_matrix(np.asarray(observation.state["tool_quat"], np.float64))
    grip = 1.0 if observation.state["gripper"][0] > 0.5 else 0.0
    return np.concatenate([observation.state["tool_pos"], matrix_to_rot6d(rotation), [grip]])


def _onward(rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` more poses that go on as the last few of ``rows`` (K, 10) did; they do not turn."""
    steps = np.diff(rows[-4:, :3], axis=0)
    onward = np.repeat(rows[-1:], count, axis=0)
    if len(steps):
        onward[:, :3] += np.arange(1, count + 1)[:, None] * steps.mean(axis=0)
    return onward


def _order(plan: Sequence[Segment]) -> tuple[str, ...]:
    return tuple(segment.frame.name for segment in plan)


def plan_of(task: str, demonstration: Demonstration) -> list[Segment]:
    """Return a demonstration of ``task`` as segments, each about one object.

    Raises:
        UnknownTask: naming the tasks whose demonstrations can be cut so.
        ContractError: if this one does not show what the task is cut by.
    """
    if task not in CUTS:
        raise UnknownTask("task whose demonstrations are about objects one after the other", task, CUTS)
    return CUTS[task](demonstration)


def _cut_lift(demonstration: Demonstration) -> list[Segment]:
    """Grasp, then lift, both about the cube."""
    cube = _cube("cube")
    raised = _raised(demonstration, "cube", 0.01)
    length = len(demonstration.commands)
    return cut(demonstration, [cube, cube], [min(raised, length - 1), length], reach_m=REACH_M)


def _cut_stack(demonstration: Demonstration) -> list[Segment]:
    """Grasp and raise the cube that ends up higher, about itself; put it down, about the other."""
    top, base = sorted(("red", "blue"), key=lambda name: -demonstration.rows(f"{name}_pos")[-1][2])
    raised = _raised(demonstration, top, 0.03)
    return cut(demonstration, [_cube(top), _cube(base)], [raised, len(demonstration.commands)], reach_m=REACH_M)


def _cut_drawer(demonstration: Demonstration) -> list[Segment]:
    """All of it about the chest, from near its front on."""
    frame = Frame("chest", ("chest",))
    return cut(demonstration, [frame], [len(demonstration.commands)], reach_m=0.25)


def _cut_peg(demonstration: Demonstration) -> list[Segment]:
    """Grasp and raise the peg, about itself; put it in, about the hole."""
    raised = _raised(demonstration, "peg", 0.03)
    peg = Frame("peg", ("peg_pos", "peg_quat"), turns=SQUARE)
    hole = Frame("hole", ("hole",), turns=SQUARE)
    return cut(demonstration, [peg, hole], [raised, len(demonstration.commands)], reach_m=0.12)


CUTS: dict[str, Callable[[Demonstration], list[Segment]]] = {
    "lift": _cut_lift,
    "stack": _cut_stack,
    "drawer": _cut_drawer,
    "peg": _cut_peg,
}


def _cube(name: str) -> Frame:
    return Frame(name, (f"{name}_pos", f"{name}_quat"), turns=SQUARE)


def _raised(demonstration: Demonstration, name: str, height_m: float) -> int:
    """Return the step at which an object is raised so far above where it began, for the last time.

    Raises:
        ContractError: if it never is.
    """
    heights = demonstration.rows(f"{name}_pos")[:, 2]
    up = heights > heights[0] + height_m
    rises = np.flatnonzero(~up[:-1] & up[1:]) + 1
    if not len(rises):
        raise ContractError(f"{demonstration.name}: the {name} is never raised; only successes can be cut")
    return int(rises[-1])
