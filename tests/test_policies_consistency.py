"""The consistency flow against flows that are known, and what one loss asks of the network."""

import pytest
import torch

from robopolicy.errors import ContractError
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.solvers import SolverConfig, consistency, euler, told

COND = torch.zeros(16, 1, 1)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(process, per_row: bool = False):
    x0, eps = torch.rand(16, 8, 2, generator=seeded()), torch.randn(16, 8, 2, generator=seeded(2))
    t = process.draw(128 if per_row else 16, seeded(3), torch.device("cpu"))
    return x0, eps, t.view(16, 8) if per_row else t


def curved(x, t, cond):
    """Some flow, and something else for the times of jumps."""
    t = t.view(*t.shape, *[1] * (x.ndim - t.ndim))
    return torch.sin(x + t / 100) - x


@pytest.mark.parametrize("per_row", [False, True], ids=["per sample", "per row"])
def test_loss_is_nothing_where_flow_and_jumps_are_known(per_row):
    """All data in one point: the velocity towards it is the mean velocity as well."""
    process = ConsistencyConfig().build()
    point = torch.tensor([0.3, -0.4])
    _, eps, t = batch(process, per_row)
    if per_row:
        t[:, :3] = 0  # given rows

    def known(x, time, cond):
        t = time / 100
        t = torch.where(t > 1.5, t - 2, t)  # told to jump
        return (point - x) / t.view(*t.shape, *[1] * (3 - t.ndim)).clamp_min(1e-6)

    weight = (t > 0).float() if per_row else None
    assert process.loss(known, COND, point.expand(16, 8, 2), eps, t, weight) < 1e-8
    wrong = process.loss(lambda *inputs: known(*inputs) + 0.1, COND, point.expand(16, 8, 2), eps, t, weight)
    assert wrong > 1e-3
    assert torch.allclose(process.jump(known, COND, eps, torch.ones(16)), point.expand(16, 8, 2), atol=1e-6)


def test_a_jump_is_to_lead_where_eulers_method_ends():
    process = ConsistencyConfig(solve_steps=5).build()
    noise = torch.randn(16, 8, 2, generator=seeded())
    ends = noise + process._mean_velocity(curved, COND, noise, torch.ones(16))
    want = euler(told(lambda x, t: process.denoise(curved, COND, x, t)), process.grid(5), noise)
    assert torch.allclose(ends, want, atol=1e-5)


def test_few_samples_of_a_batch_learn_to_jump_and_nothing_is_learnt_through_their_targets():
    process = ConsistencyConfig(share=0.25, solve_steps=3).build()
    x0, eps, t = batch(process)
    gain = torch.tensor(0.7, requires_grad=True)
    calls = []

    def net(x, time, cond):
        calls.append((len(x), len(cond), torch.is_grad_enabled(), int((time > 150).sum())))
        return gain * curved(x, time, cond)

    process.loss(net, COND, x0, eps, t).backward()
    assert sorted(calls) == sorted([(16, 16, True, 4), *[(4, 4, False, 0)] * 3])
    assert gain.grad.isfinite()
    assert gain.grad != 0


def test_rows_of_no_weight_are_not_learnt():
    process = ConsistencyConfig().build()
    x0, eps, t = batch(process)
    weight = torch.ones(16, 8)
    weight[:, :3] = 0
    other = torch.zeros(8, 2)
    other[:3] = 5.0

    def loss(weight, off):
        """Only the call that is learnt from is off: the targets stay as they were."""
        learnt = lambda x, time, cond: curved(x, time, cond) + (off if torch.is_grad_enabled() else 0)  # noqa: E731
        return process.loss(learnt, COND, x0, eps, t, weight)

    assert torch.equal(loss(weight, 0 * other), loss(weight, other))
    assert loss(None, 0 * other) != loss(None, other)


def test_two_halves_of_a_batch_make_the_loss_of_the_whole():
    """As several processes share a batch: every other sample each."""
    process = ConsistencyConfig().build()
    x0, eps, t = batch(process)
    whole = process.loss(curved, COND, x0, eps, t)
    halves = [process.loss(curved, COND[i::2], x0[i::2], eps[i::2], t[i::2]) for i in (0, 1)]
    assert torch.allclose(sum(halves) / 2, whole, atol=1e-6)


def test_a_batch_of_one_has_a_loss():
    process = ConsistencyConfig().build()
    x0, eps, t = batch(process)
    assert process.loss(curved, COND[:1], x0[:1], eps[:1], t[:1]).isfinite()


def test_a_later_jump_begins_where_the_last_one_ended_with_fresh_noise():
    process = ConsistencyConfig().build()
    noise = torch.randn(2, 16, 8, 2, generator=seeded())
    ones = torch.ones(16)
    first = process.jump(curved, COND, noise[0], ones)
    second = process.jump(curved, COND, 0.5 * first + 0.5 * noise[1], ones / 2)
    got = consistency(told(lambda x, t: process.jump(curved, COND, x, t)), process.grid(2), noise)
    assert torch.allclose(got, second, atol=1e-6)
    assert SolverConfig("consistency", 2).stochastic


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"solve_steps": 0}], ids=str)
def test_what_cannot_be_learnt_is_refused(wrong):
    with pytest.raises(ContractError, match="want 0 < share < 1 and at least 1"):
        ConsistencyConfig(**wrong)
