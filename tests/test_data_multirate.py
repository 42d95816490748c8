import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, record, require_intact

from robopolicy.errors import ContractError, DatasetError, SpecMismatch, UnknownCamera
from robopolicy.spec import CameraSpec
from robopolicy_data.check import check
from robopolicy_data.derived import write_derived
from robopolicy_data.frames import JpegFrames
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_data.writer import DatasetWriter

DEPTH = replace(SPEC, cameras={**SPEC.cameras, "range": CameraSpec(20, 30, "depth")})


def held(steps, camera, every):
    """Let a camera deliver a new frame at every so many steps only; the pictures in between are rubbish."""
    changed, last = [], None
    for k, step in enumerate(steps):
        seen = step.observation
        if k % every == 0:
            last = seen.image_stamps_ns[camera]
            changed.append(step)
            continue
        images = {**seen.images, camera: np.zeros_like(seen.images[camera])}
        stamps = {**seen.image_stamps_ns, camera: last}
        changed.append(replace(step, observation=replace(seen, images=images, image_stamps_ns=stamps)))
    return changed


def written(path, steps, spec=SPEC, **options):
    with DatasetWriter(path, spec, **options) as writer:
        episode = writer.begin(META)
        for step in steps:
            episode.add(step)
        episode.commit()
    return Dataset(path)[-1]


def with_depth(steps):
    rng = np.random.default_rng(5)
    for step in steps:
        seen, depth = step.observation, rng.integers(0, 65536, (20, 30), np.uint16)
        stamps = {**seen.image_stamps_ns, "range": seen.stamp_ns}
        yield replace(step, observation=replace(seen, images={**seen.images, "range": depth}, image_stamps_ns=stamps))


def test_a_slow_camera_is_stored_once_a_frame(tmp_path):
    steps = make_steps(3, 11)
    episode = written(tmp_path, held(steps, "wrist", 3), lossless=True)
    assert (episode.length, episode.frame_count("wrist"), episode.frame_count("front")) == (11, 4, 11)
    assert episode.frame_rows("wrist").tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert episode.frame_rows("wrist").dtype == np.int32
    truth = np.stack([s.observation.images["wrist"] for s in steps[::3]])
    stamps = np.array([s.observation.image_stamps_ns["wrist"] for s in steps[::3]])
    assert np.array_equal(episode.frames("wrist"), truth)
    assert np.array_equal(episode.frames("wrist", [2, 2, 0]), truth[[2, 2, 0]])
    assert np.array_equal(episode.images("wrist"), truth[np.arange(11) // 3])
    assert np.array_equal(episode.images("wrist", [10, 4, 5]), truth[[3, 1, 1]])
    assert np.array_equal(episode.frame_stamps_ns("wrist"), stamps)
    assert np.array_equal(episode.stamps_ns("wrist"), stamps[np.arange(11) // 3])
    assert len(list(episode.frame_bytes("wrist", [1, 2]))) == 2
    assert len(episode.frame_sizes("wrist")) == 4


def test_depth_is_bit_for_bit_also_in_stock_zarr(tmp_path):
    import zarr

    steps = list(with_depth(make_steps(4, 9)))
    episode = written(tmp_path, steps, DEPTH)
    truth = np.stack([s.observation.images["range"] for s in steps])
    assert truth.dtype == episode.images("range").dtype == np.uint16
    assert np.array_equal(episode.images("range"), truth)
    stock = zarr.open_group(str(tmp_path), mode="r")["episodes/000000/obs/depth/range"]
    assert np.array_equal(stock[:], truth)
    assert stock.attrs["units"] == ["mm"]
    assert [p for p in check(tmp_path) if p.severity == "error"] == []


@pytest.mark.parametrize("lossless", [False, True])
def test_jpeg_of_the_camera_is_stored_untouched(tmp_path, lossless):
    steps, sent = [], []
    for step in make_steps(4, 6):
        seen = step.observation
        sent.append(JpegFrames(37).encode(seen.images["front"]))
        images = {"wrist": seen.images["wrist"]}  # nobody had to decode it
        steps.append(replace(step, observation=replace(seen, images=images, encoded={"front": sent[-1]})))
    episode = written(tmp_path, steps, lossless=lossless)
    assert list(episode.frame_bytes("front")) == sent
    truth = np.empty((24, 32, 3), np.uint8)
    JpegFrames().decode(sent[3], truth)
    assert np.array_equal(episode.images("front", 3)[0], truth)


def test_a_torn_jpeg_of_the_camera_costs_its_end_only(tmp_path):
    """A USB camera sends such a frame now and then; neither the recording nor a training may end of it."""
    steps, k = make_steps(4, 6), 3
    whole = [JpegFrames(90).encode(step.observation.images["front"]) for step in steps]
    sent = [data[:-60] if i == k else data for i, data in enumerate(whole)]
    for i, step in enumerate(steps):
        images = {"wrist": step.observation.images["wrist"]}
        steps[i] = replace(step, observation=replace(step.observation, images=images, encoded={"front": sent[i]}))
    episode = written(tmp_path, steps)
    assert list(episode.frame_bytes("front")) == sent
    truth = np.empty((24, 32, 3), np.uint8)
    JpegFrames().decode(whole[k], truth)
    assert np.array_equal(episode.images("front", k)[0, :8], truth[:8])
    found = [str(p) for p in check(tmp_path) if "torn" in p.message]
    assert len(found) == 1
    assert "1 of 6 frames are torn, as the camera sent them, the first at frame 3" in found[0]


def test_stamps_that_go_back_are_refused_and_cost_one_step(tmp_path):
    steps = make_steps(3, 6)
    seen = steps[4].observation
    old = replace(steps[4], observation=replace(seen, image_stamps_ns={**seen.image_stamps_ns, "wrist": 1}))
    late = replace(steps[4], observation=replace(seen, stamp_ns=1))
    with DatasetWriter(tmp_path, SPEC, lossless=True) as writer:
        episode = writer.begin(META)
        for step in steps[:4]:
            episode.add(step)
        with pytest.raises(ContractError, match="camera 'wrist' goes back in time: 1 ns after"):
            episode.add(old)
        with pytest.raises(ContractError, match="time/step goes back in time: 1 ns after"):
            episode.add(late)
        with pytest.raises(ContractError, match="time/action goes back in time"):
            episode.add(replace(steps[4], due_ns=1))
        for step in steps[4:]:
            episode.add(step)
        episode.commit()
    require_intact(Dataset(tmp_path)[0], seed=3)


def test_a_camera_that_changes_its_size_is_refused_also_as_jpeg(tmp_path):
    steps = make_steps(3, 3)
    seen = steps[2].observation
    wrong = np.zeros((48, 64, 3), np.uint8)
    with DatasetWriter(tmp_path, SPEC) as writer:
        episode = writer.begin(META)
        for step in steps[:2]:
            episode.add(step)
        with pytest.raises(ContractError, match=r"camera 'front': picture is uint8 \(48, 64, 3\), want"):
            episode.add(replace(steps[2], observation=replace(seen, images={**seen.images, "front": wrong})))
        with pytest.raises(ContractError, match=r"camera 'front'.*JPEG is 48x64, want 24x32"):
            episode.add(replace(steps[2], observation=replace(seen, encoded={"front": JpegFrames().encode(wrong)})))
        assert len(episode) == 2


def test_a_camera_that_never_sent_a_jpeg_is_refused_at_its_first_frame(tmp_path):
    step = make_steps(3, 1)[0]
    with DatasetWriter(tmp_path, SPEC) as writer:
        episode = writer.begin(META)
        with pytest.raises(ContractError, match="camera 'front' sent bytes that are no JPEG"):
            episode.add(replace(step, observation=replace(step.observation, encoded={"front": b"nonsense"})))
        assert len(episode) == 0


@pytest.mark.parametrize("background", [False, True])
def test_a_jpeg_without_its_header_costs_that_frame_and_no_step(tmp_path, background):
    steps, sent = make_steps(4, 12), []
    with Recorder(tmp_path / "d", background=background) as recorder:
        recorder.on_start(META, SPEC)
        for k, step in enumerate(steps):
            seen = step.observation
            if k % 2 == 0:  # the camera is half as fast as the loop: each frame is seen by two steps
                data = JpegFrames().encode(seen.images["front"])
                sent.append({4: data[:2], 8: data[700:]}.get(k, data))
                stamp_ns = seen.image_stamps_ns["front"]
            stamps = {**seen.image_stamps_ns, "front": stamp_ns}
            images = {"wrist": seen.images["wrist"]}
            seen = replace(seen, images=images, image_stamps_ns=stamps, encoded={"front": sent[-1]})
            recorder.on_step(replace(step, observation=seen))
        recorder.on_end(META)
        assert recorder.status().message == "camera 'front' sent 2 torn frame(s), LEFT OUT"
    (episode,) = Dataset(tmp_path / "d")
    assert episode.length == 12
    assert list(episode.frame_bytes("front")) == [data for i, data in enumerate(sent) if i not in (2, 4)]
    assert episode.frame_rows("front").tolist() == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3]
    shown = [steps[k].observation.image_stamps_ns["front"] for k in (0, 2, 6, 10)]
    assert episode.frame_stamps_ns("front").tolist() == shown
    assert episode.attributes["drops"] == {"frames": {"front": 2}}
    assert [str(p) for p in check(tmp_path / "d") if "torn" in p.message] == [
        "warning: episode 0, front: 2 frame(s) came so torn that they were left out; the steps saw the one before"
    ]


def test_blocks_are_cut_without_a_seam(tmp_path, monkeypatch):
    monkeypatch.setattr("robopolicy_data.episode_writer.BLOCK", 7)
    steps = held(make_steps(3, 40), "wrist", 3)
    judged = [
        *steps[:20],
        *(replace(s, verdict=v.verdict) for s, v in zip(steps[20:], make_steps(3, 40, verdict=True)[20:], strict=True)),
    ]
    episode = written(tmp_path / "blocks", judged, lossless=True)
    monkeypatch.undo()
    whole = written(tmp_path / "whole", judged, lossless=True)
    for name in sorted(p.relative_to(whole.path) for p in whole.path.rglob("c.*")):
        assert (episode.path / name).read_bytes() == (whole.path / name).read_bytes(), name
    assert np.isnan(whole.verdicts()["statistic"][:20]).all()
    assert whole.verdicts()["state"].tolist() == [0] * 20 + [1] * 20


def test_rate_and_jitter_of_every_stream_are_stored(tmp_path):
    timing = written(tmp_path, held(make_steps(3, 41), "wrist", 2)).attributes["timing"]
    assert timing["step"] == {"hz": pytest.approx(20), "jitter_p99_ms": pytest.approx(0)}
    assert timing["wrist"]["hz"] == pytest.approx(10)
    assert set(timing) == {"step", "action", "front", "wrist"}


def test_adopted_episodes_share_their_files(tmp_path):
    for name, seeds in (("a", (1, 2)), ("b", (3,))):
        with DatasetWriter(tmp_path / name, SPEC, lossless=True) as writer:
            for seed in seeds:
                record(writer, seed)
    source = tmp_path / "a/episodes/000001"
    with DatasetWriter(tmp_path / "b", SPEC) as writer:
        assert [writer.adopt(source), writer.adopt(source, link=False)] == [1, 2]
        with pytest.raises(DatasetError, match="not an episode"):
            writer.adopt(tmp_path / "a/episodes")
    shutil.rmtree(source)
    assert [e.meta.seed for e in Dataset(tmp_path / "b")] == [3, 2, 2]
    for episode in Dataset(tmp_path / "b"):
        require_intact(episode)
    assert not (tmp_path / "b/.wip").exists()
    with DatasetWriter(tmp_path / "c", DEPTH) as writer:
        for move in (False, True):
            with pytest.raises(SpecMismatch, match="range"):
                writer.adopt(tmp_path / "a/episodes/000000", move=move)
    with DatasetWriter(tmp_path / "b", SPEC) as writer:
        assert writer.adopt(tmp_path / "a/episodes/000000", move=True) == 3
    assert len(Dataset(tmp_path / "a")) == 0, "it is not there any more"
    assert [e.meta.seed for e in Dataset(tmp_path / "b")] == [3, 2, 2, 1]
    require_intact(Dataset(tmp_path / "b")[3])


def test_derived_arrays_replace_each_other(tmp_path):
    import zarr

    with DatasetWriter(tmp_path, SPEC) as writer:
        record(writer, 1, 8)
    arrays = {
        "idle": np.arange(8) % 2 == 0, "score": np.linspace(0, 1, 8), "spans": np.zeros((0, 2), np.int64),
        "grid": np.arange(12, dtype=np.float32).reshape(3, 4), "one": np.float64(3),
    }  # fmt: skip
    write_derived(tmp_path, 0, "quality@1", {"idle": np.zeros(3, bool)})
    write_derived(tmp_path, 0, "quality@1", arrays, {"threshold": 0.5})
    episode = Dataset(tmp_path)[0]
    found = episode.derived("quality@1")
    assert episode.derived_names() == ["quality@1"]
    assert episode.derived_attributes("quality@1") == {"threshold": 0.5}
    assert set(found) == set(arrays)
    for name, values in arrays.items():
        assert found[name].dtype == np.asarray(values).dtype
        assert np.array_equal(found[name], values)
    stock = zarr.open_group(str(tmp_path), mode="r")["episodes/000000/derived/quality@1"]
    assert all(np.array_equal(stock[name][...], values) for name, values in arrays.items())
    assert episode.derived("other@1") is None
    with pytest.raises(DatasetError, match="no episode 7"):
        write_derived(tmp_path, 7, "quality@1", {})
    with pytest.raises(DatasetError, match="complex128 cannot be stored"):
        write_derived(tmp_path, 0, "quality@1", {"z": np.zeros(2, complex)})
    assert set(Dataset(tmp_path)[0].derived("quality@1")) == set(arrays), "the older one stays"
    assert [p.name for p in (episode.path / "derived").glob(".*")] == []
    with pytest.raises(UnknownCamera):
        episode.frame_count("lidar")
