"""Data with two modes: every process and solver draws both, and not their mean. The benchmark is bench_two_modes.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from two_modes import judge, paths, trained

from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.denoisers import denoiser
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import SolverConfig, clipped, noise_like, solve
from robopolicy.types import Plan

STEPS = {"ddpm": 50, "ddim": 16, "euler": 16, "heun": 12, "dpm++2m": 16, "ancestral": 30}


def two_blobs(count: int, generator: torch.Generator) -> torch.Tensor:
    """Points (count, 1, 2) in two bent blobs, at -0.7 and 0.7."""
    side = 2.0 * torch.randint(2, (count,), generator=generator) - 1
    x = torch.randn(count, 2, generator=generator) * torch.tensor([0.05, 0.2])
    return torch.stack([x[:, 0] + 0.7 * side, x[:, 1] + 0.3 * torch.sin(3 * x[:, 1]) + 0.2 * side], dim=-1)[:, None]


def energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = a.flatten(1), b.flatten(1)
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def learn(process, steps: int) -> torch.nn.Module:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = MlpConfig(width=64, depth=2).build(1, 2, 1, 1)
    optimizer = torch.optim.AdamW(net.parameters(), 4e-3, (0.95, 0.999))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x0 = two_blobs(256, generator)
        eps, t = torch.randn(x0.shape, generator=generator), process.draw(256, generator, x0.device)
        optimizer.zero_grad()
        process.loss(net, torch.zeros(256, 1, 1), x0, eps, t, None, generator).backward()
        optimizer.step()
        schedule.step()
    return net.eval()


@torch.no_grad()
def draw(process, net, solver: SolverConfig, count: int = 1000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(9)
    noise = noise_like(solver, (count, 1, 2), lambda shape: torch.randn(shape, generator=generator))
    grid = process.grid(solver.steps)
    answers = denoiser(process, net, torch.zeros(count, 1, 1), grid, jumps=solver.name == "consistency")
    return solve(solver, clipped(answers, 1.5), grid, noise)


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (VPConfig(prediction="x0"), 300),
        (EDMConfig(), 300),
        pytest.param(VPConfig(), 1500, marks=pytest.mark.slow),
        pytest.param(VPConfig(prediction="v"), 1500, marks=pytest.mark.slow),
        pytest.param(FlowConfig(), 1500, marks=pytest.mark.slow),
        pytest.param(ConsistencyConfig(), 2000, marks=pytest.mark.slow),
    ],
    ids=["vp-x0", "edm", "vp-eps", "vp-v", "flow", "consistency"],
)
def test_every_solver_of_every_process_draws_what_was_learnt(config, steps):
    process = config.build()
    net = learn(process, steps)
    want = two_blobs(1000, torch.Generator().manual_seed(77))
    jumps = [("consistency", 1), ("consistency", 2)] if config.kind == "consistency" else []
    for name, count in [*STEPS.items(), *jumps]:
        got = draw(process, net, SolverConfig(name, count))
        left, right = (float((sign * got[:, 0, 0] > 0.35).float().mean()) for sign in (-1, 1))
        distance = energy_distance(got, want)
        said = f"{name} {count}: energy distance {distance:.3f}, left {left:.2f}, right {right:.2f}"
        print(said)
        assert distance < 0.06, said  # all between the blobs: about 0.9
        assert 0.38 < left < 0.6, said
        assert 0.38 < right < 0.6, said


def test_a_policy_passes_a_post_on_both_sides_and_never_goes_through(tmp_path):
    config = DiffusionConfig(MlpConfig(width=128, depth=2), process=EDMConfig())
    policy = trained(config, tmp_path, steps=900, lr=2e-3)
    for solver in (SolverConfig("ancestral", 16), SolverConfig("dpm++2m", 8)):
        modes = judge(policy, solver, count=4, n=150)
        assert 0.4 < modes.left < 0.6, modes
        assert 0.4 < modes.right < 0.6, modes
        assert modes.between < 0.05, modes
        assert modes.off_cm < 4, modes


@pytest.mark.parametrize(("way", "want"), [((1, -1), (0, 0, 1)), ((1, 1), (1, 0, 0)), ((-1, -1), (0, 1, 0))])
def test_the_judge_tells_a_side_from_the_middle(way, want):
    """The mean of both sides is found out."""

    class Known:
        config = DiffusionConfig()

        def plan(self, window, *, n, generator):
            post = window[0].state["post"]
            chunk = sum(paths(post[None], np.array([sign]))[0] for sign in way) / 2
            return Plan(chunk[None].repeat(n, 0).astype(np.float32), np.zeros(1, np.float32))

    modes = judge(Known(), SolverConfig("ddim", 2), n=3)
    assert (modes.left, modes.right, modes.between) == pytest.approx(want)
    assert modes.off_cm < 1e-3 or modes.between == 1
