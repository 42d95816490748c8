"""Which data `robopolicy train` learns from: those named, each once, or those of the run that goes on."""

import shlex
import shutil
import sys
from pathlib import Path

import pytest

from robopolicy.cli.main import main
from robopolicy.cli.train import default_folder
from robopolicy.training.checkpoint import checkpoint_sha, read_train
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
import recordings

FAST = shlex.split("--batch-size 4 --device cpu --threads 1 --n-obs 1 --horizon 2 --net.width 32")


@pytest.fixture
def where(tmp_path, monkeypatch):
    """A folder to work in, with two datasets."""
    for name in ("a", "b"):
        with DatasetWriter(tmp_path / f"{name}.zarr", recordings.SPEC, lossless=True) as writer:
            for seed in range(2):
                recordings.record(writer, seed)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(words: str) -> int:
    return main(["train", *shlex.split(words)])


def refused(capsys, words: str) -> str:
    capsys.readouterr()
    assert train(words) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_a_run_goes_on_with_its_own_data_weights_and_rate(where, capsys):
    mixed = "--data a.zarr --data b.zarr --weights 3 1 --every 2"
    budget = shlex.join([*FAST, "--steps"])
    assert train(f"{mixed} {budget} 2 --out run") == 0
    shutil.copytree("run", "named")
    assert train("--resume --out run --steps 4") == 0, capsys.readouterr().err
    assert train(f"{mixed} --resume --out named --steps 4") == 0
    assert checkpoint_sha("run") == checkpoint_sha("named")
    told = read_train("run")
    assert told["steps"] == 4
    assert {name: told["data"][name] for name in ("path", "weights", "every")} == {
        "path": ["a.zarr", "b.zarr"], "weights": [3.0, 1.0], "every": 2
    }  # fmt: skip
    assert "--weights 1 for 2 datasets" in refused(capsys, "--resume --out run --steps 6 --weights 1")
    assert "its rate_hz was 10.0, now 20.0" in refused(capsys, "--resume --out run --steps 6 --every 1")


def test_data_that_have_gone_are_named_and_may_be_said_anew(where, capsys):
    assert train(shlex.join(["--data", "a.zarr", *FAST, "--steps", "1", "--out", "run"])) == 0
    (where / "a.zarr").rename(where / "moved.zarr")
    said = refused(capsys, "--resume --out run --steps 2")
    assert said == "robopolicy: a.zarr, of which the run in run learns, is not there; say where it is: --data"
    assert train("--data moved.zarr --resume --out run --steps 2") == 0
    assert train("--out run --steps 3 --resume") == 0
    assert read_train("run")["data"]["path"] == "moved.zarr"
    assert "none" in refused(capsys, "--resume --out none")


def test_data_are_wanted_without_a_run_to_go_on_with(capsys):
    with pytest.raises(SystemExit) as left:
        train("--out run")
    assert left.value.code == 2
    assert capsys.readouterr().err.strip().endswith("error: the following arguments are required: --data")


def test_without_a_folder_the_checkpoint_goes_to_one_called_after_the_data(where, capsys):
    budget = shlex.join([*FAST, "--steps"])
    assert train(f"--data a.zarr --data b.zarr {budget} 2") == 0
    said = capsys.readouterr().out
    assert "the checkpoint goes to runs/a-b\n" in said
    assert "checkpoint in runs/a-b. Next: robopolicy eval --checkpoint runs/a-b" in said
    assert read_train("runs/a-b")["steps"] == 2
    assert "runs/a-b already holds a checkpoint" in refused(capsys, f"--data a.zarr b.zarr {budget} 2")
    assert train("--data a.zarr b.zarr --resume --steps 4") == 0
    assert read_train("runs/a-b")["steps"] == 4
    assert refused(capsys, "--resume") == "robopolicy: --resume without --data: say which run goes on: --out FOLDER"
    assert "runs/b" in refused(capsys, "--resume --data b.zarr")


@pytest.mark.parametrize(
    ("data", "folder"),
    [
        (["lift.zarr"], "lift"),
        (["/mnt/d/lift.zarr/"], "lift"),
        (["robot.zarr", "../human.zarr"], "robot-human"),
        (["lift.zarr.zip", "peg.zip"], "lift-peg"),
        (["s3://lab/day 1.zarr"], "day_1"),
        ([".."], "data"),
        ([f"{name}.zarr" for name in "abcde"], "a-and-4-more"),
    ],
)
def test_the_folder_that_is_called_after_the_data(data, folder):
    assert default_folder(data) == Path("runs", folder)


@pytest.mark.parametrize(
    "data", ["a.zarr b.zarr a.zarr", "a.zarr --data ./a.zarr", "a.zarr {where}/b.zarr/../a.zarr", "a.zarr again.zarr"]
)
@pytest.mark.parametrize("policy", ["diffusion", "motion-track"])
def test_a_dataset_that_is_named_twice_is_refused_by_name(where, capsys, data, policy):
    (where / "again.zarr").symlink_to(where / "a.zarr")
    data = data.format(where=where)
    said = refused(capsys, f"--data {data} --out run --steps 1 --policy {policy}")
    assert said.startswith(f"robopolicy: --data names {data.split()[-1]} twice; want each once")
    assert not (where / "run").exists()
