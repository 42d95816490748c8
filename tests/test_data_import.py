import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from robopolicy.errors import DatasetError
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy_data.check import check, info
from robopolicy_data.exporters.diffusion_policy import export_diffusion_policy
from robopolicy_data.importers.diffusion_policy import import_diffusion_policy
from robopolicy_data.reader import Dataset
from robopolicy_data.windows import load_arrays
from robopolicy_data.writer import DatasetWriter

SHARED = Path(__file__).parents[2] / "shared" / "datasets"


@pytest.fixture(scope="module")
def pusht():
    path = SHARED / "pusht_cchi_v7_replay.zarr"
    if not path.is_dir():
        pytest.skip(f"the Push-T demonstrations are not at {path}")
    return path


def make_store(path, ends=(3, 7), **arrays):
    """Write a replay buffer in diffusion_policy's layout."""
    total = ends[-1]
    rng = np.random.default_rng(0)
    data = {
        "action": rng.standard_normal((total, 2)).astype("f4"),
        "camera_0": rng.integers(0, 256, (total, 6, 8, 3), dtype="u1"),
        "robot_eef_pose": rng.standard_normal((total, 6)).astype("f4").astype("f8"),
    } | arrays
    group = zarr.open_group(path, mode="w", zarr_format=2)
    whole = {"write_empty_chunks": True}  # as zarr 2 does, and so diffusion_policy
    for name, values in data.items():
        if values is not None:
            group.create_array(f"data/{name}", data=values, chunks=(2, *values.shape[1:]), config=whole)
    group.create_array("meta/episode_ends", data=np.asarray(ends, np.int64), config=whole)
    return data


@pytest.mark.slow
def test_all_human_pusht_demonstrations_bit_for_bit(pusht, tmp_path):
    told = []
    assert import_diffusion_policy(pusht, tmp_path / "d", progress=lambda *n: told.append(n)) == 206
    assert told[-1] == (206, 206)
    dataset = Dataset(tmp_path / "d")
    assert dataset.spec == PolicySpec(
        cameras={"image": CameraSpec(96, 96)},
        state={
            "keypoint": StateSpec(18, ("px",)),
            "n_contacts": StateSpec(1, ("1",)),
            "state": StateSpec(5, ("px", "px", "px", "px", "rad_wrapped")),
        },
        action=ActionSpec("vector", ("x", "y"), ("px",)),
        rate_hz=10.0,
    )
    arrays, source = load_arrays(dataset), zarr.open_group(pusht, mode="r", zarr_format=2)
    assert len(arrays.action) == 25_650
    assert np.array_equal(arrays.episode_ends, source["meta/episode_ends"][:])
    assert arrays.action.tobytes() == source["data/action"][:].tobytes()
    for name in dataset.spec.state:
        assert arrays.state[name].tobytes() == source[f"data/{name}"][:].tobytes(), name
    assert np.array_equal(arrays.images["image"], source["data/img"][:])
    assert all((episode.sources() == 1).all() for episode in dataset), "a person drove"
    assert dataset[3].stamps_ns("image")[:3].tolist() == [0, 100_000_000, 200_000_000]
    assert check(tmp_path / "d") == []
    assert export_diffusion_policy(tmp_path / "d", tmp_path / "again.zarr") == 206
    again = zarr.open_group(tmp_path / "again.zarr", mode="r", zarr_format=2)
    assert np.array_equal(again["meta/episode_ends"][:], source["meta/episode_ends"][:])
    for name in ("action", "state", "keypoint", "n_contacts", "img"):
        assert np.array_equal(again[f"data/{name}"][:].reshape(source[f"data/{name}"].shape), source[f"data/{name}"][:])


def test_any_store_of_this_layout(tmp_path):
    seconds = 1.7e9 + np.arange(7) * 0.1
    data = make_store(tmp_path / "s.zarr", timestamp=seconds, keypoint=np.zeros((7, 9, 2), "f4"), stage=np.arange(7))
    assert import_diffusion_policy(tmp_path / "s.zarr", tmp_path / "d", rate_hz=12.5) == 2
    dataset = Dataset(tmp_path / "d")
    assert dataset.spec.action == ActionSpec("vector", ("a0", "a1"), ("1",))
    assert dataset.spec.rate_hz == 12.5
    assert dataset.spec.cameras == {"camera_0": CameraSpec(6, 8)}
    assert {name: s.dim for name, s in dataset.spec.state.items()} == {"keypoint": 18, "robot_eef_pose": 6, "stage": 1}
    assert dataset.spec.state["robot_eef_pose"].units == ("m", "m", "m", "rad", "rad", "rad")
    arrays = load_arrays(dataset)
    assert np.array_equal(arrays.state["robot_eef_pose"], data["robot_eef_pose"])
    assert np.array_equal(arrays.state["stage"][:, 0], np.arange(7))
    assert np.array_equal(arrays.images["camera_0"], data["camera_0"])
    assert np.abs(np.diff(dataset[1].stamps_ns("step")) - 100_000_000).max() < 1000
    assert dataset[1].meta.extra["stamps"] == "data/timestamp"
    assert dataset[1].meta.task == "s"


def test_float64_that_float32_cannot_hold_needs_consent(tmp_path):
    pose = np.full((7, 6), 0.1)
    make_store(tmp_path / "s", robot_eef_pose=pose)
    with pytest.raises(DatasetError, match=r"data/robot_eef_pose is float64 and float32 cannot hold.*round_to_float32"):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    assert import_diffusion_policy(tmp_path / "s", tmp_path / "e", round_to_float32=True) == 2
    assert np.array_equal(load_arrays(Dataset(tmp_path / "e")).state["robot_eef_pose"], pose.astype("f4"))


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan])
def test_pictures_that_are_not_whole_numbers_are_refused(tmp_path, value):
    images = np.zeros((7, 6, 8, 3), "f4")
    images[5, 1, 1, 1] = value
    make_store(tmp_path / "s", camera_0=images)
    with pytest.raises(DatasetError, match=r"data/camera_0 is float32 .* whole numbers 0 to 255"):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"action": None}, "no data/action; expected diffusion_policy's layout"),
        ({"ends": (3, 3)}, "must increase"),
        (
            {"ends": (3, 7), "extra": np.zeros((6, 1), "f4")},
            r"data/extra has shape \(6, 1\), but the episodes end at 7",
        ),
        ({"depth": np.zeros((7, 4, 4, 1), "f4")}, r"a camera is \(N, H, W, 3\)"),
        ({"flag": np.zeros(7, bool)}, r"data/flag is bool \(7,\); a state is numbers \(N, D\)"),
    ],
)
def test_another_layout_is_refused(tmp_path, arrays, message):
    make_store(tmp_path / "s", **arrays)
    with pytest.raises(DatasetError, match=message):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no zarr v2 group; expected diffusion_policy's layout"):
        import_diffusion_policy(tmp_path / "nothing", tmp_path / "d")


def test_half_an_import_in_the_way_is_called_that(tmp_path):
    make_store(tmp_path / "s")
    import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    root = json.loads((tmp_path / "d" / "zarr.json").read_text())
    root["attributes"]["robopolicy"]["importing"] = "the store"  # as a kill leaves it
    (tmp_path / "d" / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(DatasetError, match=r"the import of the store was interrupted .*; delete it and import again"):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")


def test_a_taken_destination_is_refused_and_untouched(tmp_path):
    make_store(tmp_path / "s")
    import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    with pytest.raises(DatasetError, match="exists and is not empty"):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    assert len(Dataset(tmp_path / "d")) == 2


def require_called_interrupted(path):
    """Whatever is done with half an import, it is called one; what it holds is sound."""
    line = r"import of .*s was interrupted .*delete it and import again"
    with pytest.raises(DatasetError, match=line):
        Dataset(path)
    half = Dataset(path, unfinished=True)
    with pytest.raises(DatasetError, match=line):
        DatasetWriter(path, half.spec, lossless=True)
    (problem,) = (p for p in check(path) if p.severity == "error")
    assert re.search(line, problem.message)
    assert re.search(line, info(path)["import"])
    return half


def test_an_import_that_stops_half_way_is_no_smaller_dataset(tmp_path):
    images = np.zeros((7, 6, 8, 3), "f4")
    images[5] = 0.5  # in the second episode
    make_store(tmp_path / "s", camera_0=images)
    with pytest.raises(DatasetError):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    assert len(require_called_interrupted(tmp_path / "d")) == 1


IMPORT = """
import os, signal, sys
from robopolicy_data.importers.diffusion_policy import import_diffusion_policy
def progress(done, total):
    if done == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
import_diffusion_policy(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.mark.parametrize("episodes", [1, 2])
def test_an_import_killed_after_any_episode_is_called_interrupted(tmp_path, episodes):
    """Also after the last one: only the end of the import takes the mark away."""
    make_store(tmp_path / "s")
    command = [sys.executable, "-c", IMPORT, tmp_path / "s", tmp_path / "d", str(episodes)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(require_called_interrupted(tmp_path / "d")) == episodes
    shutil.rmtree(tmp_path / "d")
    assert import_diffusion_policy(tmp_path / "s", tmp_path / "d") == 2
    assert check(tmp_path / "d") == []
    assert "import" not in info(tmp_path / "d")
    assert "importing" not in Dataset(tmp_path / "d").attrs
