from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from robopolicy.agents import Chunked
from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies import batch
from robopolicy.policies.config import SELECTORS, DiffusionConfig, SelectorConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.selectors import choose, incoherence, past_error, spread
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

N, PAST, H, A = 9, 3, 6, 2


def drawn(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return candidates (N, PAST + H, A), what was done (PAST, A) and what is left of a running chunk (H - 2, A)."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in ((N, PAST + H, A), (PAST, A), (H - 2, A)))


def pick(name: str, chunks: Tensor, done: Tensor | None, left: Tensor | None) -> int:
    return choose(SelectorConfig(name, len(chunks)), chunks, past=PAST, done=done, previous=left)


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_candidates_does_not_matter(name, seed):
    chunks, done, left = drawn(seed)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
    chosen = pick(name, chunks, done, left)
    if name == "first":
        assert chosen == 0
    else:
        assert order[pick(name, chunks[order], done, left)] == chosen


@pytest.mark.parametrize("place", [0, 4, 8])
def test_the_candidate_that_was_planted_is_found(place):
    chunks, done, left = drawn()
    chunks[place, :PAST] = done + 0.1
    assert pick("past", chunks, done, left) == place
    chunks, done, left = drawn()
    chunks[place, PAST : PAST + len(left)] = left + 0.1
    assert pick("coherence", chunks, done, left) == place
    chunks, done, left = drawn()
    chunks[place, PAST:] = chunks[:, PAST:].mean(0)
    assert pick("medoid", chunks, done, left) == place


@pytest.mark.parametrize("name", SELECTORS)
def test_only_the_rows_that_matter_decide(name):
    chunks, done, left = drawn(1)
    before = pick(name, chunks, done, left)
    other = chunks.clone()
    if name == "past":
        other[:, PAST:] = 10 * torch.randn(N, H, A, generator=torch.Generator().manual_seed(3))
    else:
        other[:, :PAST] = 10 * torch.randn(N, PAST, A, generator=torch.Generator().manual_seed(3))
    assert pick(name, other, done, left) == before


@pytest.mark.parametrize("name", SELECTORS)
def test_without_a_history_the_first_is_taken_but_a_medoid_needs_none(name):
    chunks, _, _ = drawn(2)
    chunks[0] += 5  # an outlier
    nothing = pick(name, chunks, None, None)
    assert (nothing == 0) == (name != "medoid")
    assert pick(name, chunks, torch.zeros(0, A), torch.zeros(0, A)) == nothing
    assert pick(name, chunks[3:4], torch.zeros(PAST, A), torch.zeros(H, A)) == 0


def test_the_measures_are_what_they_say():
    chunks = torch.zeros(2, 4, 1)
    chunks[1, :, 0] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert past_error(chunks, torch.tensor([[0.0], [1.0]])).tolist() == [0.5, 1.0]
    fading = incoherence(chunks, torch.zeros(2, 1), decay=0.5)
    assert torch.allclose(fading, torch.tensor([0.0, (1 * 1 + 0.5 * 4) / 1.5]))
    assert torch.allclose(spread(chunks), torch.full((2,), 30**0.5 / 2))


def test_an_unknown_selector_is_named():
    with pytest.raises(UnknownName, match=r"'best'.*medoid"):
        SelectorConfig("best", 2)
    with pytest.raises(ContractError, match="0 samples"):
        SelectorConfig("past", 0)


SPEC = PolicySpec(
    state={"pos": StateSpec(1, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m", "px")), rate_hz=10.0,
    n_obs=4, horizon=4, n_execute=1,
)  # fmt: skip
CONFIG = DiffusionConfig(MlpConfig(width=32, depth=1), solver=SolverConfig(steps=4), past=3)


def make(selector: SelectorConfig, **changes) -> DiffusionPolicy:
    torch.manual_seed(0)
    policy = DiffusionPolicy(SPEC, replace(CONFIG, selector=selector, **changes)).eval()
    rng = np.random.default_rng(0)
    commands = rng.random((50, 2), dtype=np.float32) * (1, 1000)  # metres beside pixels
    policy.fit_normaliser(SimpleNamespace(state={"pos": rng.random((50, 1), dtype=np.float32)}, action=commands))
    return policy


def window(shift: float = 0.0) -> list[Observation]:
    return [Observation(10**8 * i, {"pos": np.float32([0.2 * i + shift])}) for i in range(4)]


def test_a_plan_executes_the_candidate_whose_past_is_what_was_done(monkeypatch):
    seen = {}
    monkeypatch.setattr(batch, "choose", lambda config, chunks, **known: seen.update(known, chunks=chunks) or 0)
    make(SelectorConfig("past", 6)).plan(window(), generator=np.random.default_rng(0))
    monkeypatch.undo()
    policy = make(SelectorConfig("past", 6))
    for wanted in range(6):
        done = policy.action.inverse(seen["chunks"][wanted, :3]).numpy()
        made = policy.plan(window(), executed=done, n=2, generator=np.random.default_rng(0))
        want = policy.action.inverse(seen["chunks"][wanted, 3:]).numpy()
        assert np.allclose(made.chunks[0], want, atol=1e-2)  # of 1000 px
        assert made.aux["past_error"] == pytest.approx(0, abs=1e-6)
        first = policy.action.inverse(seen["chunks"][0 if wanted else 1, 3:]).numpy()
        assert np.allclose(made.chunks[1], first, atol=1e-2), "the others follow in the order they were drawn"


def test_many_candidates_cost_one_encoding_and_one_call_of_the_network_a_step():
    policy = make(SelectorConfig("medoid", 32))
    encoded, called = [], []
    policy.encoder.register_forward_hook(lambda net, given, out: encoded.append(out.shape[:2]))
    policy.net.leave.register_forward_hook(lambda net, given, out: called.append(len(out)))
    assert len(policy.plan(window(), n=32, generator=np.random.default_rng(0)).chunks) == 32
    assert encoded == [(1, 4)]
    assert called == [32] * CONFIG.solver.steps


def test_the_choice_is_made_in_normalised_space(monkeypatch):
    seen = {}
    monkeypatch.setattr(batch, "choose", lambda config, chunks, **known: seen.update(known, chunks=chunks) or 0)
    policy = make(SelectorConfig("past", 16))
    executed = np.float32([[0.5, 250], [0.25, 500], [0.75, 750]])
    policy.plan(window(), executed=executed, generator=np.random.default_rng(1))
    assert torch.allclose(seen["done"], policy.action(torch.from_numpy(executed)))
    assert seen["done"].abs().max() < 1
    assert seen["chunks"].abs().max() < 2


def test_the_past_error_is_unknown_until_all_of_the_past_is():
    policy = make(SelectorConfig("past", 4))
    for executed in (None, np.zeros((0, 2), np.float32), np.zeros((2, 2), np.float32)):
        made = policy.plan(window(), executed=executed, generator=np.random.default_rng(0))
        assert np.isnan(made.aux["past_error"])
        assert made.aux["past_error"].shape == ()
        alone = make(SelectorConfig()).plan(window(), generator=np.random.default_rng(0))
        assert np.allclose(made.chunks[0], alone.chunks[0], atol=1e-2), "then the first is taken"
    known = policy.plan(window(), executed=np.zeros((3, 2), np.float32), generator=np.random.default_rng(0))
    assert np.isfinite(known.aux["past_error"])
    assert "past_error" not in make(SelectorConfig(), past=0).plan(window()).aux


def test_an_agent_hands_over_what_it_did_and_the_choice_follows_it():
    agent = Chunked(make(SelectorConfig("past", 8)), generator=np.random.default_rng)
    agent.reset(3)
    errors, firsts = [], []
    for i in range(8):
        agent.act(replace(window()[0], stamp_ns=10**8 * i))
        errors.append(float(agent.decision.aux["past_error"]))
        firsts.append(agent.decision.chunks[0])
    assert np.isnan(errors[:3]).all()
    assert np.isfinite(errors[3:]).all()


def test_coherence_compares_only_what_is_left_of_the_running_chunk(monkeypatch):
    seen = {}
    monkeypatch.setattr(batch, "choose", lambda config, chunks, **known: seen.update(known) or 0)
    policy = make(SelectorConfig("coherence", 2))
    policy.plan(window(), previous=np.float32([[0, 0], [1, 1000], [1, 1000], [1, 1000]]))
    assert seen["previous"].shape == (3, 2)
    assert seen["past"] == 3
    policy.spec = replace(SPEC, n_execute=4)
    policy.plan(window(), previous=np.zeros((4, 2), np.float32))
    assert seen["previous"] is None
