"""Datasets at the edges of what is allowed, to each format without loss and back: bit for bit the same."""

import json
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from exchanged import frame, require_same
from recordings import SECOND, make_steps
from test_data_recovery import write_format_1

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.exporters.zipped import export_zip
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

FORMATS = {
    "diffusion_policy": ("o.zarr", {}, {}),
    "robomimic": ("o.hdf5", {}, {}),
    "umi": ("o.zarr.zip", {}, {}),
    "lerobot": ("o", {"video": "none"}, {"lossless": True}),
}
COLOUR = {"front": CameraSpec(15, 17), "w.2": CameraSpec(16, 16)}
WORDS = '把杯子 ☕\n"a" \\ \0'
TEXT = EpisodeMeta(WORDS, "ürobot", operator="Ön", success=None, seed=2**60, extra={"x": [None, 1e300]})
CASES = {  # {name: (cameras, steps of each episode, every how many of them has a new picture)}
    "one step": (COLOUR, (1, 1), 1),
    "no cameras": ({}, (3, 1), 1),
    "one picture an episode": (COLOUR, (5, 4), 100),
    "slow cameras": (COLOUR, (7, 70), 3),
    "depth alone": ({"d": CameraSpec(6, 7, "depth")}, (3, 1), 2),
}


def make(path, cameras, lengths, every):
    state = {"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",)), "gripper": StateSpec(1, ("open",))}
    spec = PolicySpec(cameras, state, ActionSpec("joint", ("j1", "j2"), ("rad",)), 29.97)
    rng = np.random.default_rng(0)
    with DatasetWriter(path, spec, lossless=True) as writer:
        for number, length in enumerate(lengths):
            episode = writer.begin(TEXT if number == 0 else EpisodeMeta("", ""))
            for k in range(length):
                stamp = 1_700_000_000 * SECOND + k * spec.period_ns
                if k % every == 0:
                    images = {name: frame(rng, camera) for name, camera in cameras.items()}
                    stamps = dict.fromkeys(images, stamp - 5)
                low = {name: rng.standard_normal(part.dim).astype(np.float32) for name, part in state.items()}
                sent = rng.standard_normal(2).astype(np.float32)
                episode.add(Step(Observation(stamp, low, dict(images), dict(stamps)), sent, stamp + 7, "hold"))
            episode.commit()


def there_and_back(source, folder, form):
    name, export_options, import_options = FORMATS[form]
    export = getattr(import_module(f"robopolicy_data.exporters.{form}"), f"export_{form}")
    back = getattr(import_module(f"robopolicy_data.importers.{form}"), f"import_{form}")
    export(source, folder / name, **export_options)
    back(folder / name, folder / "back.zarr", **import_options)
    found = Dataset(folder / "back.zarr")
    for episode in found:  # LeRobot's import says where it comes from
        extra = {key: value for key, value in episode.meta.extra.items() if key != "imported"}
        episode.__dict__["meta"] = replace(episode.meta, extra=extra)
    return found


@pytest.mark.parametrize(("form", "case"), [(f, c) for f in FORMATS for c in CASES if (f, c) != ("umi", "depth alone")])
def test_unusual_data_lose_nothing(tmp_path, form, case):
    make(tmp_path / "d.zarr", *CASES[case])
    export_zip(tmp_path / "d.zarr", tmp_path / "d.zip")
    require_same(Dataset(tmp_path / "d.zarr"), there_and_back(tmp_path / "d.zip", tmp_path, form))


@pytest.mark.parametrize("form", ["diffusion_policy", "robomimic", "lerobot"])
def test_format_1_loses_nothing(tmp_path, form):
    write_format_1(tmp_path / "d.zarr", make_steps(3, 9))
    file = tmp_path / "d.zarr/episodes/000000/zarr.json"
    described = json.loads(file.read_text())
    described["attributes"]["robopolicy"]["software"] = "by hand"
    file.write_text(json.dumps(described))
    require_same(Dataset(tmp_path / "d.zarr"), there_and_back(tmp_path / "d.zarr", tmp_path, form))
