"""What a killed recorder, a full disk and a second writer leave behind, with real processes and real file systems."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import recordings

from robopolicy.errors import DatasetBusy
from robopolicy_data.check import check
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

KILLS = 50


def start_recorder(path, seed):
    command = [sys.executable, recordings.__file__, str(path), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_at_random_moments_nothing_committed_is_lost(tmp_path):
    path, rng = tmp_path / "d", np.random.default_rng(1)
    announced: list[int] = []
    seen: set[int] = set()
    interrupted, pace_s = 0, 0.02  # an episode
    for kill in range(KILLS):
        recorder = start_recorder(path, 1000 * kill)
        assert recorder.stdout.readline() == "open\n"
        for _ in range(rng.integers(0, 4)):
            began = time.monotonic()
            announced.append(int(recorder.stdout.readline()))
            pace_s = time.monotonic() - began
        with pytest.raises(subprocess.TimeoutExpired):
            recorder.wait(rng.uniform(0, 1.2) * pace_s)
        recorder.kill()  # SIGKILL
        announced += [int(line) for line in recorder.communicate()[0].split()]

        dataset = Dataset(path)
        numbers = [episode.number for episode in dataset]
        assert set(announced) <= set(numbers), "an episode whose commit returned is gone"
        assert numbers == list(range(len(numbers))), "numbers go on without a gap and none is used twice"
        for episode in dataset:
            if episode.number not in seen:
                recordings.require_intact(episode)
                seen.add(episode.number)
        interrupted += len(list((path / ".wip").glob("*/episode")))
    assert len(seen) > KILLS / 2
    assert interrupted > KILLS / 4, "the kills hit no recording; the test tests nothing"

    with DatasetWriter(path, recordings.SPEC, lossless=True) as writer:
        assert recordings.record(writer, 7) == len(seen)
    for episode in Dataset(path):
        recordings.require_intact(episode)
    assert [p for p in check(path) if p.severity == "error"] == []
    assert not (path / ".wip").exists()


def test_second_writer_is_refused_and_names_the_first(tmp_path):
    recorder = start_recorder(tmp_path / "d", 0)
    try:
        recorder.stdout.readline()
        with pytest.raises(DatasetBusy, match=f"being written by process {recorder.pid}"):
            DatasetWriter(tmp_path / "d", recordings.SPEC)
    finally:
        recorder.kill()
        recorder.communicate()
    with DatasetWriter(tmp_path / "d", recordings.SPEC) as writer:
        recordings.record(writer, 1)


FILL = """
import sys
sys.path.insert(0, sys.argv[1])
import recordings
from pathlib import Path
from robopolicy.errors import DiskFull
from robopolicy_data.check import check
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter

path, limit = Path(sys.argv[2]) / "d", int(sys.argv[3])
if limit:
    import resource
    def room(n): resource.setrlimit(resource.RLIMIT_FSIZE, (n, resource.RLIM_INFINITY))
else:
    ballast = Path(sys.argv[2]) / "ballast"
    ballast.write_bytes(bytes(200_000))
    def room(n): ballast.unlink()
with DatasetWriter(path, recordings.SPEC, lossless=True) as writer:
    recordings.record(writer, 1)
    recordings.record(writer, 2)
    if limit:
        room(limit)
    episode, steps = writer.begin(recordings.META), recordings.make_steps(3, 2000)
    for k, step in enumerate(steps):
        try:
            episode.add(step)
        except DiskFull as error:
            print(error)
            break
    assert 0 < k < 1900 and len(episode) == k, k
    dataset = Dataset(path)
    assert len(dataset) == 2
    for whole in dataset:
        recordings.require_intact(whole)
    room(-1)  # somebody made room: go on as if nothing had been
    for step in steps[k:k + 20]:
        episode.add(step)
    assert episode.commit() == 2
recordings.require_intact(Dataset(path)[2], seed=3)
assert [p for p in check(path) if p.severity == "error"] == []
with DatasetWriter(path, recordings.SPEC, lossless=True) as writer:
    try:
        for seed in range(1000):
            recordings.record(writer, seed)
            if limit:
                break
        else:
            raise AssertionError("the disk never filled")
    except DiskFull as error:
        assert "untouched" in str(error)
for whole in Dataset(path):
    recordings.require_intact(whole, seed=3 if whole.meta.seed is None else None)
"""


def test_a_full_disk_is_one_line_and_costs_no_committed_episode(tmp_path):
    mount = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" -W error -c "$3" "$4" "$1" 0'
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    probe = subprocess.run([*isolated, 'mount -t tmpfs tmpfs "$1"', "sh", tmp_path], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"no private mounts here: {probe.stderr.decode().strip()}")
    command = [*isolated, mount, "sh", tmp_path, sys.executable, FILL, Path(recordings.__file__).parent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("No space left on device: ")
    assert done.stdout.count("\n") == 1
    assert "the committed ones are untouched" in done.stdout


def test_a_file_size_limit_is_reported_the_same_way(tmp_path):
    command = [sys.executable, "-W", "error", "-c", FILL, Path(recordings.__file__).parent, tmp_path, "60000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("File too large: ")
