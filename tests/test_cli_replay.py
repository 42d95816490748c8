"""`robopolicy replay`: in simulated time the same episode to the last bit; elsewhere how far off."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from robopolicy.cli.record import record
from robopolicy.cli.replay import load, replay
from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, DatasetError, SpecMismatch, UsageError
from robopolicy.loop import run_episode
from robopolicy.replay import Recording, Replay, preview
from robopolicy.types import EpisodeMeta
from robopolicy_data.writer import DatasetWriter
from robopolicy_hardware.mock import ARM, MockRobot
from robopolicy_hardware.safety import SafetyLayer, limits_for


def cli(*words):
    return subprocess.run(
        [sys.executable, "-m", "robopolicy.cli.main", *map(str, words)], capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "lift.zarr"
    assert record("twin:lift", path, 2, cameras=()) == 2
    return path


def test_in_simulated_time_every_state_comes_again_and_so_does_success(lifted):
    for number in (0, 1):
        outcome = replay(*load(lifted, number), "twin:lift")
        assert outcome.success is True
        assert outcome.recorded is True
        assert outcome.limited == 0
        assert outcome.difference["tool_pos"] == (0.0, 0.0)
        assert outcome.difference["cube_pos"] == (0.0, 0.0)
        assert outcome.steps == len(load(lifted, number)[0].commands)


def test_from_another_start_the_arm_follows_and_the_cube_is_elsewhere(lifted):
    recording, spec, meta = load(lifted, 0)
    outcome = replay(recording, spec, replace(meta, seed=77), "twin:lift")
    assert outcome.difference["cube_pos"][0] > 0.01
    assert outcome.success is False


@pytest.mark.slow
def test_in_real_time_the_arm_is_close(lifted):
    outcome = replay(*load(lifted, 0), "twin:lift", realtime=True)
    assert outcome.difference["tool_pos"][0] < 0.01


def test_another_robot_first_goes_to_the_start_at_a_safe_speed(lifted):
    recording, spec, _ = load(lifted, 0)
    spec = replace(ARM, state={k: spec.state[k] for k in ("tool_pos", "tool_quat", "gripper")}, cameras={})
    clock = SimClock()
    robot = MockRobot(spec, clock)
    agent = Replay(recording, spec)
    sent = []

    class Log:
        def on_start(self, meta, spec):
            pass

        def on_step(self, step):
            sent.append(step.sent)

        def on_end(self, meta):
            pass

    run_episode(
        robot, agent, clock, SafetyLayer(limits_for(spec), spec), EpisodeMeta("t", "mock"),
        max_steps=1000, watchers=[agent, Log()], done=agent.done,
    )  # fmt: skip
    assert agent.finished
    assert np.linalg.norm(np.diff(np.array(sent)[:, :3], axis=0), axis=1).max() <= 0.5 / 20 + 1e-6
    np.testing.assert_allclose(sent[-len(recording.commands) :], recording.commands, atol=2e-3)
    assert 0 < agent.difference()["tool_pos"][0] < 0.05


def test_gaps_in_the_recorded_time_are_kept():
    """A tick that a stall swallowed is not made up for: commands come at their recorded times."""
    due_ns = np.array([0, 50, 100, 250, 300], np.int64) * 1_000_000
    commands = np.tile(np.float32([0.4, 0, 0.3, 1, 0, 0, 0, -1, 0, 1]), (5, 1))
    commands[:, 0] += 0.001 * np.arange(5, dtype=np.float32)
    state = {"tool_pos": commands[:, :3]}
    recording = Recording(commands, due_ns, due_ns, state)
    clock = SimClock(7)
    agent = Replay(recording, ARM)
    sent = []

    class Log:
        def on_start(self, meta, spec):
            pass

        def on_step(self, step):
            sent.append(round(float(step.sent[0] - 0.4) * 1000))

        def on_end(self, meta):
            pass

    run_episode(
        MockRobot(ARM, clock), agent, clock, SafetyLayer(limits_for(ARM), ARM), EpisodeMeta("t", "mock"),
        max_steps=100, watchers=[agent, Log()], done=agent.done,
    )  # fmt: skip
    assert sent == [0, 1, 2, 2, 2, 3, 4]


def test_a_preview_moves_nothing_and_knows_range_and_speed():
    due_ns = np.arange(3, dtype=np.int64) * 100_000_000
    commands = np.tile(np.float32([0.4, 0, 0.3, 1, 0, 0, 0, -1, 0, 1]), (3, 1))
    commands[2, 0] = 0.43
    commands[2, 3:9] = (0, 1, 0, 1, 0, 0)  # a quarter turn about z
    seen = preview(Recording(commands, due_ns, due_ns, {}), ARM)
    assert (seen.steps, seen.time_s) == (3, pytest.approx(0.2))
    assert seen.speed_m_s == pytest.approx(0.3, rel=1e-5)
    assert seen.turn_rad_s == pytest.approx(np.pi / 2 / 0.1, rel=1e-5)
    assert (seen.low[0], seen.high[0]) == (pytest.approx(0.4), pytest.approx(0.43))


def test_what_cannot_be_replayed_is_said(lifted, tmp_path):
    with pytest.raises(DatasetError, match="has no episode 9; it has 0-1"):
        load(lifted, 9)
    recording, spec, meta = load(lifted, 0)
    with pytest.raises(SpecMismatch, match="the recording has tool_pose"):
        replay(recording, spec, meta, "gymnasium:gym_pusht/PushT-v0")
    with pytest.raises(UsageError, match="--video needs a simulated world"):
        replay(recording, spec, meta, "mock", video=tmp_path / "v.webm")
    with pytest.raises(UsageError, match=r"name the file v\.webm"):
        replay(recording, spec, meta, "twin:lift", video=tmp_path / "v.mp4")
    bad = recording.commands.copy()
    bad[1, 0] = np.nan
    with pytest.raises(ContractError, match="command 1 is not finite"):
        Recording(bad, recording.due_ns, recording.stamps_ns, {})
    with pytest.raises(ContractError, match="no steps"):
        Recording(bad[:0], recording.due_ns[:0], recording.stamps_ns[:0], {})


@pytest.mark.slow
def test_the_command_line(lifted, tmp_path):
    done = cli("replay", lifted, "--episode", 1, "--video", tmp_path / "v.webm")
    assert done.returncode == 0, done.stderr
    assert re.search(r"tool_pos +differs by 0 m \(root mean square\), 0 at most", done.stdout)
    assert re.search(r"episode 1 on twin:lift: \d+ commands; recorded as success, now success", done.stdout)
    assert (tmp_path / "v.webm").stat().st_size > 1000
    done = cli("data", "replay", lifted, "--episode", 1, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\d+ commands in [\d.]+ s\nx +0\.\d+ to +0\.\d+ m, at most", done.stdout)
    assert "fastest:" in done.stdout
    DatasetWriter(tmp_path / "empty.zarr", ARM).close()
    done = cli("replay", tmp_path / "empty.zarr", "--episode", 0)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
