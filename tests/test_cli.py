"""The command line as a person uses it: real processes, one clear line for each kind of bad input, nothing lost."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robopolicy.clock import SimClock
from robopolicy.errors import SYSTEM_LIBRARIES
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.spec import CameraSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import save_checkpoint
from robopolicy_data.reader import Dataset
from sim_envs.worlds import make_world

STATES = ("tool_pos", "tool_quat", "gripper", "cube_pos", "cube_quat")


def robopolicy(*words: object, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "robopolicy.cli.main", *map(str, words)],
        capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=timeout, check=False,
    )  # fmt: skip


def complaint(*words: object, env: dict[str, str] | None = None, code: int = 1) -> str:
    """Run what must fail; return its one line."""
    done = robopolicy(*words, env=env)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("robopolicy: ")]
    assert len(lines) == 1, done.stderr
    assert done.stderr.strip().splitlines()[-1] == lines[0]
    return lines[0]


def lift_spec() -> PolicySpec:
    world = make_world("twin:lift", SimClock(), cameras=())
    world.close()
    return replace(world.spec.select(state=STATES), n_obs=2, horizon=16, n_execute=8)


@pytest.fixture(scope="module")
def untrained():
    """Makes a checkpoint of random weights for a spec."""

    def make(folder: Path, spec: PolicySpec) -> Path:
        torch.manual_seed(0)
        policy = DiffusionPolicy(spec)
        rng = np.random.default_rng(0)
        policy.fit_normaliser(
            type("Arrays", (), {
                "state": {k: rng.uniform(-1, 1, (9, v.dim)).astype(np.float32) for k, v in spec.state.items()},
                "action": rng.uniform(-1, 1, (9, spec.action.dim)).astype(np.float32),
            })
        )  # fmt: skip
        save_checkpoint(folder, policy, train={"steps": 0})
        return folder

    return make


@pytest.fixture(scope="module")
def lift(tmp_path_factory, untrained) -> Path:
    return untrained(tmp_path_factory.mktemp("lift") / "policy", lift_spec())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "lift.zarr"
    done = robopolicy("record", "--robot", "twin:lift", "--data", path, "--episodes", 2, "--cameras")
    assert done.returncode == 0, done.stderr
    return path


def test_help_names_every_command():
    done = robopolicy("--help")
    assert done.returncode == 0
    for command in ("demo", "record", "train", "calibrate", "eval", "deploy", "data", "doctor"):
        assert command in done.stdout


def test_no_command_is_a_usage_error():
    assert robopolicy().returncode == 2


def test_not_a_dataset(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "folder", Path(__file__)):
        for words in (
            ("data", "info", path),
            ("data", "check", path),
            ("train", "--data", path, "--out", tmp_path / "o"),
        ):
            assert str(path) in complaint(*words)
    assert not (tmp_path / "o").exists()


def test_dataset_of_a_newer_format(tmp_path, dataset):
    import shutil

    newer = tmp_path / "newer.zarr"
    shutil.copytree(dataset, newer)
    text = json.loads((newer / "zarr.json").read_text())
    text["attributes"]["robopolicy"]["version"] = "3.0"
    (newer / "zarr.json").write_text(json.dumps(text))
    for words in (("data", "info", newer), ("train", "--data", newer, "--out", tmp_path / "o")):
        line = complaint(*words)
        assert "3.0" in line
        assert "2." in line  # what this version reads
    before = sorted(newer.rglob("*"))
    complaint("record", "--robot", "twin:lift", "--data", newer, "--episodes", 3, "--cameras")
    assert sorted(newer.rglob("*")) == before


def test_checkpoint_that_does_not_fit_the_robot_prints_both(tmp_path, untrained):
    spec = lift_spec()
    other = untrained(tmp_path / "other", replace(spec, state={"tool_pos": StateSpec(3, ("mm",))}))
    for words in (
        ("eval", "--checkpoint", other, "--env", "twin:lift"),
        ("deploy", "--checkpoint", other, "--robot", "twin:lift"),
    ):
        line = complaint(*words)
        assert "(3,) mm" in line
        assert "(3,) m;" in line or line.rstrip().endswith("(3,) m")
    missing = untrained(tmp_path / "missing", lift_spec())
    line = complaint("deploy", "--checkpoint", missing, "--robot", "twin:pusht")
    assert "cube_pos" in line
    assert "none" in line


def test_unknown_names_list_the_valid_ones(tmp_path, lift, dataset, untrained):
    assert "lift" in complaint("eval", "--checkpoint", lift, "--env", "twin:lfit")
    line = complaint("deploy", "--checkpoint", lift, "--robot", "lift")
    assert "twin:TASK" in line
    assert "mock" in line
    assert "mock" not in complaint("eval", "--checkpoint", lift, "--env", "lift")
    assert "front" in complaint("record", "--robot", "twin:lift", "--data", tmp_path / "d.zarr", "--cameras", "fornt")
    assert not (tmp_path / "d.zarr").exists()
    assert "cube_pos" in complaint("train", "--data", dataset, "--out", tmp_path / "o", "--states", "cube")
    assert "mlp" in complaint("train", "--data", dataset, "--out", tmp_path / "o", "--preset", "mpl")
    spec = replace(lift_spec(), cameras={"wrist2": CameraSpec(96, 96)})
    eye = untrained(tmp_path / "eye", spec)
    assert "wrist" in complaint("eval", "--checkpoint", eye, "--env", "twin:lift")


def test_not_a_checkpoint_and_not_a_monitor(tmp_path, lift):
    assert str(tmp_path) in complaint("eval", "--checkpoint", tmp_path, "--env", "twin:lift")
    assert str(tmp_path) in complaint("deploy", "--checkpoint", lift, "--robot", "twin:lift", "--monitor", tmp_path)


def test_no_gl_backend_names_the_one_command(tmp_path):
    no_gl = {"MUJOCO_GL": "disable"}
    assert SYSTEM_LIBRARIES in complaint("demo", "--out", tmp_path / "demo", env=no_gl)
    line = complaint("record", "--robot", "twin:lift", "--data", tmp_path / "d.zarr", "--episodes", 1, env=no_gl)
    assert SYSTEM_LIBRARIES in line
    done = robopolicy(
        "record", "--robot", "twin:lift", "--data", tmp_path / "d.zarr", "--episodes", 1, "--cameras", env=no_gl
    )
    assert done.returncode == 0, done.stderr  # without pictures, nothing is needed


def test_seeds_and_alpha_that_make_no_sense(lift, tmp_path):
    assert "100:50" in complaint("eval", "--checkpoint", lift, "--env", "twin:lift", "--seeds", "100:50")
    line = complaint("calibrate", "--checkpoint", lift, "--out", tmp_path / "m", "--env", "twin:lift", "--alpha", "5")
    assert "0.05" in line


@pytest.mark.parametrize(
    "words",
    [
        ("deploy", "--robot", "mock", "--checkpoint", "c", "--max-steps", "0"),
        ("deploy", "--robot", "mock", "--checkpoint", "c", "--seed", "-1"),
        ("eval", "--env", "twin:lift", "--checkpoint", "c", "--jobs", "0"),
        ("eval", "--env", "twin:lift", "--checkpoint", "c", "--videos", "x"),
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_numbers_that_make_no_sense_are_usage_errors(words):
    done = robopolicy(*words)
    assert done.returncode == 2
    assert words[-1] in done.stderr.splitlines()[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(lift):
    for words in (("eval", "--env", "twin:lift"), ("deploy", "--robot", "twin:lift")):
        assert "--device cuda" in complaint(*words, "--checkpoint", lift, "--device", "cuda")


def test_deploy_refuses_what_would_never_happen(lift, tmp_path):
    words = ("deploy", "--checkpoint", lift, "--robot", "twin:lift")
    assert "never reached" in complaint(*words, "--disturb-at", 4000)
    assert "v.webm" in complaint(*words, "--video", tmp_path / "v.mp4")


def test_a_fault_in_somebodys_robot_is_one_line_and_debug_shows_where(lift, tmp_path, monkeypatch):
    (tmp_path / "bad_arms.py").write_text(
        "class NoArm:\n    def __init__(self, clock): pass\n\n"
        "class Unplugged:\n    def __init__(self, clock): raise ConnectionError('no answer from\\n192.168.0.2')\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "spec, read, command" in complaint("deploy", "--robot", "bad_arms:NoArm", "--checkpoint", lift)
    line = complaint("deploy", "--robot", "bad_arms:Unplugged", "--checkpoint", lift)
    assert "no answer from 192.168.0.2" in line
    assert "--debug" in line
    done = robopolicy("deploy", "--robot", "bad_arms:Unplugged", "--checkpoint", lift, "--debug")
    assert "bad_arms.py" in done.stderr


def test_a_folder_that_holds_a_checkpoint_is_not_overwritten(lift, dataset):
    before = (lift / "weights.safetensors").read_bytes()
    assert "--resume" in complaint("train", "--data", dataset, "--out", lift)
    assert (lift / "weights.safetensors").read_bytes() == before


def test_too_few_rollouts_to_calibrate_says_how_many_it_takes(lift, tmp_path):
    line = complaint(
        "calibrate", "--checkpoint", lift, "--out", tmp_path / "m", "--env", "twin:lift", "--seeds", "0:2", "--jobs", 1
    )
    assert "0 successful" in line
    assert "19" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_no_space_on_the_disk_loses_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", small], check=False)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        path = small / "d.zarr"
        words = ("record", "--robot", "twin:lift", "--data", path, "--episodes", 50, "--cameras")
        assert "space" in complaint(*words)
        kept = len(Dataset(path))
        assert kept >= 1
        assert all(np.isfinite(episode.action()).all() for episode in Dataset(path))
        assert robopolicy("data", "check", path).returncode == 0
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        done = robopolicy("record", "--robot", "twin:lift", "--data", path, "--episodes", kept + 1, "--cameras")
        assert done.returncode == 0, done.stderr
        assert len(Dataset(path)) == kept + 1
    finally:
        subprocess.run(["umount", small], check=True)


def test_doctor_reports_every_part():
    done = robopolicy("doctor")
    for part in ("python", "torch", "opencv", "rendering", "[robosuite]", "ros", "disk", "codec"):
        assert part in done.stdout
    broken = robopolicy("doctor", env={"MUJOCO_GL": "disable"})
    assert broken.returncode == 1
    assert SYSTEM_LIBRARIES in broken.stdout


def test_mock_robot_runs_the_same_loop(lift, tmp_path):
    done = robopolicy(
        "deploy", "--robot", "mock", "--checkpoint", lift, "--max-steps", 20, "--record", tmp_path / "m.zarr",
        "--allow-slow",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Dataset(tmp_path / "m.zarr")[0].length == 20
    assert "simulated" in complaint("deploy", "--robot", "mock", "--checkpoint", lift, "--disturb-at", 3)


def test_own_robot_by_module_and_class(lift, tmp_path, monkeypatch):
    (tmp_path / "my_arms.py").write_text(
        "from robopolicy_hardware.mock import MockRobot\n"
        "from robopolicy.training.checkpoint import read_spec\n"
        f"class XArm(MockRobot):\n    def __init__(self, clock): super().__init__(read_spec({str(lift)!r}), clock)\n"
    )
    monkeypatch.chdir(tmp_path)
    installed = Path(sys.executable).with_name("robopolicy")  # whose sys.path lacks the working directory
    words = [installed, "deploy", "--robot", "my_arms:XArm", "--checkpoint", lift, "--max-steps", "3", "--allow-slow"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "after 3 steps" in done.stdout, done.stderr
    assert "nowhere" in complaint("deploy", "--robot", "nowhere.arms:XArm", "--checkpoint", lift)
    assert "XArm" in complaint("deploy", "--robot", "json:XArm", "--checkpoint", lift)


@pytest.mark.slow
def test_the_spine_end_to_end_and_again(tmp_path):
    """A small demo: every stage runs, its report exists; a second run finds everything done and changes nothing."""
    words = ("demo", "--out", tmp_path / "demo", "--episodes", 40, "--steps", 1200)
    first = robopolicy(*words, timeout=900)
    out = tmp_path / "demo"
    assert first.returncode == 0, first.stdout + first.stderr
    results = json.loads((out / "evaluation" / "results.json").read_text())
    success, false_alarms = results["summary"]["success"], results["summary"]["false_alarms"]
    assert success["n"] == 50
    assert success["successes"] >= 40, "a small demo; the whole one lifts 45 of 50 or more"
    assert false_alarms["successes"] <= 8, "more than that has a chance below one in 1000 at 5 %"
    assert len(results["outcomes"]) == 50
    disturbed = next(item for item in results["deployed"] if item["label"] == "disturbed")
    assert disturbed["alarm_step"] > disturbed["disturb_step"]
    assert (out / "evaluation" / "report.html").stat().st_size > 100_000
    weights = (out / "policy" / "weights.safetensors").read_bytes()
    second = robopolicy(*words, timeout=300)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("done already") >= 4
    assert (out / "policy" / "weights.safetensors").read_bytes() == weights
    assert json.loads((out / "evaluation" / "results.json").read_text())["outcomes"] == results["outcomes"]
