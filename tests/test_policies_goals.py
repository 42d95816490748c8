"""Goals: the token, the guidance, what a window holds of the future, and a policy that goes where it is told."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, UnknownName
from robopolicy.policies.config import DiffusionConfig, GoalConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.goals import GoalToken, guided
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.training.config import TrainConfig
from robopolicy.training.trainer import train
from robopolicy.training.windows import open_windows
from robopolicy.types import Observation
from robopolicy_data.arrays import Arrays
from robopolicy_data.windows import WindowSampler

GOALS = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])  # m, from a start at 0, 0
SPEC = PolicySpec(
    state={"pos": StateSpec(2, ("m",)), "clutter": StateSpec(1, ("1",))},
    action=ActionSpec("vector", ("x", "y"), ("m",)), rate_hz=10, horizon=8, n_execute=4,
)  # fmt: skip
CONFIG = DiffusionConfig(
    MlpConfig(width=128, depth=2), process=EDMConfig(), solver=SolverConfig("euler", 3),
    goal=GoalConfig(("pos",), source="end"), lr=1e-3,
)  # fmt: skip


def walks(episodes: int = 300, length: int = 9) -> WindowSampler:
    """Straight walks from the middle to one of three places, each as often as the others."""
    rng = np.random.default_rng(0)
    ends = GOALS[torch.arange(episodes) % 3].numpy() + rng.normal(0, 0.02, (episodes, 2))
    positions = np.linspace(0, 1, length)[None, :, None] * ends[:, None]
    state = {
        "pos": positions.reshape(-1, 2).astype(np.float32),
        "clutter": rng.normal(size=(episodes * length, 1)).astype(np.float32),
    }
    action = np.concatenate([positions[:, 1:], positions[:, -1:]], axis=1).reshape(-1, 2).astype(np.float32)
    arrays = Arrays(state, action, {}, length * np.arange(1, episodes + 1))
    return WindowSampler(arrays, SPEC.n_obs, SPEC.horizon)


def at(position, clutter: float = 0.0) -> Observation:
    return Observation(0, {"pos": np.asarray(position, np.float32), "clutter": np.float32([clutter])})


def where(chunks: np.ndarray) -> np.ndarray:
    """Return which of the goals each chunk's end is nearest to, -1 if to none within 0.25 m."""
    distance = np.linalg.norm(chunks[:, -1, None] - GOALS.numpy(), axis=-1)
    return np.where(distance.min(1) < 0.25, distance.argmin(1), -1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    torch.manual_seed(0)
    made = DiffusionPolicy(SPEC, CONFIG)
    return train(made, walks(), tmp_path_factory.mktemp("goals"), TrainConfig(steps=1500, batch_size=256, seed=1))


def plan(policy, n=300):
    return policy.plan([at([0, 0])], n=n, generator=np.random.default_rng(3)).chunks


@pytest.mark.parametrize("goal", range(3))
def test_it_goes_where_it_is_told(policy, goal):
    policy.set_goal(Observation(0, {"pos": GOALS[goal].numpy()}))  # a goal needs its own streams only
    try:
        assert (where(plan(policy)) == goal).mean() > 0.9
    finally:
        policy.set_goal(None)


def test_without_a_goal_it_goes_everywhere(policy):
    policy.config = replace(CONFIG, solver=SolverConfig("euler", 8))  # three steps do for a goal, not for all at once
    try:
        shares = np.bincount(where(plan(policy)) + 1, minlength=4) / 300
    finally:
        policy.config = CONFIG
    assert shares[0] < 0.3
    assert (shares[1:] > 0.1).all()


def test_guidance_at_one_is_the_network_and_at_zero_the_goal_free_one():
    torch.manual_seed(0)
    net = CONFIG.net.build(8, 2, 2, 3)
    x, t, cond, without = torch.randn(4, 8, 2), torch.rand(4), torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert torch.allclose(guided(net, without, 1.0)(x, t, cond), net(x, t, cond), atol=1e-5)
    assert torch.allclose(guided(net, without, 0.0)(x, t, cond), net(x, t, without), atol=1e-5)
    beyond = guided(net, without, 2.0)(x, t, cond)
    assert torch.allclose(beyond, 2 * net(x, t, cond) - net(x, t, without), atol=1e-5)


def test_told_and_goal_free_share_one_call_of_the_network_and_one_encoding(policy):
    seen: list[int] = []
    encodings: list[int] = []
    hooks = [
        policy.net.leave.register_forward_hook(lambda net, given, out: seen.append(len(out))),
        policy.encoder.register_forward_hook(lambda net, given, out: encodings.append(len(out))),
    ]
    policy.set_goal(at([1, 0]))
    try:
        plan(policy, n=7)
    finally:
        policy.set_goal(None)
        for hook in hooks:
            hook.remove()
    assert seen == [2 * 7] * CONFIG.solver.steps
    assert encodings == [1, 1], "the window's and the goal's, however many candidates"


def test_a_share_of_the_goals_is_withheld_when_training_and_none_afterwards():
    token = GoalToken(GoalConfig(("pos",), drop=0.25), torch.tensor([1.0, 1.0, 0.0]))
    torch.nn.init.normal_(token.none)
    frame = torch.randn(4000, 1, 3)
    made = token(frame, 4000, torch.Generator().manual_seed(0))
    withheld = (made == token.none).all(-1).float().mean()
    assert 0.22 < withheld < 0.28
    token.eval()
    assert not (token(frame, 4000, None) == token.none).all(-1).any()
    assert torch.equal(token(None, 2, None), token.none.expand(2, 1, -1))
    other = frame.clone()
    other[..., 2] += 5  # a stream that is no part of the goal
    assert torch.equal(token(frame, 4000, None), token(other, 4000, None))


@pytest.mark.parametrize("source", ["end", "future"])
def test_goals_are_of_the_own_episode_and_never_behind(source):
    sampler = walks(episodes=6)
    windows = open_windows(sampler, SPEC, torch.device("cpu"), 0, goal=source)
    batch = windows.batch(5, 0, 54)
    again = windows.batch(5, 0, 54)
    now, goal = batch["state"]["pos"][:, -1], batch["goal"]["state"]["pos"][:, 0]
    assert torch.equal(goal, again["goal"]["state"]["pos"][:, 0])
    assert (torch.linalg.vector_norm(goal, dim=1) >= torch.linalg.vector_norm(now, dim=1) - 1e-6).all()
    assert torch.allclose(torch.nn.functional.cosine_similarity(goal, now)[now.norm(dim=1) > 0], torch.tensor(1.0))
    whole = torch.linalg.vector_norm(goal, dim=1) > 0.9
    assert whole.all() if source == "end" else 0.1 < whole.float().mean() < 0.7


def test_refusals_are_one_clear_line():
    goalless = DiffusionPolicy(SPEC, replace(CONFIG, goal=None))
    with pytest.raises(ContractError, match="trained without goals"):
        goalless.set_goal(at([0, 0]))
    with pytest.raises(ContractError, match=r"the goal lacks pos; it is made of \('pos',\)"):
        DiffusionPolicy(SPEC, CONFIG).set_goal(Observation(0, {"clutter": np.zeros(1, np.float32)}))
    with pytest.raises(UnknownName, match="no stream 'place'; valid: clutter, pos"):
        DiffusionPolicy(SPEC, replace(CONFIG, goal=GoalConfig(("place",))))
    with pytest.raises(ContractError, match="want a stream and 0 <= drop < 1"):
        GoalConfig(())
