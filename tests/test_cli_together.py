"""`--envs` and `--exact`: what they come to for a policy."""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli.together import ALONE, Together, add_together
from robopolicy.errors import UsageError
from robopolicy.policies.config import PRESETS
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import save_checkpoint

SPEC = PolicySpec(state={"pos": StateSpec(2, ("m",))}, action=ActionSpec("vector", ("x",), ("m",)), horizon=4, n_obs=1)


@pytest.fixture(params=["states", "pictures"])
def checkpoint(request, tmp_path):
    cameras = {"eye": CameraSpec(48, 48)} if request.param == "pictures" else {}
    config = replace(PRESETS["mlp"], net=MlpConfig(8, depth=1), vision=VisionConfig(width=16))
    torch.manual_seed(0)
    policy = DiffusionPolicy(replace(SPEC, cameras=cameras), config)
    rng = np.random.default_rng(0)
    policy.fit_normaliser(SimpleNamespace(state={"pos": rng.random((9, 2), np.float32)}, action=rng.random((9, 1))))
    save_checkpoint(tmp_path / "policy", policy, train={})
    return tmp_path / "policy", *((4, 4) if cameras else (32, 16))


def test_as_many_environments_as_plan_together_best_unless_told(checkpoint):
    folder, envs, rows = checkpoint
    assert Together.of(folder, None) == Together(envs, rows)
    assert Together.of(folder, 3) == Together(3, rows), "envs change the time, not the shape of a batch"
    assert Together.of(folder, None, exact=True) == ALONE
    assert Together.of(folder, 3, exact=True) == Together(3, None)


def test_at_the_pace_of_the_wall_clock_one_a_process(checkpoint):
    folder, *_ = checkpoint
    assert Together.of(folder, None, realtime=True) == ALONE
    assert Together.of(folder, 1, realtime=True) == ALONE
    with pytest.raises(UsageError, match=r"--envs 4: with --realtime every episode has a process of its own; want 1"):
        Together.of(folder, 4, realtime=True)


def test_the_options_are_read(capsys):
    parser = argparse.ArgumentParser()
    add_together(parser)
    assert vars(parser.parse_args([])) == {"envs": None, "exact": False}
    assert vars(parser.parse_args(["--envs", "8", "--exact"])) == {"envs": 8, "exact": True}
    with pytest.raises(SystemExit):
        parser.parse_args(["--envs", "0"])
    assert "0" in capsys.readouterr().err
