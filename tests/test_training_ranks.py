import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from training_parts import CONFIG, SMALL, SPEC, make, sampler

from robopolicy.errors import ContractError
from robopolicy.policies.config import DiffusionConfig, GoalConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, FlowConfig, VPConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.training import interrupt
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.ranks import Ranks
from robopolicy.training.resume import read_cursor
from robopolicy.training.trainer import train
from robopolicy.training.windows import DeviceWindows, open_windows

CPU = torch.device("cpu")
FULL = replace(CONFIG, precision="float32")
VISION = SMALL.vision
POLICIES = {
    "pictures and dropout": SMALL,
    "transformer": DiffusionConfig(TransformerConfig(16, depth=1, heads=2, dropout=0.2), VISION),
    "causal": DiffusionConfig(TransformerConfig(16, depth=1, heads=2, dropout=0.2, causal=True), VISION, EDMConfig()),
    "unet": DiffusionConfig(UnetConfig((16, 32), step_dim=16, groups=4), VISION, VPConfig(prediction="x0")),
    "flow": DiffusionConfig(MlpConfig(width=16, depth=1, dropout=0.2), VISION, FlowConfig()),
    "consistency": DiffusionConfig(MlpConfig(width=16, depth=1), VISION, ConsistencyConfig()),
    "given rows": replace(SMALL, max_delay=3),
    "given rows, consistency": replace(SMALL, max_delay=3, process=ConsistencyConfig()),
    "past": replace(SMALL, past=1, max_delay=2),
    "past, not learnt": replace(SMALL, past=1, past_loss=False, max_delay=2),
    "goal": replace(SMALL, goal=GoalConfig(("pos", "front"), drop=0.5)),
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
    for weight in policy.parameters():  # those that begin at zero would hide what lies before them
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.1)
    data = sampler(past=policy.config.past)
    windows = DeviceWindows(data, SPEC, CPU, policy.config.past, policy.config.goal and policy.config.goal.source)

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
    assert ranks.agree(1.5, True) == (1.5, True)
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


@pytest.fixture
def running(tmp_path):
    """torchrun in a session of its own, once both of its processes have trained for a while."""
    script = SCRIPT.replace("FULL,", "replace(FULL, steps=10**6, report_every_s=0.1, save_every_s=0.5),")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    arguments = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent), "fresh"]
    # torchrun kills after half a minute, which on a busy machine Python may need to end, and would hide who hangs
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}
    process = subprocess.Popen(
        [sys.executable, *words, *arguments], env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        while not (tmp_path / "train.json").exists():
            assert process.poll() is None
            time.sleep(0.1)
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_ctrl_c_at_torchrun_saves_once_and_ends_all(tmp_path, running):
    """As in a terminal: torchrun and its processes are told, and it passes on what it was told."""
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=200)
    assert running.returncode != 0
    assert "forcefully" not in said
    assert read_train(tmp_path)["steps"] == read_cursor(tmp_path)["step"] > 0
    assert load_policy(tmp_path).action.fitted, said


@pytest.mark.slow
def test_processes_stop_together_though_only_one_is_told(tmp_path, running):
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    ranks = {
        variables["RANK"]: int(pid)
        for pid in children
        if "RANK" in (variables := dict(line.split("=", 1) for line in environment(pid)))
    }
    os.kill(ranks["1"], signal.SIGINT)
    _, said = running.communicate(timeout=200)
    assert "RuntimeError" not in said, said[-3000:]
    assert read_train(tmp_path)["steps"] == read_cursor(tmp_path)["step"] > 0


def environment(pid: str) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line]


@pytest.mark.parametrize("patient", [False, True])
def test_only_a_process_alone_takes_a_late_signal_for_another_request(monkeypatch, patient):
    times = iter([10.0, 10.5, 15.0])
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: next(times)))
    late = nullcontext() if patient else pytest.raises(KeyboardInterrupt)
    with interrupt.interruptible(patient=patient) as interrupted:
        assert not interrupted()
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            assert interrupted()
        with late:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_exactly(tmp_path):
    torchrun(tmp_path / "whole")
    torchrun(tmp_path / "broken", "interrupt")
    assert read_train(tmp_path / "broken")["steps"] == 6
    torchrun(tmp_path / "broken", "resume")
    whole, broken = state(tmp_path / "whole"), state(tmp_path / "broken")
    assert all(torch.equal(value, broken[name]) for name, value in whole.items())
