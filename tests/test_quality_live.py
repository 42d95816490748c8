"""What the operator of a session sees of a comparison with earlier demonstrations."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import reaching
from hands import Hand
from tiny_worlds import SPEC, AnythingGoes, PointWorld

from robopolicy.cli.demonstrate import _comparison
from robopolicy.cli.main import main
from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch, UsageError
from robopolicy.quality.watcher import CompatibilityWatcher
from robopolicy.session import Wishes, keep_unless_discarded, run_session
from robopolicy.shared_control import Shared
from robopolicy.types import EpisodeMeta
from robopolicy_data.recorder import Recorder


class Doubtful:
    """Says from its third step on what a comparison would, and at the end how it was."""

    message = ""

    def on_start(self, meta, spec):
        self.steps = 0

    def on_step(self, step):
        self.steps += 1
        self.message = "this differs" if self.steps > 2 else ""

    def on_end(self, meta):
        self.message = "it differed"


def test_what_a_watcher_says_is_shown_while_recording_and_after(tmp_path):
    clock = SimClock()
    robot, hand = PointWorld(clock), Hand(SPEC, {3: ["start"], 9: ["success"], 12: ["quit"]}, (-0.02, -0.02, 0.0))
    with Recorder(tmp_path / "d", keep=keep_unless_discarded, background=False) as recorder:
        wishes = Wishes(lambda seed: EpisodeMeta("go home", "point", seed=seed), 9, tell=lambda line: None)
        run_session(
            robot, Shared(None, hand, SPEC), hand, clock, AnythingGoes(SPEC), recorder, wishes, watchers=[Doubtful()]
        )
    recording = [status.message for status in hand.shown if status.phase == "recording"]
    waiting = [status.message for status in hand.shown if status.phase == "waiting"]
    assert "this differs" in recording
    assert recording[0] != "this differs"
    assert waiting[-1] == "it differed"


def test_the_comparison_of_record_is_with_the_good_episodes_of_a_dataset(tmp_path):
    rng = np.random.default_rng(0)
    path = reaching.write(tmp_path / "d.zarr", [reaching.reach(rng) for _ in range(12)], {3: False}.items())
    watcher = _comparison(path, reaching.SPEC)
    assert isinstance(watcher, CompatibilityWatcher)
    with pytest.raises(SpecMismatch, match="the robot has 5 Hz"):
        _comparison(path, replace(reaching.SPEC, rate_hz=5.0))
    failed = reaching.write(tmp_path / "f.zarr", [reaching.reach(rng)], {0: False}.items())
    with pytest.raises(UsageError, match="holds no demonstration to compare with"):
        _comparison(failed, reaching.SPEC)


def test_an_expert_is_not_compared(tmp_path, capsys):
    command = ["record", "--robot", "twin:lift", "--data", tmp_path / "x.zarr", "--compare-with", tmp_path / "d.zarr"]
    assert main([str(word) for word in command]) == 1
    assert "--compare-with wants a person who drives" in capsys.readouterr().err
    assert not (tmp_path / "x.zarr").exists()
