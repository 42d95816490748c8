"""The solvers against diffusers' schedulers, and the parts of the process against each other."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.process import PREDICTIONS, ProcessConfig, cosine_alpha_bar
from robopolicy.policies.solver import SolverConfig, clipped, ddim, ddpm, noise_like, trailing_grid

NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
COMMON = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Some smooth function of x and t."""
    return torch.tanh(1.3 * x + 0.01 * t.view(-1, 1, 1).float() - 0.4)


def denoiser(prediction):
    process = ProcessConfig(prediction=prediction).build()
    return clipped(lambda x, t: process.clean(network(x, t), x, t)), process.alpha_bar


def test_schedule_is_diffusers():
    assert torch.allclose(cosine_alpha_bar(100), DDPMScheduler(**COMMON).alphas_cumprod, atol=1e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [5, 10, 20, 100])  # divisors of 100: elsewhere diffusers misses its own grid
def test_ddim_is_diffusers(prediction, steps):
    noise = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(1))
    denoise, alpha_bar = denoiser(prediction)
    oracle = DDIMScheduler(prediction_type=NAMES[prediction], timestep_spacing="trailing", **COMMON)
    oracle.set_timesteps(steps)
    want = noise
    for t in oracle.timesteps:
        output = network(want, t.expand(3))
        want = oracle.step(output, t, want, eta=0.0, use_clipped_model_output=True).prev_sample
    grid = trailing_grid(alpha_bar, steps)
    assert torch.equal(grid.t, oracle.timesteps)
    assert torch.allclose(ddim(denoise, grid, noise), want, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm_is_diffusers(prediction):
    denoise, alpha_bar = denoiser(prediction)
    oracle = DDPMScheduler(prediction_type=NAMES[prediction], variance_type="fixed_small", **COMMON)
    generator = torch.Generator().manual_seed(2)
    want = start = torch.randn(3, 8, 2, generator=generator)
    state = generator.get_state()
    for t in oracle.timesteps:
        want = oracle.step(network(want, t.expand(3)), t, want, generator=generator).prev_sample
    generator.set_state(state)
    noise = torch.stack([start, *(torch.randn(3, 8, 2, generator=generator) for _ in range(99))])
    assert torch.allclose(ddpm(denoise, trailing_grid(alpha_bar, 100), noise), want, atol=1e-5)


def test_a_perfect_denoiser_is_found_from_any_noise():
    data = torch.rand(4, 8, 2) * 2 - 1
    grid = trailing_grid(cosine_alpha_bar(100), 16)
    assert torch.allclose(ddim(lambda x, t: data, grid, torch.randn(4, 8, 2)), data, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 3, 16, 100])
def test_trailing_grid_starts_at_the_noisiest_level_and_ends_clean(steps):
    grid = trailing_grid(cosine_alpha_bar(100), steps)
    assert grid.t[0] == 99
    assert grid.alpha_bar[-1] == 1
    assert len(grid.t) == steps == len(grid.alpha_bar) - 1
    assert (grid.t.diff() < 0).all()


def test_grid_says_how_many_steps_it_can_have():
    with pytest.raises(ContractError, match="101 steps of a process of 100"):
        trailing_grid(cosine_alpha_bar(100), 101)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_target_and_clean_are_inverse(prediction):
    process = ProcessConfig(prediction=prediction).build()
    x0, eps = torch.rand(100, 8, 2) * 2 - 1, torch.randn(100, 8, 2)
    t = torch.arange(100)
    x_t, target = process.noised(x0, eps, t), process.target(x0, eps, t)
    keep = slice(0, 95)  # above, eps prediction divides by next to nothing
    assert torch.allclose(process.clean(target, x_t, t)[keep], x0[keep], atol=1e-3)


def test_ddpm_asks_for_noise_of_every_step():
    assert noise_like(SolverConfig("ddpm", 7), (8, 2), torch.zeros).shape == (7, 8, 2)
    assert noise_like(SolverConfig("ddim", 7), (8, 2), torch.zeros).shape == (8, 2)


def test_unknown_members_list_the_valid_ones():
    with pytest.raises(UnknownName, match="ddim, ddpm"):
        SolverConfig("euler")
    with pytest.raises(UnknownName, match="eps, v, x0"):
        ProcessConfig(prediction="score")
