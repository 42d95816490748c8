import errno
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, require_intact

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, DiskFull, SpecMismatch
from robopolicy.loop import run_episode
from robopolicy.spec import CameraSpec
from robopolicy.testing import WatcherContract
from robopolicy.types import Command
from robopolicy_data.check import check
from robopolicy_data.episode_writer import EpisodeWriter
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
from robopolicy_data.writer import DatasetWriter
from robopolicy_hardware.mock import MockRobot


class TestRecorder(WatcherContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.path = tmp_path / "d"
        yield
        assert len(Dataset(self.path)) == 2

    def make(self, spec):
        return Recorder(self.path)

    def spec(self):
        return SPEC


def show(recorder, seed, *, spec=SPEC, end=True, **meta):
    described = replace(META, seed=seed)
    recorder.on_start(described, spec)
    for step in make_steps(seed):
        recorder.on_step(step)
    if end:
        recorder.on_end(replace(described, **meta))


def test_records_what_the_loop_did(tmp_path):
    class Wave:
        decision = None

        def reset(self, seed=0):
            self.k = 0

        def act(self, observation):
            self.k += 1
            hold = self.k > 8
            return Command(None if hold else np.float32([0.1 * self.k, 2.0]), "hold" if hold else "policy")

    class HalfSpeed:
        def reset(self):
            pass

        def limit(self, action, observation, now_ns):
            return np.minimum(action, 1.0)

    clock = SimClock(5_000)
    robot = MockRobot(SPEC, clock)
    with Recorder(tmp_path / "d", lossless=True) as recorder:
        run_episode(
            robot, Wave(), clock, HalfSpeed(), META, max_steps=10, watchers=[recorder],
            finish=lambda meta: replace(meta, success=True),
        )  # fmt: skip
    (episode,) = Dataset(tmp_path / "d")
    assert recorder.committed == [0]
    assert episode.length == 10
    assert episode.meta.success is True
    assert episode.stamps_ns("action").tolist() == [5_000 + k * SPEC.period_ns for k in range(10)]
    assert episode.sources().tolist() == [0] * 8 + [2] * 2
    assert np.all(episode.action()[:8, 1] == 1.0), "the command after safety, not the wish"
    assert np.any(episode.images("front")[0] != episode.images("front")[-1])


def test_keeps_only_what_it_is_told_to(tmp_path):
    with Recorder(tmp_path, keep=lambda meta: meta.success is True, lossless=True) as recorder:
        show(recorder, 1, success=True)
        show(recorder, 2, success=False)
        show(recorder, 3, success=True)
    assert recorder.committed == [0, 1]
    assert [episode.meta.seed for episode in Dataset(tmp_path)] == [1, 3]
    for episode in Dataset(tmp_path):
        require_intact(episode)


def test_an_episode_without_an_end_is_not_committed_and_stops_nothing(tmp_path):
    with Recorder(tmp_path, lossless=True) as recorder:
        show(recorder, 1, end=False)
        show(recorder, 2)
        show(recorder, 3, end=False)
    with Recorder(tmp_path, lossless=True) as again:
        show(again, 4)
    assert [episode.meta.seed for episode in Dataset(tmp_path)] == [2, 4]
    assert len(list((tmp_path / ".trash").iterdir())) == 2


def test_an_episode_without_steps_is_dropped(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.on_start(META, SPEC)
        recorder.on_end(META)
    assert len(Dataset(tmp_path)) == 0


def test_another_robot_is_refused(tmp_path):
    with Recorder(tmp_path) as recorder:
        show(recorder, 1)
        other = replace(SPEC, cameras={**SPEC.cameras, "front": CameraSpec(48, 64)})
        with pytest.raises(SpecMismatch, match="24x32"):
            recorder.on_start(META, other)
        show(recorder, 2)
    with Recorder(tmp_path) as recorder, pytest.raises(SpecMismatch, match="24x32"):
        recorder.on_start(META, other)


def test_meta_that_cannot_be_stored_keeps_the_steps(tmp_path):
    with Recorder(tmp_path) as recorder:
        with pytest.raises(ContractError, match="JSON"):
            show(recorder, 1, extra={"f": print})
        show(recorder, 2)
    assert [episode.meta.seed for episode in Dataset(tmp_path)] == [2]
    with Recorder(tmp_path) as recorder:
        show(recorder, 3)
    assert len(list((tmp_path / ".trash").iterdir())) == 1


class SlowDisk:
    """Lets a recorder's writes pass one by one, so that its queue is as full as a test wants it."""

    def __init__(self, monkeypatch):
        self.allowed = threading.Semaphore(0)
        really = EpisodeWriter.add

        def add(episode, step):
            self.allowed.acquire()
            really(episode, step)

        monkeypatch.setattr(EpisodeWriter, "add", add)

    def let(self, steps):
        self.allowed.release(steps)


def wait_until(what):
    while not what():
        time.sleep(0.001)


def real_time(steps):
    """Stamps that lie in no future: time that is not simulated."""
    return [
        replace(s, observation=replace(s.observation, stamp_ns=10**9 + k, image_stamps_ns={}))
        for k, s in enumerate(steps)
    ]


def test_a_full_queue_is_counted_told_recorded_and_an_error(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    with Recorder(tmp_path, lossless=True, capacity_steps=5) as recorder:
        recorder.on_start(META, SPEC)
        steps = real_time(make_steps(3, 20))
        for step in steps[:8]:
            recorder.on_step(step)  # 5 wait, 3 find no room
        status = recorder.status()
        assert (status.queued, status.capacity, status.dropped) == (5, 5, 3)
        assert "3 step(s) DROPPED" in status.message
        disk.let(5)
        wait_until(lambda: recorder.status().queued == 0)
        for step in steps[8:14]:
            recorder.on_step(step)  # 5 fit, 1 not
        disk.let(100)
        recorder.on_end(META)
        assert "4 step(s) DROPPED" in recorder.status().message
    (episode,) = Dataset(tmp_path)
    kept = [*range(5), *range(8, 13)]
    assert episode.stamps_ns("step").tolist() == [10**9 + k for k in kept]
    first = 10**9
    assert episode.attributes["drops"] == {
        "steps": 4, "spans": [[first + 5, first + 7, 3], [first + 13, first + 13, 1]],
    }  # fmt: skip
    assert np.array_equal(episode.images("front"), np.stack([steps[k].observation.images["front"] for k in kept]))
    assert [p.message for p in check(tmp_path) if p.severity == "error"] == [
        "4 step(s) were dropped while recording: the disk or the processor could not keep up"
    ]


def test_the_queue_is_bounded_in_bytes_too(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    size = sum(np.prod(c.shape) for c in SPEC.cameras.values())
    with Recorder(tmp_path, capacity_bytes=3 * int(size)) as recorder:
        recorder.on_start(META, SPEC)
        for step in real_time(make_steps(3, 5)):
            recorder.on_step(step)
        assert (recorder.status().queued, recorder.status().dropped) == (3, 2)
        disk.let(100)
        recorder.on_end(META)
    assert Dataset(tmp_path)[0].length == 3


def test_a_frame_seen_again_waits_only_once(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    size = sum(np.prod(c.shape) for c in SPEC.cameras.values())
    steps = real_time(make_steps(3, 6))
    stamps = dict.fromkeys(SPEC.cameras, 10**9)
    with Recorder(tmp_path, lossless=True, capacity_bytes=int(size)) as recorder:
        recorder.on_start(META, SPEC)
        for step in steps:
            recorder.on_step(replace(step, observation=replace(step.observation, image_stamps_ns=stamps)))
        assert (recorder.status().queued, recorder.status().dropped) == (6, 0)
        disk.let(100)
        recorder.on_end(META)
    episode = Dataset(tmp_path)[0]
    assert (episode.length, episode.frame_count("front")) == (6, 1)
    assert np.array_equal(episode.images("front", 5)[0], steps[0].observation.images["front"])


def test_simulated_time_waits_for_the_disk(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    with Recorder(tmp_path, lossless=True, capacity_steps=2) as recorder:
        recorder.on_start(replace(META, seed=3), SPEC)
        feeder = threading.Thread(target=lambda: [recorder.on_step(step) for step in make_steps(3, 40)])
        feeder.start()
        disk.let(100)
        feeder.join()
        recorder.on_end(replace(META, seed=3))
    (episode,) = Dataset(tmp_path)
    assert episode.attributes["drops"] == {}
    assert episode.length == 40
    require_intact(episode, seed=3)


def test_the_loop_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    with Recorder(tmp_path) as recorder:
        recorder.on_start(META, SPEC)
        for step in make_steps(3, 50):
            recorder.on_step(step)  # would never return if it waited: nothing is let through
        assert recorder.status().queued == 50
        disk.let(100)
        recorder.on_end(META)
    assert Dataset(tmp_path)[0].length == 50


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_a_bad_frame_ends_the_recording_and_costs_nothing_before_it(tmp_path, background, keep):
    steps = make_steps(3, 9)
    seen = steps[6].observation
    steps[6] = replace(steps[6], observation=replace(seen, images={**seen.images, "wrist": np.zeros((9, 9, 3), "u1")}))
    with Recorder(tmp_path, lossless=True, background=background, keep=lambda meta: keep) as recorder:
        recorder.on_start(META, SPEC)
        with pytest.raises(ContractError, match=r"camera 'wrist': picture is uint8 \(9, 9, 3\), want"):
            list(map(recorder.on_step, steps * 1000))
        recorder.on_end(replace(META, success=False, notes="ended by it"))
    if keep:
        (episode,) = Dataset(tmp_path)
        assert (episode.length, episode.meta.success, episode.meta.notes) == (6, False, "ended by it")
        require_intact(episode, seed=3)
    else:
        assert len(Dataset(tmp_path)) == 0
        with DatasetWriter(tmp_path, SPEC) as writer:
            assert [one.steps for one in writer.interrupted] == [6], "what an error cut short is not deleted"


def test_what_the_loop_could_not_hear_of_is_told_at_the_end(tmp_path, monkeypatch):
    disk = SlowDisk(monkeypatch)
    steps = make_steps(3, 7)
    late = replace(steps[4].observation, stamp_ns=5)
    with Recorder(tmp_path, lossless=True) as recorder:
        recorder.on_start(META, SPEC)
        for step in (*steps[:4], replace(steps[4], observation=late), *steps[5:]):
            recorder.on_step(step)
        disk.let(100)
        with pytest.raises(ContractError, match="time/step goes back in time"):
            recorder.on_end(replace(META, success=True, notes="fine."))
        show(recorder, 2)
    first, second = Dataset(tmp_path)
    assert (first.length, first.meta.success) == (4, False)
    assert first.meta.notes.startswith("fine. recording stopped after 4 steps: time/step goes back in time")
    require_intact(first, seed=3)
    require_intact(second)


def test_an_unended_episode_can_be_recovered(tmp_path):
    with Recorder(tmp_path, lossless=True) as recorder:
        show(recorder, 3, end=False)
    with Recorder(tmp_path, lossless=True, recover=True) as recorder:
        show(recorder, 2)
        assert [one.number for one in recorder.interrupted] == [0]
    recovered, other = Dataset(tmp_path)
    require_intact(recovered, seed=3)
    require_intact(other)
    assert recovered.meta.success is False


def test_marks_lie_at_the_newest_step(tmp_path):
    with Recorder(tmp_path) as recorder:
        recorder.on_start(META, SPEC)
        steps = make_steps(3, 4)
        for k, step in enumerate(steps):
            recorder.on_step(step)
            if k == 2:
                recorder.mark("grasped")
        recorder.on_end(META)
    stamp_ns = steps[2].observation.stamp_ns
    assert Dataset(tmp_path)[0].attributes["marks"] == [{"stamp_ns": stamp_ns, "name": "grasped"}]


def test_a_mark_before_the_first_step_lies_at_it_also_in_a_second_episode(tmp_path):
    with Recorder(tmp_path) as recorder:
        for seed in (1, 2):
            recorder.on_start(META, SPEC)
            recorder.mark("takeover")
            for step in make_steps(seed, 3):
                recorder.on_step(step)
            recorder.on_end(META)
    for episode in Dataset(tmp_path):
        first = int(episode.stamps_ns("step")[0])
        assert episode.attributes["marks"] == [{"stamp_ns": first, "name": "takeover"}]


def test_libraries_are_loaded_before_the_first_step(tmp_path):
    """An import holds up every thread, for depth maps by 50 ms: not in the middle of a tick."""
    program = (
        "import sys; from pathlib import Path; from robopolicy.spec import *; from robopolicy.types import *\n"
        "from robopolicy_data.recorder import Recorder\n"
        "spec = PolicySpec({'a': CameraSpec(8, 8), 'b': CameraSpec(8, 8, 'depth')}, {'q': StateSpec(1, ('rad',))})\n"
        "with Recorder(Path(sys.argv[1]) / 'd') as recorder:\n"
        "    recorder.on_start(EpisodeMeta('lift', 'mock'), spec)\n"
        "    assert {'simplejpeg', 'numcodecs.blosc'} <= set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def paced(period_ns, count, wrist=None):
    for k, step in enumerate(make_steps(3, count)):
        seen = step.observation
        stamp = 10**9 + k * period_ns
        stamps = {"front": stamp, "wrist": stamp if wrist is None else 10**9 + wrist(k) * period_ns}
        yield replace(step, observation=replace(seen, stamp_ns=stamp, image_stamps_ns=stamps), due_ns=stamp)


@pytest.mark.parametrize(
    ("steps", "now", "after"),
    [
        (paced(50_000_000, 60), "", ""),
        (paced(55_000_000, 60), "18.18 Hz, labelled 20 Hz", "18.18 Hz, labelled 20 Hz"),
        (
            paced(50_000_000, 60, lambda k: min(k, 39)),
            "camera 'wrist' stalls: no new frame for 1.0 s", "camera 'wrist' stalled: no new frame for 1.0 s",
        ),
        (paced(50_000_000, 90, lambda k: k if k > 40 else 0), "", "camera 'wrist' stalled: no new frame for 2.0 s"),
        (paced(50_000_000, 60, lambda k: k // 4 * 4), "", ""),
    ],
    ids=["good", "slow", "stalls", "stalled", "slow camera"],
)  # fmt: skip
def test_a_slow_loop_and_a_camera_that_stalls_are_told(tmp_path, steps, now, after):
    with Recorder(tmp_path, background=False) as recorder:
        recorder.on_start(META, SPEC)
        for step in steps:
            recorder.on_step(step)
        assert recorder.status().message == now
        recorder.on_end(META)
        assert recorder.status().message == after


def test_a_state_that_is_no_number_is_told_at_once_and_at_the_end(tmp_path):
    with Recorder(tmp_path, background=False) as recorder:
        recorder.on_start(META, SPEC)
        for k, step in enumerate(paced(50_000_000, 60)):
            seen = step.observation
            bad = {name: np.full_like(values, np.nan) for name, values in seen.state.items()} if k in (20, 21) else {}
            recorder.on_step(replace(step, observation=replace(seen, state={**seen.state, **bad})))
            told = "is NaN or infinite: nothing can be learnt" in recorder.status().message
            assert told == (k in (20, 21))
        recorder.on_end(META)
        assert "was NaN or infinite in 2 of 60 steps" in recorder.status().message


@pytest.mark.parametrize("room_again", [True, False])
def test_a_disk_that_fills_behind_the_loops_back(tmp_path, monkeypatch, room_again):
    really, full = os.pwrite, threading.Event()

    def pwrite(fd, data, offset):
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return really(fd, data, offset)

    steps = make_steps(3, 30)
    with Recorder(tmp_path, lossless=True) as recorder:
        recorder.on_start(META, SPEC)
        for step in steps[:20]:
            recorder.on_step(step)
        wait_until(lambda: recorder.status().queued == 0)
        monkeypatch.setattr(os, "pwrite", pwrite)
        full.set()
        recorder.on_step(steps[20])
        wait_until(lambda: recorder.status().queued == 0)
        assert "recording stopped: No space left on device" in recorder.status().message
        with pytest.raises(DiskFull, match="stopped after 20 steps"):
            recorder.on_step(steps[21])
        if room_again:
            full.clear()
            recorder.on_end(replace(META, success=False))
        else:
            with pytest.raises(DiskFull, match="stopped after 20 steps"):
                recorder.on_end(replace(META, success=False))
        full.clear()
    with DatasetWriter(tmp_path, SPEC, recover=True) as writer:
        assert [one.steps for one in writer.interrupted] == ([] if room_again else [20])
    (episode,) = Dataset(tmp_path)
    assert episode.length == 20
    require_intact(episode, seed=3)
    assert [p for p in check(tmp_path) if p.severity == "error"] == []
