import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, record

from robopolicy.cli.main import main
from robopolicy_data.info import info
from robopolicy_data.reader import Dataset
from robopolicy_data.stats import stats
from robopolicy_data.writer import DatasetWriter


@pytest.fixture
def path(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        for seed in range(6):
            outcome = (True, True, False)[seed % 3] if seed < 5 else None
            record(writer, seed, count=20 + seed, success=outcome, operator=("ana", "bo")[seed % 2])
    return tmp_path / "d"


def test_streams_are_those_of_numpy(path):
    found = stats(path)
    values = {
        "q": np.concatenate([e.state("q") for e in Dataset(path)]).astype(np.float64),
        "action": np.concatenate([e.action() for e in Dataset(path)]).astype(np.float64),
    }
    assert set(found["streams"]) == {"q", "gripper", "action"}
    for name, rows in values.items():
        stream = found["streams"][name]
        assert stream["count"] == len(rows) == 135
        for key in ("min", "max", "mean", "std"):
            assert stream[key] == pytest.approx(getattr(rows, key)(axis=0).tolist())
        assert stream["quantiles"]["0.95"] == pytest.approx(np.quantile(rows, 0.95, axis=0).tolist())


def test_lengths_rates_and_success_by_operator_and_task(path):
    found = stats(path)
    assert found["episodes"] == 6
    assert found["steps"] == {"min": 20, "median": 22.5, "max": 25}
    assert found["seconds"]["sum"] == pytest.approx(135 / 20)
    assert found["rate_hz"]["step"]["median"] == pytest.approx(20)
    assert found["rate_hz"]["front"]["median"] == pytest.approx(20)
    assert found["sources"]["policy"] + found["sources"]["human"] + found["sources"]["hold"] == 135
    assert found["success"] == {"true": 4, "false": 1, "unknown": 1, "rate": 0.8}
    assert found["by_operator"]["ana"]["true"] == 2
    assert found["by_operator"]["bo"].pop("seconds") == pytest.approx(1.15)
    assert found["by_operator"]["bo"] == {"true": 2, "false": 0, "unknown": 1, "rate": 1.0}
    assert list(found["by_task"]) == ["lift"]
    assert found["cameras"]["front"]["frames"] == 135
    assert 0.1 < found["cameras"]["front"]["kilobytes_a_frame"] < 3


def test_nan_is_counted_apart(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        episode = writer.begin(META)
        for k, step in enumerate(make_steps(1, 10)):
            seen = step.observation
            q = np.full(3, np.nan, np.float32) if k == 4 else seen.state["q"]
            episode.add(replace(step, observation=replace(seen, state={**seen.state, "q": q})))
        episode.commit()
    stream = stats(tmp_path / "d")["streams"]["q"]
    assert (stream["count"], stream["not_finite"]) == (9, 1)
    assert np.isfinite(stream["mean"]).all()


def test_an_empty_dataset_has_no_numbers(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC):
        pass
    found = stats(tmp_path / "d")
    assert (found["episodes"], found["streams"], found["success"]["rate"]) == (0, {}, None)


def test_a_damaged_episode_is_named_and_the_others_are_counted(path, capsys):
    clean = stats(path)
    numbers = path / "episodes/000002/obs/state/q/c.0.0"
    data = bytearray(numbers.read_bytes())
    data[5] ^= 1
    numbers.write_bytes(data)
    (path / "episodes/000005/zarr.json").write_text("{")
    found = stats(path)
    assert set(found["damaged"]) == {2, 5}
    assert "c.0.0 is damaged (CRC-32C)" in found["damaged"][2]
    assert "is not JSON" in found["damaged"][5]
    assert (found["episodes"], clean["damaged"]) == (4, {})
    assert found["streams"]["action"]["count"] == 135 - 22 - 25
    assert main(["data", "stats", str(path)]) == 1
    out, err = capsys.readouterr()
    assert f"{path}: 4 episodes" in out
    first, second = err.splitlines()
    assert first.startswith("robopolicy: episode 2 is damaged and left out: ")
    assert second.startswith("robopolicy: episode 5 is damaged and left out: ")
    assert info(path)["damaged"] == "episodes 5, see robopolicy data check"
    assert (info(path)["episodes"], info(path)["steps"]) == (6, 110)
