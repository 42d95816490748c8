"""What each of several processes of `robopolicy train` loads."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import recordings

from robopolicy.cli.training_data import DataChoice, load_windows, open_data, policy_spec
from robopolicy.errors import ContractError
from robopolicy_data.parallel import cores
from robopolicy_data.writer import DatasetWriter


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "a.zarr"
    with DatasetWriter(path, recordings.SPEC) as writer:
        for seed in range(3):
            recordings.record(writer, seed)
    return open_data(DataChoice((path,), cache="compressed"), ("front",), None)


def load(opened, batch_size: int):
    spec = policy_spec(opened, n_obs=2, horizon=4, n_execute=2)
    return load_windows(opened, spec, batch_size=batch_size, seed=3, device="cpu", goal="future")


def test_processes_of_torchrun_load_a_share_of_each_batch(opened, monkeypatch):
    with load(opened, 8) as loader:
        whole = [loader.batch(step)["images"]["front"].copy() for step in range(3)]
        assert len(whole[0]) == 8
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        with load(opened, 8) as loader:
            assert loader.threads == max(cores() // 2, 1)
            for step, batch in enumerate(whole):
                assert np.array_equal(loader.batch(step)["images"]["front"], batch[rank::2])


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_is_loaded(opened, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ContractError, match="a batch of 9 for 2 processes; want a multiple"):
        load(opened, 9)
