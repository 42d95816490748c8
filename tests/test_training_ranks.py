import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from training_parts import CONFIG, SMALL, SPEC, make, sampler

from robopolicy.errors import ContractError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import FlowConfig
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.ranks import Ranks
from robopolicy.training.resume import read_cursor
from robopolicy.training.trainer import train
from robopolicy.training.windows import DeviceWindows, open_windows

CPU = torch.device("cpu")
FULL = replace(CONFIG, precision="float32")
POLICIES = {
    "pictures and dropout": SMALL,
    "flow": DiffusionConfig(MlpConfig(width=16, depth=1, dropout=0.2), SMALL.vision, FlowConfig()),
    "consistency": DiffusionConfig(MlpConfig(width=16, depth=1), SMALL.vision, ConsistencyConfig()),
}
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from test_training_ranks import *
torch.set_num_threads(1)
if sys.argv[3] == "interrupt":
    import signal
    def tell(progress):
        if progress.step == 6 and Ranks.of_environment().first:
            signal.raise_signal(signal.SIGINT)
    try:
        train(make(), sampler(), sys.argv[1], FULL, on_progress=tell)
    except KeyboardInterrupt:
        sys.exit(0)
train(make(), sampler(), sys.argv[1], FULL, resume=sys.argv[3] == "resume")
"""


def torchrun(out: Path, mode: str = "fresh") -> None:
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    done = subprocess.run(
        [sys.executable, *words, sys.executable, "-c", SCRIPT, str(out), str(Path(__file__).parent), mode],
        capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FutureWarning" not in done.stderr


def state(out: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(out / "resume.safetensors")
    return {name: value for name, value in tensors.items() if not name.startswith("rng.")}


@pytest.mark.parametrize("name", POLICIES)
def test_shares_of_a_batch_have_the_gradient_of_the_whole(name):
    policy = make(config=POLICIES[name])
    policy.fit_normaliser(sampler().arrays)
    policy.train()
    windows = DeviceWindows(sampler(), SPEC, CPU)

    def gradient(ranks: Ranks) -> torch.Tensor:
        policy.zero_grad()
        generator = torch.Generator().manual_seed(5)
        torch.manual_seed(7)  # dropout
        batch = windows.batch(0, 1, 8, ranks.share(8))
        with ranks.drawing(generator, len(batch["action"])):
            policy.loss(batch, generator).backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters()])

    whole = gradient(Ranks())
    shares = [gradient(Ranks(rank, 2)) for rank in range(2)]
    assert torch.allclose(sum(shares) / 2, whole, atol=1e-6)
    assert not torch.allclose(shares[0], whole, atol=1e-3)


def test_goals_are_shared_too():
    steps = 30
    data = sampler(steps)
    data.last_rows = torch.full((steps,), steps - 1).numpy()
    windows = DeviceWindows(data, SPEC, CPU, goal="future")
    whole = windows.batch(0, 2, 8)["goal"]["state"]["pos"]
    for rank in range(2):
        share = windows.batch(0, 2, 8, Ranks(rank, 2).share(8))["goal"]["state"]["pos"]
        assert torch.equal(share, whole[rank::2])


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ContractError, match="a batch of 9 for 2 processes; want a multiple"):
        Ranks(0, 2).share(9)


def test_one_process_is_no_group():
    ranks = Ranks()
    assert ranks.agree(1.5, True) == [1.5, True]
    assert ranks.mean([2.0]) == [2.0]
    assert ranks.device("cuda").index is None
    assert Ranks(3, 8, 3).device("cuda") == torch.device("cuda", 3)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    train(make(), sampler(), tmp_path / "one", FULL)
    torchrun(tmp_path / "two")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "pool.maps.bias" in name:
            continue  # a softmax does not see it: its gradient is nothing but rounding, of which AdamW makes steps
        off = (value - two[name]).abs()
        assert off.mean() < 1e-6, name
        assert off.max() < 2e-5, name
    moved = [torch.allclose(two[f"raw.{n}"], p, atol=1e-3) for n, p in make().named_parameters()]
    assert not all(moved)
    told = read_train(tmp_path / "two")
    assert told["processes"] == 2
    assert [step for step, _ in told["losses"]] == list(range(1, 13))
    for (_, a), (_, b) in zip(read_train(tmp_path / "one")["losses"], told["losses"], strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_a_loader_is_shared_whether_it_shares_itself_or_not():
    data = sampler()

    class Shared:
        def __init__(self, rank: int, world: int) -> None:
            self.arrays, self.spec, self.seed, self.batch_size = data.arrays, SPEC, 0, 8 // world
            self.about = {"weights": None, "rank": rank, "world": world}

        def __len__(self) -> int:
            return 30

        def batch(self, step: int) -> dict:
            rows = np.arange(8)[self.about["rank"] :: self.about["world"]] + step
            return {
                "state": {"pos": data.arrays.state["pos"][data.obs_rows[rows]]},
                "images": {"front": data.arrays.images["front"][data.obs_rows[rows]]},
                "action": data.arrays.action[data.action_rows[rows]],
            }

    one = open_windows(Shared(0, 1), SPEC, CPU, 0)
    whole = one.batch(0, 3, 8)["action"]
    for rank in range(2):
        for loader in (Shared(0, 1), Shared(rank, 2)):
            windows = open_windows(loader, SPEC, CPU, 0, world=2)
            assert windows.size(99) == 8
            assert windows.about == one.about
            batch = windows.batch(0, 3, 8, Ranks(rank, 2).share(8))
            assert torch.equal(batch["action"], whole[rank::2])
            assert len(batch["images"]["front"]) == 4
    with pytest.raises(ContractError, match="the loader shares with 2 processes, the run with 1"):
        open_windows(Shared(0, 2), SPEC, CPU, 0)


@pytest.mark.slow
def test_ctrl_c_at_torchrun_saves_once_and_ends_all(tmp_path):
    """As in a terminal: torchrun and its processes are told, and it passes on what it was told."""
    script = SCRIPT.replace("FULL,", "replace(FULL, steps=10**6, report_every_s=0.1, save_every_s=0.5),")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    arguments = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent), "fresh"]
    process = subprocess.Popen(
        [sys.executable, *words, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        while not (tmp_path / "train.json").exists():
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert read_train(tmp_path)["steps"] == read_cursor(tmp_path)["step"] > 0
    assert load_policy(tmp_path).action.fitted, said


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_exactly(tmp_path):
    torchrun(tmp_path / "whole")
    torchrun(tmp_path / "broken", "interrupt")
    assert read_train(tmp_path / "broken")["steps"] == 6
    torchrun(tmp_path / "broken", "resume")
    whole, broken = state(tmp_path / "whole"), state(tmp_path / "broken")
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
