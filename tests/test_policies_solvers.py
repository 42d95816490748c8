"""The solvers against diffusers' schedulers, and the parts of the processes against each other."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.processes import PREDICTIONS, EDMConfig, FlowConfig, VPConfig, cosine_alpha_bar
from robopolicy.policies.solvers import SOLVERS, SolverConfig, clipped, ddim, ddpm, noise_like, solve

NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
COMMON = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}
PROCESSES = [VPConfig(), VPConfig(prediction="x0"), EDMConfig(), FlowConfig(), ConsistencyConfig()]


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Some smooth function of x and t."""
    return torch.tanh(1.3 * x + 0.01 * t.view(-1, 1, 1).float() - 0.4)


def vp(prediction):
    process = VPConfig(prediction=prediction).build()
    cond = torch.zeros(1)
    return clipped(lambda x, t: process.denoise(lambda x, t, cond: network(x, t), cond, x, t)), process


def test_schedule_is_diffusers():
    assert torch.allclose(cosine_alpha_bar(100), DDPMScheduler(**COMMON).alphas_cumprod, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [5, 10, 20, 100])  # divisors of 100: elsewhere diffusers misses its own grid
def test_ddim_is_diffusers(prediction, steps):
    noise = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(1))
    denoise, process = vp(prediction)
    oracle = DDIMScheduler(prediction_type=NAMES[prediction], timestep_spacing="trailing", **COMMON)
    oracle.set_timesteps(steps)
    want = noise
    for t in oracle.timesteps:
        output = network(want, t.expand(3))
        want = oracle.step(output, t, want, eta=0.0, use_clipped_model_output=True).prev_sample
    grid = process.grid(steps)
    assert [t - 1 for t in grid.t[:-1]] == oracle.timesteps.tolist()
    assert torch.allclose(ddim(denoise, grid, noise), want, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm_is_diffusers(prediction):
    denoise, process = vp(prediction)
    oracle = DDPMScheduler(prediction_type=NAMES[prediction], variance_type="fixed_small", **COMMON)
    generator = torch.Generator().manual_seed(2)
    want = start = torch.randn(3, 8, 2, generator=generator)
    state = generator.get_state()
    for t in oracle.timesteps:
        want = oracle.step(network(want, t.expand(3)), t, want, generator=generator).prev_sample
    generator.set_state(state)
    noise = torch.stack([start, *(torch.randn(3, 8, 2, generator=generator) for _ in range(99))])
    assert torch.allclose(ddpm(denoise, process.grid(100), noise), want, atol=1e-5)


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_perfect_denoiser_is_found_from_any_noise(config, name):
    data = torch.rand(4, 8, 2) * 2 - 1
    solver = SolverConfig(name, 16)
    noise = noise_like(solver, (4, 8, 2), torch.randn)
    assert torch.allclose(solve(solver, lambda x, t: data, config.build().grid(16), noise), data, atol=1e-5)


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
@pytest.mark.parametrize("steps", [1, 3, 16, 100])
def test_a_grid_goes_from_the_noisiest_level_to_the_clean_one(config, steps):
    process = config.build()
    grid = process.grid(steps)
    assert len(grid) == steps
    assert all(later < earlier for earlier, later in pairwise(grid.t))
    assert (grid.t[-1], grid.alpha[-1], grid.sigma[-1]) == (process.clean_level, 1, 0)
    alpha, sigma = process.mix(torch.tensor(grid.t))
    assert torch.allclose(alpha, torch.tensor(grid.alpha), atol=1e-7)
    assert torch.allclose(sigma, torch.tensor(grid.sigma), atol=1e-7)


def test_grid_says_how_many_steps_it_can_have():
    with pytest.raises(ContractError, match="101 steps of a process of 100"):
        VPConfig().build().grid(101)


@pytest.mark.parametrize("config", [*PROCESSES, VPConfig(prediction="v")], ids=lambda c: c.kind)
@pytest.mark.parametrize("per_row", [False, True])
def test_target_and_clean_are_inverse(config, per_row):
    process = config.build()
    generator = torch.Generator().manual_seed(3)
    x0, eps = torch.rand(100, 8, 2) * 2 - 1, torch.randn(100, 8, 2)
    t = process.draw(800 if per_row else 100, generator, torch.device("cpu"))
    t = t.clamp(max=95) if config.kind == "vp" else t  # above, eps prediction divides by next to nothing
    t = t.view(100, 8) if per_row else t
    x_t, target = process.noised(x0, eps, t), process.target(x0, eps, t)
    assert torch.allclose(process.clean(target, x_t, t), x0, atol=1e-3)


def test_ddpm_asks_for_noise_of_every_step():
    assert noise_like(SolverConfig("ddpm", 7), (8, 2), torch.zeros).shape == (7, 8, 2)
    assert noise_like(SolverConfig("ddim", 7), (8, 2), torch.zeros).shape == (8, 2)


def test_unknown_members_list_the_valid_ones():
    with pytest.raises(UnknownName, match="ddim, ddpm"):
        SolverConfig("unipc")
    with pytest.raises(UnknownName, match="eps, v, x0"):
        VPConfig(prediction="score")
