"""What the processes draw, feed, ask for and read out, against their definitions."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler
from scipy import stats
from torch import Tensor

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.processes import PREDICTIONS, TIME_SCALE, EDMConfig, FlowConfig, VPConfig, cosine_alpha_bar

VPS = [VPConfig(prediction=prediction) for prediction in PREDICTIONS]
PROCESSES = [*VPS, EDMConfig(), EDMConfig(spacing="karras"), FlowConfig(), FlowConfig("uniform"), ConsistencyConfig()]
CPU = torch.device("cpu")


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_name(config) -> str:
    return "-".join([config.kind, *(str(v) for v in vars(config).values() if isinstance(v, str))])


each = pytest.mark.parametrize("config", PROCESSES, ids=by_name)


def levels(process, per_row: bool) -> Tensor:
    t = process.draw(800 if per_row else 100, seeded(3), CPU)
    return t.view(100, 8) if per_row else t


def test_the_cosine_schedule_is_diffusers():
    for steps in (10, 100, 1000):
        want = DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2").alphas_cumprod
        assert torch.allclose(torch.tensor(cosine_alpha_bar(steps)), want, atol=1e-6)


@each
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
    assert grid.sigma[0] >= 1 - 1e-6, "it starts where there is nothing but noise, or as much as training saw"


def test_a_variance_preserving_grid_says_how_many_steps_it_can_have():
    assert VPConfig(steps=7).build().grid(7).t == (7, 6, 5, 4, 3, 2, 1, 0)
    for steps in (0, 101):
        with pytest.raises(ContractError, match=f"{steps} steps of a process of 100; want 1 to 100"):
            VPConfig().build().grid(steps)


@pytest.mark.parametrize("per_row", [False, True], ids=["per sample", "per row"])
@each
def test_what_is_asked_of_the_network_stands_for_the_clean_chunk(config, per_row):
    process = config.build()
    x0, eps = torch.rand(100, 8, 2, generator=seeded()) * 2 - 1, torch.randn(100, 8, 2, generator=seeded(2))
    t = levels(process, per_row)
    t = t.clamp(max=95) if config.kind == "vp" else t  # above, eps prediction divides by next to nothing
    x = process.noised(x0, eps, t)
    if per_row:
        alpha, sigma = process.mix(t[7, 3])
        assert torch.allclose(x[7, 3], alpha * x0[7, 3] + sigma * eps[7, 3], atol=1e-6)
    assert torch.allclose(process.clean(process.target(x0, eps, t), x, t), x0, atol=1e-3)


@each
def test_a_level_for_each_row_is_that_of_the_sample_where_they_are_equal(config):
    process = config.build()
    x0, eps = torch.rand(9, 8, 2, generator=seeded()), torch.randn(9, 8, 2, generator=seeded(2))
    t = process.draw(9, seeded(3), CPU)
    rows = t[:, None].expand(-1, 8)
    x = process.noised(x0, eps, t)
    assert torch.equal(process.noised(x0, eps, rows), x)
    assert torch.equal(process.target(x0, eps, rows), process.target(x0, eps, t))
    assert torch.equal(process.clean(eps, x, rows), process.clean(eps, x, t))
    (fed_rows, told_rows), (fed, told) = process.feed(x, rows), process.feed(x, t)
    assert torch.equal(fed_rows, fed)
    assert torch.equal(told_rows, told[:, None].expand(-1, 8))


@each
def test_a_clean_row_is_fed_and_read_as_it_is(config):
    """As training-time conditioning on a prefix needs it: nothing infinite, and no error from that row."""
    process = config.build()
    x0, eps = torch.rand(4, 8, 2, generator=seeded()) * 2 - 1, torch.randn(4, 8, 2, generator=seeded(2))
    t = process.draw(4, seeded(3), CPU)[:, None].repeat(1, 8)
    t[:, :3] = process.clean_level
    x = process.noised(x0, eps, t)
    assert torch.equal(x[:, :3], x0[:, :3])
    fed, told = process.feed(x, t)
    assert fed.isfinite().all()
    assert told.isfinite().all()
    assert process.target(x0, eps, t).isfinite().all()
    if config.kind == "vp" and config.prediction == "x0":
        return  # its network must repeat the row itself
    assert torch.equal(process.clean(eps, x, t)[:, :3], x0[:, :3])


@pytest.mark.parametrize("steps", [10, 100])
def test_variance_preserving_levels_are_equally_likely(steps):
    t = VPConfig(steps=steps).build().draw(20_000, seeded(), CPU)
    assert (t.min(), t.max()) == (1, steps)
    assert stats.chisquare(torch.bincount(t, minlength=steps + 1)[1:].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("config", [EDMConfig(), EDMConfig(sigma_min=0.05, sigma_max=20, loc=0.1, scale=0.8)])
def test_edm_levels_are_log_logistic_and_cut(config):
    drawn = config.build().draw(20_000, seeded(), CPU).numpy()
    whole = stats.fisk(1 / config.scale, scale=math.exp(config.loc))
    low, high = whole.cdf(config.sigma_min), whole.cdf(config.sigma_max)
    assert config.sigma_min * (1 - 1e-6) <= drawn.min() < drawn.max() <= config.sigma_max * (1 + 1e-6)
    assert stats.kstest(drawn, lambda sigma: (whole.cdf(sigma) - low) / (high - low)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1.5, 3.0])
def test_flow_levels_are_uniform_or_beta(alpha):
    uniform = FlowConfig("uniform").build().draw(20_000, seeded(), CPU).numpy()
    assert stats.kstest(uniform, stats.uniform.cdf).pvalue > 1e-3
    beta = FlowConfig("beta", alpha).build().draw(20_000, seeded(), CPU).numpy()
    assert stats.kstest((beta - 0.001) / 0.999, stats.beta(alpha, 1).cdf).pvalue > 1e-3


def test_edm_preconditioning_is_karras_table_1_and_diffusers():
    process = EDMConfig(sigma_data=0.4).build()
    oracle = EDMEulerScheduler(sigma_data=0.4)
    x, output = torch.randn(50, 8, 2, generator=seeded()), torch.randn(50, 8, 2, generator=seeded(2))
    sigma = process.draw(50, seeded(3), CPU)
    fed, told = process.feed(x, sigma)
    wide = sigma.view(-1, 1, 1)
    assert torch.allclose(fed, oracle.precondition_inputs(x, wide), atol=1e-6)
    assert torch.allclose(told, oracle.precondition_noise(sigma) * TIME_SCALE, atol=1e-4)
    assert torch.allclose(process.clean(output, x, sigma), oracle.precondition_outputs(x, output, wide), atol=1e-6)


def test_edm_feeds_and_asks_unit_variance_whatever_the_level():
    """The reason for the preconditioning: Karras et al. 2022, appendix B.6."""
    config = EDMConfig(sigma_max=80.0)
    process = config.build()
    x0 = config.sigma_data * torch.randn(2000, 8, 2, generator=seeded())
    eps = torch.randn(2000, 8, 2, generator=seeded(2))
    for sigma in (0.005, 0.1, 0.5, 3.0, 80.0):
        t = torch.full((2000,), sigma)
        fed, _ = process.feed(process.noised(x0, eps, t), t)
        assert float(fed.std()) == pytest.approx(1, abs=0.02)
        assert float(process.target(x0, eps, t).std()) == pytest.approx(1, abs=0.02)


@each
def test_loss_is_nothing_for_a_network_that_knows_and_weights_count_rows(config):
    process = config.build()
    if config.kind == "consistency":
        pytest.skip("part of its target is its own answer")
    x0, eps = torch.rand(16, 8, 2, generator=seeded()), torch.randn(16, 8, 2, generator=seeded(2))
    t, cond = process.draw(16, seeded(3), CPU), torch.zeros(16, 1, 1)
    target = process.target(x0, eps, t)
    off = torch.zeros(8)
    off[5] = 0.5
    assert process.loss(lambda x, t, cond: target, cond, x0, eps, t) == 0
    wrong = process.loss(lambda x, t, cond: target + off[:, None], cond, x0, eps, t)
    assert float(wrong) == pytest.approx(0.25 / 8)
    for row, want in ((5, 0.25), (4, 0.0)):
        weight = torch.zeros(16, 8)
        weight[:, row] = 1
        loss = process.loss(lambda x, t, cond: target + off[:, None], cond, x0, eps, t, weight)
        assert float(loss) == pytest.approx(want)


def test_only_a_consistency_flow_jumps():
    with pytest.raises(ContractError, match="Flow learns no jumps; train a consistency flow"):
        FlowConfig().build().jump(lambda x, t, cond: x, torch.zeros(1), torch.zeros(1, 1, 1), torch.ones(1))


def test_what_is_no_process_is_refused():
    with pytest.raises(UnknownName, match="eps, v, x0"):
        VPConfig(prediction="score")
    with pytest.raises(UnknownName, match="beta, uniform"):
        FlowConfig("cosine")
    with pytest.raises(UnknownName, match="exponential, karras"):
        EDMConfig(spacing="linear")
    with pytest.raises(ContractError, match="want 0 < min < max"):
        EDMConfig(sigma_min=4.0)
