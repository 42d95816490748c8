"""What Gymnasium does not tell of some environments: units, names, how to hold, how to disturb."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class KnownEnv:
    """Everything has a default that fits an environment nobody described."""

    instruction: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)  # for gymnasium.make
    state_units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    action_names: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ("1",)
    here: Callable[[Any], np.ndarray] | None = None  # observation -> the action that stays where one is
    frame: Callable[[Any], np.ndarray] | None = None  # environment -> the picture its data sets hold
    disturb: Callable[[Any, np.random.Generator], str] | None = None
    packages: tuple[str, ...] = ()  # whose versions decide how an episode goes, beside Gymnasium and the environment's
    settle: Callable[[Any], None] | None = None  # called once with the environment: what makes its numbers repeat


def _pusht_frame(env: Any) -> np.ndarray:
    """Return the published 96 x 96 observation, which has no mark at the commanded point."""
    shown, env.obs_type = env.obs_type, "pixels"
    try:
        return np.array(env.get_obs(), dtype=np.uint8)
    finally:
        env.obs_type = shown


def _pusht_disturb(env: Any, rng: np.random.Generator) -> str:
    """Put the block into the corner of the world that is farthest from the agent, turned at random."""
    corner = np.where(np.asarray(env.agent.position) > 256, 75.0, 437.0)
    env.block.angle = float(rng.uniform(0, 2 * np.pi))
    env.block.position = tuple(float(v) for v in corner + rng.uniform(-15, 15, 2))
    env.block.velocity, env.block.angular_velocity = (0.0, 0.0), 0.0
    env.space.reindex_shapes_for_body(env.block)
    return f"the T was moved to the corner ({env.block.position[0]:.0f}, {env.block.position[1]:.0f}) px"


def _pusht_settle(env: Any) -> None:
    """Have the parts of the T always added up in one order.

    gym-pusht takes them from a set, whose order is that of addresses in memory, and the last bit of the coverage is
    another from process to process, by 1e-16.
    """
    from gym_pusht.envs.pusht import pymunk_to_shapely

    def coverage() -> float:
        goal, block = (
            pymunk_to_shapely(body, env._block_shapes) for body in (env.get_goal_pose_body(env.goal_pose), env.block)
        )
        return float(goal.intersection(block).area / goal.area)

    env._get_coverage = coverage


KNOWN = {
    "gym_pusht/PushT-v0": KnownEnv(
        instruction="push the T onto its target",
        options={"visualization_width": 384, "visualization_height": 384},
        state_units={"state": ("px", "px", "px", "px", "rad_wrapped")},
        action_names=("x", "y"),
        action_units=("px",),
        here=lambda seen: seen[:2],
        frame=_pusht_frame,
        disturb=_pusht_disturb,
        packages=("pymunk", "shapely"),
        settle=_pusht_settle,
    ),
}
