"""Guidance: real-time chunking against closed forms, and prefixes that come out as they went in."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.config import DiffusionConfig, RealTimeConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.guidance import agreement, prefixed, real_time
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import SolverConfig, noise_like, solve
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing_policies import random_observation

PROCESSES = [VPConfig(prediction="x0"), VPConfig(), EDMConfig(), FlowConfig(), ConsistencyConfig()]
H, A = 8, 2


def gaussian(process, spread: float = 0.5):
    """The exact denoiser of independent normal data: mean 0.2, standard deviation ``spread``."""

    def denoise(x, t):
        alpha, sigma = (float(part) for part in process.mix(torch.as_tensor(t)))
        gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
        return 0.2 + gain * (x - alpha * 0.2)

    return denoise


def draw(process, denoise, steps=8, count=5, seed=0):
    config = SolverConfig("ddim", steps)
    generator = torch.Generator().manual_seed(seed)
    noise = noise_like(config, (count, H, A), lambda shape: torch.randn(shape, generator=generator))
    return solve(config, denoise, process.grid(steps), noise)


@pytest.mark.parametrize("jacobian", ["identity", "vjp"])
@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
def test_zero_weights_change_nothing_and_ones_reproduce_the_chunk(config, jacobian):
    process = config.build()
    denoise, previous = gaussian(process), torch.randn(H, A, generator=torch.Generator().manual_seed(1))
    setting = RealTimeConfig(jacobian=jacobian)
    free = draw(process, denoise)
    unbent = draw(process, real_time(denoise, process.grid(8), previous, torch.zeros(H), setting))
    assert torch.equal(unbent, free)
    kept = draw(process, real_time(denoise, process.grid(8), previous, torch.ones(H), setting))
    assert torch.equal(kept, previous.expand(5, H, A))
    some = agreement(H, 3, 4)
    mixed = draw(process, real_time(denoise, process.grid(8), previous, some, setting))
    assert torch.equal(mixed[:, :3], previous[:3].expand(5, 3, A))
    assert torch.equal(mixed[:, 4:], free[:, 4:])  # rows are independent here: none beyond is touched
    assert not torch.allclose(mixed[:, :3], free[:, :3])


@pytest.mark.parametrize("jacobian", ["identity", "vjp"])
@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
def test_soft_weights_pull_towards_the_running_chunk(config, jacobian):
    process = config.build()
    denoise, previous = gaussian(process), torch.full((H, A), 0.8)
    setting = RealTimeConfig(jacobian=jacobian)
    free = (draw(process, denoise) - previous).abs().mean()
    half = (
        draw(process, real_time(denoise, process.grid(8), previous, torch.full((H,), 0.5), setting)) - previous
    ).abs()
    most = (
        draw(process, real_time(denoise, process.grid(8), previous, torch.full((H,), 0.9), setting)) - previous
    ).abs()
    assert most.mean() < half.mean() < 0.9 * free


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
def test_vjp_is_the_paper_s_formula(config):
    """For a linear denoiser D = c + k x the Jacobian is k, so the pull is known."""
    process = config.build()
    denoise, previous, weights = gaussian(process), torch.randn(H, A), torch.full((H,), 0.7)
    x, t = torch.randn(3, H, A), process.grid(8).t[2]
    alpha, sigma = (float(part) for part in process.mix(torch.as_tensor(t)))
    a, b = alpha / (alpha + sigma), sigma / (alpha + sigma)
    slope = alpha * 0.25 / (alpha**2 * 0.25 + sigma**2) * (alpha + sigma)  # by the flow's own, scaled x
    clean = denoise(x, t)
    velocity = (previous - clean) * 0.7 * slope * min(5.0, b / a * (a**2 + b**2) / b**2)
    bent = real_time(denoise, process.grid(8), previous, weights, RealTimeConfig(jacobian="vjp"))(x, t)
    assert torch.allclose(bent, clean + b * velocity, atol=1e-5)


def test_agreement_fades_from_the_delay_to_what_the_running_chunk_has_left():
    for schedule in ("exp", "linear", "ones"):
        weights = agreement(16, 3, 8, schedule)
        assert (weights[:3] == 1).all()
        assert (weights[8:] == 0).all()
        assert (weights[3:8] > 0).all()
        assert (weights.diff() <= 0).all()
    assert agreement(16, 3, 8, "exp")[5] < agreement(16, 3, 8, "linear")[5] < 1
    assert torch.equal(agreement(4, 0, 4), torch.zeros(4))  # all of it was executed: nothing is left
    with pytest.raises(UnknownName, match="no schedule 'cosine'; valid: exp, linear, ones"):
        agreement(8, 1, 4, "cosine")


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
def test_a_prefix_is_shown_clean_and_kept(config):
    process = config.build()
    prefix = torch.randn(3, A)
    seen = []

    def denoise(x, t):
        seen.append((x, t))
        return torch.zeros_like(x)

    bent = prefixed(denoise, prefix, process.clean_level)
    out = bent(torch.randn(5, H, A), process.grid(4).t[1])
    x, t = seen[0]
    assert torch.equal(x[:, :3], prefix.expand(5, 3, A))
    assert torch.equal(out[:, :3], prefix.expand(5, 3, A))
    assert (t[:, :3] == process.clean_level).all()
    assert (t[:, 3:] == process.grid(4).t[1]).all()


@pytest.mark.parametrize("setting", [RealTimeConfig(), RealTimeConfig(jacobian="vjp")])
def test_a_policy_keeps_the_rows_that_are_executed_meanwhile(setting):
    spec = PolicySpec(
        state={"x": StateSpec(3, ("m",))}, action=ActionSpec("vector", ("a", "b"), ("m",)), horizon=H, n_execute=4
    )
    torch.manual_seed(0)
    config = DiffusionConfig(MlpConfig(width=32, depth=1), process=FlowConfig(), solver=SolverConfig("euler", 5))
    policy = DiffusionPolicy(spec, replace(config, real_time=setting))

    rng = np.random.default_rng(0)
    state, action = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(50, 2)).astype(np.float32)
    policy.fit_normaliser(SimpleNamespace(state={"x": state}, action=action))
    previous = np.random.default_rng(2).uniform(-1, 1, (H, A)).astype(np.float32)
    window = [random_observation(spec, np.random.default_rng(3))]
    plan = policy.plan(window, n=3, previous=previous, delay_steps=2, generator=np.random.default_rng(4))
    free = policy.plan(window, n=3, generator=np.random.default_rng(4))
    np.testing.assert_allclose(plan.chunks[:, :2], np.broadcast_to(previous[:2], (3, 2, A)), atol=1e-5)
    assert np.abs(plan.chunks[:, 2:] - free.chunks[:, 2:]).max() > 1e-3


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
@pytest.mark.parametrize("past", [0, 2])
def test_training_gives_up_to_max_delay_rows_clean_and_asks_for_the_others(config, past, monkeypatch):
    policy = prefix_policy(past, process=config)
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(net, cond, x0, eps, t, weight, generator):
        asked.append((t, weight))
        return x0.sum()

    monkeypatch.setattr(policy.process, "loss", loss)
    batch = {"state": {"x": torch.randn(400, past + 1, 3)}, "action": torch.randn(400, past + H, A)}
    policy.loss(batch, torch.Generator().manual_seed(0))
    levels, weight = asked[0]
    given = levels == policy.process.clean_level  # (400, past + H)
    counts = given.sum(1)
    assert set(counts.tolist()) == {0, *(past + delay for delay in (1, 2, 3))}
    assert torch.equal(given, torch.arange(past + H) < counts[:, None])  # the first ones, the past's with them
    assert torch.equal(weight, (~given).float())
    free = [row[~known].unique() for row, known in zip(levels, given, strict=True)]
    assert all(len(level) == 1 for level in free)


@pytest.mark.parametrize("past", [0, 2])
def test_a_policy_that_was_given_rows_keeps_those_that_are_executed_meanwhile(past):
    policy = prefix_policy(past)
    rng = np.random.default_rng(2)
    previous = rng.uniform(-1, 1, (H, A)).astype(np.float32)
    executed = rng.uniform(-1, 1, (past, A)).astype(np.float32) if past else None
    window = [random_observation(policy.spec, rng) for _ in range(past + 1)]
    for delay in (1, 3):
        plan = policy.plan(
            window, n=2, previous=previous, delay_steps=delay, executed=executed, generator=np.random.default_rng(4)
        )
        kept = np.broadcast_to(previous[:delay], (2, delay, A))
        np.testing.assert_allclose(plan.chunks[:, :delay], kept, atol=1e-5)
        assert np.abs(plan.chunks[:, delay] - previous[delay]).min() > 1e-3
    with pytest.raises(ContractError, match="a delay of 4 steps; the policy was trained for at most 3"):
        policy.plan(window, previous=previous, delay_steps=4)


def test_guidance_does_not_bend_what_a_plan_says_of_the_past():
    policy = prefix_policy(2)
    policy.config = replace(policy.config, max_delay=0, real_time=RealTimeConfig())
    rng = np.random.default_rng(2)
    previous, executed = (rng.uniform(-1, 1, (rows, A)).astype(np.float32) for rows in (H, 2))
    window = [random_observation(policy.spec, rng) for _ in range(3)]
    told = {"executed": executed, "generator": np.random.default_rng(4)}
    plan = policy.plan(window, previous=previous, delay_steps=3, **told)
    np.testing.assert_allclose(plan.chunks[0, :3], previous[:3], atol=1e-5)
    assert plan.aux["past_error"] > 1e-3  # else a selector by the past would find all candidates alike


def prefix_policy(past: int, process=None) -> DiffusionPolicy:
    """A policy of given rows, up to 3 of them, that was never trained."""
    spec = PolicySpec(
        state={"x": StateSpec(3, ("m",))}, action=ActionSpec("vector", ("a", "b"), ("m",)), horizon=H, n_execute=4,
        n_obs=past + 1,
    )  # fmt: skip
    torch.manual_seed(0)
    net, solver = MlpConfig(width=32, depth=1), SolverConfig("euler", 5)
    policy = DiffusionPolicy(
        spec, DiffusionConfig(net, process=process or FlowConfig(), solver=solver, past=past, max_delay=3)
    )
    rng = np.random.default_rng(0)
    state, action = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=(50, 2)).astype(np.float32)
    policy.fit_normaliser(SimpleNamespace(state={"x": state}, action=action))
    return policy
