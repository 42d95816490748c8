"""Rolling out and calibrating from the command line's own functions, in a world of a few numbers."""

import json
import re
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
from robopolicy.errors import MonitorError, SpecMismatch, UsageError
from robopolicy.evaluation import report
from robopolicy.evaluation.outcomes import load_about, load_outcomes
from robopolicy.monitor.monitor import DEFAULT, MonitorConfig, load_monitor
from robopolicy.monitor.scores import SCORES
from robopolicy.monitor.scores.settings import read_setting, settings_of
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


def settings(*words, action=("calibrate", "--checkpoint", "c", "--out", "m")):
    return config_of(build_parser().parse_args([*action, *words])).settings


def test_what_can_be_set_of_a_score_is_set_by_its_name(tmp_path):
    words = ["--scores", "rnd", "stac", "knn", "--set", "rnd.small=true", "rnd.epochs=2", "--set", "stac.width=fit"]
    assert settings(*words, "knn.k=3", "rnd.target=8,16", "rnd.predictor=8,16", "rnd.lr=0.01", "rnd.predictor=none",
                    "rnd.target=none") == {
        "rnd": {"small": True, "epochs": 2, "lr": 0.01, "target": None, "predictor": None},
        "stac": {"width": "fit"}, "knn": {"k": 3},
    }  # fmt: skip
    assert settings() == {}
    beside = ("monitor", "eval", "--calibration", "r", "--out", "o", "--also", "all")
    assert settings("--set", "logpzo.small=on", action=beside) == {"logpzo": {"small": True}}
    mine = checkpoint(tmp_path / "mine")
    collect(mine, WORLD, "0:13", tmp_path / "R", jobs=1)
    words = ["--rollouts", tmp_path / "R", "--alpha", 0.2, "--scores", "rnd", "chunk_overlap", "--set"]
    words += ["rnd.target=8,4", "rnd.predictor=16,8,4", "rnd.epochs=1"]
    assert main(["calibrate", "--checkpoint", str(mine), "--out", str(tmp_path / "M"), *map(str, words)]) == 0
    assert load_monitor(tmp_path / "M").scores[0].widths == ((8, 4), (16, 8, 4))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("knn", "want SCORE.SETTING=VALUE, such as rnd.small=true"),
        ("knn.k", "want SCORE.SETTING=VALUE"),
        ("rnd.small=true", "there is no score rnd here; there are knn, clock"),
        ("knn.n=3", "score knn has no setting 'n'; valid: k (a whole number), max_points (a whole number)"),
        ("clock.k=3", "score clock has no setting 'k'; valid: (nothing can be set)"),
        ("knn.layout=3", "no setting 'layout'"),
        ("knn.seed=3", "no setting 'seed'"),
        ("knn.k=many", "knn.k is 'many'; want a whole number"),
        ("knn.k=0", "k 0 and max_points 1000; want 1 or more"),
    ],
)
def test_a_setting_that_there_is_not_is_one_line_before_anything_runs(said, answer, tmp_path, capsys):
    words = ["--checkpoint", str(tmp_path), "--out", str(tmp_path / "m"), "--env", WORLD]
    assert main(["calibrate", *words, "--scores", "knn", "clock", "--set", said]) == 1
    err = capsys.readouterr().err
    assert answer in " ".join(err.split())
    assert not (tmp_path / "m").exists()


def test_every_score_says_what_can_be_set_of_it():
    for name in SCORES:
        assert {"layout", "seed", "self", "schedule"}.isdisjoint(settings_of(name))
    assert settings_of("rnd").keys() >= {"small", "raw", "target", "device", "epochs", "weight_decay"}
    for text, wrong in [("rnd.small=1", "true or false"), ("rnd.target=8,x", "whole numbers with commas between or no"),
                        ("rnd.lr=nan", "want a number"), ("logpzo.width=1.5", "a whole number or none")]:  # fmt: skip
        name, setting, value = re.split("[.=]", text, maxsplit=2)
        with pytest.raises(MonitorError, match=wrong):
            read_setting(name, setting, value)


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
