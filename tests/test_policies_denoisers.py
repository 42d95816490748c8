"""A network as the denoiser of one solve, against the process's own reading of it level by level."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from robopolicy.errors import ContractError
from robopolicy.policies import solvers, unet1d
from robopolicy.policies.config import DiffusionConfig, GoalConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.denoisers import denoiser
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec

NETS = {
    "mlp": MlpConfig(width=32, depth=2),
    "unet1d": UnetConfig((8, 16, 32), groups=4, step_dim=16),
    "transformer": TransformerConfig(width=32, depth=2, heads=4),
}
PROCESSES = {
    "eps": VPConfig(), "x0": VPConfig(prediction="x0"), "v": VPConfig(prediction="v"), "edm": EDMConfig(),
    "flow": FlowConfig(), "consistency": ConsistencyConfig(),
}  # fmt: skip
SPEC = PolicySpec(
    state={"pos": StateSpec(3, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m",)), n_obs=2, horizon=8,
    n_execute=4,
)  # fmt: skip


def built(config) -> nn.Module:
    """A network none of whose weights is zero, as after some training."""
    torch.manual_seed(0)
    net = config.build(8, 2, 2, 3).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(batch, 8, 2, generator=draw), torch.randn(batch, 2, 3, generator=draw)


@pytest.mark.parametrize("batch", [1, 12])
@pytest.mark.parametrize("kind", PROCESSES)
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_it_says_what_the_process_says_at_every_level(name, kind, batch):
    process, net, (x, cond) = PROCESSES[kind].build(), built(NETS[name]), inputs(batch)
    grid = process.grid(5)
    for jumps in (False, True) if kind == "consistency" else (False,):
        denoise, answer = denoiser(process, net, cond, grid, jumps=jumps), process.jump if jumps else process.denoise
        for t, alpha in zip(grid.t[:-1], grid.alpha, strict=False):
            want = answer(net, cond, x, torch.full((batch,), float(t)))
            within = 2e-4 / (alpha if kind == "eps" else 1)  # times are rounded elsewhere; eps divides by alpha
            assert torch.allclose(denoise(x, t), want, atol=within, rtol=1e-5)


def test_a_network_is_asked_for_all_levels_at_once_if_it_can_be():
    class Counting(nn.Module):
        asked = called = 0

        def forward(self, x, t, cond):
            self.called += 1
            return x

        def at(self, times, cond):
            self.asked += 1
            return [lambda x, t=t: t * x for t in times]

    process, net = FlowConfig().build(), Counting()
    x, cond = inputs(3)
    denoise = denoiser(process, net, cond, process.grid(4))
    for t in process.grid(4).t[:-1]:
        assert torch.allclose(denoise(x, t), x + t * (100 * t) * x)
    assert (net.asked, net.called) == (1, 0)


def test_jumps_that_nobody_learnt_are_refused():
    process, (_, cond) = FlowConfig().build(), inputs(1)
    with pytest.raises(ContractError, match="Flow learns no jumps; train a consistency flow"):
        denoiser(process, lambda x, t, cond: x, cond, process.grid(2), jumps=True)


@pytest.mark.parametrize("goal", [None, GoalConfig(("pos",), weight=2.0)], ids=["no goal", "guided"])
@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_a_sample_is_what_the_solver_makes_of_the_network_call_by_call(name, goal):
    config = DiffusionConfig(NETS[name], process=EDMConfig(), solver=SolverConfig("dpm++2m", 6), goal=goal)
    policy = DiffusionPolicy(SPEC, config).eval()
    for parameter in policy.net.parameters():
        nn.init.normal_(parameter, std=0.2)
    rng = np.random.default_rng(0)
    policy.fit_normaliser(
        SimpleNamespace(state={"pos": rng.random((9, 3), np.float32)}, action=rng.random((9, 2), np.float32))
    )
    draw, tokens = torch.Generator().manual_seed(2), 2 if goal is None else 3
    cond, noise = torch.randn(3, tokens, 3, generator=draw), policy.draw_noise(3, draw)

    def answer(x, t):
        told = policy.process.denoise(policy.net, cond, x, t)
        if goal is None:
            return told
        free = policy.process.denoise(policy.net, policy._goal_free(cond), x, t)
        return free + 2.0 * (told - free)

    denoise = solvers.clipped(solvers.told(answer), policy.action.limit)
    want = solvers.dpmpp_2m(denoise, policy.process.grid(6), noise)
    assert torch.allclose(policy.sample(cond, noise), want, atol=1e-4)
    assert want.abs().max() > 0.1


@pytest.mark.parametrize("batch", [1, 3])
def test_few_chunks_pass_a_unet_as_many_do(monkeypatch, batch):
    net, (x, cond) = built(replace(NETS["unet1d"], kernel=3)), inputs(batch)
    t = torch.linspace(1, 90, batch)
    few = net(x, t, cond)
    weights = torch.autograd.grad(few.square().sum(), list(net.parameters()))
    monkeypatch.setattr(unet1d, "linear", None)  # products are not what comes now
    monkeypatch.setattr(unet1d, "FEW", 0)
    many = net(x, t, cond)
    assert torch.allclose(few, many, atol=1e-5, rtol=1e-5)
    for mine, theirs in zip(weights, torch.autograd.grad(many.square().sum(), list(net.parameters())), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4 * float(theirs.abs().max()) + 1e-6)
