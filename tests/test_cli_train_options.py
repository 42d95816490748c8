"""The options of `robopolicy train`: one for each field, explained, and what they change."""

import re
import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from robopolicy.cli.fields import add_options, changed, field_comments, given, make, options
from robopolicy.cli.main import build_parser, main
from robopolicy.errors import ContractError, UnknownName, UsageError
from robopolicy.policies.config import PRESETS, DiffusionConfig
from robopolicy.policies.processes import FlowConfig
from robopolicy.spec import CameraSpec
from robopolicy.training.checkpoint import read_spec, read_train
from robopolicy.training.config import TrainConfig
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
import recordings


@dataclass(frozen=True)
class Round:
    kind: ClassVar[str] = "round"
    radius: float = 1.0  # m
    label: str = "#1"  # of the drawing


@dataclass(frozen=True)
class Square:
    kind: ClassVar[str] = "square"
    side: float  # m
    label: str = "#1"  # of the drawing


@dataclass(frozen=True)
class Lid:
    depth: int = 2  # mm


@dataclass(frozen=True)
class Box:
    shape: Round | Square = field(default_factory=Round)
    lid: Lid | None = None
    finish: Literal["raw", "oiled"] | None = None  # of the wood
    open: bool = False  # whether it has no lid
    holes: tuple[int, ...] = ()  # mm, along the edge


def parse(*words: str) -> dict:
    import argparse

    parser = argparse.ArgumentParser()
    add_options(parser, Box, names={"finish": "coat"})
    return given(parser.parse_args(words), Box)


def test_an_option_for_each_field_with_its_comment():
    found = {option.path: option for option in options(Box)}
    assert list(found) == [
        "shape", "shape.radius", "shape.label", "shape.side", "lid", "lid.depth", "finish", "open", "holes"
    ]  # fmt: skip
    assert found["shape.radius"].help == "[round] m"
    assert found["shape.label"].help == "[round, square] of the drawing"
    assert found["finish"].help == "of the wood"
    assert found["shape"].hint == ("round", "square")
    assert found["lid"].hint == ("on", "off")


def test_only_what_is_given_is_changed():
    assert parse() == {}
    words = ["--shape", "square", "--shape.side", "2", "--coat", "oiled", "--open", "--holes", "3", "4", "--lid", "on"]
    changes = parse(*words)
    want = Box(Square(2.0), Lid(), "oiled", True, [3, 4])
    assert changed(Box(), changes) == want
    assert changed(want, {"lid": "off"}) == replace(want, lid=None)
    assert changed(want, {"shape.label": "b"}).shape == Square(2.0, "b")
    assert changed(want, {"shape.kind": "round"} and {"shape": "round"}).shape == Round()
    assert changed(Box(Round(5.0)), {"shape": "round"}).shape == Round(5.0), "the kind it is keeps its numbers"
    assert changed(Box(), {"lid.depth": 7}).lid == Lid(7), "what is told of a part switches it on"
    assert make(Box, {"open": True}) == Box(open=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape.side": 2.0}, "--shape.side says nothing to shape round, which has --shape.radius, --shape.label"),
        ({"shape": "square"}, "--shape needs --shape.side"),
        ({"lid": "off", "lid.depth": 3}, "--lid is off, so --lid.depth says nothing"),
        ({"colour": 1}, "--colour says nothing to Box, which has"),
    ],
)
def test_what_makes_no_sense_is_one_line(changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        changed(Box(), changes)
    assert "\n" not in str(caught.value)


def dataclasses_of(cls) -> set[type]:
    from typing import get_type_hints

    from robopolicy.cli.fields import members_of

    found = {cls}
    for hint in get_type_hints(cls).values():
        for member in members_of(hint).values():
            found |= dataclasses_of(member)
    return found


@pytest.mark.parametrize(
    "cls", sorted(dataclasses_of(DiffusionConfig) | dataclasses_of(TrainConfig), key=lambda c: c.__name__)
)
def test_every_field_of_policy_and_training_is_explained(cls):
    from typing import get_type_hints

    from robopolicy.cli.fields import members_of

    hints = get_type_hints(cls)
    plain = [f.name for f in fields(cls) if not members_of(hints[f.name])]
    assert sorted(set(plain) - set(field_comments(cls))) == []


def test_every_field_of_policy_and_training_has_an_option(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out
    for option in [*options(DiffusionConfig), *options(TrainConfig)]:
        if option.path in ("lr", "max_minutes", "num_threads", "vision.sizes"):
            continue  # --lr once; --minutes; --threads; --image-size
        assert re.search(rf"--{re.escape(option.path.replace(chr(95), chr(45)))}[ ,]", told), option.path
    for name in PRESETS:
        assert f"  {name} " in told


def test_any_preset_becomes_any_other_by_its_options():
    for name, preset in PRESETS.items():
        start = PRESETS["mlp"]
        changes = {}
        for f in fields(preset):
            want = getattr(preset, f.name)
            if hasattr(want, "kind"):
                changes[f.name] = want.kind
            if hasattr(want, "__dataclass_fields__"):
                changes |= {f"{f.name}.{g.name}": getattr(want, g.name) for g in fields(want)}
            elif want is not None:
                changes[f.name] = want
        assert changed(start, changes) == preset, name


def test_errors_of_the_parts_stay_one_line():
    with pytest.raises(ContractError, match="steps 0"):
        changed(PRESETS["mlp"], {"solver.steps": 0})
    with pytest.raises(UnknownName, match=r"no solver 'x'"):
        changed(PRESETS["mlp"], {"solver.name": "x"})


def test_presets_are_listed_whatever_else_is_missing(capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["train", "--list-presets"])
    assert stopped.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "d.zarr"
    with DatasetWriter(path, recordings.SPEC, lossless=True) as writer:
        for seed in range(3):
            recordings.record(writer, seed)
    return path


FAST = ("--batch-size", "4", "--device", "cpu", "--threads", "1")


def run(data: Path, out: Path, *words: str) -> int:
    return main(["train", "--data", str(data), "--out", str(out), *FAST, *words])


def test_every_axis_is_reached_from_the_command_line(data, tmp_path):
    from robopolicy.training.checkpoint import load_policy

    words = ["--steps", "1", "--process.kind", "flow", "--solver.steps", "2", "--net.width", "32", "--n_obs", "4"]
    assert run(data, tmp_path / "p", *words, "--selector", "medoid", "--selector.samples", "3", "--warmup", "0.5") == 0
    config = load_policy(tmp_path / "p").config
    assert config.process == FlowConfig()
    assert (config.solver.steps, config.net.width, config.selector.name) == (2, 32, "medoid")
    assert config.net.depth == PRESETS["mlp"].net.depth
    assert read_train(tmp_path / "p")["train"]["warmup"] == 0.5
    assert read_spec(tmp_path / "p").n_obs == 4
    assert read_train(tmp_path / "p")["data"]["command"].startswith(f"robopolicy train --data {data} --out ")


def test_a_run_goes_on_with_the_settings_it_has(data, tmp_path, capsys):
    words = ("--preset", "unet-small", "--net.channels", "8", "16", "--states", "q", "--horizon", "4", "--seed", "3")
    assert run(data, tmp_path / "p", "--steps", "2", "--lr", "0.002", *words) == 0
    before = read_spec(tmp_path / "p")
    capsys.readouterr()
    argv = ["train", "--data", str(data), "--out", str(tmp_path / "p"), "--resume", "--device", "cpu", "--threads", "1"]
    assert main([*argv, "--steps", "4"]) == 0
    assert "going on at step 2" in capsys.readouterr().out
    told = read_train(tmp_path / "p")
    assert (told["steps"], told["train"]["batch_size"], told["train"]["seed"], told["train"]["lr"]) == (4, 4, 3, 0.002)
    assert read_spec(tmp_path / "p") == before
    assert main([*argv, "--steps", "6", "--seed", "4"]) == 1
    assert "its seed was 3, now 4" in capsys.readouterr().err
    assert main([*argv, "--steps", "6", "--net.channels", "8", "8"]) == 1
    assert "its net.channels was [8, 16], now [8, 8]" in capsys.readouterr().err
    assert main([*argv, "--steps", "6", "--horizon", "2"]) == 1
    assert "its horizon was 4, now 2" in capsys.readouterr().err


def test_a_run_goes_on_with_the_threads_it_has(data, tmp_path, monkeypatch):
    cores = {0, 1, 2, 3}
    monkeypatch.setattr("os.sched_getaffinity", lambda _: cores)
    common = ["train", "--data", str(data), "--out", str(tmp_path / "p"), "--batch-size", "4", "--device", "cpu"]

    def threads(*words: str) -> int:
        assert main([*common, *words]) == 0
        return read_train(tmp_path / "p")["train"]["num_threads"]

    assert threads("--steps", "2", "--threads", "2") == 2
    assert threads("--steps", "3", "--resume") == 2  # others would round otherwise
    assert threads("--steps", "4", "--resume", "--threads", "3") == 3
    cores = {0}
    assert threads("--steps", "5", "--resume") == 1  # another machine


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--net.channels", "8"), "--net.channels says nothing to net mlp"),
        (("--preset", "mpl"), "no preset 'mpl'; valid: consistency, edm"),
        (("--preset", "unet-small", "--horizon", "6"), "horizon 6 is not a multiple of 4"),
        (("--batch-size", "0"), "batch_size is 0; want at least 1"),
        (("--solver.steps", "200"), "200 steps of a process of 100"),
    ],
)
def test_bad_values_are_one_line_before_anything_is_written(data, tmp_path, capsys, words, message):
    assert run(data, tmp_path / "p", "--steps", "1", *words) == 1
    err = capsys.readouterr().err
    assert err.startswith("robopolicy: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "p").exists()


def test_a_dataset_too_short_for_one_window_is_refused_before_anything_is_written(data, tmp_path, capsys):
    assert run(data, tmp_path / "p", "--steps", "1", "--horizon", "7") == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the longest of 3 episodes has 6 steps, too short for one window: a chunk takes 7 at 20 Hz" in told
    assert not (tmp_path / "p").exists()


def test_horizons_and_budget_are_told_in_one_line(data, tmp_path, capsys):
    assert run(data, tmp_path / "p", "--steps", "1") == 0
    (line,) = [one for one in capsys.readouterr().out.splitlines() if "Hz" in one]
    assert line.startswith("20 Hz, 3 episodes of ")
    assert "horizon 6 (0.3 s), n_execute 3 (0.15 s), n_obs 2; 1 steps of 4 windows" in line


def test_a_frozen_encoder_wants_a_checkpoint(data, tmp_path, capsys):
    assert run(data, tmp_path / "p", "--steps", "1", "--vision.frozen") == 1
    assert "name it: --encoder CHECKPOINT" in capsys.readouterr().err


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeing")
    spec = replace(recordings.SPEC, cameras={"front": CameraSpec(40, 48)})
    with DatasetWriter(folder / "d.zarr", spec) as writer:
        for seed in range(2):
            episode = writer.begin(replace(recordings.META, seed=seed))
            for step in recordings.make_steps(seed, spec=spec):
                episode.add(step)
            episode.commit()
    return folder


def test_a_second_stage_takes_the_encoder_of_the_first_and_resumes_without_it(seeing, tmp_path, capsys):
    import torch

    from robopolicy.training.checkpoint import load_policy

    words = ("--cameras", "front", "--vision.width", "16", "--net.width", "32", "--horizon", "4")
    assert run(seeing / "d.zarr", tmp_path / "one", "--steps", "2", *words) == 0
    assert run(
        seeing / "d.zarr", tmp_path / "two", "--steps", "2", "--cameras", "front", "--net.width", "32", "--past", "3",
        "--encoder", str(tmp_path / "one"), "--horizon", "4",
    ) == 0  # fmt: skip
    one, two = (load_policy(tmp_path / name) for name in ("one", "two"))
    assert (two.spec.n_obs, two.config.past, two.config.vision.frozen) == (4, 3, True)
    for want, have in zip(one.encoder.cameras.parameters(), two.encoder.cameras.parameters(), strict=True):
        assert torch.equal(want, have)
    code = main(
        ["train", "--data", str(seeing / "d.zarr"), "--out", str(tmp_path / "two"), "--resume", "--steps", "3",
         "--device", "cpu", "--threads", "1"]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert read_train(tmp_path / "two")["steps"] == 3


def test_checkpoints_are_scored_in_a_world_that_fits(data, tmp_path, capsys):
    assert run(data, tmp_path / "p", "--steps", "1", "--eval-env", "twin:lift") == 1
    assert "the policy has" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
    assert run(data, tmp_path / "p", "--steps", "1", "--eval-env", "twin:lift", "--eval-seeds", "5:5") == 1
    assert "LAST+1 > FIRST" in capsys.readouterr().err


@pytest.mark.slow
def test_scores_of_a_twin_land_in_train_json_and_on_the_card(tmp_path, capsys):
    assert main(
        ["record", "--robot", "twin:lift", "--data", str(tmp_path / "d.zarr"), "--episodes", "2", "--cameras"]
    ) == 0  # fmt: skip
    assert (
        run(tmp_path / "d.zarr", tmp_path / "p", "--steps", "2", "--eval-env", "twin:lift", "--eval-seeds", "0:2") == 0
    )
    (result,) = read_train(tmp_path / "p")["eval"]
    assert result["step"] == 2
    assert 0 <= result["score"] <= 1
    assert result["success"] in (0.0, 0.5, 1.0)
    assert "## Scores while training" in (tmp_path / "p" / "README.md").read_text()


def test_the_note_beside_the_bar():
    from robopolicy.cli.train import progress_note
    from robopolicy.training.config import Progress

    now = Progress(5, 10, 0.125, 3512.4, 60.0, 1.0, 9.0, scores={"step": 4, "minutes": 1.0, "score": 0.8567})
    assert progress_note(now) == "loss 0.1250  3,512 samples/s  data 10%  score 0.857"
    failed = replace(now, scores={"step": 100, "minutes": 1.0, "error": "UsageError: no world"})
    assert progress_note(failed).endswith("data 10%  evaluation failed: UsageError: no world")
    before = replace(now, step=now.steps, scores={"step": now.steps - 1, "score": 0.5})
    assert progress_note(before, scores=True) == "loss 0.1250  scoring the last checkpoint"
    assert progress_note(replace(before, scores={"step": now.steps, "score": 0.5}), scores=True).endswith("score 0.5")


def test_the_help_fits_a_hundred_columns_and_tells_the_commands_own_defaults(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for words in (["train", "--help"], ["train", "--list-presets"]):
        with pytest.raises(SystemExit):
            main(words)
        told = capsys.readouterr().out
        assert [line for line in told.splitlines() if len(line) > 100] == []
        assert "``" not in told
        if words[1] == "--help":
            plain = " ".join(told.split())
    for words in (
        "--batch-size N windows a step, of all processes together (default: 256, 64 with cameras",
        "--threads N threads of torch on the CPU (default: one a core, 8 at most)",
        "--goal {on,off}", "--tensorboard, --no-tensorboard logs in tensorboard/ (default off)",
    ):  # fmt: skip
        assert words in plain, words


def test_a_number_that_is_on_by_default_is_switched_off_by_none(data, tmp_path, capsys):
    assert run(data, tmp_path / "p", "--steps", "1", "--clip-norm", "none", "--horizon", "4") == 0
    assert read_train(tmp_path / "p")["train"]["clip_norm"] is None
    again = ("--resume", "--steps", "2", "--horizon", "4")
    assert run(data, tmp_path / "p", *again) == 0, capsys.readouterr().err
    assert read_train(tmp_path / "p")["train"]["clip_norm"] is None
    with pytest.raises(SystemExit):
        run(data, tmp_path / "q", "--clip-norm", "much")
    assert "argument --clip-norm: invalid number value: 'much'" in capsys.readouterr().err
