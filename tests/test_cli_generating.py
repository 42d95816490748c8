"""Demonstrations from several processes: the same dataset as from one, whoever is killed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from robopolicy.cli.generating import Demonstrator, Scene, generate
from robopolicy.cli.main import main
from robopolicy.errors import EvaluationError, UsageError
from robopolicy_data.check import check
from robopolicy_data.layout import streams
from robopolicy_data.reader import Dataset

sys.path.insert(0, str(Path(__file__).parent))  # inherited by spawned processes, which import what they run
import generating_worlds


def make(path, world, episodes, *, seed=0, jobs=1, held=0, keep_failures=False, **options):
    scene = Scene(world, generating_worlds.make_agent, (), keep_failures=keep_failures)
    with closing(Demonstrator(scene, path)) as demonstrator:
        *_, last = generate(demonstrator, episodes, held=held, seed=seed, jobs=jobs, **options)
    return last


def content(path):
    """All that is in a dataset, but for what names the run: {number: (meta, every number and every frame's bytes)}."""
    dataset = Dataset(path)
    return {episode.number: (episode.meta, _arrays(dataset, episode)) for episode in dataset}


def _arrays(dataset, episode):
    numbers = {
        stream.path: (episode.path / stream.path / stream.chunk).read_bytes() for stream in streams(dataset.spec)
    }
    return numbers | {camera: b"".join(episode.frame_bytes(camera)) for camera in dataset.spec.cameras}


@pytest.mark.parametrize("jobs", [2, 3])
def test_any_number_of_jobs_makes_the_same_dataset(tmp_path, jobs):
    alone = make(tmp_path / "a", "generating_worlds:EveryThirdFails", 8, seed=1)
    together = make(tmp_path / "b", "generating_worlds:EveryThirdFails", 8, seed=1, jobs=jobs)
    assert alone == together
    assert (alone.held, alone.successes, alone.attempts, alone.next_seed) == (8, 8, 11, 12)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert [episode.meta.seed for episode in Dataset(tmp_path / "b")] == [1, 2, 4, 5, 7, 8, 10, 11]
    assert len({episode.attributes["uuid"] for episode in Dataset(tmp_path / "b")}) == 8
    assert list(check(tmp_path / "b")) == []
    assert sorted(os.listdir(tmp_path / "b")) == [".lock", "episodes", "zarr.json"], "nothing is left of the workers"


def test_failures_are_kept_when_asked_for(tmp_path):
    made = make(tmp_path / "d", "generating_worlds:EveryThirdFails", 5, jobs=2, keep_failures=True)
    assert (made.held, made.successes, made.attempts) == (5, 3, 5)
    assert [episode.meta.success for episode in Dataset(tmp_path / "d")] == [False, True, True, False, True]


def test_no_more_attempts_than_asked_for(tmp_path):
    made = make(tmp_path / "d", "generating_worlds:EveryThirdFails", 50, jobs=2, most=4)
    assert (made.held, made.successes, made.attempts) == (2, 2, 4)


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_that_always_fails_ends_it(tmp_path, jobs):
    with pytest.raises(UsageError, match="failed 20 times running, last with seed 49"):
        make(tmp_path / "d", "generating_worlds:NeverSolved", 3, seed=30, jobs=jobs)


def test_a_killed_worker_costs_time_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "deaths").mkdir()
    monkeypatch.setenv("FRAGILE", str(tmp_path / "deaths"))
    make(tmp_path / "whole", "generating_worlds:FragileWorld", 7)
    for name in "ab":
        (tmp_path / "deaths" / name).touch()
    make(tmp_path / "killed", "generating_worlds:FragileWorld", 7, jobs=2)
    assert not list((tmp_path / "deaths").iterdir()), "it was killed twice"
    assert content(tmp_path / "whole") == content(tmp_path / "killed")
    assert sorted(os.listdir(tmp_path / "killed")) == [".lock", "episodes", "zarr.json"]


def test_a_start_that_kills_every_worker_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="seed 13: 4 workers died of it, the last by exit code 3"):
        make(tmp_path / "d", "tiny_worlds:PointWorld", 20, seed=11, jobs=2)
    assert [episode.meta.seed for episode in Dataset(tmp_path / "d")] == [11, 12], "what came before it stays"


def test_a_start_at_which_a_worker_hangs_is_named_and_what_came_before_it_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("HANGS", "1000")
    monkeypatch.setattr("robopolicy.cli.generating.EPISODE_S", 6.0)
    with pytest.raises(EvaluationError, match=r"seed 5: its worker ran for more than 6 s .* --seed 6 leaves this"):
        make(tmp_path / "d", "generating_worlds:HangingWorld", 20, seed=3, jobs=2)
    assert [episode.meta.seed for episode in Dataset(tmp_path / "d")] == [3, 4]
    assert sorted(os.listdir(tmp_path / "d")) == [".lock", "episodes", "zarr.json"]


def test_a_later_start_that_kills_its_worker_matters_to_nobody_who_does_not_come_so_far(tmp_path, monkeypatch):
    monkeypatch.setenv("HANGS", "4")  # the other worker dies of seed 13 meanwhile
    made = make(tmp_path / "d", "generating_worlds:HangingWorld", 8, seed=3, jobs=2)
    assert (made.held, made.next_seed) == (8, 11)
    assert [episode.meta.seed for episode in Dataset(tmp_path / "d")] == list(range(3, 11))


def test_a_start_that_raises_is_named(tmp_path):
    with pytest.raises(EvaluationError, match="seed 17: RuntimeError: the world broke"):
        make(tmp_path / "d", "tiny_worlds:PointWorld", 20, seed=16, jobs=2)


def words(path, episodes, *more):
    return ["record", "--robot", "twin:lift", "--cameras", "--data", str(path), "--episodes", str(episodes), *more]


def test_a_killed_recording_of_several_jobs_goes_on_where_it_was(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "robopolicy.cli.main", *words(tmp_path / "d", 100_000, "--jobs", "2")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    episodes = tmp_path / "d" / "episodes"
    while process.poll() is None and (not episodes.exists() or len(os.listdir(episodes)) < 4):
        time.sleep(0.01)
    workers = _children(process.pid)
    process.kill()
    assert process.communicate()[1] is not None
    _wait_until_gone(workers)
    held = {e.number: (e.meta.seed, e.action().tobytes()) for e in Dataset(tmp_path / "d")}
    assert len(workers) >= 2
    assert sorted(held) == sorted(seed for seed, _ in held.values()), "the first so many seeds"
    more = len(held) + 3
    assert main(words(tmp_path / "d", more, "--jobs", "2")) == 0
    assert main(words(tmp_path / "alone", more)) == 0
    assert content(tmp_path / "d") == content(tmp_path / "alone")
    assert held.items() <= {e.number: (e.meta.seed, e.action().tobytes()) for e in Dataset(tmp_path / "d")}.items()
    assert not (tmp_path / "d" / ".wip").exists()


def _wait_until_gone(pids):
    """They do not outlive their parent; for ever is the test's timeout."""
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.01)


def _children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_ctrl_c_ends_the_workers_too(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "robopolicy.cli.main", *words(tmp_path / "d", 100_000, "--jobs", "2")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    episodes = tmp_path / "d" / "episodes"
    while process.poll() is None and (not episodes.exists() or len(os.listdir(episodes)) < 2):
        time.sleep(0.01)
    workers = _children(process.pid)
    process.send_signal(signal.SIGINT)
    assert "interrupted; what was committed is kept" in process.communicate()[1]
    assert process.returncode == 130
    _wait_until_gone(workers)
    assert sorted(os.listdir(tmp_path / "d")) == [".lock", "episodes", "zarr.json"]


def test_stamps_begin_anew_with_each_episode(tmp_path):
    make(tmp_path / "d", "tiny_worlds:PointWorld", 3)
    for episode in Dataset(tmp_path / "d"):
        np.testing.assert_array_equal(episode.stamps_ns("step"), np.arange(episode.length) * 100_000_000)


def test_an_episode_may_last_as_long_at_any_rate(tmp_path):
    scene = Scene("twin:lift", generating_worlds.make_idle, (), rate_hz=5.0, keep_failures=True)
    with closing(Demonstrator(scene, tmp_path / "d")) as demonstrator:
        attempt = demonstrator.run(0)
    assert not attempt.success
    assert [episode.length for episode in Dataset(tmp_path / "d")] == [30]  # 120 at 20 Hz


def test_a_person_drives_one_robot(tmp_path, capsys):
    assert (
        main(["record", "--robot", "mock", "--teleop", "keyboard", "--data", str(tmp_path / "d"), "--jobs", "2"]) == 1
    )
    assert "--jobs is of the expert" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_are_the_same_from_any_process(tmp_path):
    pytest.importorskip("OpenGL")
    base = ["record", "--robot", "twin:lift", "--episodes", "4", "--data"]
    assert main([*base, str(tmp_path / "a")]) == 0
    assert main([*base, str(tmp_path / "b"), "--jobs", "2"]) == 0
    assert content(tmp_path / "a") == content(tmp_path / "b")
