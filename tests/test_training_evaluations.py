import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
from scoring import dying, endless, failing, falling, rising
from training_parts import CONFIG, SPEC, make, sampler

from robopolicy.errors import EvaluationError, MissingExtra
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.evaluations import Command, Evaluations
from robopolicy.training.trainer import Progress, train

STATE = replace(SPEC, cameras={})
TINY = DiffusionConfig(MlpConfig(width=8, depth=1))


def written(folder: Path, step: int) -> None:
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps({"steps": step}))


def run(evaluations: Evaluations, out: Path, steps: list[int]) -> None:
    for step in steps:
        evaluations.begin(step, step / 10, lambda folder, step=step: written(folder, step))
        assert evaluations.busy
        assert evaluations.collect(wait=True) is not None


def test_scores_land_in_train_json_and_the_best_checkpoint_is_kept(tmp_path):
    told: list[Progress] = []
    config = replace(CONFIG, steps=400, eval_every_steps=150, keep=1, tensorboard=True)
    trained = train(make(STATE, TINY), sampler(), tmp_path, config, on_progress=told.append, evaluate=rising)
    results = read_train(tmp_path)["eval"]
    assert results[-1]["step"] == results[-1]["score"] == 400, "the last one is always evaluated"
    assert all(result["step"] == result["score"] and result["whole"] == 1 for result in results)
    assert told[-1].scores == results[-1]
    assert "400" in (tmp_path / "README.md").read_text(), "the card tells of the last score"
    best = load_policy(tmp_path / "best")
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), trained.parameters(), strict=True))
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-00000400"]
    logged = scalars(tmp_path / "tensorboard")
    assert logged["eval/score"][-1] == (400, 400.0)
    assert len(logged["train/loss"]) == 400
    assert logged["train/loss"][-1][1] == pytest.approx(told[-1].loss, rel=1e-6)
    assert {"train/lr", "train/grad_norm", "speed/samples_per_s", "speed/data_share"} < logged.keys()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_best_and_newest_are_kept(tmp_path):
    evaluations = Evaluations(falling, tmp_path, keep=2)
    run(evaluations, tmp_path, [1, 2, 3])
    assert json.loads((tmp_path / "best" / "train.json").read_text())["steps"] == 1
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]
    assert [result["score"] for result in evaluations.results] == [-1, -2, -3]
    before, evaluations = evaluations.results, Evaluations(falling, tmp_path)
    evaluations.results = before
    run(evaluations, tmp_path, [4])
    assert not (tmp_path / "checkpoints").exists()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["best"]


@pytest.mark.parametrize(
    ("evaluate", "message"), [(failing, "ValueError: no such world"), (dying, "its process died with exit code 3")]
)
def test_an_evaluation_that_fails_is_told_and_ends_nothing(tmp_path, evaluate, message):
    evaluations = Evaluations(evaluate, tmp_path)
    run(evaluations, tmp_path, [1])
    assert evaluations.results == [{"step": 1, "minutes": 0.1, "error": message}]
    assert not (tmp_path / "best").exists()


def test_training_goes_on_while_a_checkpoint_is_evaluated_and_takes_it_along_when_it_stops(tmp_path):
    told: list[Progress] = []

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        told.append(progress)
        if progress.step == 60:
            raise Enough

    config = replace(CONFIG, steps=100, eval_every_steps=10)
    with pytest.raises(Enough):
        train(make(STATE, TINY), sampler(), tmp_path, config, on_progress=stop, evaluate=endless)
    assert told[-1].step == 60
    assert not (tmp_path / "checkpoints" / "step-00000010").exists()


def test_when_a_checkpoint_is_due(tmp_path):
    evaluations = Evaluations(falling, tmp_path, every_steps=100)
    assert not evaluations.due(99, 1e9)
    assert evaluations.due(100, 0)
    evaluations.since(250, 5)
    assert not evaluations.due(299, 9)
    assert evaluations.due(300, 9)
    evaluations = Evaluations(falling, tmp_path, every_minutes=2.0)
    evaluations.since(0, 10)
    assert not evaluations.due(10**6, 11.9)
    assert evaluations.due(1, 12)
    assert not Evaluations(None, tmp_path, every_steps=1).due(5, 5)


def test_a_command_evaluates(tmp_path):
    code = "import sys; print('noise'); print('{\"score\": %d}' % len(sys.argv[1]))"
    assert Command([sys.executable, "-c", code, "{checkpoint}"])(tmp_path) == {"score": len(str(tmp_path))}
    with pytest.raises(EvaluationError, match="ended with 1: ZeroDivisionError"):
        Command([sys.executable, "-c", "1 / 0"])(tmp_path)
    for said in ("print('fine')", "pass", "print('[1]')"):
        with pytest.raises(EvaluationError, match="its last line is no JSON object of numbers"):
            Command([sys.executable, "-c", said])(tmp_path)


def test_tensorboard_missing_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[tensorboard\]"):
        train(make(STATE, TINY), sampler(), tmp_path, replace(CONFIG, tensorboard=True))
