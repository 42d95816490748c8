"""What `robopolicy train` makes of a dataset."""

import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.main import main
from robopolicy.cli.train import train
from robopolicy.cli.training_data import DataChoice
from robopolicy.errors import CheckpointError, ContractError, SpecMismatch, UsageError
from robopolicy.spec import CameraSpec
from robopolicy.training.checkpoint import read_train
from robopolicy_data.writer import DatasetWriter

sys.path.insert(0, str(Path(__file__).parent))
import recordings

SETTINGS = {"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}


def record(path, successes) -> list[int]:
    """Record an episode for each outcome; return their lengths."""
    with DatasetWriter(path, recordings.SPEC, lossless=True) as writer:
        for seed, success in enumerate(successes):
            recordings.record(writer, seed, success=success)
    return [recordings.length(seed) for seed in range(len(successes))]


def test_failed_episodes_teach_nothing_and_unjudged_ones_do(tmp_path):
    successes = [True, False, None, False, True]
    lengths = record(tmp_path / "d.zarr", successes)
    train(tmp_path / "d.zarr", tmp_path / "policy", settings=SETTINGS)
    data = read_train(tmp_path / "policy")["data"]
    assert data["episodes"] == 3
    assert data["windows"] == sum(np.compress([one is not False for one in successes], lengths))


def test_failures_alone_are_nothing_to_train_from(tmp_path):
    record(tmp_path / "d.zarr", [False, False])
    with pytest.raises(UsageError, match=r"no episode to train from \(2 recorded, all failures\)"):
        train(tmp_path / "d.zarr", tmp_path / "policy", settings=SETTINGS)
    assert not (tmp_path / "policy").exists()


SEEING = replace(recordings.SPEC, cameras={"front": CameraSpec(40, 48), "wrist": CameraSpec(40, 40)})
CAMERAS = {"cameras": ("front", "wrist"), "horizon": 4, "n_execute": 2}
RUN = {**SETTINGS, "steps": 6, "batch_size": 5, "report_every_s": 0.0}


def weights(folder) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def interrupt_at(step: int):
    """A progress bar at which somebody presses Ctrl-C."""

    def at(bar, completed, total=None, note=""):
        if completed == step and "loss" in note:
            signal.raise_signal(signal.SIGINT)

    return at


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, successes in (("a.zarr", (True, False, True)), ("b.zarr", (True,))):
        with DatasetWriter(folder / name, SEEING) as writer:
            for seed, success in enumerate(successes):
                episode = writer.begin(replace(recordings.META, seed=seed, success=success))
                for step in recordings.make_steps(seed, spec=SEEING):
                    episode.add(step)
                episode.commit()
    return folder


@pytest.fixture(scope="module")
def resident(data):
    train(data / "a.zarr", data / "resident", settings=RUN, **CAMERAS)
    return weights(data / "resident")


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("batch", "decode"))]


@pytest.mark.parametrize("cache", ["decoded", "compressed", "disk"])
def test_every_cache_trains_the_same_policy(data, resident, tmp_path, cache):
    train(DataChoice((data / "a.zarr",), cache=cache), tmp_path / "p", settings=RUN, **CAMERAS)
    assert loader_threads() == []
    assert weights(tmp_path / "p") == resident


@pytest.mark.parametrize("source", ["end", "future"])
def test_goals_are_the_same_from_memory_and_from_a_loader(data, tmp_path, source):
    told = {"policy": {"goal.streams": ("q", "front"), "goal.source": source}, "settings": SETTINGS | {"steps": 3}}
    for cache in ("auto", "compressed"):
        train(DataChoice((data / "a.zarr",), cache=cache), tmp_path / cache, **CAMERAS, **told)
    assert weights(tmp_path / "auto") == weights(tmp_path / "compressed")


@pytest.mark.parametrize(("before", "after"), [("auto", "disk"), ("compressed", "auto")])
def test_a_run_goes_on_from_another_cache(data, resident, tmp_path, monkeypatch, before, after):
    monkeypatch.setattr("robopolicy.cli.progress.Bar.at", interrupt_at(3))
    with pytest.raises(KeyboardInterrupt) as stopped:  # which keeps all that ran
        train(DataChoice((data / "a.zarr",), cache=before), tmp_path / "p", settings=RUN, **CAMERAS)
    assert loader_threads() == []
    assert stopped.traceback
    monkeypatch.undo()
    train(DataChoice((data / "a.zarr",), cache=after), tmp_path / "p", settings=RUN, resume=True, **CAMERAS)
    assert weights(tmp_path / "p") == resident


def test_a_mixture_resumes_bit_for_bit(data, tmp_path, monkeypatch):
    choice = DataChoice((data / "a.zarr", data / "b.zarr"), weights=(1, 3))
    train(choice, tmp_path / "whole", settings=RUN, **CAMERAS)
    monkeypatch.setattr("robopolicy.cli.progress.Bar.at", interrupt_at(3))
    with pytest.raises(KeyboardInterrupt):
        train(choice, tmp_path / "parts", settings=RUN, **CAMERAS)
    monkeypatch.undo()
    assert read_train(tmp_path / "parts")["steps"] == 3
    train(choice, tmp_path / "parts", settings=RUN, resume=True, **CAMERAS)
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    told = read_train(tmp_path / "whole")["data"]
    assert told["path"] == [str(data / "a.zarr"), str(data / "b.zarr")]
    assert told["weights"] == [1, 3]
    assert told["episodes"] == 3
    other = DataChoice(choice.paths, weights=(3, 1))
    with pytest.raises(CheckpointError, match=r"its order was .*0\.25.* now .*0\.75"):
        train(other, tmp_path / "parts", settings={**RUN, "steps": 8}, resume=True, **CAMERAS)
    for cache in ("auto", "disk"):
        unweighted = DataChoice(choice.paths, cache=cache)
        with pytest.raises(CheckpointError, match=r"its order was .* now every window once an epoch"):
            train(unweighted, tmp_path / "parts", settings={**RUN, "steps": 8}, resume=True, **CAMERAS)


def test_the_command_line_takes_datasets_weights_and_caches(data, tmp_path, capsys):
    where = [str(data / "a.zarr"), str(data / "b.zarr")]
    common = ["--steps", "2", "--batch-size", "4", "--device", "cpu", "--threads", "1", "--n-execute", "1"]
    code = main(
        ["train", "--data", *where, "--weights", "1", "3", "--cache", "compressed", "--every", "2", "--horizon", "2",
         "--out", str(tmp_path / "p"), *common]
    )  # fmt: skip
    assert code in (0, None)
    assert "of at most" in capsys.readouterr().out, "memory is said before it is taken"
    train_json = read_train(tmp_path / "p")["data"]
    assert (train_json["weights"], train_json["every"]) == ([1, 3], 2)


def test_a_policy_of_every_nth_row_has_its_own_rate(data, tmp_path):
    from robopolicy.training.checkpoint import read_spec

    train(DataChoice((data / "a.zarr",), every=4), tmp_path / "p", settings=SETTINGS)
    assert read_spec(tmp_path / "p").rate_hz == recordings.SPEC.rate_hz / 4


def test_what_does_not_fit_together_is_refused_before_anything_is_written(data, tmp_path):
    with pytest.raises(UsageError, match="--weights 1 for 2 datasets; give one each"):
        DataChoice((data / "a.zarr", data / "b.zarr"), weights=(1,))
    with pytest.raises(UsageError, match="want one of auto, decoded, compressed, disk"):
        DataChoice((data / "a.zarr",), cache="ram")
    DatasetWriter(tmp_path / "c.zarr", replace(SEEING, rate_hz=10.0)).close()
    with pytest.raises(SpecMismatch, match=r"20 Hz.*10 Hz"):
        train(DataChoice((data / "a.zarr", tmp_path / "c.zarr")), tmp_path / "p", settings=SETTINGS)
    with pytest.raises(ContractError, match="every is 0"):
        train(DataChoice((data / "a.zarr",), every=0), tmp_path / "p", settings=SETTINGS)
    for asked, message in (
        ({"settings": {**SETTINGS, "eval_every_steps": 5}}, "--eval-every-steps says nothing .*--eval-env"),
        ({"settings": {**SETTINGS, "keep": 2}}, "--keep says nothing"),
        ({"encoder": tmp_path, "image_weights": tmp_path / "w.pth"}, "--image-weights says nothing to an --encoder"),
        ({"encoder": tmp_path, "policy": {"vision.width": 8}}, "--vision.width says nothing to an --encoder"),
    ):
        with pytest.raises(UsageError, match=message):
            train(data / "a.zarr", tmp_path / "p", **{"settings": SETTINGS, **asked})
    assert not (tmp_path / "p").exists()
