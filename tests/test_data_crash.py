"""What a killed recorder, a full disk and a second writer leave behind, with real processes and real file systems."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import bench_crash
import recordings

from robopolicy.errors import DatasetBusy
from robopolicy_data.check import check
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter


def start_recorder(path, seed):
    command = [sys.executable, recordings.__file__, str(path), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_is_lost(tmp_path, kills):
    """The benchmark of a thousand kills, with fewer: a recorder in the background, two cameras, as fast as it goes."""
    path = tmp_path / "d"
    count = bench_crash.run(path, kills, seed=1)
    assert count.problems == []
    assert count.lost == count.altered == 0
    assert count.committed > kills / 2
    assert count.interrupted > kills / 4, "the kills hit no recording; the test tests nothing"
    assert count.recovered >= 0.95 * count.journaled > 0
    numbers = [episode.number for episode in Dataset(path)]
    assert numbers == list(range(len(numbers))), "numbers go on without a gap and none is used twice"
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
import shutil, sys
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

# and once more, with nobody who makes room until the recorder has gone: the steps before are recovered
for whole in Dataset(path)[2:]:
    shutil.rmtree(whole.path)
if limit:
    room(limit)
else:
    ballast.write_bytes(bytes(400_000))
with DatasetWriter(path, recordings.SPEC, lossless=True) as writer:
    episode, k = writer.begin(recordings.META), 0
    try:
        for k, step in enumerate(recordings.make_steps(3, 2000)):
            episode.add(step)
    except DiskFull:
        assert len(episode) == k
    else:
        raise AssertionError("the disk never filled")
room(-1)
with DatasetWriter(path, recordings.SPEC, lossless=True, recover=True) as writer:
    (one,) = writer.interrupted
    assert one.steps == k and one.number > 2, one
recordings.require_intact(Dataset(path)[-1], seed=3)
assert [p for p in check(path) if p.severity == "error"] == []
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
