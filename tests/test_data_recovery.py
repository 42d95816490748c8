"""Recordings that died before their commit become episodes; datasets of format 1 stay readable."""

import json
import shutil
import struct
import sys
from dataclasses import replace
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, record, require_intact

from robopolicy.errors import DatasetBusy, DatasetError
from robopolicy.spec import CameraSpec
from robopolicy_data.check import check
from robopolicy_data.frames import JpegFrames
from robopolicy_data.reader import Dataset
from robopolicy_data.recovery import recover
from robopolicy_data.rows import row_dtype
from robopolicy_data.writer import DatasetWriter

SHARD = "episode/obs/cam/{}/c.0.0.0.0"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "d"


def interrupt(path, steps, spec=SPEC, **options):
    """Record steps and go away without an end; return the folder that is left."""
    options = {"lossless": True, **options}
    with DatasetWriter(path, spec, **options) as writer:
        episode = writer.begin(replace(META, seed=3, notes="by hand."))
        for step in steps:
            episode.add(step)
    (left,) = (path / ".wip").glob("*")
    return left


def only_warnings(path):
    return [str(p) for p in check(path) if p.severity == "error"] == []


@pytest.mark.parametrize("steps", [1, 6, 1300])
def test_nothing_that_was_whole_is_lost(path, steps):
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        record(writer, 1)
    interrupt(path, make_steps(3, steps))
    with DatasetWriter(path, SPEC, lossless=True, recover=True) as writer:
        (one,) = writer.interrupted
        assert (one.number, one.steps, one.task, one.folder.name) == (1, steps, "lift", "000001")
        assert record(writer, 2) == 2
    first, recovered, last = Dataset(path)
    assert recovered.length == steps
    require_intact(recovered, seed=3)
    for whole in (first, last):
        require_intact(whole)
    assert recovered.meta.success is False
    assert recovered.meta.notes == f"by hand. recovered {steps} of {steps} journaled steps of an interrupted recording"
    assert recovered.attributes["recovered"]["steps"] == steps
    assert only_warnings(path)
    assert not (path / ".wip").exists()
    assert not (path / ".trash").exists()


def test_what_the_monitor_said_is_recovered_score_by_score(path):
    left = interrupt(path, [*make_steps(3, 3), *make_steps(3, 6, verdict=True)[3:]])
    assert json.loads((left / "scores.json").read_bytes()) == ["a"]
    with DatasetWriter(path, SPEC, lossless=True, recover=True):
        pass
    (read,) = Dataset(path)
    np.testing.assert_array_equal(read.scores()["a"], [np.nan] * 3 + [1.0] * 3)
    np.testing.assert_array_equal(read.verdicts()["latency_s"], [np.nan] * 3 + [0.0] * 3)
    assert only_warnings(path)


def test_a_journal_without_latency_and_scores_is_recovered(path):
    left = interrupt(path, make_steps(3, 6, verdict=True))
    head, _, records = (left / "journal").read_bytes().partition(b"\n")
    header = json.loads(head)
    assert header.pop("records") == 2
    dtype = row_dtype(SPEC)
    new = np.frombuffer(records, dtype)
    old = np.zeros(len(new), [(n, dtype[n]) for n in dtype.names if not n.endswith(("latency_s", "/scores"))])
    for name in old.dtype.names:
        old[name] = new[name]
    rows = b"".join(row.tobytes()[:-4] + crc(row.tobytes()[:-4]) for row in old)
    (left / "journal").write_bytes(json.dumps(header).encode() + b"\n" + rows)
    (left / "scores.json").unlink()
    with DatasetWriter(path, SPEC, lossless=True, recover=True) as writer:
        assert writer.interrupted[0].steps == 6
    (read,) = Dataset(path)
    np.testing.assert_array_equal(read.verdicts()["statistic"], 0.5 + np.arange(6))
    assert np.isnan(read.verdicts()["latency_s"]).all()
    assert read.scores() == {}
    assert only_warnings(path)


def test_what_was_put_aside_is_recovered_later(path):
    interrupt(path, make_steps(3, 8))
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        assert writer.interrupted[0].number is None
    (path / ".trash/episode-000007").mkdir()  # a deleted episode is nobody's leftover
    (one,) = recover(path)
    assert (one.number, one.steps) == (8, 8), "the number of a deleted episode is not used again"
    require_intact(Dataset(path)[0], seed=3)
    assert recover(path) == []
    assert [p.name for p in (path / ".trash").iterdir()] == ["episode-000007"]


@pytest.mark.parametrize(
    ("damage", "kept", "said"),
    [
        ("torn frame", 19, "the next frame of camera 'wrist' is not whole"),
        ("garbled frame", 12, "the next frame of camera 'front' is not whole"),
        ("zeros", 15, "the next frame of camera 'wrist' is not whole"),
        ("torn journal", 19, "recovered 19 of 19"),
        ("garbled journal", 12, "recovered 12 of 12"),
    ],
)
def test_recovery_ends_where_the_bytes_are_not_whole(path, damage, kept, said):
    left = interrupt(path, make_steps(3, 20))
    shard, journal = left / SHARD.format("wrist"), left / "journal"
    if damage == "torn frame":
        shard.write_bytes(shard.read_bytes()[:-5])
    if damage == "garbled frame":
        flip(left / SHARD.format("front"), place_of(left, 12, "front") + 7)
    if damage == "zeros":  # the length reached the disk, the bytes did not
        data, at = shard.read_bytes(), place_of(left, 15, "wrist")
        shard.write_bytes(data[:at] + bytes(len(data) - at))
    if damage == "torn journal":
        journal.write_bytes(journal.read_bytes()[:-3])
    if damage == "garbled journal":
        head, _, records = journal.read_bytes().partition(b"\n")
        flip(journal, len(head) + 1 + len(records) // 20 * 12 + 5)
    with DatasetWriter(path, SPEC, recover=True) as writer:
        assert writer.interrupted[0].steps == kept
        assert said in writer.interrupted[0].reason
    (episode,) = Dataset(path)
    assert episode.length == kept
    require_intact(episode, seed=3)
    assert only_warnings(path)


def flip(file, offset):
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


def place_of(left, step, camera):
    from robopolicy_data.journal import read_journal

    return int(read_journal(left / "journal").rows[f"obs/cam/{camera}"][step][0])


@pytest.mark.parametrize("damage", ["header", "no steps", "no shard", "other spec"])
def test_what_cannot_be_recovered_is_put_aside_and_says_why(path, damage):
    left = interrupt(path, make_steps(3, 0 if damage == "no steps" else 5))
    if damage == "header":
        flip(left / "journal", 0)
    if damage == "no shard":
        (left / SHARD.format("front")).unlink()
    if damage == "other spec":
        journal = left / "journal"
        journal.write_bytes(journal.read_bytes().replace(b'"rate_hz": 20.0, "n_obs"', b'"rate_hz": 30.0, "n_obs"'))
    with DatasetWriter(path, SPEC, recover=True) as writer:
        (one,) = writer.interrupted
    why = {"header": "not a journal", "other spec": "another spec"}.get(damage, "has whole frames")
    assert one.number is None
    assert why in one.reason
    assert one.folder == path / ".trash" / left.name
    assert (one.folder / "journal").exists(), "nothing is deleted"
    assert len(Dataset(path)) == 0


def test_a_recovery_killed_half_way_is_done_again(path, monkeypatch):
    left = interrupt(path, make_steps(3, 700))
    original = {f: f.read_bytes() for f in left.rglob("*") if f.is_file()}

    class Killed(BaseException):
        pass

    for moment in ("robopolicy_data.leftovers.seal", "robopolicy_data.leftovers.sync_tree"):

        def kill(*args):
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(moment, kill)
            with pytest.raises(Killed):
                DatasetWriter(path, SPEC, recover=True)
        assert (left / "journal").read_bytes() == original[left / "journal"]
    with DatasetWriter(path, SPEC, recover=True) as writer:
        assert writer.interrupted[0].steps == 700
    require_intact(Dataset(path)[0], seed=3)


def test_jpeg_depth_and_slow_cameras_are_recovered(path):
    spec = replace(SPEC, cameras={**SPEC.cameras, "range": CameraSpec(20, 30, "depth")})
    steps, sent, depth = [], [], np.arange(600, dtype=np.uint16).reshape(20, 30)
    for k, step in enumerate(make_steps(3, 9)):
        seen = step.observation
        sent.append(JpegFrames(50).encode(seen.images["front"]))
        stamps = {**seen.image_stamps_ns, "range": 10**9 + k // 3}
        images = {"wrist": seen.images["wrist"], "range": depth + k // 3}
        changed = replace(seen, images=images, image_stamps_ns=stamps, encoded={"front": sent[-1]})
        steps.append(replace(step, observation=changed))
    interrupt(path, steps, spec)
    (one,) = recover(path)
    (episode,) = Dataset(path)
    assert one.steps == episode.length == 9
    assert list(episode.frame_bytes("front")) == sent
    assert episode.frame_rows("range").tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert np.array_equal(episode.images("range")[:, 0, 0], np.arange(9) // 3)
    assert np.array_equal(episode.images("wrist"), np.stack([s.observation.images["wrist"] for s in steps]))


def test_recover_wants_a_dataset_that_nobody_writes(path):
    with pytest.raises(DatasetError, match="not a robopolicy dataset"):
        recover(path)
    with DatasetWriter(path, SPEC), pytest.raises(DatasetBusy):
        recover(path)


def crc(data):
    return struct.pack("<I", google_crc32c.value(data))


def write_format_1(path, steps):
    """Write a dataset of format 1.0 by hand, one lossless episode, from its documentation alone."""
    spec = {
        "cameras": {"front": {"height": 24, "width": 32}, "wrist": {"height": 16, "width": 16}},
        "state": {"q": {"dim": 3, "units": ["rad"]}, "gripper": {"dim": 1, "units": ["open"]}},
        "action": {"kind": "vector", "names": ["x", "y"], "units": ["m"]},
        "rate_hz": 20.0, "n_obs": 1, "horizon": 1, "n_execute": 1,
    }  # fmt: skip
    root = {"format": "robopolicy-dataset", "version": "1.0", "spec": spec, "created": "2025", "software": "by hand"}
    episode = path / "episodes/000000"
    meta = {"task": "lift", "robot": "mock", "seed": 3, "operator": "", "embodiment": "robot", "success": True}
    own = {"length": len(steps), "uuid": "0", "recorded": "2025", **meta, "rate_hz": 20.0, "software": "", "notes": ""}
    group = {"zarr_format": 3, "node_type": "group"}
    for folder, attributes in ((path, root), (path / "episodes", None), (episode, {**own, "cameras": {}, "extra": {}})):
        folder.mkdir(parents=True, exist_ok=True)
        whole = {**group, "attributes": {} if attributes is None else {"robopolicy": attributes}}
        (folder / "zarr.json").write_text(json.dumps(whole))
    for folder in ("obs", "obs/cam", "obs/state", "action", "time"):
        (episode / folder).mkdir(exist_ok=True)
        (episode / folder / "zarr.json").write_text(json.dumps({**group, "attributes": {}}))
    seen = [step.observation for step in steps]
    numbers = {
        "obs/state/q": np.stack([s.state["q"] for s in seen]),
        "obs/state/gripper": np.stack([s.state["gripper"] for s in seen]),
        "action/command": np.stack([step.sent for step in steps]),
        "action/source": np.arange(len(steps), dtype=np.uint8) % 3,
        "time/step": np.array([s.stamp_ns for s in seen]),
        "time/action": np.array([step.due_ns for step in steps]),
        **{f"time/{c}": np.array([s.image_stamps_ns[c] for s in seen]) for c in ("front", "wrist")},
    }
    little, check_sum = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    array = {
        "zarr_format": 3, "node_type": "array", "fill_value": 0, "attributes": {},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
    }  # fmt: skip

    def put(name, shape, dtype, codecs, data):
        folder = episode / name
        folder.mkdir()
        grid = {"name": "regular", "configuration": {"chunk_shape": shape}}
        described = {**array, "shape": shape, "data_type": dtype, "chunk_grid": grid, "codecs": codecs}
        (folder / "zarr.json").write_text(json.dumps(described))
        (folder / ".".join(["c", *"0" * len(shape)])).write_bytes(data + crc(data))

    for name, values in numbers.items():
        first = {"name": "bytes"} if values.dtype.itemsize == 1 else little
        put(name, list(values.shape), values.dtype.name, [first, check_sum], values.tobytes())
    from numcodecs.zstd import Zstd

    for camera in ("front", "wrist"):
        data, index = b"", []
        for s in seen:
            frame = Zstd(3).encode(s.images[camera])
            index += [len(data), len(frame) + 4]
            data += frame + crc(frame)
        shape = [len(steps), *seen[0].images[camera].shape]
        zstd = {"name": "zstd", "configuration": {"level": 3, "checksum": False}}
        sharding = {
            "chunk_shape": [1, *shape[1:]], "codecs": [{"name": "bytes"}, zstd, check_sum],
            "index_codecs": [little, check_sum], "index_location": "end",
        }  # fmt: skip
        put(f"obs/cam/{camera}", shape, "uint8", [{"name": "sharding_indexed", "configuration": sharding}], b"")
        footer = struct.pack(f"<{len(index)}Q", *index)
        (episode / f"obs/cam/{camera}/c.0.0.0.0").write_bytes(data + footer + crc(footer))


def test_format_1_is_read_and_appended_to(path):
    write_format_1(path, make_steps(3, 20))
    (old,) = Dataset(path)
    require_intact(old, seed=3)
    assert old.frame_count("wrist") == 20
    assert old.frame_rows("wrist").tolist() == list(range(20))
    assert np.array_equal(old.frame_stamps_ns("wrist"), old.stamps_ns("wrist"))
    assert check(path) == []
    before = {f: f.read_bytes() for f in (path / "episodes/000000").rglob("*") if f.is_file()}
    with DatasetWriter(path, SPEC, lossless=True) as writer:
        record(writer, 4)
        assert writer.adopt(path / "episodes/000000") == 2
    assert {f: f.read_bytes() for f in before} == before
    dataset = Dataset(path)
    assert dataset.attrs["version"] == "2.0"
    assert dataset.attrs["created"] == "2025"
    require_intact(dataset[1])
    for same in (dataset[0], dataset[2]):
        require_intact(same, seed=3)
    assert check(path) == []


def test_an_interrupted_recording_of_format_1_is_recovered(path):
    steps = make_steps(3, 12)
    write_format_1(path, steps)
    left = path / ".wip/one"
    shutil.copytree(path / "episodes/000000/obs/cam", left / "episode/obs/cam")
    for name in left.rglob("zarr.json"):
        name.unlink()
    places = {}
    for camera in ("front", "wrist"):
        data = (left / SHARD.format(camera)).read_bytes()
        places[camera] = np.frombuffer(data[-4 - 16 * 12 : -4], "<u8").reshape(12, 2)
    root = json.loads((path / "zarr.json").read_text())["attributes"]["robopolicy"]
    own = {"length": 0, "uuid": "one", "recorded": "2025", "task": "lift", "robot": "mock", "notes": ""}
    journal = json.dumps({"robopolicy": own, "spec": root["spec"]}).encode() + b"\n"
    for k, step in enumerate(steps):
        s = step.observation
        row = s.state["q"].tobytes() + s.state["gripper"].tobytes() + step.sent.tobytes() + bytes([k % 3])
        row += struct.pack("<qqqq", s.stamp_ns, step.due_ns, s.image_stamps_ns["front"], s.image_stamps_ns["wrist"])
        row += struct.pack("<dddB", np.nan, np.nan, np.nan, 0)
        row += places["front"][k].tobytes() + places["wrist"][k].tobytes()
        journal += row + crc(row)
    (left / "journal").write_bytes(journal)
    shutil.rmtree(path / "episodes/000000")
    (one,) = recover(path)
    assert (one.steps, one.number) == (12, 0)
    require_intact(Dataset(path)[0], seed=3)
    assert only_warnings(path)
