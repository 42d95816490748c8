"""`robopolicy record` after it was killed: whatever moment it was, the next recording goes on."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.record import record
from robopolicy.errors import DatasetError
from robopolicy_data.check import check
from robopolicy_data.metadata import group_json
from robopolicy_data.reader import Dataset

EARLY, LATER = 5, 6  # kills


def start(path: Path, episodes: int) -> subprocess.Popen:
    words = ("record", "--robot", "twin:lift", "--cameras", "--data", path, "--episodes", episodes)
    return subprocess.Popen(
        [sys.executable, "-m", "robopolicy.cli.main", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def touched(path: Path) -> int | None:
    """When a writer last opened the dataset; None before the folder exists."""
    lock = path / ".lock"
    return lock.stat().st_mtime_ns if lock.exists() else 0 if path.exists() else None


def killed(path: Path, wait_s: float) -> None:
    """Start recording without end and SIGKILL it ``wait_s`` after it has touched the dataset."""
    before = touched(path)
    process = start(path, 100_000)
    try:
        while process.poll() is None and touched(path) == before:
            pass  # no sleep: the first moments are what matters
        assert process.poll() is None, process.stderr.read()
        time.sleep(wait_s)
    finally:
        process.kill()
        process.communicate()


def goes_on(path: Path, episodes: int) -> None:
    process = start(path, episodes)
    said = process.communicate()[1]
    assert process.returncode == 0, said
    assert len(Dataset(path)) == episodes
    assert [str(p) for p in check(path) if p.severity == "error"] == []


@pytest.mark.slow
def test_killed_at_any_moment_the_next_recording_continues(tmp_path):
    rng = np.random.default_rng(4)
    for kill, wait_s in enumerate([0.0, 0.0, *rng.uniform(0, 0.003, EARLY - 2)]):
        path = tmp_path / f"early{kill}"
        killed(path, wait_s)
        goes_on(path, (len(Dataset(path)) if (path / "zarr.json").exists() else 0) + 1)
    path, kept = tmp_path / "later", {}
    for wait_s in rng.uniform(0, 1.5, LATER):
        killed(path, wait_s)
        held = {e.number: (e.meta.seed, e.action().tobytes()) for e in Dataset(path)}
        assert kept.items() <= held.items(), "a committed episode is gone or changed"
        kept = held
    goes_on(path, len(kept) + 2)
    seeds = [episode.meta.seed for episode in Dataset(path)]
    assert len(set(seeds)) == len(seeds), "a seed was recorded twice"


@pytest.mark.parametrize(
    "left",
    [
        {},
        {".lock": b""},
        {".lock": b"00000000        123\n", "episodes/zarr.json.partial": b"{"},
        {".lock": b"00000000        123\n", "episodes/zarr.json": group_json(), "zarr.json.partial": b""},
    ],
    ids=["empty", "lock", "half a group", "half a dataset"],
)
def test_a_folder_killed_before_it_was_a_dataset_becomes_one(tmp_path, left):
    path = tmp_path / "d"
    path.mkdir()
    for name, data in left.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
    assert record("twin:lift", path, 1, cameras=()) == 1
    assert len(Dataset(path)) == 1


@pytest.mark.parametrize("name", ["thesis.tex", "episodes/1.mp4", ".wip/notes"])
def test_a_folder_of_other_things_is_refused_untouched(tmp_path, name):
    path = tmp_path / "d"
    (path / name).parent.mkdir(parents=True)
    (path / name).write_text("x")
    before = sorted(path.rglob("*"))
    with pytest.raises(DatasetError, match=rf"neither empty nor a robopolicy dataset: it holds {name.split('/n')[0]}"):
        record("twin:lift", path, 1, cameras=())
    assert sorted(path.rglob("*")) == before
