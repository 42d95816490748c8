import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import SPEC, length, record

from robopolicy.errors import ContractError, DatasetError, UnknownCamera, UnknownName
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import Arrays, WindowSampler, load_arrays
from robopolicy_data.writer import DatasetWriter

SEEDS = (0, 3, 5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("windows")
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        for seed in SEEDS:
            record(writer, seed)
    return Dataset(path)


def test_arrays_are_the_episodes_one_after_the_other(dataset):
    told = []
    arrays = load_arrays(dataset, progress=lambda done, total: told.append((done, total)))
    assert np.array_equal(arrays.action, np.concatenate([e.action() for e in dataset]))
    assert np.array_equal(arrays.state["q"], np.concatenate([e.state("q") for e in dataset]))
    assert np.array_equal(arrays.images["wrist"], np.concatenate([e.images("wrist") for e in dataset]))
    assert arrays.episode_ends.tolist() == np.cumsum([length(seed) for seed in SEEDS]).tolist()
    assert told == [(done, 5) for done in range(1, 6)], "three episodes of numbers, a block of each camera"


def test_only_what_is_asked_for_is_read(dataset):
    arrays = load_arrays(dataset, cameras=(), states=("gripper",), episodes=[2, 0])
    assert arrays.images == {}
    assert list(arrays.state) == ["gripper"]
    assert np.array_equal(arrays.action, np.concatenate([dataset[2].action(), dataset[0].action()]))


def test_what_is_not_there_is_said_so(dataset):
    with pytest.raises(UnknownCamera, match="valid: front, wrist"):
        load_arrays(dataset, cameras=("top",))
    with pytest.raises(UnknownName, match="valid: gripper, q"):
        load_arrays(dataset, states=("dq",))
    with pytest.raises(DatasetError, match="no episodes to read; it has 3"):
        load_arrays(dataset, episodes=[])


def counted(lengths):
    """Arrays in which state and action are their own row number."""
    rows = np.arange(sum(lengths), dtype=np.float32)[:, None]
    return Arrays({"row": rows}, rows, {}, np.cumsum(lengths, dtype=np.int64))


@pytest.mark.parametrize(("n_obs", "horizon"), [(1, 1), (2, 16), (5, 3)])
def test_windows_are_what_a_loop_would_give(n_obs, horizon):
    lengths = [4, 1, 7]
    sampler = WindowSampler(counted(lengths), n_obs, horizon, n_execute=1)
    expected, start = [], 0
    for size in lengths:
        for t in range(size):
            seen = [start + max(t + j, 0) for j in range(1 - n_obs, 1)]
            done = [start + min(t + j, size - 1) for j in range(horizon)]
            expected.append((seen, done))
        start += size
    assert len(sampler) == sum(lengths)
    assert sampler.obs_rows.tolist() == [seen for seen, _ in expected]
    assert sampler.action_rows.tolist() == [done for _, done in expected]
    assert sampler.obs_rows.dtype == sampler.action_rows.dtype == np.int64


def test_index_takes_one_or_many():
    sampler = WindowSampler(counted([3, 4]), 2, 3)
    observed, acted = sampler.index(3)
    assert observed.tolist() == [3, 3]
    assert acted.tolist() == [3, 4, 5]
    assert sampler.index(np.array([[0, 1]]))[1].shape == (1, 2, 3)


def test_a_batch_has_the_shapes_of_the_contract(dataset):
    arrays = load_arrays(dataset)
    sampler = WindowSampler(arrays, 2, 4, n_execute=2)
    batch = sampler.batch(np.array([0, 5, 6]))
    assert batch["state"]["q"].shape == (3, 2, 3)
    assert batch["images"]["front"].shape == (3, 2, 24, 32, 3)
    assert batch["action"].shape == (3, 4, 2)
    assert np.array_equal(batch["images"]["front"][1, -1], arrays.images["front"][5])
    batch["action"][:] = 0
    assert np.any(arrays.action != 0)


def test_counts_that_make_no_sense_are_refused():
    for counts in ((0, 4, 1), (1, 4, 5), (1, 0, 0)):
        with pytest.raises(ContractError, match="want n_obs >= 1"):
            WindowSampler(counted([3]), counts[0], counts[1], n_execute=counts[2])


def test_past_rows_are_what_was_done_before_the_newest_observation():
    sampler = WindowSampler(counted([4, 3]), 2, 2, past=2, n_execute=2)
    assert sampler.past == 2
    assert sampler.action_rows.tolist()[:4] == [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 3]]
    assert sampler.action_rows.tolist()[4:] == [[4, 4, 4, 5], [4, 4, 5, 6], [4, 5, 6, 6]]
    assert sampler.padded_action.tolist()[:2] == [[True, True, False, False], [True, False, False, False]]
    assert sampler.padded_action.tolist()[3] == [False, False, False, True]
    without = WindowSampler(counted([4, 3]), 2, 2, n_execute=2)
    assert np.array_equal(sampler.action_rows[:, 2:], without.action_rows)
    assert np.array_equal(sampler.obs_rows, without.obs_rows)


def test_past_rows_keep_the_pace_of_a_slower_policy_and_what_was_skipped():
    sampler = WindowSampler(counted([7]), 1, 1, past=2, every=3)
    assert sampler.action_rows.tolist() == [[0, 0, t] for t in range(3)] + [[0, t - 3, t] for t in range(3, 6)] + [
        [0, 3, 6]
    ]
    marked = np.array([False, True, False, False])
    skipped = WindowSampler(counted([4]), 1, 2, past=2, skip=[marked])
    assert skipped.action_rows.tolist() == [[0, 0, 0, 0], [0, 1, 2, 3], [1, 2, 3, 3]], "it was done all the same"


def test_a_past_that_makes_no_sense_is_refused():
    with pytest.raises(ContractError, match="past -1"):
        WindowSampler(counted([4]), 1, 1, past=-1)
