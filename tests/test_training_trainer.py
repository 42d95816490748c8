import json
import math
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
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from training_parts import CONFIG, SMALL, SPEC, make, same, sampler

from robopolicy.errors import CheckpointError, ContractError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.spec import StateSpec
from robopolicy.training.checkpoint import load_policy, read_train
from robopolicy.training.resume import plan_resume, read_cursor
from robopolicy.training.trainer import Progress, TrainConfig, train
from robopolicy.training.windows import DeviceWindows


class StopAt:
    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, progress: Progress) -> None:
        if progress.step == self.step:
            signal.raise_signal(signal.SIGINT)


def stop(progress: Progress) -> None:
    signal.raise_signal(signal.SIGINT)


def test_resume_is_bit_exact(tmp_path):
    whole = train(make(), sampler(), tmp_path / "whole", CONFIG)
    raw = make()
    with pytest.raises(KeyboardInterrupt):
        train(raw, sampler(), tmp_path / "broken", CONFIG, on_progress=StopAt(6))
    assert read_train(tmp_path / "broken")["steps"] == 6
    torch.manual_seed(99)  # the state of the world must not matter
    resumed = train(make(), sampler(), tmp_path / "broken", CONFIG, resume=True)
    assert same(whole, resumed)
    assert not same(resumed, load_from_raw(tmp_path / "broken"))


def load_from_raw(folder: Path) -> DiffusionPolicy:
    policy = make()
    tensors = load_file(folder / "resume.safetensors")
    policy.load_state_dict({k.removeprefix("raw."): v for k, v in tensors.items() if k.startswith("raw.")})
    return policy


def test_the_checkpoint_holds_the_averaged_weights(tmp_path):
    policy = make()
    averaged = train(policy, sampler(), tmp_path, replace(CONFIG, steps=3))
    assert same(load_policy(tmp_path), averaged)
    assert not same(load_policy(tmp_path), policy)
    assert same(load_from_raw(tmp_path), policy)


def test_average_is_the_published_recursion(tmp_path):
    raw = make()
    seen = []

    def record(progress: Progress) -> None:
        seen.append({k: v.detach().clone() for k, v in raw.named_parameters()})

    shadow = train(raw, sampler(), tmp_path, replace(CONFIG, steps=5), on_progress=record)
    want = seen[0]
    for n, now in enumerate(seen[1:5], start=1):
        decay = 1 - (1 + n) ** -0.75
        want = {k: decay * want[k] + (1 - decay) * now[k] for k in want}
    for name, value in shadow.named_parameters():
        assert torch.allclose(value, want[name], atol=1e-6)


def test_learns(tmp_path):
    spec = replace(SPEC, cameras={})
    config = DiffusionConfig(MlpConfig(width=64, depth=1))
    losses = []
    train(
        make(spec, config), sampler(), tmp_path, replace(CONFIG, steps=150, lr=3e-3, batch_size=30),
        on_progress=lambda p: losses.append(p.loss),
    )  # fmt: skip
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])


def test_progress_and_train_json_say_where_the_run_stands(tmp_path):
    told: list[Progress] = []
    train(make(), sampler(), tmp_path, replace(CONFIG, steps=4), on_progress=told.append, about={"path": "d.zarr"})
    assert [p.step for p in told] == [1, 2, 3, 4]
    assert told[-1].steps == 4
    assert told[-1].eta_s == 0
    assert all(p.samples_per_s > 0 and p.update_s > p.data_s > 0 for p in told)
    written = json.loads((tmp_path / "train.json").read_text())
    assert written["finished"] is True
    assert written["data"] == {"path": "d.zarr", "windows": 30}
    assert written["train"]["batch_size"] == 8
    assert [step for step, _ in written["losses"]] == [1, 2, 3, 4]
    assert "torch" in written["versions"]


def test_learning_rate_is_the_policys_own_unless_given(tmp_path):
    for given, want in ((None, 7e-4), (2e-3, 2e-3)):
        config = replace(CONFIG, steps=1, lr=given)
        train(make(config=replace(SMALL, lr=7e-4)), sampler(), tmp_path / str(given), config)
        assert read_train(tmp_path / str(given))["train"]["lr"] == want


def test_learning_rate_warms_up_and_decays_to_nothing(tmp_path, monkeypatch):
    used = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *arguments):
        used.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    train(make(), sampler(), tmp_path, replace(CONFIG, steps=20, warmup=0.2))
    assert used[0] == 0
    peak = int(np.argmax(used))
    assert peak == 4, "a fifth of 20 steps"
    assert used[peak] == pytest.approx(CONFIG.lr)
    assert (np.diff(used[: peak + 1]) > 0).all()
    assert (np.diff(used[peak:]) < 0).all()
    assert used[-1] < 0.02 * CONFIG.lr


def test_bfloat16_changes_the_arithmetic_and_not_the_weights_type(tmp_path):
    short = replace(CONFIG, steps=3)
    full, half = (
        train(make(), sampler(), tmp_path / precision, replace(short, precision=precision))
        for precision in ("float32", "bfloat16")
    )
    assert not same(full, half)
    for name, value in half.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.allclose(value, full.state_dict()[name], atol=0.01)


def test_time_is_a_budget(tmp_path):
    told: list[Progress] = []
    train(make(), sampler(), tmp_path, replace(CONFIG, steps=None, max_minutes=0.01), on_progress=told.append)
    assert read_train(tmp_path)["finished"] is True
    assert told[-1].step > 1
    with pytest.raises(ContractError, match="give steps, max_minutes or both"):
        TrainConfig()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "steps is 0; want at least 1"),
        ({"steps": -5}, "steps is -5; want at least 1"),
        ({"max_minutes": 0.0}, "max_minutes is 0.0; want a finite number above 0"),
        ({"max_minutes": -1.0}, "max_minutes is -1.0"),
        ({"max_minutes": float("nan")}, "max_minutes is nan"),
        ({"max_minutes": float("inf")}, "max_minutes is inf"),
        ({"batch_size": 0}, "batch_size is 0; want at least 1"),
        ({"lr": -1.0}, "lr is -1.0; want a finite number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"seed": -1}, "seed is -1; want at least 0"),
        ({"seed": 2**32}, "seed is 4294967296; want at most 4294967295"),
        ({"num_threads": 0}, "num_threads is 0; want at least 1"),
        ({"warmup": 2.0}, "warmup is 2.0; want a fraction of the budget, 0 to 1"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; want at least 0"),
        ({"ema_power": math.nan}, "ema_power is nan; want at least 0"),
        ({"save_every_s": -1.0}, "save_every_s is -1.0; want at least 0"),
        ({"device": "foo"}, "torch has no device 'foo' here; it has cpu"),
        ({"device": "cuda:99"}, "torch has no device 'cuda:99' here; it has cpu"),
        ({"device": "meta"}, "torch has no device 'meta' here; it has cpu"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_in_one_line(wrong, message):
    with pytest.raises(ContractError, match=message) as caught:
        replace(CONFIG, **wrong)
    assert "\n" not in str(caught.value)


def test_the_largest_seed_trains(tmp_path):
    train(make(), sampler(), tmp_path, replace(CONFIG, steps=2, seed=2**32 - 1))


def test_training_leaves_the_global_generator_alone(tmp_path):
    policy = make()
    before = torch.get_rng_state()
    train(policy, sampler(), tmp_path, replace(CONFIG, steps=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_window_comes_once_an_epoch_and_order_is_a_function_of_seed_and_step():
    windows = DeviceWindows(sampler(32), SPEC, torch.device("cpu"))
    epoch = [windows.batch(0, step, 8)["action"] for step in range(4)]
    assert len(torch.cat(epoch).flatten(1).unique(dim=0)) == 32
    again = DeviceWindows(sampler(32), SPEC, torch.device("cpu"))
    assert torch.equal(again.batch(0, 3, 8)["action"], epoch[3])
    assert not torch.equal(again.batch(0, 7, 8)["action"], epoch[3])
    assert not torch.equal(again.batch(1, 3, 8)["action"], epoch[3])


def test_gathered_rows_are_those_of_the_tables():
    data = sampler()
    batch = DeviceWindows(data, SPEC, torch.device("cpu")).gather(torch.tensor([0, 29]))
    assert np.array_equal(batch["state"]["pos"], data.arrays.state["pos"][[[0, 0], [28, 29]]])
    assert np.array_equal(batch["images"]["front"], data.arrays.images["front"][[[0, 0], [28, 29]]])
    assert batch["images"]["front"].dtype == torch.uint8
    assert np.array_equal(batch["action"], data.arrays.action[[[0, 1, 2, 3], [29, 29, 29, 29]]])


def test_a_run_cannot_resume_as_another(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(make(), sampler(), tmp_path, CONFIG, resume=True)
    train(make(), sampler(), tmp_path, replace(CONFIG, steps=2, precision="float32"))
    with pytest.raises(CheckpointError, match="its batch_size was 8, now 4"):
        train(make(), sampler(), tmp_path, replace(CONFIG, batch_size=4), resume=True)
    with pytest.raises(CheckpointError, match="its seed was 0, now 1"):
        train(make(), sampler(), tmp_path, replace(CONFIG, seed=1), resume=True)
    with pytest.raises(CheckpointError, match=r"its lr was 0\.001, now 0\.1"):
        train(make(), sampler(), tmp_path, replace(CONFIG, lr=0.1), resume=True)
    with pytest.raises(CheckpointError, match="its precision was float32, now bfloat16"):
        train(make(), sampler(), tmp_path, replace(CONFIG, precision="bfloat16"), resume=True)
    with pytest.raises(CheckpointError, match=r"its weight_decay was 1e-06, now 0\.1"):
        train(make(), sampler(), tmp_path, replace(CONFIG, weight_decay=0.1), resume=True)
    with pytest.raises(CheckpointError, match=r"its ema_power was 0\.75, now 0\.5"):
        train(make(), sampler(), tmp_path, replace(CONFIG, ema_power=0.5), resume=True)
    with pytest.raises(CheckpointError, match="its windows was 30, now 20"):
        train(make(), sampler(20), tmp_path, CONFIG, resume=True)
    other = sampler()
    other.arrays.action = other.arrays.action + 1
    with pytest.raises(CheckpointError, match=r"its data was actions of crc32 .*, now actions of crc32"):
        train(make(), other, tmp_path, CONFIG, resume=True)
    with pytest.raises(CheckpointError, match="does not fit its spec"):
        train(make(config=replace(SMALL, net=MlpConfig(width=8))), sampler(), tmp_path, CONFIG, resume=True)
    (tmp_path / "resume.safetensors").write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="damaged"):
        train(make(), sampler(), tmp_path, CONFIG, resume=True)


def test_a_budget_may_grow_and_not_shrink(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(make(), sampler(), tmp_path, CONFIG, on_progress=StopAt(6))
    with pytest.raises(CheckpointError, match="its budget was 12 steps, now 8 steps; a budget may only grow"):
        train(make(), sampler(), tmp_path, replace(CONFIG, steps=8), resume=True)
    with pytest.raises(CheckpointError, match="its budget was 12 steps, now 5 minutes"):
        train(make(), sampler(), tmp_path, replace(CONFIG, steps=None, max_minutes=5), resume=True)
    assert plan_resume(tmp_path, CONFIG, lr=1e-3) == "going on at step 6"
    longer = replace(CONFIG, steps=14)
    assert plan_resume(tmp_path, longer, lr=1e-3).startswith(
        "going on at step 6; its budget was 12 steps, now 14 steps"
    )
    train(make(), sampler(), tmp_path, longer, resume=True)
    assert read_train(tmp_path)["steps"] == 14


def test_a_finished_run_has_nothing_to_resume_unless_its_checkpoint_is_not_whole(tmp_path):
    whole = train(make(), sampler(), tmp_path, CONFIG)
    for steps in (12, 8):
        with pytest.raises(CheckpointError, match=r"the run is finished at step 12; .* larger budget"):
            train(make(), sampler(), tmp_path, replace(CONFIG, steps=steps), resume=True)
    weights = tmp_path / "weights.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))  # damage, as a kill just before the last checkpoint
    assert same(train(make(), sampler(), tmp_path, CONFIG, resume=True), whole)
    assert weights.read_bytes() == intact


def test_a_run_of_an_older_version_resumes(tmp_path):
    whole = train(make(), sampler(), tmp_path / "whole", CONFIG)
    with pytest.raises(KeyboardInterrupt):
        train(make(), sampler(), tmp_path / "old", CONFIG, on_progress=StopAt(6))
    cursor = read_cursor(tmp_path / "old")
    for name in ("lr", "precision", "weight_decay", "ema_power", "warmup", "data", "budget"):
        del cursor[name]
    file = tmp_path / "old" / "resume.safetensors"
    save_file(load_file(file), file, {"cursor": json.dumps(cursor)})
    assert same(train(make(), sampler(), tmp_path / "old", CONFIG, resume=True), whole)


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(tmp_path):
    dataset, file = tmp_path / "d.zarr", tmp_path / "file"
    dataset.mkdir()
    (dataset / "zarr.json").write_text("{}")
    file.write_text("mine")
    told: list[Progress] = []
    for out, message in (
        (dataset, "is a dataset; name another folder"),
        (file, "is a file; name a folder"),
        (file / "below", "cannot write to .*below: .*; name a folder"),
        (Path("/proc/q"), "cannot write to /proc/q: .*; name a folder"),
        (Path("/proc"), "cannot write to /proc: .*; name a folder"),
    ):
        with pytest.raises(CheckpointError, match=message):
            train(make(), sampler(), out, CONFIG, on_progress=told.append)
    assert not told
    assert file.read_text() == "mine"
    assert [path.name for path in dataset.iterdir()] == ["zarr.json"]


def test_two_trainings_do_not_write_to_one_folder(tmp_path):
    refused: list[str] = []

    def meanwhile(now: Progress) -> None:
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(
            CheckpointError, match=r"another training writes to .*: wait .* or name another folder"
        ) as e:
            train(make(), sampler(), tmp_path, replace(CONFIG, seed=7))
        refused.append(str(e.value))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    train(make(), sampler(), tmp_path, CONFIG, on_progress=meanwhile)
    assert refused
    assert read_train(tmp_path)["train"]["seed"] == CONFIG.seed
    train(make(), sampler(), tmp_path, replace(CONFIG, steps=14), resume=True)  # nobody holds it any more


def test_windows_that_do_not_fit_the_policy_are_refused(tmp_path):
    with pytest.raises(ContractError, match=r"windows have .* \(2, 0, 4, 2\), the policy has \(2, 0, 8, 2\)"):
        train(make(replace(SPEC, horizon=8)), sampler(), tmp_path, CONFIG)
    spec = replace(SPEC, cameras={}, state={"pose": StateSpec(2, ("m",))})
    with pytest.raises(ContractError, match=r"no state \['pose'\] in the data; it has \['pos'\]"):
        train(make(spec), sampler(), tmp_path, CONFIG)


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(ContractError, match="the loss is nan at step"):
        train(make(), sampler(), tmp_path, replace(CONFIG, lr=1e30, warmup=0.0, steps=30))


@pytest.mark.slow
def test_kill_minus_nine_leaves_a_whole_checkpoint(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import robopolicy.training.trainer as trainer\n"
        "trainer.SAVING = 1e9  # all the time\n"
        "from test_training_trainer import *\n"
        "train(make(), sampler(), sys.argv[1], replace(CONFIG, steps=10**6, save_every_s=0.0))\n"
    )
    for pause_s in (0.05, 0.3, 0.7):
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)])
        while not (tmp_path / "train.json").exists():  # the first save is over
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(pause_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        load_policy(tmp_path)
        config = replace(CONFIG, steps=10**6)
        with pytest.raises(KeyboardInterrupt):
            train(make(), sampler(), tmp_path, config, resume=True, on_progress=stop)
        assert load_policy(tmp_path).action.fitted
