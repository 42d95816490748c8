"""A policy that is no `DiffusionPolicy`, trained by the same trainer."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from training_parts import CONFIG, SPEC, same, sampler

from robopolicy.training.trainer import train


@dataclass(frozen=True)
class LineConfig:
    lr: float = 0.05

    def to_json(self) -> dict:
        return {"lr": self.lr}


class Line(torch.nn.Module):
    """Commands the newest position, scaled and shifted; the windows' actions are 2 * pos - 1."""

    past, goal_source, needs_windows, networks = 0, None, False, ()

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.config = replace(SPEC, cameras={}, horizon=4), LineConfig()
        self.scale, self.shift = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros(2))
        self.register_buffer("seen", torch.zeros(()))

    def fit_normaliser(self, arrays, windows=None) -> None:
        self.seen.fill_(len(arrays.action))

    def loss(self, batch, generator=None) -> torch.Tensor:
        said = batch["state"]["pos"][:, -1] * self.scale + self.shift
        noise = torch.randn(said.shape, generator=generator)
        return ((said + 0.01 * noise - batch["action"][:, 0]) ** 2).mean()


def save(folder: Path, policy: Line, *, train: dict) -> None:
    folder.mkdir(exist_ok=True)
    save_file(policy.state_dict(), folder / "line.safetensors")
    (folder / "train.json").write_text(json.dumps(train))


def test_it_learns_and_is_saved_in_its_own_way(tmp_path):
    line = train(Line(), sampler(), tmp_path, replace(CONFIG, steps=300, lr=None), save=save)
    assert torch.allclose(line.scale, torch.tensor(2.0), atol=0.05)
    assert torch.allclose(line.shift, torch.tensor(-1.0), atol=0.05)
    written = load_file(tmp_path / "line.safetensors")
    assert torch.equal(written["scale"], line.scale)
    assert written["seen"] == 30
    assert json.loads((tmp_path / "train.json").read_text())["train"]["lr"] == 0.05


def test_it_resumes_exactly(tmp_path):
    def stop(progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    whole = train(Line(), sampler(), tmp_path / "whole", CONFIG, save=save)
    often = replace(CONFIG, save_every_s=1e-9)
    with pytest.raises(KeyboardInterrupt):
        train(Line(), sampler(), tmp_path / "broken", often, save=save, on_progress=stop)
    told = json.loads((tmp_path / "broken" / "train.json").read_text())
    assert 0 < told["steps"] < 5
    assert same(whole, train(Line(), sampler(), tmp_path / "broken", CONFIG, save=save, resume=True))
