"""Exported samplers give what `plan` gives, in a process that knows nothing of the policy."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli.main import main
from robopolicy.errors import ContractError, MissingExtra
from robopolicy.policies import export as exporting
from robopolicy.policies.batch import plan_generator
from robopolicy.policies.config import DiffusionConfig, GoalConfig, ScalingConfig, SelectorConfig
from robopolicy.policies.consistency import ConsistencyConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.export import describe, export, input_shapes, inputs_of, sidecar
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import EDMConfig, VPConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.policies.transformer import TransformerConfig
from robopolicy.policies.unet1d import UnetConfig
from robopolicy.policies.vision import VisionConfig
from robopolicy.spec import TOOL_POSE, ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import save_checkpoint
from robopolicy.types import Observation

BLIND = PolicySpec(
    state={"angle": StateSpec(2, ("m", "rad_wrapped"))}, action=ActionSpec("vector", ("x", "y"), ("px",)),
    n_obs=2, horizon=8, n_execute=4,
)  # fmt: skip
SEEING = replace(BLIND, cameras={"front": CameraSpec(48, 56)})
TOOL = PolicySpec(
    state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",))}, action=TOOL_POSE, n_obs=3, horizon=4
)  # fmt: skip
MLP = MlpConfig(width=16, depth=1)
EYE = VisionConfig(width=16)
CASES = {
    "mlp": (BLIND, DiffusionConfig(MLP, solver=SolverConfig(steps=3)), 2),
    "medoid": (BLIND, DiffusionConfig(MLP, solver=SolverConfig(steps=2), selector=SelectorConfig("medoid", 4)), 3),
    "ancestral": (BLIND, DiffusionConfig(MLP, process=VPConfig(prediction="x0"), solver=SolverConfig("ddpm", 3)), 1),
    "consistency": (BLIND, DiffusionConfig(MLP, EYE, ConsistencyConfig(), SolverConfig("consistency", 2)), 1),
    "unet-eye": (SEEING, DiffusionConfig(UnetConfig((16, 32), step_dim=16), EYE, solver=SolverConfig(steps=2)), 1),
    "goal": (SEEING, DiffusionConfig(
        TransformerConfig(width=16, depth=1, heads=2), EYE, EDMConfig(), SolverConfig("heun", 2),
        goal=GoalConfig(("front", "angle")),
    ), 1),
    "relative-past": (TOOL, DiffusionConfig(
        MLP, solver=SolverConfig(steps=2), codec="relative", past=2, scaling=ScalingConfig(per_step=True)
    ), 1),
}  # fmt: skip


def make(name: str) -> tuple[DiffusionPolicy, int]:
    spec, config, n = CASES[name]
    torch.manual_seed(3)
    policy = DiffusionPolicy(spec, config)
    rng = np.random.default_rng(0)
    state = {key: rng.normal(size=(40, part.dim)).astype(np.float32) for key, part in spec.state.items()}
    action = (100 * rng.random((40, spec.action.dim))).astype(np.float32)
    rows = rng.integers(0, 40, (30, policy.rows))
    windows = SimpleNamespace(obs=rows[:, : spec.n_obs], action=rows, padded_action=np.zeros_like(rows, bool))
    policy.fit_normaliser(SimpleNamespace(state=state, action=action), windows)
    return policy.eval(), n


def observe(spec: PolicySpec, k: int) -> Observation:
    rng = np.random.default_rng(k)
    return Observation(
        k * spec.period_ns,
        {name: rng.normal(size=part.dim).astype(np.float32) for name, part in spec.state.items()},
        images={name: rng.integers(0, 256, camera.shape, np.uint8) for name, camera in spec.cameras.items()},
    )


def planned(policy: DiffusionPolicy, n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the inputs of a file and what it must answer: what ``plan`` says for observations it has not seen yet."""
    window, goal = [observe(policy.spec, 50 + k) for k in range(policy.spec.n_obs)], None
    if policy.config.goal is not None:
        goal = observe(policy.spec, 99)
        policy.set_goal(goal)
    count = max(n, policy.config.selector.samples)
    noise = policy.draw_noise(count, plan_generator(torch.Generator().manual_seed(7)))
    chunks = policy.plan(window, n=n, generator=torch.Generator().manual_seed(7)).chunks
    return inputs_of(policy, window, noise[..., :n, :, :], goal), chunks


RUN = {
    "onnx": (
        "import json, sys, numpy as np, onnxruntime\n"
        "file, data, out = sys.argv[1:]\n"
        "told, inputs = json.load(open(file + '.json')), dict(np.load(data))\n"
        "assert {k: (tuple(v['shape']), v['dtype']) for k, v in told['inputs'].items()} == "
        "{k: (v.shape, str(v.dtype)) for k, v in inputs.items()}\n"
        "np.save(out, onnxruntime.InferenceSession(file).run(None, inputs)[0])\n"
        "assert 'torch' not in sys.modules and 'robopolicy' not in sys.modules\n"
    ),
    "torch": (
        "import json, sys, numpy as np, torch\n"
        "file, data, out = sys.argv[1:]\n"
        "told, inputs = json.load(open(file + '.json')), dict(np.load(data))\n"
        "chunks = torch.export.load(file).module()(*(torch.from_numpy(inputs[k]) for k in told['inputs']))\n"
        "np.save(out, chunks.detach().numpy())\n"
        "assert 'robopolicy' not in sys.modules\n"
    ),
}


@pytest.mark.parametrize(
    ("name", "to"),
    [
        ("mlp", "onnx"),
        ("mlp", "torch"),
        ("unet-eye", "onnx"),
        pytest.param("goal", "onnx", marks=pytest.mark.slow),
        *(pytest.param(name, "torch", marks=pytest.mark.slow) for name in ("unet-eye", "goal", "relative-past")),
        *(pytest.param(name, "onnx", marks=pytest.mark.slow) for name in ("ancestral", "consistency", "relative-past")),
    ],
)
def test_another_process_gets_what_plan_gives(tmp_path, name, to):
    policy, n = make(name)
    file = tmp_path / ("p.onnx" if to == "onnx" else "p.pt2")
    assert export(policy, file, to, n) <= 1e-4
    inputs, want = planned(policy, n)
    np.savez(tmp_path / "inputs.npz", **inputs)
    words = [sys.executable, "-W", "ignore", "-c", RUN[to], file, tmp_path / "inputs.npz", tmp_path / "chunks.npy"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    got = np.load(tmp_path / "chunks.npy")
    assert got.shape == want.shape == (n, policy.spec.horizon, policy.spec.action.dim)
    assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    assert np.ptp(want) > 1, "robot units"


@pytest.mark.parametrize("name", CASES)
def test_the_function_that_is_exported_is_plan(name):
    policy, n = make(name)
    inputs, want = planned(policy, n)
    sampler = exporting.Sampler(policy, n)
    assert {key: (value.shape, str(value.dtype)) for key, value in inputs.items()} == input_shapes(policy, n)
    with torch.no_grad():
        got = sampler(*(torch.from_numpy(value) for value in inputs.values())).numpy()
    if policy.config.selector.name == "first":
        assert np.allclose(got, want, atol=1e-4 * np.abs(want).max())
    else:  # plan puts the chosen one first
        assert any(np.allclose(one, want[-1], atol=1e-3) for one in got)


def test_the_json_tells_what_is_left_out(tmp_path):
    policy, n = make("medoid")
    told = json.loads(json.dumps(describe(policy, "onnx", n)))
    assert "left out: choosing among the candidates (selector medoid)" in told["notes"]
    assert told["outputs"]["chunks"]["shape"] == [3, 8, 2]
    assert DiffusionConfig.from_json(told["config"]) == policy.config
    assert PolicySpec.from_json(told["spec"]) == policy.spec


def test_a_file_that_does_otherwise_is_refused(tmp_path, monkeypatch):
    policy, _ = make("mlp")
    run = exporting.run_exported
    monkeypatch.setattr(exporting, "run_exported", lambda *args: run(*args) + 0.5)
    (tmp_path / "p.pt2").write_text("that of yesterday, which does")
    with pytest.raises(ContractError, match=r"p\.pt2 differs from plan by 0\.0"):
        export(policy, tmp_path / "p.pt2", "torch")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"p.pt2": "that of yesterday, which does"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "folder.pt2").mkdir()
    for path, message in ((tmp_path / "no" / "p.pt2", "no is no folder"), (tmp_path / "folder.pt2", "is a folder")):
        with pytest.raises(ContractError, match=message):
            export(make("mlp")[0], path, "torch")
    with pytest.raises(OSError, match="/proc"):
        export(make("mlp")[0], Path("/proc/p.pt2"), "torch")


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"onnxscript is not installed.*robopolicy\[export\]"):
        export(make("mlp")[0], tmp_path / "p.onnx", "onnx")
    with pytest.raises(ContractError, match="never fitted"):
        export(DiffusionPolicy(BLIND, DiffusionConfig(MLP)), tmp_path / "p.pt2", "torch")


def test_the_command_writes_file_and_json_and_refuses_other_names(tmp_path, capsys):
    policy, _ = make("mlp")
    save_checkpoint(tmp_path / "c", policy, train={})
    words = ["export", "--checkpoint", str(tmp_path / "c"), "--to", "torch"]
    assert main([*words, str(tmp_path / "p.onnx")]) == 1
    assert "name it " + str(tmp_path / "p.pt2") in capsys.readouterr().err
    assert main([*words, "--n", "2", str(tmp_path / "p.pt2")]) == 0
    assert "of plan" in capsys.readouterr().out
    told = json.loads(sidecar(tmp_path / "p.pt2").read_text())
    assert told["checkpoint"] == str(tmp_path / "c")
    assert told["inputs"]["noise"]["shape"] == [2, 8, 2]
