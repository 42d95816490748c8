"""Another solver, and a goal, for a checkpoint that stays as it is."""

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
from robopolicy.cli.running import AS_SAVED, Choice
from robopolicy.errors import CheckpointError, ContractError, DatasetError, SpecMismatch, UnknownName, UsageError
from robopolicy.policies.config import DiffusionConfig, GoalConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.solvers import SOLVERS, SolverConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import checkpoint_sha, save_checkpoint
from robopolicy.types import Observation
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import recordings
import tiny_worlds as tiny

WORLD = "tiny_worlds:EasyWorld"
SMALL = DiffusionConfig(MlpConfig(width=16, depth=1), VisionConfig(width=16, keypoints=4, feature_dim=4))
SPEC = PolicySpec(
    cameras={"front": CameraSpec(40, 48)}, state={**tiny.SPEC.state, "grip": StateSpec(1, ("open",))},
    action=tiny.SPEC.action, rate_hz=10.0,
)  # fmt: skip


def checkpoint(folder: Path, config: DiffusionConfig = SMALL, spec: PolicySpec = tiny.SPEC, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    policy = DiffusionPolicy(replace(spec, n_obs=1, horizon=4, n_execute=2), config)
    rng = np.random.default_rng(0)
    state = {name: rng.uniform(-1, 1, (50, part.dim)).astype(np.float32) for name, part in spec.state.items()}
    policy.fit_normaliser(SimpleNamespace(state=state, action=rng.uniform(-1, 1, (50, 2)).astype(np.float32)))
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def companion(tmp_path_factory):
    """Trained alike, from another seed."""
    return checkpoint(tmp_path_factory.mktemp("companion"), seed=1)


@pytest.fixture(scope="module")
def seeking(tmp_path_factory):
    """A policy that was told goals: a state and a picture."""
    goal = GoalConfig(("point", "front"))
    return checkpoint(tmp_path_factory.mktemp("seeking"), replace(SMALL, goal=goal), SPEC)


def record(path: Path, spec: PolicySpec = SPEC, episodes: int = 2) -> Path:
    with DatasetWriter(path, spec, lossless=True) as writer:
        for seed in range(episodes):
            episode = writer.begin(recordings.META)
            for step in recordings.make_steps(seed, 5, spec=spec):
                episode.add(step)
            episode.commit()
    return path


@pytest.fixture(scope="module")
def goals(tmp_path_factory):
    return record(tmp_path_factory.mktemp("goals") / "d.zarr")


def test_what_is_not_changed_is_as_the_checkpoint_has_it(plain):
    for choice in (AS_SAVED, Choice(solver="ddim"), Choice(steps=16), Choice("ddim", 16)):
        running = choice.resolve(plain)
        assert (running.sha, running.about) == (checkpoint_sha(plain), {})
        assert running.load().config == SMALL


def test_a_checkpoint_that_is_overwritten_meanwhile_is_not_evaluated_by_its_old_name(tmp_path):
    running = AS_SAVED.resolve(checkpoint(tmp_path))
    running.load()
    old = running.sha[:12]
    checkpoint(tmp_path, replace(SMALL, net=MlpConfig(width=24, depth=1)))
    with pytest.raises(
        CheckpointError, match=f"was overwritten meanwhile: sha {checkpoint_sha(tmp_path)[:12]}, was {old}"
    ):
        running.load()


def test_another_solver_is_another_policy(plain):
    shas = set()
    for choice in (AS_SAVED, Choice(steps=4), Choice("ddpm"), Choice("ddpm", 4)):
        running = choice.resolve(plain)
        solver = SolverConfig(choice.solver or "ddim", choice.steps or 16)
        assert running.load().config == replace(SMALL, solver=solver)
        shas.add(running.sha)
    assert len(shas) == 4
    assert Choice("ddpm", 1).resolve(plain).about == {"solver": "ddpm, 1 step"}


def test_the_share_of_fresh_noise_is_ddims_own(tmp_path):
    noisy = checkpoint(tmp_path, replace(SMALL, solver=SolverConfig("ddim", 8, eta=0.5)))
    assert Choice(steps=4).resolve(noisy).solver == SolverConfig("ddim", 4, eta=0.5)
    assert Choice("heun").resolve(noisy).solver == SolverConfig("heun", 8)


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        (Choice("consistency"), ContractError, "process vp learns no jumps; want process consistency"),
        (Choice("rk4"), UnknownName, "no solver 'rk4'; valid: ancestral, consistency, ddim"),
        (Choice(steps=200), ContractError, "200 steps of a process of 100"),
        (Choice(goal="d.zarr:1"), UsageError, "was trained without goals; train one with --goal.streams"),
    ],
)
def test_what_a_policy_cannot_do_is_one_line(plain, choice, error, message):
    with pytest.raises(error, match=message) as caught:
        choice.resolve(plain)
    assert "\n" not in str(caught.value)


def test_jumps_are_for_those_who_learnt_them(tmp_path):
    folder = checkpoint(tmp_path, replace(SMALL, process=ConsistencyConfig(), solver=SolverConfig("euler", 4)))
    assert Choice("consistency", 2).resolve(folder).load().config.solver == SolverConfig("consistency", 2)


def test_a_goal_is_what_its_streams_were_at_a_step(seeking, goals):
    last, second = (Choice(goal=f"{goals}:1{step}").resolve(seeking) for step in ("", ":1"))
    steps = recordings.make_steps(1, 5, spec=SPEC)
    for running, step in ((last, steps[-1]), (second, steps[1])):
        goal = running.goal
        assert list(goal.state) == ["point"]
        assert list(goal.images) == ["front"]
        assert np.array_equal(goal.state["point"], step.observation.state["point"])
        assert np.array_equal(goal.images["front"], step.observation.images["front"])
    assert len({last.sha, second.sha, checkpoint_sha(seeking)}) == 3
    assert last.about["goal"].startswith(f"{goals}:1 (")


def test_a_policy_is_told_its_goal_and_none_without(seeking, goals):
    def seen(choice):
        policy = choice.resolve(seeking).load()
        rng = np.random.default_rng(3)
        state = {name: rng.random(part.dim, np.float32) for name, part in SPEC.state.items()}
        return policy.plan([Observation(0, state, {"front": np.zeros((40, 48, 3), np.uint8)})], generator=rng).features

    free, one, other = seen(AS_SAVED), seen(Choice(goal=f"{goals}:0")), seen(Choice(goal=f"{goals}:1:0"))
    assert not np.allclose(one, other)
    assert not np.allclose(free, one)


def test_the_same_goal_by_another_name_is_the_same_policy(seeking, goals, tmp_path):
    copy = record(tmp_path / "copy.zarr")
    assert Choice(goal=f"{copy}:1").resolve(seeking).sha == Choice(goal=f"{goals}:1:4").resolve(seeking).sha


@pytest.mark.parametrize(
    ("suffix", "error", "message"),
    [
        ("", UsageError, r"names no episode; want D.zarr:3 \(its last step\) or D.zarr:3:40"),
        (":last", UsageError, "names no episode"),
        (":7", DatasetError, "has no episode 7; it has 0-1"),
        (":1:5", UsageError, "episode 1 has the steps 0 to 4"),
    ],
)
def test_a_goal_that_is_not_there_is_one_line(seeking, goals, suffix, error, message):
    with pytest.raises(error, match=message) as caught:
        Choice(goal=f"{goals}{suffix}").resolve(seeking)
    assert "\n" not in str(caught.value)


def test_a_goal_without_a_stream_prints_both_sides(seeking, tmp_path):
    blind = record(tmp_path / "d.zarr", replace(SPEC, cameras={}))
    with pytest.raises(SpecMismatch, match=r"camera front: the goal of checkpoint .* has 40x48, dataset .* has none"):
        Choice(goal=f"{blind}:0").resolve(seeking)


def evaluated(plain, out, *words):
    return main(["eval", "--checkpoint", str(plain), "--env", WORLD, "--seeds", "0:2", "--jobs", "1", "--videos", "0",
                 "--out", str(out), *words])  # fmt: skip


def test_an_evaluation_with_another_solver_or_pace_is_another_and_says_so(plain, tmp_path, capsys):
    counts, told = [], []
    for words in ((), ("--solver", "ddpm", "--solver.steps", "2"), ("--realtime",), ("--solver.steps", "16")):
        assert evaluated(plain, tmp_path, *words) == 0, capsys.readouterr().err
        counts.append(len((tmp_path / "outcomes.jsonl").read_text().splitlines()))
        facts = json.loads((tmp_path / "results.json").read_text())["facts"]
        told.append((facts.get("solver"), facts.get("pace", "").partition(":")[0]))
        assert ("wall clock: " in capsys.readouterr().out) == ("--realtime" in words)
    assert told == [(None, ""), ("ddpm, 2 steps", ""), (None, "wall clock"), (None, "")]
    assert counts == [2, 4, 6, 6], "the last is as saved, and was run before"
    assert "ddpm, 2 steps" not in (tmp_path / "report.html").read_text()


def test_folders_tell_evaluations_apart(plain, tmp_path):
    from robopolicy.cli.evaluate import _folder
    from robopolicy.cli.main import build_parser

    names = set()
    for words in ([], ["--solver", "ddpm"], ["--solver.steps", "2"], ["--goal", "a/d.zarr:3"], ["--realtime"],
                  ["--disturb-at", "4"], ["--companion", "runs/b"]):  # fmt: skip
        args = ["eval", "--checkpoint", "p", "--env", "gymnasium:a/B-v0", *words]
        names.add(_folder(build_parser().parse_args(args)))
    assert names == {
        "eval-gymnasium-a-B-v0" + more
        for more in ("", "-ddpm", "-2-steps", "-goal-d.zarr-3", "-realtime", "-disturbed-4", "-with-b")
    }


def test_a_monitor_guards_the_solver_it_was_calibrated_with(plain, tmp_path):
    few = Choice(steps=2)
    collect(plain, WORLD, "0:13,20", tmp_path / "rollouts", jobs=1, choice=few)
    with pytest.raises(SpecMismatch, match="with the same solver and goal"):
        calibrate(plain, tmp_path / "rollouts", tmp_path / "monitor", alpha=0.2)
    calibrate(plain, tmp_path / "rollouts", tmp_path / "monitor", alpha=0.2, choice=few)
    few.resolve(plain).load_monitor(tmp_path / "monitor")
    with pytest.raises(SpecMismatch, match=r"calibrate anew\. .* this one has its own solver and no goal"):
        AS_SAVED.resolve(plain).load_monitor(tmp_path / "monitor")
    with pytest.raises(SpecMismatch, match="this one has solver ddim, 3 steps"):
        Choice(steps=3).resolve(plain).load_monitor(tmp_path / "monitor")


def test_a_companion_changes_no_command_and_makes_another_policy(plain, companion, tmp_path):
    choice = Choice(companions=(companion,))
    running = choice.resolve(plain)
    assert len({running.sha, AS_SAVED.resolve(plain).sha, Choice(companions=(plain,)).resolve(plain).sha}) == 3
    assert running.about == {"companions": f"{companion} ({checkpoint_sha(companion)[:12]})"}
    state = {name: np.zeros(part.dim, np.float32) for name, part in tiny.SPEC.state.items()}
    plans = [
        one.load().plan([Observation(0, state)], generator=np.random.default_rng(0))
        for one in (AS_SAVED.resolve(plain), running)
    ]
    assert np.array_equal(plans[0].chunks, plans[1].chunks)
    assert "ensemble_disagreement" not in plans[0].aux
    assert plans[1].aux["ensemble_disagreement"].max() > 0
    few = Choice(steps=1, companions=(companion,)).resolve(plain)
    assert few.sha not in (running.sha, Choice(steps=1).resolve(plain).sha)
    assert few.load().config.solver.steps == 1


def test_a_companion_that_is_another_by_now_or_was_trained_otherwise_is_refused(plain, tmp_path):
    running = Choice(companions=(checkpoint(tmp_path, seed=1),)).resolve(plain)
    checkpoint(tmp_path, seed=2)
    with pytest.raises(CheckpointError, match=f"{tmp_path} was overwritten meanwhile"):
        running.load()
    other = checkpoint(tmp_path, replace(SMALL, process=ConsistencyConfig()))
    with pytest.raises(SpecMismatch, match=r"companion 1: its process is ConsistencyConfig.*train it alike"):
        Choice(companions=(other,)).resolve(plain)
    with pytest.raises(CheckpointError):
        Choice(companions=(tmp_path / "none",)).resolve(plain)


def test_a_monitor_of_what_policies_tell_guards_the_pair_it_was_calibrated_with(plain, companion, tmp_path, capsys):
    pair = ["--checkpoint", str(plain), "--companion", str(companion)]
    monitor, scores = str(tmp_path / "monitor"), ["--scores", "ensemble", "denoise_variance", "ace"]
    words = ["--env", WORLD, "--seeds", "0:13,20", "--jobs", "1", "--out", monitor, "--alpha", "0.2"]
    assert main(["calibrate", *pair, *words, *scores]) == 0, capsys.readouterr().err
    watched = ["--robot", WORLD, "--monitor", monitor, "--max-steps", "4", "--allow-slow", "--on-alarm", "log"]
    assert main(["deploy", *pair, *watched]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["deploy", *pair[:2], *watched]) == 1
    assert "Another solver, goal or companion is another policy" in capsys.readouterr().err
    assert main(["eval", *pair, "--env", WORLD, "--seeds", "0:2", "--jobs", "1", "--monitor", monitor]) == 0
    told = json.loads((plain / f"eval-{WORLD.replace(':', '-')}-with-{companion.name}" / "results.json").read_text())
    assert told["facts"]["companions"].startswith(str(companion))


def test_a_deployment_takes_the_solver_and_refuses_what_does_not_fit(plain, capsys):
    words = ["deploy", "--robot", WORLD, "--checkpoint", str(plain), "--max-steps", "2", "--allow-slow"]
    assert main([*words, "--solver.steps", "1"]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main([*words, "--goal", "d.zarr:1"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "was trained without goals" in err


def test_a_recording_refuses_a_solver_or_goal_that_its_policy_does_not_know(plain, tmp_path, capsys):
    words = ["record", "--robot", "mock", "--teleop", "keyboard", "--data", str(tmp_path / "d.zarr")]
    for more, message in (
        (["--checkpoint", str(plain), "--solver", "consistency"], "process vp learns no jumps"),
        (["--checkpoint", str(plain), "--goal", "d.zarr:1"], "was trained without goals"),
        (["--solver.steps", "2"], "--solver.steps says how a policy plans: add its --checkpoint"),
    ):
        assert main([*words, *more]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert message in err
    assert not (tmp_path / "d.zarr").exists()


def test_help_names_every_solver(capsys):
    for command in ("eval", "deploy", "calibrate", "export", "record"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = capsys.readouterr().out
        assert all(f"{name}," in told or f"{name} " in told for name in SOLVERS), command
        assert ("--goal" in told) == (command != "export")
