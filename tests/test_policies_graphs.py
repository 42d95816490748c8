"""CUDA graphs have no GPU here: a recorder with their habits (fixed inputs, one output written over) stands in."""

import copy
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.policies import diffusion
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.graphs import KEPT, Graphs
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

SPEC = PolicySpec(
    state={"s": StateSpec(3, ("m",))}, action=ActionSpec("vector", ("x", "y"), ("px",)), n_obs=2, horizon=8, n_execute=4
)


class Recorder:
    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, solve, cond, noise):
        self.recorded += 1
        inputs = cond.clone(), noise.clone()
        made = [part.clone() for part in solve(*inputs)]

        def replay(cond, noise):
            self.replayed += 1
            inputs[0].copy_(cond)
            inputs[1].copy_(noise)
            for part, fresh in zip(made, solve(*inputs), strict=True):
                part.copy_(fresh)
            return [part.clone() for part in made]

        return replay


def made(config: DiffusionConfig) -> DiffusionPolicy:
    torch.manual_seed(0)
    policy = DiffusionPolicy(SPEC, config).eval()
    for parameter in policy.net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    rng = np.random.default_rng(0)
    policy.fit_normaliser(
        SimpleNamespace(state={"s": rng.random((50, 3), np.float32)}, action=rng.random((50, 2), np.float32))
    )
    return policy


def plans(policy: DiffusionPolicy, count=3, n=2, **arguments) -> np.ndarray:
    rng = np.random.default_rng(3)
    windows = [[Observation(0, {"s": rng.random(3, np.float32)}) for _ in range(2)] for _ in range(count)]
    draw = np.random.default_rng(1)
    return np.stack([policy.plan(window, n=n, generator=draw, **arguments).chunks for window in windows])


SMALL = DiffusionConfig(MlpConfig(width=16, depth=1), solver=SolverConfig(steps=3))


@pytest.mark.parametrize("solver", [SolverConfig("ddim", 3), SolverConfig("ddpm", 3), SolverConfig("dpm++2m", 3)])
def test_replays_equal_what_they_recorded(solver):
    policy = made(replace(SMALL, solver=solver))
    eager = plans(policy)
    recorder = Recorder()
    policy._graphs = Graphs(recorder)
    assert np.array_equal(plans(policy), eager)
    assert (recorder.recorded, recorder.replayed) == (1, 3)


def test_another_count_configuration_or_place_is_recorded_anew():
    policy = made(SMALL)
    recorder = Recorder()
    policy._graphs = Graphs(recorder)
    plans(policy, n=2)
    plans(policy, n=3)
    assert recorder.recorded == 2
    policy.config = replace(SMALL, solver=SolverConfig(steps=2))
    want = plans(copy.deepcopy(policy), n=3)
    assert np.array_equal(plans(policy, n=3), want)
    assert recorder.recorded >= 3
    policy.net = copy.deepcopy(policy.net)
    before = recorder.recorded
    plans(policy, n=3)
    assert recorder.recorded == before + 1


def test_weights_that_change_where_they_lie_are_seen():
    policy = made(SMALL)
    policy._graphs = Graphs(Recorder())
    before = plans(policy)
    with torch.no_grad():
        for parameter in policy.net.parameters():
            parameter.mul_(0.5)
    after = plans(policy)
    assert not np.array_equal(after, before)
    policy._graphs = Graphs()
    assert np.array_equal(plans(policy), after)


def test_a_running_chunk_to_agree_with_is_not_recorded():
    policy = made(replace(SMALL, max_delay=2))
    recorder = Recorder()
    policy._graphs = Graphs(recorder)
    plans(policy, previous=np.zeros((8, 2), np.float32), delay_steps=2)
    assert recorder.recorded == 0
    plans(policy)
    assert recorder.recorded == 1


def test_what_cannot_be_recorded_runs_as_it_is():
    def refuses(solve, cond, noise):
        raise RuntimeError("operation not permitted when stream is capturing")

    policy = made(SMALL)
    eager = plans(policy)
    policy._graphs = Graphs(refuses)
    assert np.array_equal(plans(policy), eager)


def test_only_a_few_are_kept():
    graphs, recorder = Graphs(), Recorder()
    graphs = Graphs(recorder)
    for key in range(3 * KEPT):
        graphs.run(torch.add, torch.ones(2), torch.ones(2), key)
    assert len(graphs._replays) == KEPT
    graphs.run(torch.add, torch.ones(2), torch.ones(2), 3 * KEPT - 1)
    assert recorder.recorded == 3 * KEPT


def test_on_a_cpu_nothing_is_recorded_and_copies_are_empty():
    policy = made(PRESETS["mlp"])
    plans(policy)
    assert policy._graphs._replays == {}
    policy._graphs = Graphs(Recorder())
    plans(policy)
    assert copy.deepcopy(policy)._graphs._replays == {}
    assert pickle.loads(pickle.dumps(policy))._graphs._replays == {}
    assert diffusion.Graphs is Graphs
