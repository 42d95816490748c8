import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
from training_parts import CONFIG, SPEC, make, same, sampler

from robopolicy.errors import ContractError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.training.average import Average
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.ranks import Ranks
from robopolicy.training.trainer import train
from robopolicy.training.updates import Updates, make_optimizer, wants_compile
from robopolicy.training.windows import DeviceWindows

CPU = torch.device("cpu")
STATE = replace(SPEC, cameras={})
TINY = DiffusionConfig(MlpConfig(width=8, depth=1))
FULL = replace(CONFIG, precision="float32")


def fitted() -> tuple[DiffusionPolicy, dict]:
    policy = make(STATE, TINY)
    policy.fit_normaliser(sampler().arrays)
    return policy, DeviceWindows(sampler(), STATE, CPU).batch(0, 0, 8)


@pytest.mark.parametrize("clip", [None, 1e-3, 1e3])
def test_an_update_is_clipping_then_adamw(clip):
    policy, batch = fitted()
    updates = Updates(policy, replace(FULL, clip_norm=clip, warmup=0.0, steps=10), 1e-2, CPU, Ranks())
    other, _ = fitted()
    optimizer = torch.optim.AdamW(other.parameters(), betas=(0.95, 0.999), weight_decay=0)
    for step in range(3):
        updates.step(batch, step, step / 10)
        optimizer.zero_grad()
        other.loss(batch, torch.Generator().manual_seed(step)).backward()
        nn.utils.clip_grad_norm_(other.parameters(), clip or torch.inf)
        optimizer.param_groups[0]["lr"] = updates.lr
        optimizer.step()
    for mine, theirs in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-6)
    _, norm, bad = updates.take()
    assert norm > 0.01
    assert bad == 0


def test_vectors_do_not_decay():
    policy, _ = fitted()
    optimizer = make_optimizer(policy, 1e-3, 0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == len(list(policy.parameters()))
    for name, parameter in policy.named_parameters():
        assert decay[id(parameter)] == (0.5 if name.endswith("weight") and parameter.ndim > 1 else 0.0), name


def test_a_frozen_weight_is_neither_updated_nor_missed_when_the_run_resumes(tmp_path):
    def frozen() -> DiffusionPolicy:
        policy = make(STATE, TINY)
        policy.net.enter.weight.requires_grad_(False)
        return policy

    config = replace(FULL, steps=8)
    whole = train(frozen(), sampler(), tmp_path / "whole", config)
    assert torch.equal(whole.net.enter.weight, frozen().net.enter.weight)
    train(frozen(), sampler(), tmp_path / "parts", replace(config, steps=4))
    train(frozen(), sampler(), tmp_path / "parts", config, resume=True)
    assert load_policy(tmp_path / "parts").action.fitted


@pytest.mark.parametrize("clip", [1.0, None])
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, 1e30])  # the last: a gradient too long for its square
def test_a_gradient_that_is_no_number_changes_nothing_and_is_counted(clip, poison):
    policy, batch = fitted()
    updates = Updates(policy, replace(FULL, clip_norm=clip), 1e-2, CPU, Ranks())
    updates.step(batch, 0, 0.5)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    moments = [state["exp_avg"].clone() for state in updates.optimizer.state.values()]
    assert updates.sound
    updates.step({**batch, "action": batch["action"] * poison}, 1, 0.5)
    assert not updates.sound
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())
    assert all(torch.equal(a, s["exp_avg"]) for a, s in zip(moments, updates.optimizer.state.values(), strict=True))
    loss, _, bad = updates.take()
    assert not math.isfinite(loss)
    assert bad == 1
    assert updates.sound, "a take begins anew"
    updates.step(batch, 2, 0.5)
    assert not torch.equal(policy.net.enter.weight, before["net.enter.weight"])


@pytest.mark.parametrize("report_every_s", [0.0, 1e9])
def test_poison_stops_the_run_with_the_last_good_checkpoint_kept(tmp_path, monkeypatch, report_every_s):
    config = replace(FULL, steps=20, save_every_s=0.0, report_every_s=report_every_s)
    monkeypatch.setattr("robopolicy.training.trainer.SAVING", 1e9)  # save after every step, however long it takes
    loss = DiffusionPolicy.loss
    calls: list[int] = []

    def poisoned(policy, batch, generator=None):
        calls.append(1)
        return loss(policy, batch, generator) * (torch.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(DiffusionPolicy, "loss", poisoned)
    with pytest.raises(ContractError, match=r"the loss is nan at step 6; the checkpoint in .* is the last good one"):
        train(make(STATE, TINY), sampler(), tmp_path, config)
    assert read_train(tmp_path)["steps"] == 5
    monkeypatch.setattr(DiffusionPolicy, "loss", loss)
    train(make(STATE, TINY), sampler(), tmp_path / "good", config)
    assert all(bool(value.isfinite().all()) for value in load_policy(tmp_path).parameters())
    train(make(STATE, TINY), sampler(), tmp_path, config, resume=True)
    assert same(load_policy(tmp_path), load_policy(tmp_path / "good")), "as if nothing had happened"


def test_poison_before_the_first_save_leaves_no_checkpoint(tmp_path, monkeypatch):
    loss = DiffusionPolicy.loss
    monkeypatch.setattr(DiffusionPolicy, "loss", lambda *a: loss(*a) * torch.nan)
    with pytest.raises(ContractError, match="the loss is nan at step 1; none was saved"):
        train(make(STATE, TINY), sampler(), tmp_path, FULL)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize(("steps", "tolerance"), [(100, 1e-5), (603, 1.0)])
def test_the_average_is_that_of_diffusers(steps, tolerance):
    """Exactly at first; then, of a random walk of unit steps that is tens away, to less than one step."""
    torch.manual_seed(0)
    net = nn.Linear(5, 3)
    mine = Average(net.parameters(), 0.75)
    theirs = EMAModel(net.parameters(), use_ema_warmup=True, power=0.75)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += torch.randn_like(parameter)
        mine.step()
        theirs.step(net.parameters())
    for a, b in zip(mine.values, theirs.shadow_params, strict=True):
        assert (a - b).abs().max() < tolerance
    copied = nn.Linear(5, 3)
    mine.copy_to(copied.parameters())
    assert torch.equal(copied.weight, mine.values[0])


def test_saves_wait_until_they_are_a_thirtieth_of_the_time(tmp_path, monkeypatch):
    saves = []
    monkeypatch.setattr("robopolicy.training.trainer.save_state", lambda *a: saves.append(a[-1]["step"]))
    monkeypatch.setattr("robopolicy.training.trainer.SAVING", 1e-9)
    train(make(STATE, TINY), sampler(), tmp_path, replace(FULL, steps=20, save_every_s=0.0))
    assert saves == [1, 20], "the first, and the last"


def test_compiling_pays_on_a_gpu_and_for_long_runs():
    cuda = torch.device("cuda")
    assert not wants_compile(replace(CONFIG, steps=100_000), CPU)
    assert wants_compile(replace(CONFIG, steps=100_000), cuda)
    assert wants_compile(replace(CONFIG, steps=None, max_minutes=10), cuda)
    assert not wants_compile(replace(CONFIG, steps=1000), cuda)
    assert not wants_compile(replace(CONFIG, steps=100_000, max_minutes=1), cuda)
    assert not wants_compile(replace(CONFIG, steps=100_000, compile="off"), cuda)
    assert wants_compile(replace(CONFIG, steps=1, compile="on"), CPU)


def test_without_a_compiler_a_run_goes_on_uncompiled(tmp_path, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda net, **options: compiled(net, backend=broken))
    monkeypatch.setattr("robopolicy.training.updates.wants_compile", lambda *a: True)
    plain = train(make(STATE, TINY), sampler(), tmp_path / "a", replace(FULL, compile="auto"))
    monkeypatch.setattr("robopolicy.training.updates.wants_compile", lambda *a: False)
    assert same(plain, train(make(STATE, TINY), sampler(), tmp_path / "b", FULL))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")  # torch's compiler, of torch itself
def test_a_compiled_run_is_close_to_one_that_is_not(tmp_path):
    plain = train(make(STATE, TINY), sampler(), tmp_path / "a", FULL)
    policy = make(STATE, TINY)
    compiled = train(policy, sampler(), tmp_path / "b", replace(FULL, compile="on"))
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-5)
    assert policy.net._compiled_call_impl is None
