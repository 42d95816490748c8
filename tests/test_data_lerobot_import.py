"""LeRobot datasets that others wrote, of older versions, malformed or half there: ours, or one clear line."""

import json
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

sys.path.insert(0, str(Path(__file__).parent))
from lerobot_files import (
    LENGTHS,
    META,
    SPEC,
    change_info,
    error_between,
    info_of,
    make,
)

from robopolicy.errors import DatasetError, NewerFormat
from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy_data.exporters.lerobot import export_lerobot
from robopolicy_data.importers.lerobot import import_lerobot
from robopolicy_data.reader import Dataset
from robopolicy_data.videos import VideoReader, VideoWriter


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make(tmp_path_factory.mktemp("ours") / "d.zarr")


@pytest.fixture(scope="module")
def exported(recorded):
    target = recorded.parent / "lerobot"
    assert export_lerobot(recorded, target, video="h264") == len(LENGTHS)
    return target


@pytest.fixture
def damaged(exported, tmp_path):
    """A copy of an export, to be damaged."""
    shutil.copytree(exported, tmp_path / "s")
    return tmp_path / "s"


def make_foreign(root, *, version="v3.0", **features):
    """Take away from an export what LeRobot itself would not have written; add or (None) remove features."""
    info = info_of(root)
    kept = {k: f for k, f in info["features"].items() if not k.startswith("robopolicy.")} | features
    changed = {k: f for k, f in kept.items() if f is not None}
    info = {k: v for k, v in info.items() if k != "robopolicy"}
    (root / "meta/info.json").write_text(json.dumps(info | {"features": changed, "codebase_version": version}))
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["robopolicy/meta"]), path)


def rewrite(path, **columns):
    """Replace columns of a parquet by arrays."""
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        field = (name, pa.array(values))
        table = table.append_column(*field) if place < 0 else table.set_column(place, *field)
    pq.write_table(table, path)


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
def test_malformed(damaged, tmp_path, name, caplog):
    damage, message = MALFORMED[name]
    damage(damaged)
    with pytest.raises(DatasetError, match=message) as raised:
        import_lerobot(damaged, tmp_path / "d")
    assert "\n" not in str(raised.value)
    assert caplog.records == [], "FFmpeg's own words beside our line"
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
