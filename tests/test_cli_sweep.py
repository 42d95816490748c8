import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli.calibrate import calibrate, collect
from robopolicy.cli.main import main
from robopolicy.cli.running import Choice
from robopolicy.evaluation.outcomes import load_outcomes
from robopolicy.evaluation.sweep_table import outcome_of, read, read_rows
from robopolicy.monitor.monitor import MonitorConfig
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.training.checkpoint import checkpoint_sha, save_checkpoint

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import tiny_worlds as tiny

SMALL = DiffusionConfig(MlpConfig(width=16, depth=1), VisionConfig(width=16, keypoints=4, feature_dim=4))
SUITE = """
checkpoints: {first: runs/first, second: runs/second}
worlds: [tiny_worlds:EasyWorld]
perturbations:
  action_delay: 1
seeds: 5:8
"""


def checkpoint(folder, seed):
    torch.manual_seed(seed)
    policy = DiffusionPolicy(replace(tiny.SPEC, n_obs=1, horizon=4, n_execute=2), SMALL)
    rng = np.random.default_rng(0)
    policy.fit_normaliser(SimpleNamespace(
        state={"point": rng.uniform(-1, 1, (50, 2)).astype(np.float32)}, action=rng.uniform(-1, 1, (50, 2)).astype("f")
    ))  # fmt: skip
    save_checkpoint(folder, policy, train={"steps": 0})


@pytest.fixture
def suite(tmp_path):
    for i, name in enumerate(("first", "second")):
        checkpoint(tmp_path / "runs" / name, i)
    path = tmp_path / "night.yaml"
    path.write_text(SUITE)
    return path


def sweep(*words):
    return main(["sweep", *map(str, words), "--jobs", "1"])


def test_a_suite_becomes_a_table_and_a_page_and_is_resumed(suite, capsys):
    assert sweep(suite, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "first in tiny_worlds:EasyWorld with action_delay:1: 3 seeds, 3 to run" in told
    assert "12 episodes in 4 cells, 12 to run" in told
    assert not suite.with_suffix("").exists(), "a dry run writes nothing"

    assert sweep(suite) == 0
    told = capsys.readouterr().out
    out = suite.with_suffix("")
    assert "first in tiny_worlds:EasyWorld: 3/3 = 100%" in told
    assert "not decided after 3 pairs" in told
    assert f"report: {out}/report.html" in told.replace("\n", "")
    rows = read_rows(out)
    assert read(out).num_rows == 12
    assert {row["checkpoint_sha"] for row in rows} == {
        checkpoint_sha(suite.parent / "runs" / name) for name in ("first", "second")
    }
    assert {(row["axis"], row["severity"]) for row in rows} == {("", 0.0), ("action_delay", 1.0)}
    assert "torch" in rows[0]["software"]
    page = (out / "report.html").read_text()
    assert "action_delay" in page
    assert SUITE.strip().splitlines()[0] in page
    assert "5:8" in page

    before = sorted((out / "parts").iterdir())
    suite.write_text(SUITE.replace("5:8", "5:9"))
    assert sweep(suite, "--dry-run") == 0
    assert "16 episodes in 4 cells, 4 to run" in capsys.readouterr().out
    assert sweep(suite, "--shard", "0/2") == 0
    assert "shard 0/2 is done; for the report: robopolicy sweep" in capsys.readouterr().out
    assert sweep(suite) == 0
    assert set(before) < set((out / "parts").iterdir())
    assert read(out).num_rows == 16

    checkpoint(suite.parent / "runs" / "second", 7)
    assert sweep(suite, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "16 episodes in 4 cells, 8 to run" in told, "other weights are another policy"
    assert "8 rows in" in told
    renamed = suite.read_text().replace("first: runs/first", "one: runs/first")
    suite.write_text(renamed)
    assert sweep(suite, "--report-only") == 0
    told = capsys.readouterr().out
    assert "one in tiny_worlds:EasyWorld: 4/4" in told, "the same policy by another name"
    assert "8 of 16 episodes are to be run yet. Where a success ends an episode" in told
    assert "second" not in told
    assert "the sweep is not complete" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("runs/second", "runs/secnd", r"no checkpoint .*runs/secnd; in .*runs/ there are: first, second"),
        ("EasyWorld]", "EasyWorld, twin:lfit]", "no task 'lfit'; valid: .*lift"),
        ("EasyWorld]", "EasyWorld, moon:lift]", "no robot 'moon:lift'; valid: twin:TASK"),
        ("action_delay", "actoin_delay", "no perturbation 'actoin_delay'; valid: .*action_delay"),
        ("action_delay", "camera", "tiny_worlds:EasyWorld: perturbation camera: .* it can have: .*dropout"),
        ("EasyWorld]", "EasyWorld, twin:lift]", "SAME"),
        ("second: runs/second", "second: {folder: runs/second, solver: ddjm}", "no solver 'ddjm'; valid: .*ddim"),
        ("runs/second", "runs/first", "checkpoints first and second are the same policy"),
        ("worlds: [tiny_worlds:Easy", "disturb_at: 3\nworlds: [tiny_worlds:Calm", "CalmWorld cannot be disturbed"),
        ("seeds", "seds", "no key in the suite 'seds'; valid: .*seeds"),
    ],
)
def test_what_does_not_exist_or_fit_fails_before_the_first_rollout(suite, capsys, old, new, words):
    import re

    suite.write_text(SUITE.replace(old, new))
    assert sweep(suite) == 1
    told = capsys.readouterr().err
    if words == "SAME":
        assert "runs/first" in told, "both sides"
        assert "twin:lift" in told
        assert "point" in told
    else:
        assert re.search(words, told), told
        assert told.count("\n") == 1
    assert not (suite.with_suffix("") / "journal").exists()


def test_bad_options_are_one_line(suite, capsys):
    assert sweep(suite, "--shard", "2/2") == 1
    assert "the shards of 2 are 0 to 1" in capsys.readouterr().err
    assert sweep(suite.with_name("none.yaml")) == 1
    assert "No such file" in capsys.readouterr().err
    assert sweep(suite, "--report-only") == 1
    assert "night holds no episode of this suite yet" in capsys.readouterr().err
    suite.with_suffix("").write_text("a file where the folder should be")
    assert sweep(suite) == 1
    assert "night is a file; name a folder with --out" in capsys.readouterr().err
    assert sweep(suite, "--out", suite.parent / "runs") == 1
    assert "runs holds something else than a sweep; name another folder" in capsys.readouterr().err


@pytest.mark.slow  # every death costs an import of torch
def test_a_world_that_dies_is_in_the_table_and_on_the_page(suite, capsys):
    suite.write_text(SUITE.replace("EasyWorld", "PointWorld").replace("5:8", "12:14,17").replace("action_delay: 1", ""))
    assert sweep(suite, "--retries", 1, "--videos", 0) == 0
    told = capsys.readouterr().out
    assert "2 errors" in told
    errors = {row["seed"]: row["error"] for row in read_rows(suite.with_suffix("")) if row["checkpoint"] == "first"}
    assert errors[12] is None
    assert errors[13] == "crashed: the process died during this episode (exit code 3), 2 times"
    assert errors[17].startswith("RuntimeError: the world broke")
    assert "exit code 3" in (suite.with_suffix("") / "report.html").read_text()
    results = json.loads((suite.with_suffix("") / "results.json").read_text())
    assert [cell["errors"] for cell in results["cells"]] == [2, 2]


@pytest.mark.slow
def test_a_cell_is_what_eval_gives(suite, capsys):
    assert sweep(suite, "--videos", 0) == 0
    out = suite.parent / "alone"
    words = ["--env", "tiny_worlds:EasyWorld", "--seeds", "5:8", "--perturb", "action_delay:1", "--videos", "0"]
    assert main(["eval", "--checkpoint", str(suite.parent / "runs" / "second"), "--out", str(out), *words]) == 0
    rows = [row for row in read_rows(suite.with_suffix("")) if (row["checkpoint"], row["axis"]) == (
        "second", "action_delay")]  # fmt: skip
    cell = sorted((replace(outcome_of(row), wall_s=0) for row in rows), key=lambda outcome: outcome.seed)
    assert cell == [replace(outcome, wall_s=0) for outcome in load_outcomes(out)]


def test_companions_take_part_with_the_monitor_that_asks_them(suite, tmp_path, capsys):
    first, second = (tmp_path / "runs" / name for name in ("first", "second"))
    both = Choice(companions=(second,))
    collect(first, "tiny_worlds:EasyWorld", "100:113", tmp_path / "rollouts", jobs=1, choice=both)
    calibrate(first, tmp_path / "rollouts", tmp_path / "guard", MonitorConfig(("ensemble",), alpha=0.2), choice=both)
    text = SUITE.replace("first: runs/first", "pair: {folder: runs/first, companions: COMPANIONS, monitor: guard}")
    suite.write_text(text.replace("COMPANIONS", "runs/second").replace("perturbations:\n  action_delay: 1\n", ""))
    assert sweep(suite) == 0
    marks = {row["checkpoint"]: outcome_of(row).marks for row in read_rows(suite.with_suffix(""))}
    assert marks["pair"]
    assert not marks["second"]
    suite.write_text(text.replace("COMPANIONS", "[]"))
    assert sweep(suite, "--dry-run") == 1
    assert "Another solver, goal or companion is another policy" in " ".join(capsys.readouterr().err.split())
    suite.write_text(text.replace("COMPANIONS", "runs/third"))
    assert sweep(suite, "--dry-run") == 1
    assert "runs/third" in capsys.readouterr().err.replace("\n", "")
