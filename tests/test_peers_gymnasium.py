"""A checkpoint scores the same in gym-pusht through our adapter as through a plain loop of Gymnasium, step for step."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.agents import Chunked
from robopolicy.cli.worlds import make_safety, make_world
from robopolicy.evaluation.rollouts import Options, Rollout
from robopolicy.policies.config import PRESETS
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec

sys.path.insert(0, str(Path(__file__).parent))
SPEC = PolicySpec(
    state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
    action=ActionSpec("vector", ("x", "y"), ("px",)), rate_hz=10.0, n_obs=2, horizon=16, n_execute=8,
)  # fmt: skip
STEPS = 60


@pytest.fixture(scope="module")
def policy():
    """One that was never trained goes wherever its noise says, which is what a test of every number wants."""
    torch.manual_seed(0)
    made = DiffusionPolicy(SPEC, replace(PRESETS["mlp"], net=MlpConfig(32, depth=1))).eval()
    rng = np.random.default_rng(0)
    rows = SimpleNamespace(
        state={"state": 512 * rng.random((50, 5), np.float32)}, action=512 * rng.random((50, 2), np.float32)
    )
    made.fit_normaliser(rows)
    return made


@pytest.mark.parametrize("seed", [100_000, 100_003, 7])
def test_an_episode_is_the_same_to_the_bit(policy, seed, monkeypatch):
    pytest.importorskip("gym_pusht", reason="pip install 'robopolicy[pusht]'")
    from plain_gymnasium import ENV, roll_out

    best, success, path = roll_out(policy, seed, STEPS)
    agent = Chunked(policy, generator=lambda seed: torch.Generator().manual_seed(seed))
    seen = []
    act = agent.act
    monkeypatch.setattr(agent, "act", lambda observation: seen.append(observation.state["state"]) or act(observation))
    world = partial(make_world, f"gymnasium:{ENV}")
    rollout = Rollout(world, lambda: agent, make_safety, Options(max_steps=STEPS))
    outcome = rollout.run(seed)
    rollout.close()
    assert np.array_equal(seen, path[: len(seen)])
    assert len(seen) == STEPS
    assert (outcome.success, outcome.steps) == (success, len(path) - 1)
    assert outcome.score == pytest.approx(best, abs=1e-12), "theirs differs by 1e-16 between processes"
    assert np.ptp(path, axis=0)[:2].min() > 100, "the pusher went about"
