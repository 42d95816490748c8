"""LeRobot's format both ways: what is written, and what comes back."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lerobot_files import (
    LENGTHS,
    SPEC,
    error_between,
    info_of,
    make,
    require_same_but_colour,
)

from robopolicy.cli.main import main
from robopolicy.errors import ContractError, DatasetError, MissingExtra, UnknownName
from robopolicy.spec import CameraSpec
from robopolicy_data.check import check
from robopolicy_data.exporters import lerobot_tables, lerobot_videos
from robopolicy_data.exporters.lerobot import export_lerobot, outcome
from robopolicy_data.files import crc32c
from robopolicy_data.importers.lerobot import import_lerobot
from robopolicy_data.reader import Dataset


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make(tmp_path_factory.mktemp("ours") / "d.zarr")


@pytest.fixture(scope="module")
def exported(recorded):
    target = recorded.parent / "lerobot"
    assert export_lerobot(recorded, target, video="h264") == len(LENGTHS)
    return target


@pytest.mark.parametrize("video", ["h264", "libsvtav1"])
def test_round_trip_through_videos(recorded, tmp_path, video):
    """Numbers, stamps, meta and depth are equal; pictures as near as info.json says, which is measured here again."""
    told = []
    export_lerobot(recorded, tmp_path / "l", video=video, progress=lambda *n: told.append(n))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert import_lerobot(tmp_path / "l", tmp_path / "d", lossless=True) == 3
    ours, theirs = Dataset(recorded), Dataset(tmp_path / "d")
    require_same_but_colour(ours, theirs)
    said = info_of(tmp_path / "l")["robopolicy"]["videos"]
    assert said["codec"] == video
    front = error_between(theirs, ours, "front")
    assert said["psnr_db"]["front"]["all"] == pytest.approx(front.psnr_db)
    assert said["psnr_db"]["front"]["worst"] == pytest.approx(front.worst_psnr_db)
    assert 28 < front.worst_psnr_db < front.psnr_db < 60
    assert f"PSNR of the {video} videos, dB: front {front.psnr_db:.1f} (worst picture" in outcome(tmp_path / "l")
    assert not [problem for problem in check(tmp_path / "d") if problem.severity == "error"]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="the system has no schedulers to choose from")
def test_an_encoder_does_not_put_this_process_before_all_others(recorded, tmp_path):  # SVT-AV1 would, run by root
    before = os.sched_getscheduler(0)
    export_lerobot(recorded, tmp_path / "l", video="libsvtav1")
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip_without_videos_loses_nothing(tmp_path, lossless, monkeypatch):
    """JPEG bytes travel untouched, lossless pictures as PNG; a long episode is several row groups."""
    monkeypatch.setattr(lerobot_tables, "_PICTURE_ROWS", 4)
    ours = Dataset(make(tmp_path / "a", lossless=lossless))
    export_lerobot(tmp_path / "a", tmp_path / "l", video="none")
    assert outcome(tmp_path / "l") == ""
    assert pq.ParquetFile(tmp_path / "l/data/chunk-000/file-000.parquet").num_row_groups == 2 + 3 + 2
    assert import_lerobot(tmp_path / "l", tmp_path / "b") == 3
    theirs = Dataset(tmp_path / "b")
    require_same_but_colour(ours, theirs)
    for camera in ("front", "wrist"):
        for a, b in zip(ours, theirs, strict=True):
            assert list(b.frame_bytes(camera)) == list(a.frame_bytes(camera))
            assert np.array_equal(b.images(camera), a.images(camera))


def test_videos_are_stored_as_jpeg_unless_asked(exported, tmp_path):
    import_lerobot(exported, tmp_path / "d")
    assert next(Dataset(tmp_path / "d")[0].frame_bytes("front"))[:2] == b"\xff\xd8"


def test_what_is_written_is_lerobots_layout(exported, recorded):
    """As lerobot 0.4.4 writes it; its own reader is asked in the slow test below."""
    info, ours = info_of(exported), Dataset(recorded)
    assert info["codebase_version"] == "v3.0"
    assert (info["fps"], info["total_episodes"], info["total_frames"]) == (20, 3, 24)
    assert (info["total_tasks"], info["robot_type"], info["splits"]) == (2, "arm", {"train": "0:3"})
    assert info["features"]["observation.state"] == {
        "dtype": "float32", "shape": [4], "names": ["q.0", "q.1", "q.2", "gripper"],
    }  # fmt: skip
    assert info["features"]["observation.images.front"]["dtype"] == "video"
    assert info["features"]["observation.depth.depth"]["info"] == {"is_depth_map": True, "depth_unit": "mm"}
    table = pq.read_table(exported / "data/chunk-000/file-000.parquet")
    assert table.column_names == [key for key, f in info["features"].items() if f["dtype"] != "video"]
    assert table.schema.field("action").type == pa.list_(pa.float32(), 2)
    assert table["index"].to_pylist() == list(range(24))
    assert table["episode_index"].to_pylist() == [0] * 7 + [1] * 12 + [2] * 5
    assert table["task_index"].to_pylist() == [0] * 7 + [1] * 12 + [0] * 5
    assert table["timestamp"].to_numpy()[:8].tolist() == np.float32([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0]).tolist()
    assert np.flatnonzero(table["next.done"]).tolist() == [6, 18, 23]
    assert np.flatnonzero(table["next.success"]).tolist() == [6], "only the first episode reached it"
    episodes = pq.read_table(exported / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(e["dataset_from_index"], e["dataset_to_index"], e["length"]) for e in episodes] == [
        (0, 7, 7), (7, 19, 12), (19, 24, 5),
    ]  # fmt: skip
    front = "videos/observation.images.front"
    times = [(e[f"{front}/from_timestamp"], e[f"{front}/to_timestamp"]) for e in episodes]
    assert times == [(0.0, 0.35), (0.35, 0.95), (0.95, 1.2)]
    assert [e["tasks"] for e in episodes] == [["lift the cube"], ["open the drawer"], ["lift the cube"]]
    tasks = pq.read_table(exported / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "__index_level_0__": ["lift the cube", "open the drawer"]}
    stats = json.loads((exported / "meta/stats.json").read_text())
    actions = np.concatenate([episode.action() for episode in ours]).astype(float)
    assert stats["action"]["mean"] == pytest.approx(actions.mean(0))
    assert stats["action"]["std"] == pytest.approx(actions.std(0))
    assert stats["action"]["max"] == pytest.approx(actions.max(0))
    assert stats["action"]["count"] == [24]
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    mean = np.concatenate([episode.images("front") for episode in ours]).mean((0, 1, 2)) / 255
    assert np.ravel(stats["observation.images.front"]["mean"]) == pytest.approx(mean, abs=0.01)
    assert np.shape(stats["observation.images.front"]["mean"]) == (3, 1, 1)


def test_a_full_file_is_followed_by_another(recorded, tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_videos, "VIDEO_MB", 0)
    monkeypatch.setattr(lerobot_tables, "DATA_MB", 0)
    monkeypatch.setattr(lerobot_tables, "CHUNK_FILES", 2)
    export_lerobot(recorded, tmp_path / "l", video="h264")
    files = [f"chunk-{c:03d}/file-{f:03d}" for c, f in ((0, 0), (0, 1), (1, 0))]
    for folder, ending in (("data", "parquet"), ("videos/observation.images.front", "mp4")):
        found = sorted(str(p.relative_to(tmp_path / "l" / folder)) for p in (tmp_path / "l" / folder).rglob("*.*"))
        assert found == [f"{file}.{ending}" for file in files]
    import_lerobot(tmp_path / "l", tmp_path / "d")
    require_same_but_colour(Dataset(recorded), Dataset(tmp_path / "d"))


def test_frames_between_steps_are_left_out_and_counted(tmp_path):
    """A camera faster than the steps: of 4 wrist frames in the first episode the steps saw two."""
    path = make(tmp_path / "a")
    seen = np.array([0, 0, 0, 3, 3, 3, 3], "<i4").tobytes()
    (path / "episodes/000000/align/wrist/c.0").write_bytes(seen + crc32c(seen))
    export_lerobot(path, tmp_path / "l", video="none")
    assert outcome(tmp_path / "l") == "frames that no step saw, left out: wrist 2"
    import_lerobot(tmp_path / "l", tmp_path / "b")
    ours, theirs = Dataset(path)[0], Dataset(tmp_path / "b")[0]
    assert np.array_equal(theirs.images("wrist"), ours.images("wrist"))
    assert (theirs.frame_count("wrist"), ours.frame_count("wrist")) == (2, 4)


@pytest.mark.parametrize(("rate_hz", "fps"), [(12.5, 12.5), (29.9876543, 2429 / 81)])
def test_some_episodes_of_a_rate_that_is_no_whole_number(tmp_path, rate_hz, fps):
    """A video's clock is a ratio: LeRobot gets the nearest, we get ours back."""
    spec = replace(SPEC, rate_hz=rate_hz)
    make(tmp_path / "a", spec=spec)
    assert export_lerobot(tmp_path / "a", tmp_path / "l", episodes=[2, 0], video="h264") == 2
    assert info_of(tmp_path / "l")["fps"] == pytest.approx(fps, rel=1e-9)
    import_lerobot(tmp_path / "l", tmp_path / "b")
    assert [episode.meta.operator for episode in Dataset(tmp_path / "b")] == ["bob", "ann"]
    assert Dataset(tmp_path / "b").spec == spec


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"episodes": [3]}, UnknownName, "no episode '3'; valid: 0 to 2"),
        ({"episodes": []}, DatasetError, "no episodes to export"),
        ({"crf": -1}, ContractError, "camera front: crf is -1; libsvtav1 has 0 to 63"),
        ({"crf": 52, "video": "h264"}, ContractError, "camera front: crf is 52; h264 has 0 to 51"),
        ({"video": "vp9"}, UnknownName, "no video codec 'vp9'; valid: h264, libsvtav1, none"),
    ],
)
def test_an_export_that_cannot_be_leaves_nothing(recorded, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        export_lerobot(recorded, tmp_path / "l", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_none_is_named(tmp_path):
    path = make(tmp_path / "a")
    file = path / "episodes/000001/obs/state/gripper/c.0.0"
    values = np.frombuffer(file.read_bytes()[:-4], "<f4").copy()
    values[3] = np.nan
    file.write_bytes(values.tobytes() + crc32c(values.tobytes()))
    line = "a: episode 1: observation.state holds NaN or infinity at step 3.* trim the episode, or leave it out"
    with pytest.raises(DatasetError, match=line):
        export_lerobot(path, tmp_path / "l", video="none")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert export_lerobot(path, tmp_path / "l", video="none", episodes=[0, 2]) == 2


def test_an_odd_picture_is_no_video_but_may_be_a_picture(tmp_path):
    spec = replace(SPEC, cameras=SPEC.cameras | {"front": CameraSpec(63, 96)})
    make(tmp_path / "a", spec=spec)
    with pytest.raises(ContractError, match="camera front: a picture of 63x96 has an odd side"):
        export_lerobot(tmp_path / "a", tmp_path / "l", video="h264")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert export_lerobot(tmp_path / "a", tmp_path / "l", video="none") == 3


def test_a_taken_place_is_refused(recorded, exported, tmp_path):
    with pytest.raises(DatasetError, match="exists; export to a new place"):
        export_lerobot(recorded, exported)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").touch()
    with pytest.raises(DatasetError, match="exists and is not empty"):
        import_lerobot(exported, tmp_path / "d")


def test_without_the_libraries_the_extra_is_named(recorded, exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[convert\]"):
        export_lerobot(recorded, tmp_path / "l")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"robopolicy\[convert\]"):
        import_lerobot(exported, tmp_path / "d")


def test_the_commands(recorded, tmp_path, capsys):
    assert main(["data", "export", "lerobot", str(recorded), str(tmp_path / "l"), "--video", "h264"]) == 0
    said = capsys.readouterr().out
    assert "3 episodes" in said
    assert "PSNR of the h264 videos, dB: front" in said
    assert main(["data", "import", "lerobot", str(tmp_path / "l"), str(tmp_path / "d")]) == 0
    assert "3 episodes" in capsys.readouterr().out
    require_same_but_colour(Dataset(recorded), Dataset(tmp_path / "d"))
    assert main(["data", "import", "lerobot", str(tmp_path / "nothing"), str(tmp_path / "e")]) != 0
    assert "no meta/info.json" in capsys.readouterr().err
