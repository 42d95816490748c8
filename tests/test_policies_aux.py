"""What plans tell beside their chunks: how the solver's guesses moved, and how far a companion's differ."""

import copy
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, SpecMismatch
from robopolicy.policies.config import DiffusionConfig, GoalConfig, RealTimeConfig, ScalingConfig, SelectorConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.ensemble import ensemble
from robopolicy.policies.graphs import Graphs
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.solvers import SOLVERS, SolverConfig
from robopolicy.policies.steady import is_steady
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, PlanRequest

SPEC = PolicySpec(
    state={"s": StateSpec(3, ("m",))}, action=ActionSpec("vector", ("x", "y", "z"), ("m",)), n_obs=2, horizon=8,
    n_execute=4, rate_hz=10,
)  # fmt: skip
SEEING = replace(SPEC, cameras={"front": CameraSpec(48, 48)})
SMALL = DiffusionConfig(
    MlpConfig(width=32, depth=1), VisionConfig(width=16, keypoints=8, feature_dim=8), process=VPConfig(prediction="x0"),
    solver=SolverConfig(steps=6),
)  # fmt: skip
CASES = {name: replace(SMALL, solver=SolverConfig(name, 6)) for name in SOLVERS if name != "consistency"} | {
    "consistency": replace(SMALL, process=ConsistencyConfig(), solver=SolverConfig("consistency", 3)),
    "edm": replace(SMALL, process=EDMConfig()),
    "flow": replace(SMALL, process=FlowConfig(), solver=SolverConfig("euler", 5)),
    "past": replace(SMALL, past=1, selector=SelectorConfig("past", 4)),
    "medoid": replace(SMALL, selector=SelectorConfig("medoid", 4)),
    "given prefix": replace(SMALL, max_delay=2),
    "real time": replace(SMALL, real_time=RealTimeConfig()),
    "vjp": replace(SMALL, real_time=RealTimeConfig(jacobian="vjp")),
}
NOT_FIRST = 1  # a seed whose medoid is another candidate than the first


def make(config=SMALL, spec=SPEC, seed=0, stretch=1.0):
    torch.manual_seed(seed)
    policy = DiffusionPolicy(spec, config).eval()
    for parameter in policy.net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    rng = np.random.default_rng(0)
    policy.fit_normaliser(
        SimpleNamespace(state={"s": rng.random((50, 3), np.float32)}, action=stretch * rng.random((50, 3), np.float32))
    )
    return policy


def window(seed=0, spec=SPEC):
    rng = np.random.default_rng(seed)
    images = [{name: rng.integers(0, 256, c.shape, np.uint8) for name, c in spec.cameras.items()} for _ in range(2)]
    return [Observation(k, {"s": rng.random(3, np.float32)}, images[k]) for k in range(2)]


def running(seed=0):
    return {"previous": np.random.default_rng(seed).random((8, 3), np.float32), "delay_steps": 2}


def plan(policy, seed=0, n=1, **more):
    policy.reset()
    return policy.plan(window(seed, policy.spec), n=n, generator=np.random.default_rng(seed), **more)


def watched(policy, monkeypatch):
    """Have the policy note each question of its solver and the answer."""
    noted, make_one = [], policy._denoiser

    def denoiser(*given):
        denoise = make_one(*given)

        def note(x, t):
            asked = x.clone()
            noted.append((asked, t, denoise(x, t).clone()))
            return noted[-1][2]

        return note

    monkeypatch.setattr(policy, "_denoiser", denoiser, raising=False)
    return noted


@pytest.mark.parametrize("name", CASES)
def test_denoise_variance_is_that_of_the_later_guesses(name, monkeypatch):
    policy = make(CASES[name])
    noted = watched(policy, monkeypatch)
    told = plan(policy, NOT_FIRST, n=3).aux["denoise_variance"]
    assert told.shape == (8,)
    assert told.dtype == np.float32
    guesses = np.stack([answer.numpy() for _, _, answer in noted]).astype(float)[:, :, policy.config.past :]
    later = guesses[-max(2, len(guesses) // 2) :]
    each = later.var(axis=0).mean(axis=-1)  # (candidates, H)
    chosen = {"past": 0, "medoid": None}.get(name, 0)
    if chosen is None:
        flat = torch.from_numpy(guesses[-1]).flatten(1)
        chosen = int(torch.cdist(flat, flat).mean(1).argmin())
        assert chosen > 0, "else any would pass"
    np.testing.assert_allclose(told, each[chosen], rtol=1e-4, atol=1e-10)
    assert told.min() > 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bound", [False, True])
def test_chunks_are_those_of_the_bare_sampler(name, bound):
    policy = make(CASES[name])
    cond = torch.randn(6, 2, policy.encoder.token_dim, generator=torch.Generator().manual_seed(0))
    noise = policy.draw_noise(6, torch.Generator().manual_seed(1))
    rest = torch.rand(policy.rows, 3) if bound and policy.looks_back else None
    with torch.no_grad():
        solved = policy.solve(cond, noise, rest, 2, every=3)
        assert torch.equal(solved.chunks, policy.sample(cond, noise, rest, 2))
        assert solved.variance.shape == (2, policy.rows)
        assert torch.allclose(solved.variance, policy.solve(cond, noise, rest, 2).variance[::3], rtol=1e-4)
    assert solved.disagreement is None


def test_one_guess_has_no_variance_and_two_have():
    for name, steps in (("ddim", 1), ("heun", 1), ("ddpm", 1)):
        told = plan(make(replace(SMALL, solver=SolverConfig(name, steps)))).aux["denoise_variance"]
        assert told.tolist() == [0.0] * 8
    assert plan(make(replace(SMALL, solver=SolverConfig("ddim", 2)))).aux["denoise_variance"].min() > 0


def test_rows_that_are_given_do_not_vary():
    told = plan(make(CASES["given prefix"]), **running()).aux["denoise_variance"]
    assert told[:2].max() < 1e-12
    assert told[2:].min() > 1e-9


def test_the_number_of_candidates_is_no_matter():
    policy = make()
    one, many = (plan(policy, n=n).aux["denoise_variance"] for n in (1, 8))
    np.testing.assert_allclose(one, many, rtol=1e-3)
    assert not np.allclose(one, plan(policy, seed=1).aux["denoise_variance"], rtol=1e-2)


class Recorder:
    """Has the habits of a CUDA graph: fixed inputs, outputs that the next replay writes over."""

    def __init__(self):
        self.keys = 0

    def __call__(self, solve, cond, noise):
        self.keys += 1
        inputs = cond.clone(), noise.clone()
        made = [part.clone() for part in solve(*inputs)]

        def replay(cond, noise):
            for part, given in zip(inputs, (cond, noise), strict=True):
                part.copy_(given)
            for part, fresh in zip(made, solve(*inputs), strict=True):
                part.copy_(fresh)
            return tuple(part.clone() for part in made)

        return replay


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun"])
def test_recorded_solves_tell_the_same(name):
    policy = make(CASES[name])
    eager = [plan(policy, seed, n=4) for seed in range(3)]
    recorder = Recorder()
    policy._graphs = Graphs(recorder)
    again = [plan(policy, seed, n=4) for seed in range(3)]
    assert recorder.keys == 1
    for one, other in zip(eager, again, strict=True):
        assert np.array_equal(one.chunks, other.chunks)
        assert np.array_equal(one.aux["denoise_variance"], other.aux["denoise_variance"])
    assert not np.array_equal(again[0].aux["denoise_variance"], again[1].aux["denoise_variance"])
    with torch.no_grad():  # as large a batch, of which other candidates are looked at, is another recording
        cond, noise = torch.zeros(4, 2, policy.encoder.token_dim), policy.draw_noise(4, torch.Generator())
        assert policy.solve(cond, noise, every=1).variance.shape == (4, 8)


def requests(spec, asking, n):
    return [PlanRequest(window(who, spec), n, generator=np.random.default_rng(who)) for who in asking]


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("kind", ["alone", "ensemble"])
def test_in_batches_of_one_shape_aux_is_the_same_to_the_bit_whoever_else_asks(kind, n):
    policy = make() if kind == "alone" else ensemble([make(), make(seed=1)])
    assert is_steady(policy, 8, n)
    want = policy.plan_many(requests(SPEC, range(5), n), rows=8)
    for asking in ([3], [4, 3, 1], [0, 1, 2, 3, 4]):
        for who, made in zip(asking, policy.plan_many(requests(SPEC, asking, n), rows=8), strict=True):
            assert made.aux.keys() == want[who].aux.keys()
            for name, values in want[who].aux.items():
                assert np.array_equal(made.aux[name], values), (who, name)


# ensembles


def test_the_first_of_an_ensemble_plans_as_it_always_does():
    first, second = make(CASES["ddim"]), make(CASES["ddim"], seed=1)
    both = ensemble([first, second])
    for seed in range(3):
        alone, told = plan(first, seed, n=3), plan(both, seed, n=3)
        assert np.array_equal(told.chunks, alone.chunks)
        assert np.array_equal(told.features, alone.features)
        assert np.array_equal(told.aux["denoise_variance"], alone.aux["denoise_variance"])
        assert told.aux["ensemble_disagreement"].shape == (8,)
        assert "ensemble_disagreement" not in alone.aux
    assert first.companions == ()
    assert both.state_dict().keys() == first.state_dict().keys()
    for copied in (copy.deepcopy(both), pickle.loads(pickle.dumps(both)), both.beside()):
        assert np.array_equal(plan(copied).aux["ensemble_disagreement"], plan(both).aux["ensemble_disagreement"]), (
            "companions go along"
        )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bound", [False, True])
def test_disagreement_is_the_squared_difference_along_the_path(name, bound, monkeypatch):
    first, second = make(CASES[name]), make(replace(CASES[name], solver=SolverConfig()), seed=1)
    if name == "consistency":
        second = make(CASES[name], seed=1)
    both = ensemble([first, second])
    noted = watched(both, monkeypatch)
    other = watched(both.companions[0], monkeypatch)
    more = running() if bound else {}
    told = plan(both, NOT_FIRST, **more).aux
    assert len(noted) == len(other) > 0
    for (x, t, _), (y, u, _) in zip(noted, other, strict=True):
        assert t == u
        assert torch.equal(x, y), "the very same noisy chunk"
    gaps = [((a - b) ** 2).mean(-1) for (_, _, a), (_, _, b) in zip(noted, other, strict=True)]
    each = torch.stack(gaps).mean(0)[:, first.config.past :].numpy()
    best = [k for k in range(len(each)) if np.allclose(each[k], told["ensemble_disagreement"], rtol=1e-4, atol=1e-9)]
    assert len(best) == 1
    assert told["ensemble_disagreement"].max() > 1e-6
    if name == "medoid":
        assert best != [0], "of the candidate that is executed"


def test_a_companion_says_what_its_own_network_says_under_its_own_encoding(monkeypatch):
    first, second = make(spec=SEEING), make(spec=SEEING, seed=1)
    both = ensemble([first, second])
    noted = watched(both, monkeypatch)
    told = plan(both).aux["ensemble_disagreement"]
    cond, gaps = second.encode(second.look([window(0, SEEING)])), []
    with torch.no_grad():
        for x, t, answer in noted:
            clean = second.process.denoise(second.net, cond, x, torch.full((1,), float(t)))
            gaps.append((clean.clamp(-second.action.limit, second.action.limit) - answer) ** 2)
    want = torch.stack(gaps).mean(dim=(0, 3))[0].numpy()
    np.testing.assert_allclose(told, want, rtol=1e-3, atol=1e-7)


def test_policies_that_are_the_same_do_not_differ():
    policy = make()
    assert plan(ensemble([policy, policy])).aux["ensemble_disagreement"].tolist() == [0.0] * 8
    three = ensemble([policy, policy, make(seed=1)])
    two = ensemble([policy, make(seed=1)])
    np.testing.assert_allclose(
        plan(three).aux["ensemble_disagreement"], plan(two).aux["ensemble_disagreement"] / 2, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["given prefix", "real time"])
def test_about_rows_that_are_given_nobody_differs(name):
    told = plan(ensemble([make(CASES[name]), make(CASES[name], seed=1)]), n=3, **running()).aux
    assert told["ensemble_disagreement"][:2].tolist() == [0.0, 0.0]
    assert told["ensemble_disagreement"][2:].min() > 1e-9


def test_only_what_is_executed_is_asked_about(monkeypatch):
    both = ensemble([make(), make(seed=1)])
    other = watched(both.companions[0], monkeypatch)
    plan(both, n=8)
    assert {len(x) for x, _, _ in other} == {1}


def test_a_goal_is_a_goal_for_all_and_reset_is_too():
    config = replace(SMALL, goal=GoalConfig(("s",)))
    first, second = make(config), make(config, seed=1)
    both = ensemble([first, second])
    free = plan(both).aux["ensemble_disagreement"]
    both.set_goal(window(9)[0])
    assert both.companions[0]._goal is both._goal is not None
    assert second._goal is None
    assert not np.allclose(plan(both).aux["ensemble_disagreement"], free)
    told = make(config)
    told.set_goal(window(9)[0])
    assert np.array_equal(
        plan(ensemble([told, second])).aux["ensemble_disagreement"], plan(both).aux["ensemble_disagreement"]
    )
    seeing = ensemble([make(spec=SEEING), make(spec=SEEING, seed=1)])
    seeing.plan(window(0, SEEING), generator=np.random.default_rng(0))
    assert seeing.companions[0]._seen._frames
    seeing.reset()
    assert not seeing.companions[0]._seen._frames


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (lambda: make(stretch=2.0), r"companion 1: the center of its actions is \[.*\]; the policy's is \["),
        (lambda: make(CASES["edm"]), r"its process is EDMConfig.*; the policy's is VPConfig"),
        (lambda: make(replace(SMALL, max_delay=1)), "its max_delay is 1; the policy's is 0"),
        (lambda: make(replace(SMALL, scaling=ScalingConfig(action="meanstd"))), "of its actions is"),
        (lambda: make(spec=SEEING), "camera front: companion 1 has 48x48, policy has none"),
        (lambda: make(spec=replace(SPEC, n_execute=2)), "n_execute"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, says):
    with pytest.raises(SpecMismatch, match=says):
        ensemble([make(), other()])


def test_an_ensemble_takes_two_fitted_policies():
    with pytest.raises(ContractError, match="1 policies; want two or more"):
        ensemble([make()])
    with pytest.raises(ContractError, match="companion 1: the normaliser of action was never fitted"):
        ensemble([make(), DiffusionPolicy(SPEC, SMALL)])
