"""LeRobot's own reader, editor and recorder at what we wrote, and we at what they wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lerobot_files import (
    LENGTHS,
    META,
    SPEC,
    error_between,
    info_of,
    make,
    picture,
)

from robopolicy.spec import ActionSpec, CameraSpec, PolicySpec, StateSpec
from robopolicy_data.exporters.lerobot import export_lerobot
from robopolicy_data.importers.lerobot import import_lerobot
from robopolicy_data.reader import Dataset
from robopolicy_data.videos import Error

PEERS = Path(__file__).parent / "peers"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return make(tmp_path_factory.mktemp("ours") / "d.zarr")


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
