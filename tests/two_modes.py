"""A task with two right answers whose mean is wrong: paths around a post, half of the demonstrations on either side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import torch

from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.training.trainer import TrainConfig, train
from robopolicy.types import Observation

SPEC = PolicySpec(
    state={"post": StateSpec(2, ("m", "m"))},
    action=ActionSpec("vector", ("x", "y"), ("m", "m")),
    n_obs=1, horizon=16, n_execute=8, rate_hz=10.0,
)  # fmt: skip
CLEARANCE = 0.25  # m, of a demonstration from the post
ALONG = np.linspace(0, 1, SPEC.horizon)  # m, of the rows of a chunk


def paths(posts: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return the demonstrated paths (N, 16, 2), m, past posts (N, 2) on sides (N,) of 1 or -1."""
    aside = posts[:, 1] + sides * CLEARANCE
    y = aside[:, None] * np.exp(-(((ALONG - posts[:, :1]) / 0.2) ** 2))
    return np.stack([np.broadcast_to(ALONG, y.shape), y], axis=-1)


def posts(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform((0.3, -0.1), (0.7, 0.1), (count, 2))


def demonstrations(count: int = 2000, seed: int = 0) -> SimpleNamespace:
    """The windows of ``count`` paths, each begun where it begins."""
    rng = np.random.default_rng(seed)
    where = posts(count, seed)
    action = paths(where, np.where(np.arange(count) % 2, 1, -1)) + rng.normal(0, 0.005, (count, SPEC.horizon, 2))
    rows = np.arange(count * SPEC.horizon).reshape(count, SPEC.horizon)
    state = {"post": np.repeat(where, SPEC.horizon, 0).astype(np.float32)}
    return SimpleNamespace(
        arrays=SimpleNamespace(state=state, images={}, action=action.reshape(-1, 2).astype(np.float32)),
        obs_rows=rows[:, :1], action_rows=rows,
    )  # fmt: skip


def trained(config: DiffusionConfig, out, *, steps: int, lr: float = 1e-3, seed: int = 0) -> DiffusionPolicy:
    torch.manual_seed(seed)
    policy = DiffusionPolicy(SPEC, config)
    return train(policy, demonstrations(), out, TrainConfig(steps=steps, lr=lr, seed=seed, save_every_s=1e9))


@dataclass(frozen=True)
class Modes:
    """Where samples went."""

    left: float
    right: float
    between: float  # of those that pass the post nearer than half of what any demonstration does
    least: float  # share of the rarer side before the post where it is rarest
    off_cm: float  # root mean square distance from the demonstrated path of their side

    def __str__(self) -> str:
        return (
            f"left {self.left:5.1%}  right {self.right:5.1%}  between {self.between:5.2%}"
            f"  rarer side at the worst post {self.least:4.0%}  off {self.off_cm:4.1f} cm"
        )


def judge(policy: DiffusionPolicy, solver: SolverConfig, *, count: int = 8, n: int = 250, seed: int = 1) -> Modes:
    """Draw ``n`` chunks in one plan before each of ``count`` posts that nobody demonstrated."""
    policy.config = replace(policy.config, solver=solver)
    left, right, off = [], [], []
    for i, post in enumerate(posts(count, 1000 + seed)):
        window = [Observation(0, {"post": post.astype(np.float32)})]
        chunks = policy.plan(window, n=n, generator=torch.Generator().manual_seed(seed + i)).chunks
        at = np.argmin(abs(ALONG - post[0]))
        for sides, sign in ((left, 1), (right, -1)):
            want = paths(post[None], np.array([sign]))[0]
            mine = sign * (chunks[:, at, 1] - post[1]) > CLEARANCE / 2
            sides.append(mine.mean())
            off.extend(((chunks[mine] - want) ** 2).sum(-1).mean(-1))
    return Modes(
        float(np.mean(left)), float(np.mean(right)), float(1 - np.mean(left) - np.mean(right)),
        float(np.minimum(left, right).min()), float(100 * np.sqrt(np.mean(off))) if off else float("nan"),
    )  # fmt: skip


def print_all(name: str, policy: DiffusionPolicy, solvers: Sequence[SolverConfig]) -> list[Modes]:
    found = []
    for solver in solvers:
        found.append(judge(policy, solver))
        print(f"{name:24} {solver.name:>11} {solver.steps:3}  {found[-1]}", flush=True)
    return found
