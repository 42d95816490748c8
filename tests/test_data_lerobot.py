"""LeRobot's format both ways: what comes back, what its own reader sees, and malformed files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robopolicy.cli.main import main
from robopolicy.errors import ContractError, DatasetError, MissingExtra, NewerFormat, UnknownName
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy.types import EpisodeMeta, Observation, Step
from robopolicy_data.check import check
from robopolicy_data.exporters import lerobot_tables, lerobot_videos
from robopolicy_data.exporters.lerobot import export_lerobot, outcome
from robopolicy_data.files import crc32c
from robopolicy_data.importers.lerobot import import_lerobot
from robopolicy_data.reader import Dataset
from robopolicy_data.videos import Error, VideoReader, VideoWriter
from robopolicy_data.writer import DatasetWriter

PEERS = Path(__file__).parent / "peers"
SPEC = PolicySpec(
    cameras={"front": CameraSpec(64, 96), "wrist": CameraSpec(64, 64), "depth": CameraSpec(16, 24, "depth")},
    state={"q": StateSpec(3, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("j0", "j1"), ("rad", "open")),
    rate_hz=20.0,
)
LENGTHS = (7, 12, 5)
META = (
    EpisodeMeta("lift the cube", "arm", seed=4, operator="ann", success=True, notes="slow", extra={"score": 0.5}),
    EpisodeMeta("open the drawer", "arm", seed=5, success=False),
    EpisodeMeta("lift the cube", "arm", operator="bob"),
)


def picture(rng, camera):
    """Smooth, as a camera's, so that a video codec's error is that of real pictures."""
    rows, columns = np.mgrid[: camera.height, : camera.width]
    if camera.kind == "depth":
        return rng.integers(0, 65536, camera.shape, dtype=np.uint16)
    a, b, c = rng.uniform(0.02, 0.08, 3)
    return np.stack([128 + 100 * np.sin(a * rows + b * columns + i * c) for i in range(3)], -1).astype(np.uint8)


def make(path, *, spec=SPEC, lossless=False, lengths=LENGTHS):
    """Record; the wrist camera runs at half the step rate and every stamp jitters."""
    rng = np.random.default_rng(0)
    with DatasetWriter(path, spec, lossless=lossless) as writer:
        for length, meta in zip(lengths, META, strict=True):
            episode = writer.begin(meta)
            held = {}
            for k in range(length):
                stamp = 10**18 + k * spec.period_ns + int(rng.integers(0, 10**6))
                fresh = [name for name in spec.cameras if name != "wrist" or k % 2 == 0]
                held |= {name: (picture(rng, spec.cameras[name]), stamp - 1000) for name in fresh}
                state = {name: rng.standard_normal(s.dim).astype(np.float32) for name, s in spec.state.items()}
                images, stamps = ({name: pair[i] for name, pair in held.items()} for i in (0, 1))
                sent = rng.standard_normal(spec.action.dim).astype(np.float32)
                source = ("policy", "human", "hold")[k % 3]
                episode.add(Step(Observation(stamp, state, images, stamps), sent, stamp + 77, source))
            episode.commit()
    return path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make(tmp_path_factory.mktemp("ours") / "d.zarr")


@pytest.fixture(scope="module")
def exported(recorded):
    """An export that tests copy before they damage it."""
    target = recorded.parent / "lerobot"
    assert export_lerobot(recorded, target, video="h264") == len(LENGTHS)
    return target


@pytest.fixture
def damaged(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "s")
    return tmp_path / "s"


def info_of(root):
    return json.loads((root / "meta/info.json").read_text())


def change_info(root, **changes):
    (root / "meta/info.json").write_text(json.dumps(info_of(root) | changes))


def error_between(first, second, camera):
    """PSNR over all steps of two datasets, in dB."""
    error = Error()
    for a, b in zip(first, second, strict=True):
        for got, want in zip(a.images(camera), b.images(camera), strict=True):
            error.add(got, want)
    return error


def require_same_but_colour(ours, theirs):
    assert theirs.spec == ours.spec
    for a, b in zip(ours, theirs, strict=True):
        assert b.meta == replace(a.meta, extra=a.meta.extra | {"imported": b.meta.extra["imported"]})
        for name in ours.spec.state:
            assert b.state(name).tobytes() == a.state(name).tobytes()
        assert b.action().tobytes() == a.action().tobytes()
        assert np.array_equal(b.sources(), a.sources())
        for stream in ("step", "action", *ours.spec.cameras):
            assert np.array_equal(b.stamps_ns(stream), a.stamps_ns(stream)), stream
        assert np.array_equal(b.images("depth"), a.images("depth"))
        assert b.frame_count("wrist") == a.frame_count("wrist") == (a.length + 1) // 2, "the same frame is one frame"


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


@pytest.mark.parametrize("lossless", [False, True])
def test_round_trip_without_videos_loses_nothing(tmp_path, lossless):
    """JPEG bytes travel untouched, lossless pictures as PNG."""
    ours = Dataset(make(tmp_path / "a", lossless=lossless))
    export_lerobot(tmp_path / "a", tmp_path / "l", video="none")
    assert outcome(tmp_path / "l") == ""
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
        ({"video": "vp9"}, UnknownName, "no video codec 'vp9'; valid: h264, libsvtav1, none"),
    ],
)
def test_an_export_that_cannot_be_leaves_nothing(recorded, tmp_path, options, kind, message):
    with pytest.raises(kind, match=message):
        export_lerobot(recorded, tmp_path / "l", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_odd_picture_is_no_video_but_may_be_a_picture(tmp_path):
    spec = replace(SPEC, cameras=SPEC.cameras | {"front": CameraSpec(63, 96)})
    make(tmp_path / "a", spec=spec)
    with pytest.raises(ContractError, match="63x96 has an odd side"):
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


# Datasets that an export of ours did not write


def make_foreign(root, *, version="v3.0", **features):
    """Take away from an export what LeRobot itself would not have written; add or (None) remove features."""
    info = info_of(root)
    kept = {k: f for k, f in info["features"].items() if not k.startswith("robopolicy.")} | features
    changed = {k: f for k, f in kept.items() if f is not None}
    info = {k: v for k, v in info.items() if k != "robopolicy"}
    (root / "meta/info.json").write_text(json.dumps(info | {"features": changed, "codebase_version": version}))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["robopolicy/meta"]), path)


def test_import_of_what_others_recorded(damaged, recorded, tmp_path):
    make_foreign(damaged)
    import_lerobot(damaged, tmp_path / "d")
    ours, theirs = Dataset(recorded), Dataset(tmp_path / "d")
    assert theirs.spec == PolicySpec(
        cameras=SPEC.cameras,
        state={"state": StateSpec(4, ("1",))},
        action=ActionSpec("vector", ("j0", "j1"), ("1",)),
        rate_hz=20.0,
    )
    for a, b in zip(ours, theirs, strict=True):
        assert np.array_equal(b.state("state"), np.concatenate([a.state("q"), a.state("gripper")], axis=1))
        assert np.array_equal(b.action(), a.action())
        assert (b.meta.task, b.meta.robot) == (a.meta.task, "arm")
        assert b.meta.extra["stamps"].startswith("nominal")
        assert (b.sources() == 1).all(), "a person drove, for all we know"
    assert theirs[0].stamps_ns("front")[:3].tolist() == [0, 50_000_000, 100_000_000]
    assert [episode.meta.success for episode in theirs] == [True, False, False]


def test_success_is_unknown_where_nobody_says(damaged, tmp_path):
    make_foreign(damaged, **{"next.success": None})
    import_lerobot(damaged, tmp_path / "d")
    assert [episode.meta.success for episode in Dataset(tmp_path / "d")] == [None] * 3


def rewrite(path, **columns):
    """Replace columns of a parquet by arrays."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        field = (name, pa.array(values))
        table = table.append_column(*field) if place < 0 else table.set_column(place, *field)
    pq.write_table(table, path)


def test_float64_that_float32_cannot_hold_needs_consent(damaged, tmp_path):
    make_foreign(damaged, **{"observation.effort": {"dtype": "float64", "shape": [1], "names": None}})
    rewrite(damaged / "data/chunk-000/file-000.parquet", **{"observation.effort": np.full(24, 0.1)})
    with pytest.raises(DatasetError, match=r"observation.effort is float64 and float32 cannot hold.*--round"):
        import_lerobot(damaged, tmp_path / "d")
    import_lerobot(damaged, tmp_path / "e", round_to_float32=True)
    assert Dataset(tmp_path / "e")[0].state("effort").tolist() == [[np.float32(0.1)]] * 7


def test_what_we_have_no_place_for_is_named(damaged, tmp_path):
    make_foreign(damaged, subtask_index={"dtype": "int64", "shape": [1], "names": None})
    rewrite(damaged / "data/chunk-000/file-000.parquet", subtask_index=np.arange(24))
    import_lerobot(damaged, tmp_path / "d")
    assert Dataset(tmp_path / "d")[0].meta.extra["left_out"] == ["subtask_index"]


def make_v21(root, target):
    """The same content as LeRobot 2.1 lays it out: a file an episode, json lines in meta."""
    info = info_of(root)
    tables = pq.read_table(root / "data/chunk-000/file-000.parquet")
    (target / "meta").mkdir(parents=True)
    rows = []
    for index, length in enumerate(LENGTHS):
        data = target / f"data/chunk-000/episode_{index:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(tables.filter(pa.compute.equal(tables["episode_index"], index)), data)
        for key in ("observation.images.front", "observation.images.wrist"):
            video = target / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            reader = VideoReader(root / f"videos/{key}/chunk-000/file-000.mp4")
            with VideoWriter(video, *reader.size, 20.0, codec="h264", crf=1) as writer:
                for shown in reader.read(sum(LENGTHS[:index]) / 20, length, 20.0):
                    writer.add(shown)
            reader.close()
        rows.append({"episode_index": index, "tasks": [META[index].task], "length": length})
    (target / "meta/episodes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    info = {k: v for k, v in info.items() if k != "robopolicy"} | {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (target / "meta/info.json").write_text(json.dumps(info))


def test_import_of_version_2_1(exported, recorded, tmp_path):
    make_v21(exported, tmp_path / "old")
    assert import_lerobot(tmp_path / "old", tmp_path / "d") == 3
    ours, theirs = Dataset(recorded), Dataset(tmp_path / "d")
    assert np.array_equal(theirs[1].action(), ours[1].action())
    assert theirs[2].stamps_ns("step").tolist() == ours[2].stamps_ns("step").tolist(), "its columns tell"
    assert [episode.meta.task for episode in theirs] == [meta.task for meta in META]
    assert error_between(theirs, ours, "front").psnr_db > 28
    (tmp_path / "old/meta/episodes.jsonl").write_text("{")
    with pytest.raises(DatasetError, match=r"episodes.jsonl holds a line that is not JSON"):
        import_lerobot(tmp_path / "old", tmp_path / "e")


# Malformed files: one line each, and nothing that looks like a whole dataset


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


VIDEO = "videos/observation.images.front/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
MALFORMED = {
    "no info": (lambda r: (r / "meta/info.json").unlink(), r"no meta/info.json; expected a LeRobot dataset"),
    "info cut": (lambda r: cut(r / "meta/info.json", 0.5), r"info.json is not JSON"),
    "info is a list": (lambda r: (r / "meta/info.json").write_text("[]"), r"codebase_version is \[\]"),
    "fps": (lambda r: change_info(r, fps="20"), r"info.json: fps is '20'"),
    "fps zero": (lambda r: change_info(r, fps=0), r"fps is 0; want a positive number"),
    "features": (lambda r: change_info(r, features={"action": 3}), r"feature 'action' is 3; want dtype"),
    "version text": (lambda r: change_info(r, codebase_version="three"), r"codebase_version is 'three'"),
    "version 1": (lambda r: change_info(r, codebase_version="v1.6"), r"format v1.6; convert it with lerobot"),
    "episodes miscounted": (lambda r: change_info(r, total_episodes=4), r"says 4 episodes, its list of them has 3"),
    "another spec": (
        lambda r: change_spec(r, replace(SPEC, cameras={"top": CameraSpec(4, 4)}).to_json()),
        r"feature 'observation.images.top' is None",
    ),
    "no spec": (lambda r: change_spec(r, {}), r"the spec in robopolicy.source is not what an export writes"),
    "no action": (lambda r: make_foreign(r, action=None), r"no feature 'action' of shape \[A\]"),
    "no list of episodes": (lambda r: (r / EPISODES).unlink(), r"no meta/episodes.*never finished"),
    "list of episodes cut": (lambda r: cut(r / EPISODES, 0.5), r"no whole parquet file"),
    "no data": (lambda r: (r / DATA).unlink(), r"file-000.parquet is missing"),
    "data cut": (lambda r: cut(r / DATA, 0.5), r"file-000.parquet is no whole parquet file"),
    "data of other columns": (
        lambda r: pq.write_table(pq.read_table(r / DATA).drop_columns(["action"]), r / DATA),
        r"file-000.parquet is no whole parquet file with .*action",
    ),
    "rows missing": (
        lambda r: pq.write_table(pq.read_table(r / DATA).slice(0, 20), r / DATA),
        r"has 1 rows of episode 2, its list of episodes says 5",
    ),
    "a number missing": (
        lambda r: rewrite(r / DATA, **{"robopolicy.source": [None, *[1] * 23]}),
        r"robopolicy.source lacks 1 of 24 rows",
    ),
    "text for numbers": (lambda r: rewrite(r / DATA, **{"robopolicy.source": ["a"] * 24}), r"is string; want numbers"),
    "nobody drives": (lambda r: rewrite(r / DATA, **{"robopolicy.source": [9] * 24}), r"holds 9; want 0 to 2"),
    "a picture damaged": (
        lambda r: rewrite(r / DATA, **{"observation.depth.depth": [{"bytes": b"\x89PNG", "path": None}] * 24}),
        r"observation.depth.depth, frame 0: not a whole picture",
    ),
    "no picture": (
        lambda r: rewrite(r / DATA, **{"observation.depth.depth": [{"bytes": None, "path": "x.png"}] * 24}),
        r"frame 0 holds no picture",
    ),
    "no video": (lambda r: (r / VIDEO).unlink(), r"file-000.mp4 is missing"),
    "video cut": (lambda r: cut(r / VIDEO, 0.6), r"file-000.mp4 is no whole video"),
    "video empty": (lambda r: (r / VIDEO).write_bytes(b""), r"file-000.mp4 is no whole video"),
    "video of another camera": (
        lambda r: shutil.copy(r / VIDEO.replace("front", "wrist"), r / VIDEO), r"\(64, 64, 3\), want \(64, 96, 3\)",
    ),
    "video too short": (lambda r: write_video(r / VIDEO, 20, 20.0), r"ends early: frame 1 of 5 is due at 1.0000 s"),
    "video of another rate": (lambda r: write_video(r / VIDEO, 24, 10.0), r"no frame at 0.0500 s"),
}  # fmt: skip


def change_spec(root, spec):
    features = info_of(root)["features"]
    features["robopolicy.source"]["info"]["spec"] = spec
    change_info(root, features=features)


def write_video(path, frames, rate_hz):
    with VideoWriter(path, 64, 96, rate_hz, codec="h264") as writer:
        for _ in range(frames):
            writer.add(np.zeros((64, 96, 3), np.uint8))


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(damaged, tmp_path, name):
    damage, message = MALFORMED[name]
    damage(damaged)
    with pytest.raises(DatasetError, match=message) as raised:
        import_lerobot(damaged, tmp_path / "d")
    assert "\n" not in str(raised.value)
    if (tmp_path / "d").exists():
        with pytest.raises(DatasetError, match="was interrupted"):
            Dataset(tmp_path / "d")


def test_a_newer_version_is_refused_naming_both(damaged, tmp_path):
    change_info(damaged, codebase_version="v4.0")
    with pytest.raises(NewerFormat, match=r"has LeRobot's format v4.0; this robopolicy reads v2.0 to v3.x"):
        import_lerobot(damaged, tmp_path / "d")


KILLED = """
import os, signal, sys
from robopolicy_data.exporters.lerobot import export_lerobot
from robopolicy_data.importers.lerobot import import_lerobot
def progress(done, total):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)
{"import": import_lerobot, "export": export_lerobot}[sys.argv[1]](sys.argv[2], sys.argv[3], progress=progress)
"""


@pytest.mark.parametrize("action", ["import", "export"])
def test_one_that_is_killed_is_no_smaller_dataset(recorded, exported, tmp_path, action):
    source = exported if action == "import" else recorded
    command = [sys.executable, "-c", KILLED, action, source, tmp_path / "d"]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    if action == "export":
        assert not (tmp_path / "d").exists()
    else:
        with pytest.raises(DatasetError, match=r"import of .* was interrupted .*delete it and import again"):
            Dataset(tmp_path / "d")


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


# LeRobot's own reader and recorder


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """Runs a script of tests/peers in a Python that has lerobot."""
    python = os.environ.get("ROBOPOLICY_LEROBOT_PYTHON")
    if not python:
        pytest.skip("ROBOPOLICY_LEROBOT_PYTHON names no Python with lerobot 0.4.4 (see data/README.md)")
    cache = tmp_path_factory.mktemp("hf")

    def run(script, *arguments):
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "OMP_NUM_THREADS": "1"}
        command = [python, str(PEERS / script), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("video", "backend"), [("libsvtav1", "default"), ("h264", "pyav"), ("none", "default")])
def test_lerobots_own_reader_sees_the_same(recorded, tmp_path, peer, video, backend):
    export_lerobot(recorded, tmp_path / "l", video=video)
    said = peer("lerobot_read.py", tmp_path / "l", tmp_path / "seen.npz", "--backend", backend)
    seen, ours = np.load(tmp_path / "seen.npz"), Dataset(recorded)
    assert (said["episodes"], said["frames"], said["fps"], said["lengths"]) == (3, 24, 20, list(LENGTHS))

    def joined(read):
        return np.concatenate([read(episode) for episode in ours])

    states = joined(lambda e: np.concatenate([e.state("q"), e.state("gripper")], axis=1))
    assert seen["observation.state"].tobytes() == states.tobytes()
    assert seen["action"].tobytes() == joined(lambda e: e.action()).tobytes()
    for stream in ("step", "action", "front", "wrist"):
        assert np.array_equal(seen[f"robopolicy.time.{stream}"], joined(lambda e, s=stream: e.stamps_ns(s)))
    assert np.array_equal(seen["robopolicy.source"], joined(lambda e: e.sources()))
    assert seen["task"].tolist() == [meta.task for meta, n in zip(META, LENGTHS, strict=True) for _ in range(n)]
    assert np.flatnonzero(seen["next.success"]).tolist() == [6]
    assert np.array_equal(seen["observation.depth.depth"].reshape(24, 16, 24).astype(np.uint16), joined(depth))
    for camera in ("front", "wrist"):
        error = Error()
        for got, want in zip(
            seen[f"observation.images.{camera}"], joined(lambda e, c=camera: e.images(c)), strict=True
        ):
            error.add(got, want)
        if video == "none":
            assert error.psnr_db > 50, "one JPEG, two decoders"
        else:
            told = info_of(tmp_path / "l")["robopolicy"]["videos"]["psnr_db"][camera]
            assert error.psnr_db == pytest.approx(told["all"], abs=0.1)
            assert error.worst_psnr_db == pytest.approx(told["worst"], abs=0.5)
    middle = joined(lambda e: e.action())[[11, 12, 13, 14, 15]]
    assert np.array_equal(seen["window/action"], middle), "item 12 is step 5 of the second episode"
    assert said["stats"]["action"]["max"] == pytest.approx(joined(lambda e: e.action()).max(0).tolist())


def depth(episode):
    return episode.images("depth")


@pytest.mark.slow
def test_after_lerobots_own_tool_left_an_episode_out(recorded, tmp_path, peer):
    """It drops what it does not know of: per-episode meta but task; spec, stamps and sources survive."""
    export_lerobot(recorded, tmp_path / "l", video="h264")
    assert peer("lerobot_delete.py", tmp_path / "l", tmp_path / "less", 1) == 2
    import_lerobot(tmp_path / "less", tmp_path / "d")
    ours, theirs = Dataset(recorded), Dataset(tmp_path / "d")
    assert theirs.spec == SPEC
    for a, b in zip([ours[0], ours[2]], theirs, strict=True):
        assert np.array_equal(b.action(), a.action())
        assert np.array_equal(b.state("q"), a.state("q"))
        assert np.array_equal(b.stamps_ns("wrist"), a.stamps_ns("wrist"))
        assert np.array_equal(b.sources(), a.sources())
        assert b.meta.task == a.meta.task
    assert [episode.meta.success for episode in theirs] == [True, False]
    assert error_between(theirs, [ours[0], ours[2]], "front").psnr_db > 28


@pytest.mark.slow
@pytest.mark.parametrize("flag", [None, "--streaming", "--images"])
def test_what_lerobot_records_is_imported(tmp_path, peer, flag):
    rng = np.random.default_rng(1)
    lengths = [12, 9]
    data = {
        "lengths": np.array(lengths),
        "state": rng.standard_normal((21, 5)).astype(np.float32),
        "action": rng.standard_normal((21, 2)).astype(np.float32),
        "task": np.array(["pick it", "place it"]),
        "front": np.stack([picture(rng, CameraSpec(96, 128)) for _ in range(21)]),
    }
    np.savez(tmp_path / "in.npz", **data)
    assert peer("lerobot_record.py", tmp_path / "l", tmp_path / "in.npz", *([flag] if flag else [])) == 21
    assert import_lerobot(tmp_path / "l", tmp_path / "d") == 2
    dataset = Dataset(tmp_path / "d")
    assert dataset.spec == PolicySpec(
        cameras={"front": CameraSpec(96, 128)},
        state={"state": StateSpec(5, ("1",))},
        action=ActionSpec("vector", ("x", "y"), ("1",)),
        rate_hz=20.0,
    )
    assert np.concatenate([e.action() for e in dataset]).tobytes() == data["action"].tobytes()
    assert np.concatenate([e.state("state") for e in dataset]).tobytes() == data["state"].tobytes()
    assert [(e.length, e.meta.task, e.meta.robot) for e in dataset] == [
        (12, "pick it", "so101"),
        (9, "place it", "so101"),
    ]
    error = Error()
    for got, want in zip(np.concatenate([e.images("front") for e in dataset]), data["front"], strict=True):
        error.add(got, want)
    assert error.psnr_db == float("inf") if flag == "--images" else error.psnr_db > 30
