"""Rolling out and calibrating from the command line's own functions, in a world of a few numbers."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli import evaluate as evaluate_command
from robopolicy.cli.calibrate import DEFAULT_SCORES, DEFAULT_WINDOW, calibrate, collect, config_of
from robopolicy.cli.main import build_parser, main
from robopolicy.errors import SpecMismatch, UsageError
from robopolicy.evaluation import report
from robopolicy.evaluation.outcomes import load_about, load_outcomes
from robopolicy.monitor.monitor import DEFAULT, MonitorConfig, load_monitor
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.training.checkpoint import checkpoint_sha, save_checkpoint

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny

WORLD = "tiny_worlds:EasyWorld"


def checkpoint(folder: Path, n_execute: int = 2) -> Path:
    torch.manual_seed(0)
    spec = replace(tiny.SPEC, n_obs=1, horizon=4, n_execute=n_execute)
    policy = DiffusionPolicy(spec, DiffusionConfig(MlpConfig(width=16, depth=1)))
    points = np.random.default_rng(0).uniform(-1, 1, (50, 2)).astype(np.float32)
    policy.fit_normaliser(SimpleNamespace(state={"point": points}, action=points))
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


def test_a_monitor_is_calibrated_on_rollouts_of_its_own_policy_alone(tmp_path):
    mine, other = checkpoint(tmp_path / "mine"), checkpoint(tmp_path / "other", n_execute=3)  # the same weights
    collect(mine, WORLD, "0:13,20", tmp_path / "rollouts", jobs=1)  # seed 13 would kill the process
    calibrate(mine, tmp_path / "rollouts", tmp_path / "monitor", alpha=0.2)
    provenance = load_monitor(tmp_path / "monitor", policy_sha=checkpoint_sha(mine)).provenance
    assert sorted(provenance.fit_seeds + provenance.calibration_seeds) == [*range(13), 20]
    assert len(provenance.calibration_seeds) == 7

    both = rf"{checkpoint_sha(mine)[:12]}.* is {checkpoint_sha(other)[:12]}"
    with pytest.raises(SpecMismatch, match=both):
        calibrate(other, tmp_path / "rollouts", tmp_path / "monitor-2", alpha=0.2)
    assert not (tmp_path / "monitor-2").exists()
    (tmp_path / "rollouts" / "current.json").write_text(
        json.dumps({**json.loads((tmp_path / "rollouts" / "current.json").read_text()), "about": {}})
    )
    with pytest.raises(SpecMismatch, match=r"of policy \(unnamed\)"):
        calibrate(mine, tmp_path / "rollouts", tmp_path / "monitor-2", alpha=0.2)


def test_of_rollouts_that_were_killed_the_quick_successes_do_not_count(tmp_path):
    mine, path = checkpoint(tmp_path / "mine"), tmp_path / "rollouts" / "outcomes.jsonl"
    collect(mine, WORLD, "0:13", tmp_path / "rollouts", jobs=1)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["seed"] != 11))
    said = calibrate(mine, tmp_path / "rollouts", tmp_path / "monitor", alpha=0.2)
    assert "1 finished episodes do not count: 1 that were asked for" in said
    provenance = load_monitor(tmp_path / "monitor", policy_sha=checkpoint_sha(mine)).provenance
    assert sorted(provenance.fit_seeds + provenance.calibration_seeds) == [*range(11)]


def test_the_command_has_the_defaults_of_the_library():
    args = build_parser().parse_args(["calibrate", "--checkpoint", "c", "--out", "m"])
    assert config_of(args) == MonitorConfig()
    assert (DEFAULT.scores, DEFAULT.how.window) == (DEFAULT_SCORES, DEFAULT_WINDOW), "what the help says"


def test_roles_are_drawn_by_the_seed_of_the_split_and_kept(tmp_path):
    mine, rollouts = checkpoint(tmp_path / "mine"), tmp_path / "rollouts"
    collect(mine, WORLD, "0:13", rollouts, jobs=1)

    def drawn(name, roles, seed):
        calibrate(
            mine, rollouts, tmp_path / name, MonitorConfig(alpha=0.2, seed=seed), roles=roles and tmp_path / roles
        )
        return load_monitor(tmp_path / name).provenance.calibration_seeds

    free = [drawn(f"free-{seed}", None, seed) for seed in (0, 1)]
    assert [drawn(f"file-{seed}", f"{seed}.json", seed) for seed in (0, 1)] == free
    assert free[0] != free[1]
    assert drawn("kept", "0.json", 1) == free[0]


def test_rollouts_without_decisions_are_named(tmp_path):
    mine, path = checkpoint(tmp_path / "mine"), tmp_path / "rollouts" / "outcomes.jsonl"
    collect(mine, WORLD, "0:3", tmp_path / "rollouts", jobs=1)
    lines = [{**json.loads(line), "decisions": None} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(UsageError, match="rollouts has no decisions"):
        calibrate(mine, tmp_path / "rollouts", tmp_path / "monitor", alpha=0.2)


def test_an_upgrade_runs_every_episode_again(tmp_path, monkeypatch):
    mine = checkpoint(tmp_path / "mine")

    def roll():
        evaluate_command.evaluate(mine, WORLD, "0:2", tmp_path / "out", jobs=1, videos=0)
        return len((tmp_path / "out" / "outcomes.jsonl").read_text().splitlines())

    assert [roll(), roll()] == [2, 2]
    assert load_about(tmp_path / "out")["policy_sha"] == checkpoint_sha(mine)
    for package in ("robopolicy", "torch", "mujoco"):
        assert f"{package} " in load_about(tmp_path / "out")["software"]
    installed = report.version
    monkeypatch.setattr(report, "version", lambda name: "99.0" if name == "mujoco" else installed(name))
    assert roll() == 4
    monkeypatch.setattr(report, "version", lambda name: "9.9" if name == "tiny_worlds" else installed(name))
    assert roll() == 6, "of the world's own package too"
    assert "tiny_worlds 9.9" in load_about(tmp_path / "out")["software"]
    assert [outcome.seed for outcome in load_outcomes(tmp_path / "out")] == [0, 1]


@pytest.mark.parametrize("ignored", [("--env", WORLD), ("--seeds", "0:20"), ("--jobs", "1")], ids=lambda one: one[0])
def test_what_says_how_to_make_rollouts_is_refused_beside_rollouts_made_before(ignored, tmp_path, capsys):
    folders = {"--checkpoint": tmp_path, "--out": tmp_path / "monitor", "--rollouts": tmp_path / "made"}
    assert main(["calibrate", *(str(word) for pair in folders.items() for word in pair), *ignored]) == 1
    assert f"{ignored[0]} says how to make rollouts" in capsys.readouterr().err
