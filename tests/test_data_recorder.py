import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from recordings import META, SPEC, make_steps, require_intact

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, SpecMismatch
from robopolicy.loop import run_episode
from robopolicy.spec import CameraSpec
from robopolicy.testing import WatcherContract
from robopolicy.types import Command
from robopolicy_data.reader import Dataset
from robopolicy_data.recorder import Recorder
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
