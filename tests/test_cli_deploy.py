"""What `robopolicy deploy --record` does with a dataset that has more cameras than the policy sees."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from robopolicy.cli.deploy import Ticker, deploy
from robopolicy.cli.train import train
from robopolicy.clock import SimClock
from robopolicy.errors import SpecMismatch
from robopolicy_data.reader import Dataset
from robopolicy_data.writer import DatasetWriter
from sim_envs.worlds import make_world

sys.path.insert(0, str(Path(__file__).parent))
import recordings


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A policy of the twin that sees states only, hardly trained."""
    folder = tmp_path_factory.mktemp("deploy")
    world = make_world("twin:lift", SimClock(), cameras=())
    with DatasetWriter(folder / "d.zarr", world.spec) as writer:
        episode = writer.begin(recordings.META)
        for step in recordings.make_steps(0, 6, spec=world.spec):
            episode.add(step)
        episode.commit()
    world.close()
    settings = {"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}
    train(folder / "d.zarr", folder / "policy", settings=settings)
    return folder / "policy"


def test_a_recording_without_the_datasets_cameras_is_refused_and_told_the_way(blind, tmp_path):
    world = make_world("twin:lift", SimClock(), cameras=("front",))
    path = tmp_path / "d.zarr"
    DatasetWriter(path, world.spec).close()
    world.close()
    with pytest.raises(
        SpecMismatch, match=r"has the camera\(s\) front, which this recording lacks.*add --cameras front"
    ):
        deploy("twin:lift", blind, record=path, max_steps=3)
    assert len(Dataset(path)) == 0
    deploy("twin:lift", blind, record=path, max_steps=3, cameras=("front",))
    (episode,) = Dataset(path)
    assert episode.length == 3
    assert episode.images("front").std() > 5


def test_what_else_differs_is_said_as_ever(blind, tmp_path):
    world = make_world("twin:lift", SimClock(), cameras=())
    DatasetWriter(tmp_path / "d.zarr", replace(world.spec, rate_hz=7.0)).close()
    world.close()
    with pytest.raises(SpecMismatch, match="7 Hz"):
        deploy("twin:lift", blind, record=tmp_path / "d.zarr", max_steps=3)


KILLED = """
import os, sys
from robopolicy.cli import deploy
from robopolicy.cli.main import main
number, steps = int(sys.argv.pop()), []
def on_step(ticker, step):
    steps.append(step)
    if len(steps) == 30:
        os.kill(os.getpid(), number)
deploy.Ticker.on_step = on_step
sys.exit(main(sys.argv[1:]))
"""


AGAIN = """
    if len(steps) == 30:
        from sim_envs.twin import Twin as robot
        stop = robot.stop
        def interrupted(self, reason=""):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), 2)
            print("stopped:", reason, flush=True)
            return stop(self, reason)
        robot.stop = interrupted
        os.kill"""


def ended(blind, path, number, program=KILLED):
    """Deploy until step 30, where the signal comes; return the process."""
    words = ["deploy", "--robot", "twin:lift", "--checkpoint", blind, "--record", path, "--max-steps", "60", number]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, env=environment)


def test_what_a_kill_left_is_said_by_the_next_deployment_and_an_episode(blind, tmp_path, capsys):
    assert ended(blind, tmp_path / "d.zarr", signal.SIGKILL.value).returncode == -signal.SIGKILL
    deploy("twin:lift", blind, record=tmp_path / "d.zarr", max_steps=3)
    said = re.search(r"an interrupted recording of (\d+) steps is episode 0", capsys.readouterr().out)
    left, whole = Dataset(tmp_path / "d.zarr")
    assert (left.length, left.meta.success) == (int(said[1]), False)
    assert left.length >= 28
    assert whole.length == 3
    assert whole.meta.extra["checkpoint"] == str(blind), "who drove"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_robot_and_keeps_what_was_recorded(blind, tmp_path, number):
    assert ended(blind, tmp_path / "d.zarr", number.value).returncode == 128 + number
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.length >= 29
    assert "ended by" in episode.meta.notes


def test_a_robot_of_your_own_may_have_a_state_too():
    notes = []
    ticker = Ticker(lambda note: notes.append(note), SimpleNamespace(state=lambda: 3, reason=4, trips=5))
    ticker.on_step(recordings.make_steps(0, 1)[0])
    assert notes == ["policy"]
    assert ticker.told(recordings.META) is recordings.META


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_follow_do_not_interrupt_the_stop(blind, tmp_path, number):
    program = KILLED.replace("\n    if len(steps) == 30:\n        os.kill", AGAIN)
    assert program != KILLED
    done = ended(blind, tmp_path / "d.zarr", number.value, program)
    assert b"stopped: ended by" in done.stdout
    assert done.returncode == 128 + number
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.length >= 29
    assert "ended by" in episode.meta.notes


BOTH = """
import os, signal
from robopolicy.cli.signals import ended_once
both = {signal.SIGINT, signal.SIGTERM}
try:
    with ended_once():
        signal.pthread_sigmask(signal.SIG_BLOCK, both)
        for number in both:
            os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        print("goes on")
except BaseException as error:
    print(type(error).__name__)
"""


def test_two_signals_at_once_end_it_without_a_word_of_python():
    done = subprocess.run([sys.executable, "-c", BOTH], capture_output=True, text=True)
    assert done.stdout in ("KeyboardInterrupt\n", "SystemExit\n"), "which of the two comes first is the system's to say"
    assert not done.stderr
