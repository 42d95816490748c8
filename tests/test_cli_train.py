"""What `robopolicy train` makes of a dataset."""

import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.train import train
from robopolicy.errors import UsageError
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
