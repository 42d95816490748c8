"""What the demo makes of a folder in which an earlier one was killed."""

import json
from pathlib import Path

import pytest

from robopolicy.cli import demo
from robopolicy.cli.record import record
from robopolicy.errors import UsageError
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.training.checkpoint import checkpoint_sha, read_train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "lift.zarr"
    record("twin:lift", path, 2, cameras=())
    return path


@pytest.mark.parametrize("left", ["the whole checkpoint", "no train.json", "no state", "no train.json and no state"])
def test_training_killed_at_any_file_of_a_save_is_gone_on_with(data, tmp_path, left):
    demo._train(data, tmp_path, 2)
    sha = checkpoint_sha(tmp_path)
    assert demo._trained(tmp_path)
    if "train.json" in left:
        (tmp_path / "train.json").unlink()
    else:
        (tmp_path / "train.json").write_text(json.dumps({**read_train(tmp_path), "finished": False, "steps": 1}))
    if "state" in left:
        (tmp_path / "resume.safetensors").unlink()
    assert not demo._trained(tmp_path)
    demo._train(data, tmp_path, 2)
    assert demo._trained(tmp_path)
    assert checkpoint_sha(tmp_path) == sha


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_demo_json_is_one_clear_line(tmp_path, content):
    (tmp_path / "demo.json").write_text(content)
    with pytest.raises(UsageError, match=r"demo\.json is damaged.*--out"):
        demo._same_settings(tmp_path, {"steps": 1})
    assert (tmp_path / "demo.json").read_text() == content


def test_settings_of_another_demo_are_refused(tmp_path):
    demo._same_settings(tmp_path, {"steps": 1})
    demo._same_settings(tmp_path, {"steps": 1})
    with pytest.raises(UsageError, match=r"'steps': 1.*'steps': 2"):
        demo._same_settings(tmp_path, {"steps": 2})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo.json"]


def test_a_deployment_is_of_one_checkpoint_and_one_monitor(data, tmp_path, monkeypatch):
    checkpoint, monitor, file = tmp_path / "policy", tmp_path / "monitor", tmp_path / "deployed-calm.json"
    demo._train(data, checkpoint, 1)
    monitor.mkdir()
    (monitor / "monitor.json").write_text("{}")
    runs = iter(range(1, 9))
    monkeypatch.setattr("robopolicy.cli.deploy.deploy", lambda *_, **__: Outcome(next(runs), success=True))

    def seed() -> int:
        return demo._deploy(checkpoint, monitor, tmp_path, "calm").seed

    assert [seed(), seed()] == [1, 1]
    (monitor / "monitor.json").write_text('{"other": 1}')
    assert [seed(), seed()] == [2, 2]
    (checkpoint / "weights.safetensors").write_bytes(b"others")
    assert [seed(), seed()] == [3, 3]
    for content in ("", "{", json.dumps(Outcome(9).to_json())):  # broken, or of an older version
        file.write_text(content)
        assert seed() > 3
