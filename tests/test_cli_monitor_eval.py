"""`robopolicy monitor eval` from rollouts to report, and the rollouts with decisions that it takes."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
from test_cli_calibrate import WORLD, checkpoint
from test_evaluation_report import Page

from robopolicy.cli.evaluate import _folder
from robopolicy.cli.main import build_parser, main
from robopolicy.cli.monitor_actions import evaluate as action
from robopolicy.errors import EvaluationError, MonitorError, SpecMismatch, UsageError
from robopolicy.evaluation.outcomes import load_about, load_outcomes
from robopolicy.monitor.decisions import load_decisions
from robopolicy.monitor.layout import ActionLayout
from robopolicy.monitor.monitor import MonitorConfig
from robopolicy.monitor.roles import Roles
from robopolicy.monitor.statistic import Combination

CONFIG = MonitorConfig(("chunk_overlap",), alpha=0.2)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint, 20 nominal rollouts, 6 of other starts that were disturbed: two of them are told to have failed."""
    folder = tmp_path_factory.mktemp("eval")
    policy = checkpoint(folder / "policy")
    command = ["eval", "--checkpoint", str(policy), "--env", WORLD, "--decisions", "--videos", "0", "--jobs", "1"]
    assert main([*command, "--seeds", "20:40", "--out", str(folder / "nominal")]) == 0
    assert main([*command, "--seeds", "50:56", "--disturb-at", "3", "--out", str(folder / "thrown")]) == 0
    path = folder / "thrown" / "outcomes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:2]:
        line |= {"success": False, "failure": "dropped", "onset_step": 4}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_eval_keeps_decisions_of_as_many_chunks_as_calibrate_draws(made):
    outcome = load_outcomes(made / "nominal")[0]
    decisions = load_decisions(made / "nominal" / outcome.decisions)
    assert decisions[0].chunks.shape[0] == 16
    words = ["eval", "--checkpoint", "c", "--env", "twin:lift"]
    assert _folder(build_parser().parse_args(words)) == "eval-twin-lift"
    assert _folder(build_parser().parse_args([*words, "--decisions"])) == "eval-twin-lift-decisions"


def test_from_rollouts_to_a_report(made, tmp_path, capsys):
    out = tmp_path / "out"
    command = [
        "--checkpoint", made / "policy", "--calibration", made / "nominal", "--test", made / "thrown", "--out", out,
        "--alpha", "0.2", "--scores", "chunk_overlap", "--also", "kernel_density", "--seeds-of-split", "2",
        "--published", "none",
    ]  # fmt: skip
    assert main(["monitor", "eval", *map(str, command)]) == 0
    said = capsys.readouterr().out
    for words in ("monitor", "clock, same false alarms", "random, same alarm rate", "kernel_density", "TWA",
                  "FIPER is not in the table: --published none", "report.html"):  # fmt: skip
        assert words in said, words
    results = json.loads((out / "results.json").read_text())
    assert results["strata"] == ["nominal", "disturbed"]
    assert results["methods"]["monitor"]["strata"]["disturbed"]["tpr"]["counts"]["n"] == 2
    assert results["facts"]["calibration"] == str(made / "nominal")
    assert len(results["methods"]["monitor"]["measures"]["twa"]["splits"]) == 2
    protocol = json.loads((out / "protocol.json").read_text())
    roles = Roles.load(out / "roles-0.json")
    assert protocol["splits"][0]["fit"] == [f"nominal/{seed}" for seed in roles.fit]
    assert len(roles.test) == 5
    assert {name for name in protocol["splits"][1]["test"] if name.startswith("thrown/")} == {
        f"thrown/{seed}" for seed in range(50, 56)
    }
    page = Page((out / "report.html").read_text())
    assert "What the monitor promises" in page.words
    assert "disturbed" in page.words

    again = action.evaluate_monitor(
        made / "policy", made / "nominal", [made / "thrown"], out, CONFIG, also=["kernel_density"], splits=2,
        published="none",
    )  # fmt: skip
    assert again.to_json()["methods"]["monitor"]["measures"] == results["methods"]["monitor"]["measures"], "it repeats"
    with pytest.raises(MonitorError, match="is frozen and has other monitor"):
        action.evaluate_monitor(
            made / "policy", made / "nominal", [made / "thrown"], out, replace(CONFIG, alpha=0.25),
            also=["kernel_density"], splits=2, published="none",
        )  # fmt: skip


def test_what_does_not_belong_together_is_refused(made, tmp_path):
    other = checkpoint(tmp_path / "other", n_execute=3)

    def run(policy=made / "policy", test=(), **rest):
        return action.evaluate_monitor(policy, made / "nominal", test, tmp_path / "out", CONFIG, splits=1, **rest)

    with pytest.raises(SpecMismatch, match=r"nominal are of policy .* checkpoint .*other is"):
        run(other)
    with pytest.raises(UsageError, match=r"nominal are given twice"):
        run(test=[made / "nominal"])
    with pytest.raises(UsageError, match=r"--also magic: no such score; valid: all, "):
        run(also=["magic"])
    bare = tmp_path / "bare"
    assert main(["eval", "--checkpoint", str(made / "policy"), "--env", WORLD, "--seeds", "70:72", "--videos", "0",
                 "--jobs", "1", "--out", str(bare)]) == 0  # fmt: skip
    with pytest.raises(EvaluationError, match=r"2 of 2 episodes without decisions; make it with"):
        run(test=[bare])
    current = json.loads((bare / "current.json").read_text())
    (bare / "current.json").write_text(json.dumps(current | {"about": {**current["about"], "env": "twin:moon"}}))
    with pytest.raises(SpecMismatch, match=r"bare are of world twin:moon, those of .*nominal of tiny_worlds:EasyWorld"):
        run(test=[bare])
    (bare / "current.json").write_text(json.dumps(current | {"about": {**current["about"], "timing": "late"}}))
    with pytest.raises(SpecMismatch, match=r"bare are of plans made late, those of .*nominal of in the loop"):
        run(test=[bare])
    assert not (tmp_path / "out").exists()


def test_rollouts_without_a_checkpoint_are_taken_as_they_are(made, tmp_path):
    """As those of another project: what their actions are, they say themselves."""
    mine = tmp_path / "rollouts"
    shutil.copytree(made / "nominal", mine)
    current = json.loads((mine / "current.json").read_text())
    layout = json.dumps(ActionLayout(2, position=(0,)).to_json())
    (mine / "current.json").write_text(json.dumps(current | {"about": current["about"] | {"action_layout": layout}}))
    found = action.evaluate_monitor(None, mine, [made / "thrown"], tmp_path / "out", CONFIG, splits=1)
    assert found.ours.measures["tnr"].counts[1] == 9
    assert [row.kind for row in found.rows].count("published") == 2, found.notes
    assert found.row("FIPER").behind["twa"].value is not None
    assert action._layout(load_about(mine), None) == ActionLayout(2, position=(0,))
    assert action._layout({}, None) is None
    (mine / "current.json").write_text(json.dumps(current | {"about": {**current["about"], "policy_sha": "abc"}}))
    with pytest.raises(SpecMismatch, match=r"thrown are of policy \w{12}, those of .*rollouts of abc; "):
        action.evaluate_monitor(None, mine, [made / "thrown"], tmp_path / "out", CONFIG, splits=1)
    (mine / "current.json").write_text(json.dumps(current | {"about": {}}))
    with pytest.raises(SpecMismatch, match=r"policy \(unnamed\)"):
        action.evaluate_monitor(None, mine, [], tmp_path / "out", CONFIG, splits=1)


@pytest.mark.parametrize("words", [("--alpha", "0"), ("--hold-out", "1")])
def test_fractions_are_fractions(words):
    args = build_parser().parse_args(["monitor", "eval", "--calibration", "r", "--out", "o", *words])
    with pytest.raises(UsageError, match="it is a fraction between 0 and 1"):
        args.run(args)


def test_scores_beside_it_are_smoothed_as_the_monitor(made, tmp_path, monkeypatch):
    from robopolicy.monitor import comparison

    configs, really = {}, comparison.fitted
    monkeypatch.setattr(
        comparison,
        "fitted",
        lambda name, config, *a, **k: configs.update({name: config}) or really(name, config, *a, **k),
    )
    how = Combination("max", window=2, patience=1)
    config = MonitorConfig(("chunk_overlap", "mahalanobis"), how, alpha=0.2)
    action.evaluate_monitor(made / "policy", made / "nominal", [], tmp_path / "out", config, splits=1, published="none")
    assert configs == {
        "monitor": config, **{name: replace(config, scores=(name,), how=replace(how, combine="sum"))
                              for name in ("chunk_overlap", "mahalanobis")},
    }  # fmt: skip


def test_scores_beside_it():
    assert action._singles(("a", "b"), []) == ["a", "b"]
    assert action._singles(("kernel_density",), ["kernel_density", "chunk_overlap", "clock"]) == ["chunk_overlap"]
    assert {"clock", "supervised"}.isdisjoint(action._singles(("kernel_density",), ["all"]))
    assert action._names([Path("a/x"), Path("b/x"), Path("c/y")]) == ["a/x", "b/x", "y"]
