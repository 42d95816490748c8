"""The solvers against diffusers' schedulers, step for step on shared levels and noise."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
)
from torch import Tensor

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.guidance import prefixed
from robopolicy.policies.processes import PREDICTIONS, EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import (
    SOLVERS,
    Grid,
    SolverConfig,
    ancestral,
    clipped,
    consistency,
    ddim,
    ddpm,
    dpmpp_2m,
    euler,
    heun,
    noise_like,
    solve,
    told,
)

# numpy 2 of diffusers' schedulers, which turn tensors into arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (3, 8, 2)
COND = torch.zeros(1)
NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VP = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"}
COMMON = {**VP, "clip_sample": True}
PROCESSES = [VPConfig(), VPConfig(prediction="x0"), EDMConfig(), FlowConfig(), ConsistencyConfig()]


def network(x: Tensor, t: Tensor) -> Tensor:
    """Some smooth function of x and t."""
    return torch.tanh(1.3 * x + 0.01 * t.view(-1, 1, 1).float() - 0.4)


def close(got: Tensor, want: Tensor, tolerance: float = 1e-5) -> None:
    worst = float((got - want).abs().max())
    assert worst <= tolerance, f"largest difference {worst:.1e}"


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def denoiser(process):
    """What the process makes of ``network``."""
    return told(lambda x, t: process.denoise(lambda x, t, cond: network(x, t), COND, x, t))


def fresh(scheduler_steps: int, seed: int = 2) -> tuple[Tensor, torch.Generator]:
    """Noise for every step, and a generator that draws the same after the first of it."""
    generator = seeded(seed)
    start = torch.randn(SHAPE, generator=generator)
    state = generator.get_state()
    noise = torch.stack([start, *(torch.randn(SHAPE, generator=generator) for _ in range(scheduler_steps - 1))])
    generator.set_state(state)
    return noise, generator


def scaled_run(oracle, x, answer, **arguments):
    """Run a scheduler of k-diffusion's kind, which counts levels as sigmas and is told eps = (x - x0) / sigma."""
    for t in oracle.timesteps:
        oracle.scale_model_input(x, t)  # it complains if nobody calls it
        sigma = oracle.sigmas[oracle.step_index or 0]
        x = oracle.step((x - answer(x, sigma.expand(len(x)))) / sigma, t, x, **arguments).prev_sample
    return x


def sigmas_of(oracle) -> Grid:
    """The levels of a scheduler that counts them as sigmas, each once."""
    t = tuple(oracle.sigmas.unique().flip(0).tolist())
    return Grid(t, (1.0,) * len(t), t)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 5, 10, 20, 100])  # divisors of 100: elsewhere diffusers misses its own grid
def test_ddim_is_diffusers(prediction, steps, eta):
    process = VPConfig(prediction=prediction).build()
    oracle = DDIMScheduler(prediction_type=NAMES[prediction], timestep_spacing="trailing", **COMMON)
    oracle.set_timesteps(steps)
    oracle.alphas_cumprod = oracle.alphas_cumprod.double()  # its sqrt(1 - alpha - std^2) loses half of float32's digits
    noise, generator = fresh(steps)
    want = noise[0]
    for t in oracle.timesteps:
        output = network(want, t.expand(3))
        want = oracle.step(
            output, t, want, eta=eta, use_clipped_model_output=True, generator=generator
        ).prev_sample  # fmt: skip
    grid = process.grid(steps)
    assert [t - 1 for t in grid.t[:-1]] == oracle.timesteps.tolist()
    got = ddim(clipped(denoiser(process)), grid, noise if eta else noise[0], eta)
    close(got, want)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm_is_diffusers(prediction):
    process = VPConfig(prediction=prediction).build()
    oracle = DDPMScheduler(prediction_type=NAMES[prediction], variance_type="fixed_small", **COMMON)
    noise, generator = fresh(100)
    want = noise[0]
    for t in oracle.timesteps:
        want = oracle.step(network(want, t.expand(3)), t, want, generator=generator).prev_sample
    close(ddpm(clipped(denoiser(process)), process.grid(100), noise), want)


@pytest.mark.parametrize("solver", ["euler", "dpm++2m"])
@pytest.mark.parametrize("spacing", ["exponential", "karras"])
@pytest.mark.parametrize("steps", [2, 3, 16, 40])
def test_edm_is_diffusers_edm(solver, spacing, steps):
    config = EDMConfig(sigma_data=0.4, sigma_min=0.01, sigma_max=20.0, spacing=spacing)
    ours = {"euler": euler, "dpm++2m": dpmpp_2m}[solver]
    theirs = {"euler": EDMEulerScheduler, "dpm++2m": EDMDPMSolverMultistepScheduler}[solver]
    oracle = theirs(sigma_min=0.01, sigma_max=20.0, sigma_data=0.4, sigma_schedule=spacing)
    oracle.set_timesteps(steps)
    process = config.build()
    noise = torch.randn(SHAPE, generator=seeded())
    want = 20.0 * noise
    for t in oracle.timesteps:  # theirs tells the network log(sigma) / 4, ours a hundred times that
        output = network(oracle.scale_model_input(want, t), 100 * t.expand(3))
        want = oracle.step(output, t, want).prev_sample
    close(ours(denoiser(process), process.grid(steps), noise), want)


@pytest.mark.parametrize("ours", [euler, heun, ancestral], ids=lambda f: f.__name__)
@pytest.mark.parametrize("steps", [2, 5, 30])
def test_variance_exploding_steps_are_diffusers(ours, steps):
    theirs, spacing = {
        euler: (EulerDiscreteScheduler, {"use_karras_sigmas": True}),
        heun: (HeunDiscreteScheduler, {"use_karras_sigmas": True}),
        ancestral: (EulerAncestralDiscreteScheduler, {}),
    }[ours]
    oracle = theirs(beta_end=0.004, **spacing)  # sigmas of up to 2: theirs subtracts what it has just added
    oracle.set_timesteps(steps)
    noise, generator = fresh(steps)
    arguments = {"generator": generator} if ours is ancestral else {}
    grid = sigmas_of(oracle)
    assert len(grid) == steps
    want = scaled_run(oracle, grid.sigma[0] * noise[0], network, **arguments)
    got = ours(told(network), grid, noise if ours is ancestral else noise[0])
    close(got, want)


def test_ancestral_steps_of_a_variance_preserving_process_are_diffusers():
    oracle = EulerAncestralDiscreteScheduler(timestep_spacing="trailing", **VP)
    oracle.set_timesteps(20)
    process = VPConfig(prediction="x0").build()
    grid = process.grid(20)
    answer = denoiser(process)
    noise, generator = fresh(20)
    seen = iter(zip(grid.t, grid.alpha, strict=True))

    def scaled(z, sigma):  # they step in z = x / alpha
        level, alpha = next(seen)
        return answer(alpha * z, level)

    want = scaled_run(oracle, noise[0] * grid.sigma[0] / grid.alpha[0], scaled, generator=generator)
    close(ancestral(answer, grid, noise), want)


@pytest.mark.parametrize("steps", [2, 5, 15, 16, 50])
def test_dpm_solver_of_a_variance_preserving_process_is_diffusers(steps):
    oracle = DPMSolverMultistepScheduler(
        prediction_type="sample", timestep_spacing="trailing", final_sigmas_type="zero", lambda_min_clipped=-5.1, **VP
    )
    oracle.set_timesteps(steps)
    process = VPConfig(prediction="x0").build()
    levels = [*(oracle.timesteps + 1).tolist(), 0]
    grid = Grid(tuple(levels), *zip(*(process.table[t] for t in levels), strict=True))
    want = noise = torch.randn(SHAPE, generator=seeded())
    for t in oracle.timesteps:
        want = oracle.step(network(want, t.expand(3)), t, want).prev_sample
    close(dpmpp_2m(denoiser(process), grid, noise / grid.sigma[0]), want)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (euler, FlowMatchEulerDiscreteScheduler),
        (heun, FlowMatchHeunDiscreteScheduler),
        (consistency, FlowMatchLCMScheduler),
    ],
    ids=["euler", "heun", "consistency"],
)
@pytest.mark.parametrize("steps", [2, 5, 30])
def test_flow_steps_are_diffusers(ours, theirs, steps):
    oracle = theirs(num_train_timesteps=10)  # heun ends at a tenth; near 0 theirs divides what it has just multiplied
    process = FlowConfig().build()
    if ours is euler:
        oracle.set_timesteps(sigmas=list(process.grid(steps).t[:-1]))
    else:
        oracle.set_timesteps(steps)
    t = tuple(oracle.sigmas.unique().flip(0).tolist())
    grid = Grid(t, tuple(1 - level for level in t), t)
    if ours is euler:
        assert grid.t == pytest.approx(process.grid(steps).t)
    noise, generator = fresh(steps)
    arguments = {"generator": generator} if ours is consistency else {}
    want = noise[0]
    for step in oracle.timesteps:
        velocity = -network(want, step.expand(3) * 10)  # theirs points to the noise
        want = oracle.step(velocity, step, want, **arguments).prev_sample
    got = ours(denoiser(process), grid, noise if ours is consistency else noise[0])
    close(got, want)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_consistency_of_a_variance_preserving_process_is_diffusers_lcm(steps):
    oracle = LCMScheduler(
        prediction_type="sample", original_inference_steps=100, clip_sample=False, set_alpha_to_one=True, **VP
    )
    oracle.set_timesteps(steps)
    process = VPConfig(prediction="x0").build()
    levels = [*(oracle.timesteps + 1).tolist(), 0]
    grid = Grid(tuple(levels), *zip(*(process.table[t] for t in levels), strict=True))
    noise, generator = fresh(steps)

    def jump(x, t):
        skip, out = oracle.get_scalings_for_boundary_condition_discrete(t[0] - 1)
        return out * network(x, t - 1) + skip * x

    want = noise[0]
    for t in oracle.timesteps:
        want = oracle.step(network(want, t.expand(3)), t, want, generator=generator).prev_sample
    noise[0] /= grid.sigma[0]  # theirs starts from unit noise
    close(consistency(told(jump), grid, noise), want)


def test_consistency_of_a_variance_exploding_process_is_diffusers():
    oracle = CMStochasticIterativeScheduler(sigma_min=2**-9, sigma_max=5.0, sigma_data=0.5, clip_denoised=False)
    oracle.set_timesteps(4)
    t = sigmas_of(oracle).t  # noise is added so that with sigma_min there is as much as the level says
    grid = Grid(t, (1.0,) * 5, (t[0], *((level**2 - oracle.config.sigma_min**2) ** 0.5 for level in t[1:-1]), 0.0))
    noise, generator = fresh(4)

    def jump(x, t):
        skip, out = oracle.get_scalings_for_boundary_condition(t.view(-1, 1, 1))
        return out * network(x, t) + skip * x

    want = grid.sigma[0] * noise[0]
    for t in oracle.timesteps:
        oracle.scale_model_input(want, t)
        want = oracle.step(
            network(want, oracle.sigmas[oracle.step_index or 0].expand(3)), t, want, generator
        ).prev_sample
    close(consistency(told(jump), grid, noise), want)


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
@pytest.mark.parametrize("name", SOLVERS)
def test_a_perfect_denoiser_is_found_from_any_noise(config, name):
    data = torch.rand(4, 8, 2) * 2 - 1
    solver = SolverConfig(name, 16)
    noise = noise_like(solver, (4, 8, 2), torch.randn)
    close(solve(solver, lambda x, t: data, config.build().grid(16), noise), data, 0)


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpm++2m", 2)])
def test_the_error_falls_with_the_order_of_the_solver(config, name, order):
    """Of normal data the denoiser is known, and so is where the probability flow takes each noise."""
    spread, centre = 0.3, 0.2
    if config.kind == "edm":  # its last step, from the least noise to none, is of first order whatever the solver
        config = replace(config, sigma_min=0.002)
    process, shares = config.build(), {}

    def denoise(x, t):
        alpha, sigma = shares[t]
        return centre + alpha * spread**2 * (x - alpha * centre) / (alpha**2 * spread**2 + sigma**2)

    noise = torch.randn(64, 1, 1, generator=seeded()).double()

    def error(steps):
        grid = process.grid(steps)
        shares.update(zip(grid.t, zip(grid.alpha, grid.sigma, strict=True), strict=True))
        top, end = (math.hypot(grid.alpha[i] * spread, grid.sigma[i]) for i in (0, -1))
        want = centre + (grid.sigma[0] * noise - grid.alpha[0] * centre) * end / top
        return float((solve(SolverConfig(name, steps), denoise, grid, noise) - want).abs().max())

    if name == "dpm++2m" and config.kind != "edm":
        order = 1  # its first and last step, of first order, do not shrink with the others on levels so spread
    assert error(80) < error(20) / 4 ** (order - 0.5)
    assert error(80) < 0.04


@pytest.mark.parametrize("config", PROCESSES, ids=lambda c: c.kind)
@pytest.mark.parametrize("name", SOLVERS)
def test_rows_that_are_given_stay_and_the_rest_is_solved_with_levels_for_each_row(config, name):
    process = config.build()
    given = torch.rand(3, 2, generator=seeded())
    seen = []

    def denoise(x, t):
        seen.append((x, t))
        return process.clean(network(x, t.amax(1)), x, t).clamp(-1, 1)

    solver = SolverConfig(name, 5)
    noise = noise_like(solver, SHAPE, lambda shape: torch.randn(shape, generator=seeded()))
    chunks = solve(solver, prefixed(denoise, given, process.clean_level), process.grid(5), noise)
    assert torch.equal(chunks[:, :3], given.expand(3, -1, -1))
    assert chunks[:, 3:].isfinite().all()
    assert len(seen) == (9 if name == "heun" else 5)
    for x, t in seen:
        assert torch.equal(x[:, :3], given.expand(3, -1, -1))
        assert (t[:, :3] == process.clean_level).all()
        assert (t[:, 3:] == t[:, 3:4]).all()
        assert (t[:, 3:] > 0).all()


@pytest.mark.parametrize(
    ("config", "name"),
    [*((FlowConfig(), name) for name in SOLVERS), *((config, "euler") for config in PROCESSES)],
    ids=lambda value: getattr(value, "kind", value),
)
def test_a_whole_solve_can_be_exported_for_any_batch(config, name):
    """No step looks at a value, so the loop unrolls into one graph, as a CUDA graph or an exported file wants it."""

    class Sampler(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.process = config.build()
            self.solver = SolverConfig(name, 3)

        def forward(self, noise):
            answer = clipped(denoiser(self.process))
            return solve(self.solver, answer, self.process.grid(3), noise)

    sampler = Sampler()
    noise = noise_like(sampler.solver, SHAPE, torch.randn)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(sampler, (noise,), dynamic_shapes=({noise.ndim - 3: batch},))
    other = noise_like(sampler.solver, (7, 8, 2), torch.randn)
    close(exported.module()(other), sampler(other), 1e-6)


def test_noise_is_drawn_for_every_step_only_where_it_is_used():
    assert noise_like(SolverConfig("ddpm", 7), (8, 2), torch.zeros).shape == (7, 8, 2)
    assert noise_like(SolverConfig("ddim", 7, eta=0.1), (8, 2), torch.zeros).shape == (7, 8, 2)
    assert noise_like(SolverConfig("ddim", 7), (8, 2), torch.zeros).shape == (8, 2)


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(UnknownName, match="ddim, ddpm"):
        SolverConfig("unipc")
    with pytest.raises(ContractError, match="steps 0"):
        SolverConfig("ddim", 0)
    with pytest.raises(ContractError, match=r"eta 1\.5"):
        SolverConfig("ddim", 4, eta=1.5)
    with pytest.raises(ContractError, match=r"eta 0\.5 of heun; only ddim has one"):
        SolverConfig("heun", 4, eta=0.5)
