import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

sys.path.insert(0, str(Path(__file__).parent))
import peer
from exchanged import SPEC, joined, record, require_same

from robopolicy.cli.data_actions.exchange import FORMATS, numbers
from robopolicy.cli.main import build_parser
from robopolicy.errors import DatasetError, UnknownName
from robopolicy_data.check import check
from robopolicy_data.exporters.diffusion_policy import export_diffusion_policy
from robopolicy_data.exporters.zipped import export_zip
from robopolicy_data.importers.diffusion_policy import import_diffusion_policy
from robopolicy_data.reader import Dataset

NAMES = ("buffer.zarr", "buffer.zarr.zip")
EXPORT = """
import os, signal, sys
from robopolicy_data.exporters.diffusion_policy import export_diffusion_policy
def progress(done, total):
    if done >= 1:
        os.kill(os.getpid(), signal.SIGKILL)
export_diffusion_policy(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return record(tmp_path_factory.mktemp("ours") / "d.zarr")


def robopolicy(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "robopolicy.cli.main", *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_round_trip_loses_nothing(ours, tmp_path, name):
    told = []
    assert export_diffusion_policy(ours.path, tmp_path / name, progress=lambda *n: told.append(n)) == 3
    assert told[-1] == (3, 3)
    assert import_diffusion_policy(tmp_path / name, tmp_path / "back") == 3
    require_same(ours, Dataset(tmp_path / "back"))
    assert [p for p in check(tmp_path / "back") if p.severity == "error"] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compressor", ["default", "disk"])
def test_stock_zarr_finds_the_layout_that_its_users_know(ours, tmp_path, name, compressor):
    export_diffusion_policy(ours.path, tmp_path / name, episodes=[2, 0], compressor=compressor)
    store = zarr.storage.ZipStore(tmp_path / name, mode="r") if name.endswith("zip") else str(tmp_path / name)
    group = zarr.open_group(store, mode="r", zarr_format=2)
    assert group["meta/episode_ends"][:].tolist() == [9, 14]
    assert group["meta/episode_ends"].dtype == np.int64
    assert group["meta/episode_ends"].compressors == ()
    data = dict(group["data"].arrays())
    assert set(data) == {"front", "wrist", "depth", "q", "tool_pos", "tool_quat", "action", "timestamp"}
    picked = [ours[2], ours[0]]
    assert np.array_equal(data["front"][:], np.concatenate([e.images("front") for e in picked]))
    assert data["depth"].shape == (14, 12, 16)
    assert data["q"][:].tobytes() == np.concatenate([e.state("q") for e in picked]).tobytes()
    assert np.allclose(data["timestamp"][:] * 1e9, np.concatenate([e.stamps_ns("step") for e in picked]), rtol=1e-15)
    own = group.attrs["robopolicy"]
    assert own["fps"] == 12.5
    assert [e["task"] for e in own["episodes"]] == ["lift the cup", "lift the cup"]
    assert [e["success"] for e in own["episodes"]] == [None, True]


def test_chunks_are_two_megabytes(tmp_path):
    from robopolicy_data.exporters.zarr2 import rows_of_chunk

    assert rows_of_chunk((3000, 240, 320, 3), 1) == 9, "as diffusion_policy's own rule gives"
    assert rows_of_chunk((3000, 7), 4) == 3000
    assert rows_of_chunk((5, 2000, 2000, 3), 1) == 1


def test_images_over_several_chunks_and_episodes(tmp_path, ours, monkeypatch):
    monkeypatch.setattr("robopolicy_data.exporters.zarr2.CHUNK_BYTES", 5_000)  # 3 frames
    export_diffusion_policy(ours.path, tmp_path / "o.zarr")
    group = zarr.open_group(str(tmp_path / "o.zarr"), mode="r", zarr_format=2)
    assert group["data/front"].chunks == (3, 24, 32, 3)
    assert np.array_equal(group["data/front"][:], joined(ours, "images", "front"))
    import_diffusion_policy(tmp_path / "o.zarr", tmp_path / "back")
    require_same(ours, Dataset(tmp_path / "back"))


@pytest.mark.parametrize("name", NAMES)
def test_diffusion_policy_itself_reads_it(ours, tmp_path, name):
    """Its ReplayBuffer, and every window of its SequenceSampler."""
    checkout, python = peer.named("ROBOPOLICY_DIFFUSION_POLICY", "ROBOPOLICY_DIFFUSION_POLICY_PYTHON")
    export_diffusion_policy(ours.path, tmp_path / name)
    peer.run(python, "diffusion_policy_read.py", checkout, tmp_path / name, tmp_path / "found.npz", 6, 1, 3)
    found = peer.arrays(tmp_path / "found.npz")
    assert found["episode_ends"].tolist() == [5, 12, 21]
    streams = {name: ("images", name) for name in SPEC.cameras} | {name: ("state", name) for name in SPEC.state}
    for key, read in {**streams, "action": ("action",)}.items():
        want = joined(ours, *read)
        assert found[f"data/{key}"].dtype == want.dtype
        assert np.array_equal(found[f"data/{key}"], want), key
        for (start, stop, first, end), window in zip(found["indices"], found[f"window/{key}"], strict=True):
            rows = np.clip(np.arange(6) - first + start, start, stop - 1)
            assert end - first == stop - start
            assert np.array_equal(window, want[rows]), key


@pytest.mark.parametrize("name", NAMES)
def test_what_diffusion_policy_itself_wrote_is_read(tmp_path, name):
    checkout, python = peer.named("ROBOPOLICY_DIFFUSION_POLICY", "ROBOPOLICY_DIFFUSION_POLICY_PYTHON")
    peer.run(python, "diffusion_policy_write.py", checkout, tmp_path / name, tmp_path / "want.npz")
    want = peer.arrays(tmp_path / "want.npz")
    assert import_diffusion_policy(tmp_path / name, tmp_path / "d") == 3
    dataset = Dataset(tmp_path / "d")
    assert np.cumsum([e.length for e in dataset]).tolist() == want["episode_ends"].tolist()
    assert np.array_equal(joined(dataset, "images", "camera_1"), want["camera_1"])
    assert np.array_equal(joined(dataset, "state", "robot_eef_pose"), want["robot_eef_pose"])
    assert joined(dataset, "action").tobytes() == want["action"].tobytes()


def damaged(kind, path):
    """Damage an export in one of the ways in which files get damaged; return the message that is due."""
    if kind == "truncated chunk":
        file = path / "data/q/0.0"
        file.write_bytes(file.read_bytes()[:-9])
        return r"data/q/0\.0 is truncated: it has \d+ bytes"
    if kind == "missing chunk":
        (path / "data/front/0.0.0.0").unlink()
        return r"chunk data/front/0\.0\.0\.0 is missing, the store is incomplete"
    if kind == "no json":
        (path / "data/q/.zarray").write_text("{")
        return r"a \.zarray below data is no JSON"
    if kind == "no root":
        (path / ".zattrs").write_text("[")
        return r"no readable zarr v2 group"
    if kind == "ends":
        (path / "meta/episode_ends/0").write_bytes(np.array([5, 12, 20, 0], "<i8").tobytes())
        return r"data/action has shape \(21, 3\), but the episodes end at 20"
    if kind == "ends back":
        (path / "meta/episode_ends/0").write_bytes(np.array([5, 4, 21, 0], "<i8").tobytes())
        return r"meta/episode_ends must increase from above 0"
    if kind == "fewer episodes":
        described = json.loads((path / ".zattrs").read_text())
        described["robopolicy"]["episodes"].pop()
        (path / ".zattrs").write_text(json.dumps(described))
        return r"holds 3 episodes, but its robopolicy attributes describe 2"
    if kind == "newer":
        described = json.loads((path / ".zattrs").read_text())
        described["robopolicy"]["version"] = 9
        (path / ".zattrs").write_text(json.dumps(described))
        return r"robopolicy attributes have version 9; want 1"
    if kind == "length":
        described = json.loads((path / "data/q/.zarray").read_text())
        described["shape"][0] = 20
        (path / "data/q/.zarray").write_text(json.dumps(described))
        return r"data/q has shape \(20, 3\), but the episodes end at 21"
    assert kind == "width"
    described = json.loads((path / "data/q/.zarray").read_text())
    described["shape"][1] = described["chunks"][1] = 2
    (path / "data/q/.zarray").write_text(json.dumps(described))
    return r"data/q has shape \(21, 2\); its robopolicy attributes say"


@pytest.mark.parametrize(
    "kind",
    [
        "truncated chunk", "missing chunk", "no json", "no root", "ends", "ends back", "fewer episodes", "newer",
        "length", "width",
    ],
)  # fmt: skip
def test_a_damaged_buffer_is_one_clear_line_and_no_dataset(ours, tmp_path, kind):
    export_diffusion_policy(ours.path, tmp_path / "o.zarr")
    message = damaged(kind, tmp_path / "o.zarr")
    with pytest.raises(DatasetError, match=message) as caught:
        import_diffusion_policy(tmp_path / "o.zarr", tmp_path / "d")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "o.zarr") in str(caught.value)
    with pytest.raises(DatasetError, match=r"is not a robopolicy dataset|was interrupted"):
        Dataset(tmp_path / "d")


def test_a_truncated_zip_is_one_clear_line(ours, tmp_path):
    export_diffusion_policy(ours.path, tmp_path / "o.zip")
    data = (tmp_path / "o.zip").read_bytes()
    (tmp_path / "o.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=r"o\.zip is no zip, or a truncated one; expected diffusion_policy's"):
        import_diffusion_policy(tmp_path / "o.zip", tmp_path / "d")


def test_a_flipped_byte_in_a_zip_is_one_clear_line(ours, tmp_path):
    export_diffusion_policy(ours.path, tmp_path / "o.zip")
    with zipfile.ZipFile(tmp_path / "o.zip") as file:
        place = file.getinfo("data/action/0.0")
    data = bytearray((tmp_path / "o.zip").read_bytes())
    data[place.header_offset + 30 + len("data/action/0.0") + place.file_size // 2] ^= 0xFF
    (tmp_path / "o.zip").write_bytes(data)
    with pytest.raises(DatasetError, match=r"data/action, rows 0\.\.5: damaged"):
        import_diffusion_policy(tmp_path / "o.zip", tmp_path / "d")


def test_missing_chunks_are_zeros_only_if_told_so(ours, tmp_path):
    export_diffusion_policy(ours.path, tmp_path / "o.zarr")
    (tmp_path / "o.zarr/data/front/0.0.0.0").unlink()
    import_diffusion_policy(tmp_path / "o.zarr", tmp_path / "d", allow_missing=True)
    assert not joined(Dataset(tmp_path / "d"), "images", "front").any()


def test_the_rate_is_that_of_the_stamps(tmp_path):
    from test_data_import import make_store

    make_store(tmp_path / "s", timestamp=np.array([0, 0.04, 0.08, 5, 5.04, 5.081, 5.12]))
    import_diffusion_policy(tmp_path / "s", tmp_path / "d")
    assert Dataset(tmp_path / "d").spec.rate_hz == 25


def test_stamps_that_do_not_go_forward_are_refused(tmp_path):
    from test_data_import import make_store

    seconds = np.array([0, 0.1, 0.2, 0.3, 0.3, 0.5, 0.6])
    make_store(tmp_path / "s", timestamp=seconds)
    with pytest.raises(
        DatasetError, match=r"data/timestamp does not go forward at row 4: 0\.300000 s after 0\.300000 s"
    ):
        import_diffusion_policy(tmp_path / "s", tmp_path / "d")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_overwritten(ours, tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DatasetError, match="exists; export to a new place, or delete it first"):
        export_diffusion_policy(ours.path, tmp_path / name)
    assert (tmp_path / name).read_text() == "mine"


def test_an_export_to_nowhere_is_refused(ours, tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere is no folder; o\.zarr is to lie in it"):
        export_diffusion_policy(ours.path, tmp_path / "nowhere" / "o.zarr")


def test_episodes_that_are_not_there_are_refused(ours, tmp_path):
    with pytest.raises(UnknownName, match=r"no episode '3'; valid: 0 to 2"):
        export_diffusion_policy(ours.path, tmp_path / "o.zarr", episodes=[0, 3])
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_leaves_nothing(ours, tmp_path):
    damaged_path = tmp_path / "d.zarr"
    shutil.copytree(ours.path, damaged_path)
    shard = next((damaged_path / "episodes/000001/obs/cam/front").glob("c.*"))
    data = bytearray(shard.read_bytes())
    data[10] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match="episode 1"):
        export_diffusion_policy(damaged_path, tmp_path / "o.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.zarr"]


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_export_leaves_no_file_of_its_name(ours, tmp_path, name):
    done = subprocess.run([sys.executable, "-c", EXPORT, ours.path, tmp_path / name], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == [f"{name}.partial"]
    export_diffusion_policy(ours.path, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_command_line_both_ways(ours, tmp_path):
    done = robopolicy("data", "export", "diffusion-policy", ours.path, tmp_path / "o.zarr", "--episodes", "1:3")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'o.zarr'}: 2 episodes" in done.stdout
    done = robopolicy("data", "import", "diffusion-policy", tmp_path / "o.zarr", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    assert "Next: robopolicy data check" in done.stdout
    require_same(ours, Dataset(tmp_path / "back"), positions=(1, 2))
    done = robopolicy("data", "export", "diffusion-policy", ours.path, tmp_path / "o.zarr")
    assert done.returncode == 1
    line = f"robopolicy: {tmp_path / 'o.zarr'} exists; export to a new place, or delete it first"
    assert done.stderr.splitlines()[-1] == line


def test_an_address_is_no_source(tmp_path):
    done = robopolicy("data", "import", "lerobot", "https://127.0.0.1:9/d", tmp_path / "d")
    assert done.returncode != 0
    assert "https://127.0.0.1:9/d is an address; an import reads files" in done.stderr


def test_a_zip_of_our_own_on_the_command_line(ours, tmp_path):
    done = robopolicy("data", "export", "zip", ours.path, tmp_path / "o.zip", "--episodes", "0,2")
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'o.zip'}: 2 episodes" in done.stdout
    require_same(ours, Dataset(tmp_path / "o.zip"), positions=(0, 2))
    assert [episode.number for episode in Dataset(tmp_path / "o.zip")] == [0, 2]
    again = robopolicy("data", "export", "zip", tmp_path / "o.zip", tmp_path / "p.zip")
    assert again.returncode == 1
    assert "o.zip is no folder of this machine" in again.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.zip"]


@pytest.mark.parametrize("name", ["o.zarr", "o.zarr.zip"])
def test_a_zip_can_be_exported(ours, tmp_path, name):
    export_zip(ours.path, tmp_path / "ours.zip")
    export_diffusion_policy(tmp_path / "ours.zip", tmp_path / name)
    import_diffusion_policy(tmp_path / name, tmp_path / "back.zarr")
    require_same(ours, Dataset(tmp_path / "back.zarr"))


def test_every_row_of_the_table_names_functions_that_take_its_options():
    import inspect
    from importlib import import_module

    for name, form in FORMATS.items():
        for where, options, first in (
            (form.importer, form.import_options, "source"),
            (form.exporter, form.export_options, "dataset_path"),
        ):
            if where is None:
                continue
            module, _, function = where.partition(":")
            taken = inspect.signature(getattr(import_module(module), function)).parameters
            asked = {v.get("dest", k.lstrip("-").replace("-", "_")) for k, v in options.items()}
            asked |= {"destination", "progress"} | ({"episodes"} if first == "dataset_path" else set())
            assert asked <= set(taken), (name, where, asked - set(taken))
    assert build_parser().parse_args(["data", "import", "diffusion-policy", "a", "b"]).rate_hz is None


@pytest.mark.parametrize(("text", "want"), [("3", [3]), ("0:3,7", [0, 1, 2, 7])])
def test_positions(text, want):
    assert numbers(text) == want


@pytest.mark.parametrize("text", ["", "a", "3:3", "-1", "1,,2"])
def test_positions_that_make_no_sense(tmp_path, text):
    done = robopolicy("data", "export", "diffusion-policy", tmp_path, tmp_path / "o", f"--episodes={text}")
    assert done.returncode == 2
    assert "want numbers" in done.stderr


def test_a_full_disk_while_exporting_leaves_nothing(ours, tmp_path):
    """A limit on file sizes stands for the disk's end."""
    code = (
        "import resource, signal, sys\n"
        "from robopolicy.cli.main import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    for form, name in (("diffusion-policy", "o.zarr"), ("diffusion-policy", "o.zarr.zip"), ("robomimic", "o.hdf5")):
        words = [sys.executable, "-c", code, "data", "export", form, ours.path, tmp_path / name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1, done.stdout
        line = done.stderr.splitlines()[-1]
        assert line.startswith("robopolicy: "), form
        assert f"cannot write {tmp_path / name}; nothing of it is left" in line, form
        assert list(tmp_path.iterdir()) == [], form
