"""The card of a checkpoint: README.md, for people."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.errors import BehindCamera
from robopolicy.policies.config import DiffusionConfig, GoalConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.mlp import MlpConfig
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.training.card import MARK, card, write_card

SPEC = PolicySpec(
    cameras={"front": CameraSpec(48, 64)}, state={"angle": StateSpec(2, ("m", "rad_wrapped"))},
    action=ActionSpec("vector", ("x",), ("m",)), rate_hz=10.0, n_obs=2, horizon=4, n_execute=2,
)  # fmt: skip
TRAIN = {
    "steps": 20_000, "finished": False, "minutes": 23.4, "samples_per_s": 3512.2, "parameters": 3_240_000,
    "train": {"batch_size": 256, "lr": 1e-3, "seed": 7, "device": "cpu"},
    "data": {"path": ["a.zarr", "b.zarr"], "weights": [1, 3], "episodes": 206, "windows": 25650,
             "command": "robopolicy train --data a.zarr b.zarr"},
    "versions": {"torch": "2.13.0"},
    "eval": [{"step": 1000 * k, "minutes": k, "score": s, "success": s / 2} for k, s in enumerate((0.1, 0.9, 0.3), 1)]
    + [{"step": 4000, "minutes": 4, "error": "no world"}],
    "losses": [[1, 0.5], [20_000, 0.0123]],
}  # fmt: skip


@pytest.fixture(scope="module")
def policy():
    made = DiffusionPolicy(SPEC, DiffusionConfig(MlpConfig(width=16, depth=1), goal=GoalConfig(("angle",))))
    rng = np.random.default_rng(0)
    angle = rng.random((20, 2), dtype=np.float32)
    made.fit_normaliser(SimpleNamespace(state={"angle": angle}, action=angle[:, :1] * 6))
    return made.eval()


def test_the_card_tells_data_command_metrics_and_spec(policy, tmp_path):
    text = card(tmp_path / "runs", policy, TRAIN)
    for told in (
        "# runs", "`front` and `angle`", "206 episodes", "not finished", "| camera `front` | 48 x 64 px |",
        "| command | vector: x (m) |", "| plans | 4 steps, 0.4 s |", "| goal | angle |", "`a.zarr`, `b.zarr`",
        "| windows | 25,650 |", "| weights | [1, 3] |", "robopolicy train --data a.zarr b.zarr", "20,000 steps",
        "batches of 256", "seed 7", "23.4 min on cpu", "last loss 0.0123", "| 2,000 (best) | 0.9 | 0.45 |",
        "| 3,000 | 0.3 | 0.15 |", "robopolicy.load_policy(",
    ):  # fmt: skip
        assert told in text, told
    assert "| 4,000" not in text, "an evaluation that failed has no scores"
    assert "\n1 of 4 evaluations failed, at step 4,000: no world\n" in text
    assert "Latency" not in text, "measured once the run is finished"
    assert max(map(len, text.splitlines())) < 300


def test_pictures_that_are_made_smaller_are_told(policy, tmp_path, monkeypatch):
    vision = replace(policy.config.vision, sizes=(("front", 44, 50),))
    monkeypatch.setattr(policy, "config", replace(policy.config, vision=vision))
    assert "| camera `front` | 48 x 64 px, made smaller to 44 x 50 |" in card(tmp_path, policy, TRAIN)


def test_a_finished_run_tells_its_latency(policy, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        text = card(tmp_path, policy, {**TRAIN, "finished": True})
    finally:
        torch.set_num_threads(before)
    assert ", 1 thread; " in text, "as deploy plans, however many there were to train with"
    assert "A plan takes " in text
    assert "a step at 10 Hz lasts 100 ms" in text
    assert "not finished" not in text


def test_a_run_whose_cameras_look_at_no_place_together_is_finished_all_the_same(policy, tmp_path, monkeypatch):
    def plan(*_, **__):
        raise BehindCamera("camera 'front': 5 of 5 points are behind it")

    monkeypatch.setattr(policy, "plan", plan)
    text = card(tmp_path, policy, {**TRAIN, "finished": True})
    assert "## Latency\n\nNot measured: camera 'front': 5 of 5 points are behind it." in text


def test_evaluations_that_all_failed_are_told(policy, tmp_path):
    text = card(tmp_path, policy, {**TRAIN, "eval": [{"step": k, "error": f"no world {k}"} for k in (10, 20)]})
    assert "## Scores while training\n\n2 of 2 evaluations failed, at step 20: no world 20\n" in text


def test_what_is_not_known_is_left_out(policy, tmp_path):
    text = card(tmp_path, policy, {})
    for absent in ("## Data", "## Training", "## Scores", "None", "not finished"):
        assert absent not in text, absent


def test_it_is_renewed_until_somebody_makes_it_their_own(policy, tmp_path):
    path = tmp_path / "README.md"
    write_card(tmp_path, policy, TRAIN)
    write_card(tmp_path, policy, {**TRAIN, "steps": 30_000})
    assert "30,000 steps" in path.read_text()
    path.write_text(path.read_text().removeprefix(MARK) + "Good on blue cubes.")
    write_card(tmp_path, policy, {**TRAIN, "steps": 40_000})
    assert "Good on blue cubes." in path.read_text()
    assert "40,000" not in path.read_text()
