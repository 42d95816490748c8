import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from robopolicy.errors import CheckpointError, DiskFull
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import checkpoint_sha, load_policy, read_spec, read_train, save_checkpoint
from robopolicy.training.files import replace_file
from robopolicy.types import Observation

SPEC = PolicySpec(
    state={"angle": StateSpec(2, ("m", "rad_wrapped"))}, action=ActionSpec("vector", ("x",), ("m",)), horizon=4
)
CONFIG = DiffusionConfig(MlpConfig(width=16, depth=1))
FILES = ("weights.safetensors", "spec.json", "stats.json", "train.json")


@pytest.fixture
def policy():
    made = DiffusionPolicy(SPEC, CONFIG)
    rng = np.random.default_rng(0)
    angle = rng.random((20, 2), dtype=np.float32)
    made.fit_normaliser(SimpleNamespace(state={"angle": angle}, action=angle[:, :1] * 6))
    return made.eval()


@pytest.fixture
def folder(tmp_path, policy):
    save_checkpoint(tmp_path / "c", policy, train={"steps": 3})
    return tmp_path / "c"


def test_what_is_loaded_plans_as_what_was_saved(folder, policy):
    window = [Observation(0, {"angle": np.array([0.3, 2.0], np.float32)})]
    loaded = load_policy(folder)
    want, got = (p.plan(window, n=3, generator=torch.Generator().manual_seed(1)) for p in (policy, loaded))
    assert np.array_equal(want.chunks, got.chunks)
    assert np.array_equal(want.features, got.features)
    assert not loaded.training
    assert loaded.spec == read_spec(folder) == SPEC
    assert loaded.config == CONFIG


def test_folder_is_four_readable_files_and_a_card(folder):
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "README.md"])
    stats = json.loads((folder / "stats.json").read_text())
    assert len(stats["action"]["center"]) == 1
    assert len(stats["state"]["angle"]["scale"]) == 2
    assert read_train(folder) == {"steps": 3}


def test_sha_is_that_of_the_weights_and_of_what_is_done_with_them(folder, policy):
    before = checkpoint_sha(folder)
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(spec))
    assert checkpoint_sha(folder) == before, "the layout of the file says nothing"
    for part, name in (("spec", "n_execute"), ("config", "solver")):
        changed = {**spec, part: {**spec[part], name: 3}}
        (folder / "spec.json").write_text(json.dumps(changed))
        assert checkpoint_sha(folder) != before, name
    save_checkpoint(folder, policy, train={"steps": 4})
    assert checkpoint_sha(folder) == before
    with torch.no_grad():
        next(policy.net.parameters()).add_(1)
    save_checkpoint(folder, policy, train={})
    assert checkpoint_sha(folder) != before


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="is not a checkpoint: no such folder"):
        load_policy(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is not a checkpoint: it has none of"):
        load_policy(tmp_path)
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        checkpoint_sha(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"incomplete: {name} is missing"):
        load_policy(folder)


def test_weights_that_do_not_fit(folder):
    spec = json.loads((folder / "spec.json").read_text())
    spec["config"]["net"]["width"] = 24
    (folder / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(CheckpointError, match=r"does not fit its spec: .* and \d+ more"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read spec.json"),
        ("[]", "holds no JSON object"),
        (
            '{"format": 7, "policy": "x"}',
            "format 7, which a newer robopolicy wrote; this version reads format 2: upgrade",
        ),
        ('{"format": 1, "policy": "diffusion"}', "of an old format, 1; this version reads format 2: train it anew"),
        ('{"policy": "diffusion"}', "format None of policy 'diffusion'; this version reads format 2 of diffusion or"),
        (
            '{"format": 2, "policy": "tracks"}',
            "format 2 of policy 'tracks'; this version reads format 2 of diffusion or motion-track",
        ),
        ('{"format": 2, "policy": "diffusion", "spec": {}}', "spec.json is damaged"),
    ],
)
def test_a_damaged_spec(folder, content, message):
    (folder / "spec.json").write_text(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_spec(folder)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_told_whatever_its_files_are(folder):
    (folder / "weights.safetensors").rename(folder / "weights.other")
    (folder / "spec.json").write_text('{"format": 3, "policy": "diffusion"}')
    for read in (load_policy, read_spec):
        with pytest.raises(CheckpointError, match="format 3, which a newer robopolicy wrote"):
            read(folder)


def test_the_package_loads_a_policy_and_torch_only_then(folder):
    code = (
        "import sys, robopolicy\n"
        "assert 'torch' not in sys.modules\n"
        f"policy = robopolicy.load_policy({str(folder)!r})\n"
        "assert policy.spec.horizon == 4 and 'torch' in sys.modules\n"
        "assert 'load_policy' in robopolicy.__all__\n"
        "robopolicy.load_polici\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'robopolicy' has no attribute 'load_polici'" in done.stderr, done.stderr


def test_damaged_weights(folder):
    (folder / FILES[0]).write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged"):
        load_policy(folder)


def test_a_flipped_bit_in_the_weights_is_damage(folder):
    content = bytearray((folder / FILES[0]).read_bytes())
    content[-7] ^= 1
    (folder / FILES[0]).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is damaged: its numbers"):
        load_policy(folder)


def test_weights_written_before_there_were_digests_load(folder, policy):
    save_file(load_file(folder / FILES[0]), folder / FILES[0])
    for name, value in load_policy(folder).state_dict().items():
        assert torch.equal(value, policy.state_dict()[name])


@pytest.mark.parametrize("name", ["stats.json", "train.json"])
def test_an_emptied_file_is_damage(folder, name):
    (folder / name).write_text("")
    for load in (load_policy, read_spec):
        with pytest.raises(CheckpointError, match=f"cannot read {name}") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


def test_an_unfitted_policy_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="never fitted"):
        save_checkpoint(tmp_path / "c", DiffusionPolicy(SPEC, CONFIG), train={})
    assert not (tmp_path / "c").exists()


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    replace_file(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFull, match="no space left for"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("name", [*FILES, "README.md"])
def test_a_disk_that_fills_up_at_any_file_leaves_a_checkpoint_that_loads(folder, policy, monkeypatch, name):
    before = checkpoint_sha(folder)
    with torch.no_grad():
        next(policy.net.parameters()).add_(1)
    rename = os.replace

    def full(source, target) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DiskFull, match="no space left for"):
        save_checkpoint(folder, policy, train={"steps": 9})
    monkeypatch.undo()
    load_policy(folder)
    new = name in ("train.json", "README.md")
    assert (checkpoint_sha(folder) != before) == new, "the weights are of one save or of the other"
    assert not list(folder.glob("*.wip"))
