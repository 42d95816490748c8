import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, record

from robopolicy.errors import ContractError, DatasetError, NewerFormat, UnknownCamera, UnknownName
from robopolicy.types import Verdict
from robopolicy_data.check import check
from robopolicy_data.layout import MONITOR, MONITOR_STATES, streams
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


@pytest.fixture(params=[False, True], ids=["jpeg", "lossless"])
def path(tmp_path, request):
    with DatasetWriter(tmp_path / "d", SPEC, lossless=request.param) as writer:
        for seed in range(3):
            record(writer, seed)
    return tmp_path / "d"


def content(path):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(path.rglob("*")) if p.is_file()}


def edit_root(path, **changes):
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["robopolicy"] |= changes
    (path / "zarr.json").write_text(json.dumps(root))


def test_stock_zarr_reads_the_same(path):
    import zarr

    import robopolicy_data.zarr_codec  # noqa: F401  registers the JPEG codec

    group = zarr.open_group(str(path), mode="r")
    for episode in Dataset(path):
        stock = group[f"episodes/{episode.number:06d}"]
        assert stock.attrs["robopolicy"]["length"] == episode.length
        for camera in SPEC.cameras:
            images = episode.images(camera)
            assert np.array_equal(stock[f"obs/cam/{camera}"][:], images)
            assert np.array_equal(stock[f"obs/cam/{camera}"][2], images[2])
            assert np.array_equal(stock[f"time/{camera}"][:], episode.frame_stamps_ns(camera))
        for name in SPEC.state:
            assert np.array_equal(stock[f"obs/state/{name}"][:], episode.state(name))
        assert np.array_equal(stock["action/command"][:], episode.action())
        assert np.array_equal(stock["action/source"][:], episode.sources())
        assert np.array_equal(stock["time/step"][:], episode.stamps_ns("step"))
        assert {name for name, _ in stock.groups()} == {"obs", "action", "time", "align"}


def test_the_jpeg_codec_writes_what_it_reads(tmp_path):
    import zarr

    from robopolicy_data.zarr_codec import JpegCodec

    images = np.stack([step.observation.images["front"] for step in make_steps(1, 3)])
    array = zarr.create_array(
        tmp_path / "a", shape=images.shape, chunks=(1, *images.shape[1:]), dtype="u1",
        serializer=JpegCodec(level=95), compressors=None, filters=None,
    )  # fmt: skip
    array[:] = images
    assert np.abs(array[:].astype(int) - images).mean() < 12


def test_verdicts_are_there_when_somebody_judged(tmp_path):
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        episode = writer.begin(META)
        for step in (*make_steps(1, 2), *make_steps(1, 4, verdict=True)[2:]):
            episode.add(step)
        episode.commit()
        record(writer, 2)
    judged, unjudged = Dataset(tmp_path / "d")
    verdicts = judged.verdicts()
    assert verdicts["state"].tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(verdicts["statistic"], [np.nan, np.nan, 2.5, 3.5])
    np.testing.assert_array_equal(verdicts["threshold"][2:], [9, 9])
    assert unjudged.verdicts() is None


def judged(step, scores, *, state="nominal", latency_s=0.001):
    verdict = Verdict(step.observation.stamp_ns, scores, 0.5, 0.7, 0.2, state, latency_s)
    return replace(step, verdict=verdict)


def test_every_score_and_latency_is_in_a_zarr_store_beside_the_step_it_was_of(tmp_path):
    import zarr

    steps = make_steps(1, 700)  # more than are cut at a time
    first = {600: {"rnd": 1.5, "ace": 3.0}, 608: {"ace": np.nan, "rnd": 2.5}, 616: {"ace": 4.0}, 624: {}}
    for k, scores in first.items():
        steps[k] = judged(steps[k], scores, state="overrun" if k == 624 else "warn", latency_s=k / 1e6)
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        episode = writer.begin(META)
        for step in steps:
            episode.add(step)
        episode.commit()
    (read,) = Dataset(tmp_path / "d")
    stored = zarr.open_group(tmp_path / "d", mode="r")[f"episodes/000000/{MONITOR}"]
    assert stored["scores"].attrs["names"] == ["rnd", "ace"]
    np.testing.assert_array_equal(stored["scores"][:], np.stack([*read.scores().values()], axis=1))
    for name, values in read.scores().items():
        wanted = np.full(700, np.nan)
        for k, scores in first.items():
            wanted[k] = scores.get(name, np.nan)
        np.testing.assert_array_equal(values, wanted)
    verdicts = read.verdicts()
    np.testing.assert_array_equal(verdicts["latency_s"][[599, 600, 624]], [np.nan, 600e-6, 624e-6])
    np.testing.assert_array_equal(stored["latency_s"][:], verdicts["latency_s"])
    assert [MONITOR_STATES[k] for k in verdicts["state"][[599, 600, 624]]] == ["none", "warn", "overrun"]
    assert check(tmp_path / "d") == []
    shutil.rmtree(tmp_path / f"d/episodes/000000/{MONITOR}/latency_s")  # as an earlier version left it
    shutil.rmtree(tmp_path / f"d/episodes/000000/{MONITOR}/scores")
    (old,) = Dataset(tmp_path / "d")
    assert set(old.verdicts()) == {"statistic", "threshold", "p_value", "state"}
    assert old.scores() == {}
    assert check(tmp_path / "d") == []


def test_the_names_of_scores_are_fixed_by_the_first_verdict_that_has_some(tmp_path):
    steps = make_steps(1, 4)
    with DatasetWriter(tmp_path / "d", SPEC) as writer:
        episode = writer.begin(META)
        episode.add(judged(steps[0], {}))
        episode.add(judged(steps[1], {"a": 1.0}))
        with pytest.raises(ContractError, match="score 'b' is not among those of this episode: a"):
            episode.add(judged(steps[2], {"b": 1.0}))
        episode.add(judged(steps[2], {"a": 3.0}))
        episode.commit()
        other = writer.begin(META)
        with pytest.raises(ContractError, match="has 17 scores; at most 16"):
            other.add(judged(steps[0], {f"s{k}": 1.0 for k in range(17)}))
        other.add(judged(steps[0], {"b": 1.0}))
        other.commit()
    one, two = Dataset(tmp_path / "d")
    np.testing.assert_array_equal(one.scores()["a"], [np.nan, 1.0, 3.0])
    assert list(two.scores()) == ["b"]


def test_rows_of_images(path):
    episode = Dataset(path)[2]
    whole = episode.images("front")
    assert np.array_equal(episode.images("front", [3, 0, 3]), whole[[3, 0, 3]])
    assert np.array_equal(episode.images("front", slice(-2, None)), whole[-2:])
    assert np.array_equal(episode.images("front", 1), whole[1:2])
    assert episode.images("front", []).shape == (0, 24, 32, 3)
    with pytest.raises(IndexError):
        episode.images("front", [episode.length])


def test_unknown_names_list_the_valid_ones(path):
    episode = Dataset(path)[0]
    with pytest.raises(UnknownCamera, match="no camera 'wrist2'; valid: front, wrist"):
        episode.images("wrist2")
    with pytest.raises(UnknownName, match="valid: gripper, q"):
        episode.state("dq")
    with pytest.raises(UnknownName, match="valid: action, front, step, wrist"):
        episode.stamps_ns("lidar")


def test_a_reader_never_writes(path):
    before = content(path)
    dataset = Dataset(path)
    for episode in dataset:
        for array in (episode.action(), episode.state("q"), episode.images("front"), episode.stamps_ns("step")):
            truth = array.copy()
            array[...] = 0  # the caller's own copy
            assert not np.array_equal(truth, array)
        assert not np.array_equal(episode.action(), np.zeros_like(episode.action()))
    dataset.attrs["spec"].clear()
    with pytest.raises(TypeError):
        dataset[0] = dataset[1]
    assert dataset.attrs["spec"]
    assert content(path) == before


def test_a_reader_is_a_snapshot_and_a_sequence(path):
    dataset = Dataset(path)
    with DatasetWriter(path, SPEC) as writer:
        assert record(writer, 9) == 3
        assert len(dataset) == 3
        assert [e.number for e in Dataset(path)[1:]] == [1, 2, 3]
    assert dataset[-1].number == 2
    with pytest.raises(IndexError):
        dataset[3]


def test_opening_needs_no_zarr(path):
    code = (
        "import sys; from robopolicy_data.reader import Dataset\n"
        f"d = Dataset({str(path)!r}); d[0].action(); d[0].images('front')\n"
        "assert not {'zarr', 'torch', 'mujoco', 'cv2'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("what", ["nothing", "empty folder", "file", "zarr of others", "zarr v2", "not json"])
def test_what_is_not_a_dataset_is_said_so(tmp_path, what):
    path = tmp_path / "x"
    if what == "file":
        path.write_text("hello")
    elif what != "nothing":
        path.mkdir()
    if what == "zarr of others":
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    if what == "not json":
        (path / "zarr.json").write_text("{")
    if what == "zarr v2":
        (path / ".zgroup").write_text('{"zarr_format": 2}')
    match = {
        "nothing": "it does not exist", "zarr v2": "import diffusion-policy", "not json": "is not JSON",
        "file": "no whole zip file",
    }  # fmt: skip
    with pytest.raises(DatasetError, match=match.get(what, "expected a folder with a zarr.json")):
        Dataset(path)


def test_versions(path):
    edit_root(path, version="2.7", colour_of_the_sky="blue")
    assert len(Dataset(path)) == 3, "a later minor version is read, unknown keys ignored"
    edit_root(path, version="3.0")
    with pytest.raises(NewerFormat, match=r"has format 3\.0, robopolicy .* reads up to 2\.0"):
        Dataset(path)
    edit_root(path, version="new")
    with pytest.raises(DatasetError, match=r"want major\.minor"):
        Dataset(path)


def flip(file, offset):
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


def test_every_flipped_bit_in_a_picture_is_found_and_named(path):
    shard = path / "episodes/000001/obs/cam/front/c.0.0.0.0"
    sizes = Dataset(path)[1].frame_sizes("front")
    original = shard.read_bytes()
    for offset in range(0, int(sizes.sum()), 37):
        flip(shard, offset)
        frame = int(np.searchsorted(np.cumsum(sizes), offset, side="right"))
        episode = Dataset(path)[1]
        with pytest.raises(DatasetError, match=f"episode 1, obs/cam/front, frame {frame}: .*damaged"):
            episode.images("front")
        assert len(episode.images("front", [j for j in range(episode.length) if j != frame])) == episode.length - 1
        shard.write_bytes(original)


def test_a_damaged_index_and_a_short_shard_are_found(path):
    shard = path / "episodes/000001/obs/cam/front/c.0.0.0.0"
    flip(shard, -9)
    with pytest.raises(DatasetError, match=r"episode 1, obs/cam/front: .*index"):
        Dataset(path)[1].images("front", [0])
    shard.write_bytes(shard.read_bytes()[:20])
    with pytest.raises(DatasetError, match="too short"):
        Dataset(path)[1].images("front", [0])
    shard.unlink()
    with pytest.raises(DatasetError, match="missing"):
        Dataset(path)[1].images("front", [0])


@pytest.mark.parametrize("stream", streams(SPEC), ids=lambda stream: stream.path)
def test_damaged_numbers_are_found_and_named(tmp_path, stream):
    with DatasetWriter(tmp_path, SPEC) as writer:
        record(writer, 1)
    file = tmp_path / "episodes/000000" / stream.path / stream.chunk
    flip(file, 3)
    with pytest.raises(DatasetError, match=f"episode 0, {stream.path}: {stream.chunk} is damaged"):
        Dataset(tmp_path)[0]._read(stream.path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="bytes, which is not"):
        Dataset(tmp_path)[0]._read(stream.path)
    file.unlink()
    with pytest.raises(DatasetError, match="is missing"):
        Dataset(tmp_path)[0]._read(stream.path)


def test_an_array_of_another_shape_is_refused(path):
    file = path / "episodes/000000/action/command/zarr.json"
    file.write_text(file.read_text().replace('"float32"', '"float64"'))
    with pytest.raises(DatasetError, match=r"episode 0, action/command: zarr\.json: data_type is float64"):
        Dataset(path)[0].action()
