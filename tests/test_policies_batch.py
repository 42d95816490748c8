"""Plans of many environments at once: the same as alone, and in batches of one shape the same to the bit."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError
from robopolicy.policies import batch
from robopolicy.policies.config import (
    PRESETS,
    DiffusionConfig,
    GoalConfig,
    RealTimeConfig,
    ScalingConfig,
    SelectorConfig,
)
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig
from robopolicy.policies.solvers import SOLVERS, SolverConfig
from robopolicy.policies.steady import is_same_in, is_steady
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.policies.ways import Solved
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import Observation, PlanRequest

VECTOR = ActionSpec("vector", ("x", "y"), ("px",))
STATE = {"pos": StateSpec(3, ("m",)), "angle": StateSpec(1, ("rad_wrapped",))}
SPEC = PolicySpec(state=STATE, action=VECTOR, n_obs=2, horizon=8, n_execute=4, rate_hz=10)
SEEING = replace(SPEC, cameras={"front": CameraSpec(48, 64), "wrist": CameraSpec(40, 40)}, n_obs=3)
POSES = replace(
    SPEC, action=TOOL_POSE, state={**STATE, "tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",))}
)
THIN, SMALL = VisionConfig(width=16, keypoints=8, feature_dim=8), MlpConfig(width=32, depth=1)
MLP = DiffusionConfig(SMALL, THIN, solver=SolverConfig(steps=4))
BENT = {
    "past": (SPEC, replace(MLP, past=1, selector=SelectorConfig("past", 4))),
    "coherence": (SPEC, replace(MLP, selector=SelectorConfig("coherence", 4))),
    "medoid": (SPEC, replace(MLP, selector=SelectorConfig("medoid", 4))),
    "goal": (SPEC, replace(MLP, goal=GoalConfig(("pos",)))),
    "real time": (SPEC, replace(MLP, real_time=RealTimeConfig())),
    "vjp": (SPEC, replace(MLP, real_time=RealTimeConfig(jacobian="vjp"))),
    "given prefix": (SPEC, replace(MLP, max_delay=2)),
    "relative poses": (POSES, replace(MLP, codec="relative", scaling=ScalingConfig(per_step=True))),
    "pictures": (SEEING, MLP),
    "pictures and unet": (SEEING, DiffusionConfig(UnetConfig((16, 32), step_dim=16), THIN)),
    "edm": (SPEC, DiffusionConfig(TransformerConfig(32, depth=2), process=EDMConfig(), solver=SolverConfig(steps=3))),
    "flow": (SPEC, replace(MLP, process=FlowConfig(), solver=SolverConfig("euler", 5))),
}
SOLVED = {name: (SPEC, replace(MLP, solver=SolverConfig(name, 4))) for name in SOLVERS if name != "consistency"}
SOLVED["consistency"] = (SPEC, replace(MLP, process=ConsistencyConfig(), solver=SolverConfig("consistency", 2)))
CASES = BENT | SOLVED
NETS = ("mlp", "mlp-consistency", "unet-small", "transformer-small", "edm")  # in their own sizes


def observation(spec, rng, stamp_ns=0):
    state = {name: rng.random(part.dim, dtype=np.float32) for name, part in spec.state.items()}
    images = {name: rng.integers(0, 256, c.shape, dtype=np.uint8) for name, c in spec.cameras.items()}
    return Observation(stamp_ns, state, images)


def make(spec, config):
    """A policy whose every weight matters: those that start at zero do not stay there."""
    torch.manual_seed(0)
    policy = DiffusionPolicy(spec, config).eval()
    for parameter in policy.net.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    rng = np.random.default_rng(0)
    rows = {name: rng.random((60, part.dim), dtype=np.float32) for name, part in spec.state.items()}
    actions = rng.random((60, spec.action.dim), dtype=np.float32) * 50
    start = np.arange(60 - 12)
    windows = SimpleNamespace(
        obs=start[:, None] + np.arange(spec.n_obs),
        action=start[:, None] + np.arange(spec.horizon + config.past),
        padded_action=np.zeros((len(start), spec.horizon + config.past), bool),
    )
    policy.fit_normaliser(SimpleNamespace(state=rows, action=actions), windows)
    if config.goal is not None:
        policy.set_goal(observation(spec, np.random.default_rng(99)))
    return policy


def request(policy, who, n=2):
    """Every third one has just begun; the others have a chunk that is running, half of them late."""
    rng = np.random.default_rng(who)
    window = [observation(policy.spec, rng, stamp_ns=100 * k) for k in range(policy.spec.n_obs)]
    one = PlanRequest(window, n, generator=torch.Generator().manual_seed(who))
    if who % 3 == 0:
        return one
    rows = 50 * rng.random((policy.spec.horizon, policy.spec.action.dim), dtype=np.float32)
    return replace(one, previous=rows, executed=rows[: policy.spec.n_obs - 1], delay_steps=who % 2)


def together(policy, asking, rows=None):
    policy.reset()
    return dict(zip(asking, policy.plan_many([request(policy, who) for who in asking], rows=rows), strict=True))


def alone(policy, who):
    policy.reset()
    one = request(policy, who)
    return policy.plan(
        one.window, n=one.n, previous=one.previous, executed=one.executed, delay_steps=one.delay_steps,
        generator=one.generator,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_many_plans_are_each_the_plan_alone(name):
    policy = make(*CASES[name])
    plans = together(policy, range(7))
    for who, plan in plans.items():
        want = alone(policy, who)
        assert plan.chunks.shape == want.chunks.shape == (2, 8, policy.spec.action.dim)
        assert np.allclose(plan.chunks, want.chunks, atol=0.02), who  # of 50
        assert np.allclose(plan.features, want.features, atol=1e-4), who
        assert plan.aux.keys() == want.aux.keys()
        for key, value in want.aux.items():
            assert np.allclose(plan.aux[key], value, atol=1e-3, equal_nan=True), (who, key)
    chunks = [plan.chunks[0] for plan in plans.values()]
    assert min(np.abs(a - b).max() for a in chunks for b in chunks if a is not b) > 0.05, "each has its own"


@pytest.mark.parametrize("name", CASES)
def test_in_batches_of_one_shape_a_plan_does_not_depend_on_who_else_asks(name):
    policy = make(*CASES[name])
    reference = together(policy, range(5), rows=5)
    for asking in ([3], [2, 4], [4, 3, 2, 1, 0], [*range(5, 11), 1]):
        for who, plan in together(policy, asking, rows=5).items():
            if who in reference:
                assert np.array_equal(plan.chunks, reference[who].chunks), (asking, who)
                assert np.array_equal(plan.features, reference[who].features), (asking, who)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("n", [1, 4])
def test_batches_of_the_shapes_in_use_are_steady(name, n):
    policy = make(replace(SPEC, horizon=16, n_execute=8), replace(PRESETS[name], vision=THIN))
    assert is_steady(policy, 16, n)
    seeing = make(replace(SEEING, horizon=16), replace(PRESETS[name], vision=THIN))
    assert is_steady(seeing, 4, n)


@pytest.mark.parametrize("part", ["chunks", "variance"])
def test_a_plan_that_depends_on_its_place_is_not_steady(part, monkeypatch):
    policy = make(*CASES["ddim"])
    assert is_steady(policy, 4)
    solve = policy.solve
    ramp = torch.arange(4)[:, None, None] * 1e-7
    ramp = ramp if part == "chunks" else ramp[..., 0]

    def slanted(*given, **more):
        solved = solve(*given, **more)
        return solved._replace(**{part: getattr(solved, part) * (1 + ramp)})

    monkeypatch.setattr(policy, "solve", slanted, raising=False)
    assert not is_steady(policy, 4)


def test_a_plan_that_depends_on_the_size_of_its_batch_is_not_the_same_in_another(monkeypatch):
    policy = make(*CASES["ddim"])
    monkeypatch.setattr(policy, "solve", lambda cond, noise, *rest, **more: Solved(noise, noise[..., 0]), raising=False)
    assert is_same_in(policy, 4, 8)
    monkeypatch.setattr(
        policy, "solve", lambda cond, noise, *rest, **more: Solved(noise * (1 + 1e-7 * len(noise)), noise[..., 0]),
        raising=False,
    )  # fmt: skip
    assert is_steady(policy, 4)
    assert not is_same_in(policy, 4, 8)


def test_requests_that_agree_cost_one_pass_of_the_network(monkeypatch):
    policy = make(*CASES["given prefix"])
    shapes = []
    monkeypatch.setattr(
        policy, "solve", lambda cond, noise, rest=None, delay=0, solve=policy.solve, **more: (
            shapes.append((len(cond), rest is not None, delay)) or solve(cond, noise, rest, delay, **more)
        ), raising=False,
    )  # fmt: skip
    together(policy, range(9))
    assert sorted(shapes) == [(2 * 3, False, 0), (2 * 3, True, 0), (2 * 3, True, 1)]


def test_frames_that_several_windows_hold_are_encoded_once(monkeypatch):
    policy = make(*CASES["pictures"])
    seen = []
    see = policy.encoder.see
    monkeypatch.setattr(
        policy.encoder, "see", lambda camera, images: seen.append(images.shape[1]) or see(camera, images)
    )
    rng = np.random.default_rng(0)
    films = [[observation(policy.spec, rng, stamp_ns=k) for k in range(4)] for _ in range(3)]
    for at in (0, 1):
        policy.plan_many([PlanRequest(film[at : at + 3], generator=np.random.default_rng(0)) for film in films])
    assert seen == [9, 9, 3, 3], "two cameras; then one new frame in each of three windows"


def test_one_that_cannot_be_planned_for_stops_before_anything_is_drawn():
    policy = make(*CASES["ddim"])
    good = request(policy, 1)
    before = good.generator.get_state()
    with pytest.raises(ContractError, match="a window of 1 observations; want 2"):
        policy.plan_many([good, replace(good, window=good.window[:1])])
    assert torch.equal(good.generator.get_state(), before)
    assert policy.plan_many([]) == []


def test_a_policy_beside_has_the_same_weights_and_a_memory_of_its_own():
    policy = make(*CASES["pictures"])
    other = policy.beside()
    first, second = alone(policy, 1), alone(other, 1)
    assert np.array_equal(first.chunks, second.chunks)
    other.reset()
    assert policy._seen._frames
    assert not other._seen._frames
    assert next(other.net.parameters()) is next(policy.net.parameters())


def test_filled():
    assert batch.filled([1, 2], 4) == [1, 2, 1, 1]
    assert batch.filled([1, 2], None) == [1, 2]
