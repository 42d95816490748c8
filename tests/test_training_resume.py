import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from scoring import rising
from training_parts import CONFIG, SMALL, SPEC, make, sampler

from robopolicy.errors import CheckpointError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.resume import read_cursor
from robopolicy.training.trainer import train
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.loader import Loader
from robopolicy_data.writer import DatasetWriter

STATE = replace(SPEC, cameras={})
KINDS = {
    "numbers": (STATE, DiffusionConfig(MlpConfig(width=64, depth=2, dropout=0.2))),
    "pictures": (SPEC, SMALL),
    "loader": (SPEC, SMALL),
}
STEPS = 24
# a state after every step, so that a kill falls anywhere; the precision is what the machine prefers
EVERY = replace(CONFIG, steps=STEPS, save_every_s=0.0)
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import robopolicy.training.trainer as trainer
from test_training_resume import *
trainer.SAVING = 1e9
go(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), resume=False)
"""


def dataset(path: Path) -> None:
    data = sampler(40)
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        for part in (range(15), range(15, 40)):
            episode = writer.begin(EpisodeMeta("point", "none", success=True))
            for k in part:
                stamp = k * SPEC.period_ns
                images = {"front": data.arrays.images["front"][k]}
                seen = Observation(stamp, {"pos": data.arrays.state["pos"][k]}, images, {"front": stamp})
                episode.add(Step(seen, data.arrays.action[k], stamp, "human"))
            episode.commit()


def go(kind: str, data: Path, out: Path, *, resume: bool, config: Any = EVERY) -> None:
    spec, policy = KINDS[kind]
    windows: Any = sampler(40)
    if kind == "loader":
        windows = Loader([data], n_obs=2, horizon=4, batch_size=8, cache="disk", weights=[1.0])
    train(make(spec, policy), windows, out, config, resume=resume)


def tensors(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "resume.safetensors") | load_file(out / "weights.safetensors")


def kill_in_mid_run(kind: str, data: Path, out: Path, step: int) -> None:
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), kind, str(data), str(out)]
    process = subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while not (out / "resume.safetensors").exists() or read_cursor(out)["step"] < step:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_n_steps_are_n_a_kill_and_n_more(kind, tmp_path):
    data = tmp_path / "d.zarr"
    dataset(data)
    go(kind, data, tmp_path / "whole", resume=False, config=replace(EVERY, save_every_s=1e9))
    kill_in_mid_run(kind, data, tmp_path / "broken", STEPS // 2)
    assert STEPS // 2 <= read_cursor(tmp_path / "broken")["step"] < STEPS
    torch.manual_seed(99)  # the state of the world must not matter
    np.random.seed(99)  # noqa: NPY002
    go(kind, data, tmp_path / "broken", resume=True)
    whole, broken = tensors(tmp_path / "whole"), tensors(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    assert {"rng.cpu"} < whole.keys()
    for name, value in whole.items():
        assert torch.equal(value, broken[name]), name
    before, after = read_cursor(tmp_path / "whole"), read_cursor(tmp_path / "broken")
    for told in ("elapsed_s", "losses"):
        before.pop(told), after.pop(told)
    assert before == after


def test_the_state_holds_all_that_the_next_step_depends_on(tmp_path):
    go("numbers", tmp_path, tmp_path / "run", resume=False, config=replace(CONFIG, steps=3))
    kept = load_file(tmp_path / "run" / "resume.safetensors")
    names = [name for name, _ in make(*KINDS["numbers"]).named_parameters()]
    for name in names:
        assert {f"raw.{name}", f"ema.{name}"} < kept.keys()
        assert {f"adam.{part}.{name}" for part in ("exp_avg", "exp_avg_sq", "step")} < kept.keys()
        assert float(kept[f"adam.step.{name}"]) == 3
    assert read_cursor(tmp_path / "run")["ema_steps"] == 3
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(weights[name], kept[f"ema.{name}"]) for name in names)


def test_a_state_whose_numbers_changed_on_the_disk_is_not_gone_on_with(tmp_path):
    go("numbers", tmp_path, tmp_path / "run", resume=False, config=replace(CONFIG, steps=2))
    path = tmp_path / "run" / "resume.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 0x40  # of a tensor: still a whole file
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"resume\.safetensors is damaged: its numbers are not those"):
        go("numbers", tmp_path, tmp_path / "run", resume=True, config=replace(CONFIG, steps=4))


def test_scores_survive_a_resume(tmp_path):
    spec, policy = KINDS["numbers"]
    short = replace(CONFIG, steps=4)
    train(make(spec, policy), sampler(), tmp_path, short, evaluate=rising)
    train(make(spec, policy), sampler(), tmp_path, replace(short, steps=8), evaluate=rising, resume=True)
    assert [result["step"] for result in read_train(tmp_path)["eval"]] == [4, 8]


def test_clipping_is_part_of_what_a_run_is(tmp_path):
    go("numbers", tmp_path, tmp_path / "run", resume=False, config=replace(CONFIG, steps=2))
    with pytest.raises(CheckpointError, match=r"its clip_norm was 1\.0, now 0\.5"):
        go("numbers", tmp_path, tmp_path / "run", resume=True, config=replace(CONFIG, clip_norm=0.5))
    assert load_policy(tmp_path / "run").action.fitted


def test_what_a_newer_version_wrote_is_not_gone_on_with(tmp_path):
    train(make(STATE), sampler(40), tmp_path, replace(CONFIG, steps=2))
    path = tmp_path / "spec.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 9'))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=r"is of format 9, which a newer robopolicy wrote; .*upgrade robopolicy"):
        train(make(STATE), sampler(40), tmp_path, replace(CONFIG, steps=4), resume=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
