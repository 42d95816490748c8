"""The same seed and the same checkpoint: the same rollouts to the bit, however many processes and environments."""

import hashlib
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.agents import Chunked
from robopolicy.cli.worlds import make_agent, make_safety, make_world
from robopolicy.clock import SimClock
from robopolicy.errors import NoGLBackend
from robopolicy.evaluation.batched import Batched
from robopolicy.evaluation.rollouts import Options, Rollout, evaluate
from robopolicy.evaluation.workers import ENOUGH, Seeds
from robopolicy.monitor.decisions import load_decisions
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import save_checkpoint
from robopolicy.types import Plan

SPEC = PolicySpec(
    state={"state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped"))},
    action=ActionSpec("vector", ("x", "y"), ("px",)), rate_hz=10.0, n_obs=2, horizon=16, n_execute=8,
)  # fmt: skip
WORLD = partial(make_world, "planar:pusht", cameras=())
OPTIONS = Options(max_steps=40, decisions=True)
SEEDS = range(5)
CONFIGS = {
    "mlp": replace(PRESETS["mlp"], net=MlpConfig(width=64, depth=2)),
    "unet, fresh noise": DiffusionConfig(UnetConfig((16, 32), step_dim=16), solver=SolverConfig("ddpm", 4)),
    "transformer": DiffusionConfig(TransformerConfig(32, depth=2), solver=SolverConfig(steps=4)),
}


def untrained(config):
    """A policy that goes all over the table: its pusher meets the T, and the bits of any plan are seen by the world."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(SPEC, config).eval()
    for parameter in policy.net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    rng = np.random.default_rng(0)
    state, action = (512 * rng.random((50, size), np.float32) for size in (5, 2))
    policy.fit_normaliser(SimpleNamespace(state={"state": state}, action=action))
    return policy


def story(outcome, folder):
    """All that an episode came to, and every number that its policy said."""
    decisions = load_decisions(folder / outcome.decisions)
    start_ns = decisions[0].stamp_ns  # simulated time goes on from one episode of a process to the next
    said = [(d.chunks.tobytes(), d.embedding.tobytes(), d.stamp_ns - start_ns) for d in decisions]
    return {**outcome.to_json(), "wall_s": 0, "decisions": ""}, said


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def told_by(world, agent, options, envs, rows, folder):
    """Run all seeds in this process, so many at once; return the story of each."""
    told, waiting = {}, list(SEEDS)
    build = partial(Seeds, partial(Rollout, world, agent, make_safety, options, folder, "it"))
    batched = Batched(build, envs, rows)

    def take(wait):
        return (waiting[0], waiting.pop(0)) if waiting else ENOUGH

    def tell(seed, what, content):
        if what == "result":
            told[seed] = story(content, folder)

    batched.serve(take, tell)
    batched.close()
    return told


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rows", [4, None])
def test_however_many_environments(name, rows, tmp_path):
    policy = untrained(CONFIGS[name])

    def agent(share):
        return Chunked(share("policy", lambda: policy, 1), generator=seeded)

    stories = {
        envs: told_by(WORLD, agent, OPTIONS, envs, rows, tmp_path / f"{envs}") for envs in (1, 3, 5)
    }  # fmt: skip
    assert sorted(stories[1]) == list(SEEDS)
    assert stories[1] == stories[3] == stories[5]
    assert len({tuple(said) for _, said in stories[1].values()}) == len(SEEDS)
    if rows is None:
        alone = Rollout(WORLD, lambda: Chunked(policy, generator=seeded), make_safety, OPTIONS, tmp_path / "one", "it")
        assert stories[1] == {seed: story(alone.run(seed), tmp_path / "one") for seed in SEEDS}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rows", [16, None], ids=["batches", "exact"])
def test_however_many_processes_and_environments(rows, tmp_path):
    save_checkpoint(tmp_path / "policy", untrained(PRESETS["mlp"]), train={})
    stories = []
    for jobs, envs in ((1, 1), (2, 4), (1, 20)):  # 20: two batches may be made as one
        out = tmp_path / f"{jobs}-{envs}"
        outcomes = evaluate(
            WORLD, partial(make_agent, tmp_path / "policy"),
            range(20), make_safety=make_safety, jobs=jobs, envs=envs, rows=rows, out=out, identity="it",
            options=OPTIONS,
        )  # fmt: skip
        assert [outcome.error for outcome in outcomes] == [None] * 20
        stories.append([story(outcome, out) for outcome in outcomes])
    assert all(one == stories[0] for one in stories)


class Looking:
    """Goes where the bytes of the newest picture say."""

    def __init__(self, spec):
        self.spec = spec

    def plan_many(self, requests, *, rows=None):
        return [self.plan(one.window, generator=one.generator) for one in requests]

    def plan(self, window, *, n=1, generator=None, **_):
        digest = np.frombuffer(hashlib.sha256(window[-1].images["front"].tobytes()).digest(), np.uint8)
        rows = np.zeros((n, self.spec.horizon, 10), np.float32)
        rows[..., :3] = np.array([0.4, -0.05, 0.2]) + digest[:3] / 255 * 0.1
        rows[..., 3], rows[..., 7] = 1, -1
        return Plan(rows, digest.astype(np.float32))

    def reset(self):
        pass


def test_cameras_of_several_environments_see_what_each_sees_alone(tmp_path):
    world = partial(make_world, "twin:lift", cameras=("front",))
    try:
        made = world(SimClock())
        made.read()
    except NoGLBackend as error:
        pytest.skip(str(error))
    spec = replace(made.spec, horizon=8, n_execute=4)
    made.close()

    def agent(share):
        return Chunked(share("policy", lambda: Looking(spec), 1), generator=np.random.default_rng)

    options = Options(max_steps=9, decisions=True)
    stories = [told_by(world, agent, options, envs, 4, tmp_path / f"{envs}") for envs in (1, 3)]
    assert stories[0] == stories[1]
    assert len({tuple(said) for _, said in stories[0].values()}) == len(SEEDS)
