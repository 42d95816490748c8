import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import peer
from exchanged import SPEC, joined, record, require_same

from robopolicy.errors import DatasetError, MissingExtra
from robopolicy.spec import CameraSpec, StateSpec
from robopolicy_data.check import check
from robopolicy_data.exporters.robomimic import export_robomimic
from robopolicy_data.importers.robomimic import import_robomimic
from robopolicy_data.reader import Dataset

LENGTHS = (4, 6, 3)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return record(tmp_path_factory.mktemp("ours") / "d.zarr")


@pytest.fixture(scope="module")
def exported(ours, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "o.hdf5"
    assert export_robomimic(ours.path, path) == 3
    return path


def write_robomimic(path, *, numbers="demo_{}", dtype="f8", rewards=None):
    """A file as robosuite's demonstrations are: float64, pictures uint8, simulator states, masks, a model a demo."""
    rng = np.random.default_rng(0)
    every = {}
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 25}})
        data.attrs["total"] = sum(LENGTHS)
        for k, length in enumerate(LENGTHS):
            demo = data.create_group(numbers.format(k))
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = f"<mujoco model='{k}'>" + "x" * 200_000
            reward = np.zeros(length)
            reward[-1] = k != 1
            arrays = {
                "actions": rng.uniform(-1, 1, (length, 7)).astype("f4").astype(dtype),
                "states": rng.standard_normal((length, 32)),
                "rewards": reward if rewards is None else np.full(length, rewards),
                "dones": (np.arange(length) == length - 1).astype(int),
                "obs/robot0_eef_pos": rng.standard_normal((length, 3)).astype("f4").astype(dtype),
                "obs/object": rng.standard_normal((length, 10)).astype("f4").astype(dtype),
                "obs/agentview_image": rng.integers(0, 256, (length, 12, 16, 3), dtype="u1"),
            }
            for name, values in arrays.items():
                demo[name] = values
            every[k] = arrays
        file["mask/train"] = np.array([numbers.format(0), numbers.format(2)], dtype="S")
        file["mask/valid"] = np.array([numbers.format(1)], dtype="S")
    return every


def test_a_round_trip_loses_nothing(ours, exported, tmp_path):
    assert import_robomimic(exported, tmp_path / "back") == 3
    require_same(ours, Dataset(tmp_path / "back"))
    assert Dataset(tmp_path / "back")[0].derived("robomimic@1") is None, "made of what the episode has anyway"
    assert [p for p in check(tmp_path / "back") if p.severity == "error"] == []


def test_the_layout_that_its_users_know(ours, exported):
    with h5py.File(exported) as file:
        data = file["data"]
        assert data.attrs["total"] == 21
        assert json.loads(data.attrs["env_args"]) == {
            "env_name": "arm", "type": 2, "env_kwargs": {"control_freq": 12.5},
        }  # fmt: skip
        assert sorted(data) == ["demo_0", "demo_1", "demo_2"]
        demo = data["demo_1"]
        assert demo.attrs["num_samples"] == 7
        assert sorted(demo["obs"]) == ["depth_depth", "front_image", "q", "tool_pos", "tool_quat", "wrist_image"]
        assert demo["obs/front_image"].dtype == np.uint8
        assert demo["obs/depth_depth"].shape == (7, 12, 16, 1)
        assert demo["actions"][:].tobytes() == ours[1].action().tobytes()
        assert np.array_equal(demo["next_obs/q"][:], np.concatenate([demo["obs/q"][1:], demo["obs/q"][-1:]]))
        assert np.array_equal(demo["next_obs/wrist_image"][:-1], demo["obs/wrist_image"][1:])
        assert np.array_equal(demo["next_obs/wrist_image"][-1], demo["obs/wrist_image"][-1])
        assert data["demo_0/rewards"][:].tolist() == [0, 0, 0, 0, 1], "a success"
        assert not data["demo_1/rewards"][:].any(), "a failure"
        assert data["demo_1/dones"][:].tolist() == [0] * 6 + [1]
        assert data["demo_1/states"].shape == (7, 10)
        assert file["mask/success"][:].tolist() == [b"demo_0"]
        assert file["mask/failure"][:].tolist() == [b"demo_1"]
        assert json.loads(demo.attrs["robopolicy"])["task"] == "put it down"


def test_long_episodes_are_written_in_blocks(ours, tmp_path, monkeypatch):
    monkeypatch.setattr("robopolicy_data.exporters.robomimic._BLOCK", 3)
    export_robomimic(ours.path, tmp_path / "o.hdf5")
    with h5py.File(tmp_path / "o.hdf5") as file:
        for k, episode in enumerate(ours):
            front = episode.images("front")
            assert np.array_equal(file[f"data/demo_{k}/obs/front_image"][:], front)
            assert np.array_equal(
                file[f"data/demo_{k}/next_obs/front_image"][:], np.concatenate([front[1:], front[-1:]])
            )


def test_next_obs_can_be_left_out(ours, tmp_path):
    export_robomimic(ours.path, tmp_path / "o.hdf5", next_obs=False, episodes=[2])
    with h5py.File(tmp_path / "o.hdf5") as file:
        assert "next_obs" not in file["data/demo_0"]
    import_robomimic(tmp_path / "o.hdf5", tmp_path / "back")
    require_same(ours, Dataset(tmp_path / "back"), positions=(2,))


@pytest.mark.parametrize(("length", "stack"), [(1, 1), (4, 2)])
def test_robomimic_itself_reads_it(ours, exported, tmp_path, length, stack):
    """Every item of its SequenceDataset against what numpy makes of our streams."""
    (python,) = peer.named("ROBOPOLICY_ROBOMIMIC_PYTHON")
    peer.run(python, "robomimic_read.py", exported, tmp_path / "found.npz", length, stack)
    found = peer.arrays(tmp_path / "found.npz")
    assert found["demos"].tolist() == ["demo_0", "demo_1", "demo_2"]
    starts, ends = np.repeat([0, 5, 12], [5, 7, 9]), np.repeat([5, 12, 21], [5, 7, 9])
    wanted = np.arange(21)[:, None] + np.arange(1 - stack, length)
    rows = np.clip(wanted, starts[:, None], ends[:, None] - 1)  # (21, stack - 1 + length), ends repeated
    assert np.array_equal(found["obs/pad_mask"][..., 0], wanted == rows)
    assert np.array_equal(found["actions"], joined(ours, "action")[rows])
    states = {name: joined(ours, "state", name) for name in SPEC.state}
    pictures = {f"{name}_image": joined(ours, "images", name) for name in ("front", "wrist")}
    following = np.minimum(np.arange(21) + 1, ends - 1)
    for key, values in {**states, **pictures}.items():
        assert found[f"obs/{key}"].dtype == values.dtype
        assert np.array_equal(found[f"obs/{key}"], values[rows]), key
        assert np.array_equal(found[f"next_obs/{key}"], values[following][rows]), key
    assert found["rewards"].sum() > 0


def test_robomimic_itself_reads_a_filter(exported, tmp_path):
    (python,) = peer.named("ROBOPOLICY_ROBOMIMIC_PYTHON")
    peer.run(python, "robomimic_read.py", exported, tmp_path / "found.npz", 1, 1, "success")
    found = peer.arrays(tmp_path / "found.npz")
    assert found["demos"].tolist() == ["demo_0"]
    assert len(found["actions"]) == 5


def test_a_robomimic_file_becomes_a_dataset(tmp_path):
    every = write_robomimic(tmp_path / "low.hdf5")
    told = []
    assert import_robomimic(tmp_path / "low.hdf5", tmp_path / "d", progress=lambda *n: told.append(n)) == 3
    assert told[-1] == (3, 3)
    dataset = Dataset(tmp_path / "d")
    assert dataset.spec.rate_hz == 25
    assert dataset.spec.cameras == {"agentview": CameraSpec(12, 16)}
    assert dataset.spec.state == {"robot0_eef_pos": StateSpec(3, ("1",)), "object": StateSpec(10, ("1",))}
    for k, episode in enumerate(dataset):
        arrays = every[k]
        assert np.array_equal(episode.action(), arrays["actions"])
        assert np.array_equal(episode.state("object"), arrays["obs/object"])
        assert np.array_equal(episode.images("agentview"), arrays["obs/agentview_image"])
        kept = episode.derived("robomimic@1")
        for name in ("states", "rewards", "dones"):
            assert np.array_equal(kept[name], arrays[name]), name
        assert kept["states"].dtype == np.float64
        assert kept["model_file"].tobytes().decode().startswith(f"<mujoco model='{k}'>")
    assert [episode.meta.success for episode in dataset] == [True, False, True]
    assert [episode.meta.extra["filters"] for episode in dataset] == [["train"], ["valid"], ["train"]]
    assert dataset[0].meta.extra["env_args"]["env_name"] == "Lift"


def test_an_imported_file_goes_back_as_it_was(tmp_path):
    every = write_robomimic(tmp_path / "a.hdf5")
    import_robomimic(tmp_path / "a.hdf5", tmp_path / "d")
    export_robomimic(tmp_path / "d", tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "a.hdf5") as old, h5py.File(tmp_path / "b.hdf5") as new:
        assert new["data"].attrs["env_args"] == old["data"].attrs["env_args"]
        for k, arrays in every.items():
            demo = new[f"data/demo_{k}"]
            assert demo.attrs["model_file"] == old[f"data/demo_{k}"].attrs["model_file"]
            for name, values in arrays.items():
                assert np.array_equal(demo[name][()], values), name
        for name in ("train", "valid"):
            assert new[f"mask/{name}"][:].tolist() == old[f"mask/{name}"][:].tolist()
    import_robomimic(tmp_path / "b.hdf5", tmp_path / "e")
    back = Dataset(tmp_path / "e")
    require_same(Dataset(tmp_path / "d"), back)
    assert np.array_equal(back[1].derived("robomimic@1")["states"], every[1]["states"])


def test_demos_are_in_the_order_of_their_numbers(tmp_path):
    write_robomimic(tmp_path / "a.hdf5", numbers="demo_1{}")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        file.move("data/demo_10", "data/demo_9")
    import_robomimic(tmp_path / "a.hdf5", tmp_path / "d")
    assert [episode.length for episode in Dataset(tmp_path / "d")] == [4, 6, 3]


@pytest.mark.parametrize("rewards", [0.5, 2.0])
def test_success_is_unknown_where_the_reward_is_not_sparse(tmp_path, rewards):
    write_robomimic(tmp_path / "a.hdf5", rewards=rewards)
    import_robomimic(tmp_path / "a.hdf5", tmp_path / "d")
    assert {episode.meta.success for episode in Dataset(tmp_path / "d")} == {None}


def spoilt(kind, path):
    """Damage a good file; return the message that is due."""
    if kind == "truncated":
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        return r"is no HDF5 file, or a truncated one"
    if kind == "empty":
        path.write_bytes(b"")
        return r"is no HDF5 file, or a truncated one"
    if kind == "missing":
        path.unlink()
        return r"no such file; expected robomimic's HDF5"
    if kind == "folder":
        path.unlink()
        path.mkdir()
        return r"a folder, not a file; expected robomimic's HDF5"
    with h5py.File(path, "a") as file:
        if kind == "no demos":
            del file["data"]
            return r"no data/demo_0; expected robomimic's HDF5"
        if kind == "no obs":
            del file["data/demo_0/obs"]
            return r"data/demo_0 holds \['actions', 'dones', 'rewards', 'states'\]; expected"
        if kind == "missing key":
            del file["data/demo_1/obs/object"]
            return r"data/demo_1/obs/object is missing; the other demos have it"
        if kind == "length":
            del file["data/demo_1/obs/object"]
            file["data/demo_1/obs/object"] = np.zeros((5, 10))
            return r"data/demo_1/obs/object has shape \(5, 10\), but the demo has 6 actions"
        if kind == "width":
            del file["data/demo_1/actions"]
            file["data/demo_1/actions"] = np.zeros((6, 6))
            return r"data/demo_1/actions is float64 \(6, 6\); want numbers \(6, 7\)"
        if kind == "dtype":
            del file["data/demo_1/obs/object"]
            file["data/demo_1/obs/object"] = np.array([b"x"] * 6)
            return r"data/demo_1/obs/object is \|S1 \(6,\); want numbers \(6, 10\)"
        if kind == "picture size":
            del file["data/demo_2/obs/agentview_image"]
            file["data/demo_2/obs/agentview_image"] = np.zeros((3, 10, 16, 3), "u1")
            return r"data/demo_2/obs/agentview_image has shape \(3, 10, 16, 3\); want \(3, 12, 16, 3\)"
        if kind == "float":
            file["data/demo_1/obs/object"][2, 3] = 0.1
            return r"data/demo_1/obs/object is float64 and float32 cannot hold.*--round"
        assert kind == "env args"
        file["data"].attrs["env_args"] = "{"
        return r"data's env_args are no JSON"


@pytest.mark.parametrize(
    "kind",
    [
        "truncated", "empty", "missing", "folder", "no demos", "no obs", "missing key", "length", "width", "dtype",
        "picture size", "float", "env args",
    ],
)  # fmt: skip
def test_a_malformed_file_is_one_clear_line_and_no_dataset(tmp_path, kind):
    write_robomimic(tmp_path / "a.hdf5")
    message = spoilt(kind, tmp_path / "a.hdf5")
    with pytest.raises(DatasetError, match=message) as caught:
        import_robomimic(tmp_path / "a.hdf5", tmp_path / "d")
    assert str(tmp_path / "a.hdf5") in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"is not a robopolicy dataset|was interrupted"):
        Dataset(tmp_path / "d")


def test_a_damaged_block_inside_is_one_clear_line(tmp_path):
    """A compressed chunk that no longer decodes."""
    write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "a") as file:
        values = file["data/demo_1/obs/object"][()]
        del file["data/demo_1/obs/object"]
        packed = file.create_dataset("data/demo_1/obs/object", data=values, compression="gzip", chunks=values.shape)
        place = packed.id.get_chunk_info(0)
    data = bytearray((tmp_path / "a.hdf5").read_bytes())
    data[place.byte_offset : place.byte_offset + 40] = bytes(40)
    (tmp_path / "a.hdf5").write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.hdf5 is damaged"):
        import_robomimic(tmp_path / "a.hdf5", tmp_path / "d")
    with pytest.raises(DatasetError, match="was interrupted"):
        Dataset(tmp_path / "d")


def test_rounding_needs_consent(tmp_path):
    write_robomimic(tmp_path / "a.hdf5")
    spoilt("float", tmp_path / "a.hdf5")
    assert import_robomimic(tmp_path / "a.hdf5", tmp_path / "d", round_to_float32=True) == 3
    assert Dataset(tmp_path / "d")[1].state("object")[2, 3] == np.float32(0.1)


def test_nothing_is_overwritten(ours, exported, tmp_path):
    path = shutil.copy(exported, tmp_path / "o.hdf5")
    before = Path(path).read_bytes()
    with pytest.raises(DatasetError, match="exists; export to a new place"):
        export_robomimic(ours.path, path)
    assert Path(path).read_bytes() == before


def test_the_command_line_both_ways(ours, tmp_path):
    def robopolicy(*words):
        return subprocess.run(
            [sys.executable, "-m", "robopolicy.cli.main", "data", *map(str, words)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    done = robopolicy("export", "robomimic", ours.path, tmp_path / "o.hdf5", "--no-next-obs")
    assert done.returncode == 0, done.stderr
    done = robopolicy("import", "robomimic", tmp_path / "o.hdf5", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    require_same(ours, Dataset(tmp_path / "back"))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[convert\]"):
        import_robomimic(tmp_path / "a.hdf5", tmp_path / "d")
    assert not (tmp_path / "d").exists()
