"""A policy in a process of its own plans as it would here, and its end is told."""

import multiprocessing
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.errors import ContractError, RobopolicyError
from robopolicy.policies.apart import Apart
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import FlowConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import PolicyContract, random_observation
from robopolicy.training.checkpoint import load_policy, save_checkpoint

SPEC = PolicySpec(
    state={"pos": StateSpec(2, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("m",)), rate_hz=10.0,
    n_obs=2, horizon=8, n_execute=4,
)  # fmt: skip
CONFIG = DiffusionConfig(MlpConfig(width=16, depth=1), process=FlowConfig(), solver=SolverConfig("euler", 2))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    policy = DiffusionPolicy(SPEC, CONFIG)
    rows = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    policy.fit_normaliser(SimpleNamespace(state={"pos": rows}, action=rows))
    folder = tmp_path_factory.mktemp("policy")
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


@pytest.fixture(scope="module")
def apart(checkpoint):
    made = Apart(partial(load_policy, checkpoint))
    yield made
    made.close()
    made.close()
    assert not made._process.is_alive()


def window(seed=0):
    return [random_observation(SPEC, np.random.default_rng(seed + k), stamp_ns=k) for k in range(2)]


class TestApart(PolicyContract):
    @pytest.fixture(autouse=True)
    def _lent(self, apart):
        self.apart = apart

    def make(self):
        return self.apart


@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_the_same_generator_gives_the_same_plans_here_and_there(apart, checkpoint, kind):
    here = load_policy(checkpoint)
    make = {"torch": lambda: torch.Generator().manual_seed(5), "numpy": lambda: np.random.default_rng(5)}[kind]
    mine, theirs = make(), make()
    seen = []
    for k in range(3):
        a = here.plan(window(k), n=2, previous=np.zeros((8, 2), np.float32), generator=mine)
        b = apart.plan(window(k), n=2, previous=np.zeros((8, 2), np.float32), generator=theirs)
        np.testing.assert_array_equal(a.chunks, b.chunks)
        np.testing.assert_array_equal(a.features, b.features)
        seen.append(b.chunks)
    assert not np.array_equal(seen[0], seen[1])
    assert apart.config.solver == CONFIG.solver


def test_what_goes_wrong_there_is_raised_here_and_it_goes_on(apart):
    with pytest.raises(ContractError, match="a window of 0 observations; want 2"):
        apart.plan([])
    assert apart.plan(window()).chunks.shape == (1, 8, 2)


@pytest.mark.slow
def test_a_policy_that_cannot_be_made_or_dies_is_told(checkpoint):
    with pytest.raises(RobopolicyError, match="nowhere"):
        Apart(partial(load_policy, checkpoint / "nowhere"))
    made = Apart(partial(load_policy, checkpoint))
    made._process.kill()
    with pytest.raises(RobopolicyError, match="the policy's process is gone"):
        [made.plan(window()) for _ in range(3)]
    made.close()
    assert not [one for one in multiprocessing.active_children() if one.pid == made._process.pid]
