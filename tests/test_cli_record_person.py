"""`robopolicy record` with a person at a real terminal: keys in, a dataset out, the terminal as it was."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from terminals import InTerminal

from robopolicy.cli.main import main
from robopolicy_data.check import check
from robopolicy_data.layout import SOURCES
from robopolicy_data.reader import Dataset

TESTS = str(Path(__file__).parent)


@pytest.fixture
def at(tmp_path):
    """Start ``robopolicy record`` in a terminal; all are ended afterwards."""
    running = []

    def start(*words, robot="mock", teleop="keyboard", **options):
        here = ("record", "--robot", robot, "--teleop", teleop, "--data", tmp_path / "d.zarr", "--seed", 5)
        running.append(InTerminal(*here, *words, **options))
        return running[-1]

    yield start
    for terminal in running:
        terminal.close()


def sources(episode):
    return [SOURCES[i] for i in episode.sources()]


def marks(episode):
    """What the person did; a busy machine adds stalls."""
    return [mark["name"] for mark in episode.attributes["marks"] if mark["name"] != "stall"]


def sound(path):
    return [str(p) for p in check(path) if p.severity == "error"]


def test_a_session_at_the_mock_from_the_first_key_to_the_next_command(at, tmp_path):
    words = ("--episodes", 2, "--operator", "ann", "--task", "show it", "--notes", "a test", "--rate", 25)
    terminal = at(*words)
    terminal.wait_for("gripper")  # which keys move
    terminal.wait_for("ep 0/2 ○")
    terminal.press(" ")
    terminal.wait_for("●")
    terminal.press("wwwW")
    terminal.wait_for(r"● 00:(00\.[5-9]|[0-5][1-9]).* Hz cam")
    terminal.press("p")
    terminal.wait_for("‖.*hold  paused")
    terminal.press("p")
    terminal.wait_for("●.*human")
    terminal.press("\r")
    terminal.wait_for(
        r"episode 1 of 2: success, \d+ steps in [\d.]+ s, [12]\d\.\d of 25 Hz, \d+ ticks skipped, 0 steps dr"
    )
    terminal.press(" ")
    terminal.wait_for("●")
    time.sleep(0.2)
    terminal.press("\x7f")
    terminal.wait_for("not kept: discard")
    terminal.press(" ")
    terminal.wait_for("●")
    time.sleep(0.2)
    terminal.press("f")
    terminal.wait_for("episode 2 of 2: failure")
    terminal.wait_for("holds 2 episodes. Next: robopolicy train")
    assert terminal.ends() == 0
    assert terminal.restored()
    assert terminal.raw.count("\a") == 3 + 3 * 2
    first, second = Dataset(tmp_path / "d.zarr")
    assert (first.meta.success, second.meta.success) == (True, False)
    assert (first.meta.operator, first.meta.task, first.meta.notes) == ("ann", "show it", "a test")
    assert first.meta.seed == 5
    assert first.meta.rate_hz == 25
    assert set(sources(first)) == {"human", "hold"}
    assert marks(first) == ["pause", "go on"]
    assert first.action()[-1][0] - first.action()[0][0] == pytest.approx(0.08, abs=0.02)
    assert sound(tmp_path / "d.zarr") == []


def test_limits_of_a_file_hold_where_a_person_drives(at, tmp_path):
    (tmp_path / "l.yaml").write_text("max_speed_m_s: 0.05")
    terminal = at("--episodes", 1, "--rate", 25, "--limits", tmp_path / "l.yaml")
    terminal.wait_for("ep 0/1 ○")
    terminal.press(" ")
    terminal.wait_for("●")
    terminal.press("W")
    terminal.wait_for(r"● 00:(0[1-9]|[0-5][1-9]).* Hz cam")
    terminal.press("\r")
    terminal.wait_for("holds 1 episode. Next: robopolicy train")
    assert terminal.ends() == 0
    (episode,) = Dataset(tmp_path / "d.zarr")
    steps = np.linalg.norm(np.diff(episode.action()[:, :3], axis=0), axis=1)
    assert 0 < steps.max() <= 0.05 / 25 * 1.01


@pytest.mark.slow
def test_who_quits_at_once_is_not_sent_to_train_on_nothing(at, tmp_path):
    terminal = at("--episodes", 2)
    terminal.wait_for("ep 0/2 ○")
    terminal.press("q")
    terminal.wait_for("no episode was kept")
    assert terminal.ends() == 0
    assert "train" not in terminal.text
    assert not (tmp_path / "d.zarr").exists()


def test_resumed_it_appends_and_undo_takes_the_newest_away(at, tmp_path):
    for seed in (5, 6):
        terminal = at("--episodes", 3)
        terminal.wait_for(f"ep {seed - 5}/3 ○")
        terminal.press(" ")
        terminal.wait_for("●")
        time.sleep(0.2)
        terminal.press("\r")
        terminal.wait_for(f"episode {seed - 4} of 3: success")
        if seed == 6:
            terminal.press("u")
            terminal.wait_for("undone: the newest episode .seed 6. is gone")
            terminal.wait_for("ep 1/3 ○")
        terminal.press("q")
        assert terminal.ends() == 0
    assert [episode.meta.seed for episode in Dataset(tmp_path / "d.zarr")] == [5]


@pytest.mark.slow
def test_the_twin_runs_in_real_time_and_starts_where_its_seed_says(at, tmp_path):
    terminal = at("--episodes", 1, "--cameras", "front", robot="twin:lift")
    terminal.wait_for("ep 0/1 ○")
    terminal.press("WWD")  # looking around before the start
    time.sleep(0.3)
    terminal.press(" ")
    terminal.wait_for("●")
    terminal.press("ss")
    terminal.wait_for(r"● 00:0[1-9]\.")
    terminal.press("\r")
    terminal.wait_for("episode 1 of 1: success")
    assert terminal.ends() == 0
    (episode,) = Dataset(tmp_path / "d.zarr")
    from robopolicy.clock import SimClock
    from sim_envs.worlds import make_world

    world = make_world("twin:lift", SimClock(), cameras=())
    world.reset(5)
    np.testing.assert_allclose(episode.state("cube_pos")[0], world.read().state["cube_pos"], atol=1e-3)
    np.testing.assert_allclose(episode.state("tool_pos")[0], world.read().state["tool_pos"], atol=2e-3)
    world.close()
    assert episode.meta.task == world.instruction
    assert episode.meta.extra["world_success"] is False
    assert sound(tmp_path / "d.zarr") == []


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGQUIT, marks=pytest.mark.slow),  # Ctrl-backslash
    ],
)
def test_a_signal_in_mid_episode_loses_nothing_and_leaves_the_terminal_as_it_was(at, tmp_path, how):
    terminal = at("--episodes", 3)
    terminal.wait_for("ep 0/3 ○")
    terminal.press(" ")
    terminal.wait_for(r"● 00:(00\.[4-9]|[0-5][1-9])")
    os.kill(terminal.process.pid, how)
    assert terminal.ends() in (128 + how, 130)
    assert re.search(
        r"the episode being recorded is kept, without success: \d+ (of its \d+ )?steps, ended by", terminal.text
    )
    assert terminal.restored()
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.length >= 5
    assert episode.meta.success is False
    assert "ended by" in episode.meta.notes
    assert sound(tmp_path / "d.zarr") == []


def test_what_a_kill_left_is_an_episode_when_recording_goes_on_and_one_is_told(at, tmp_path):
    terminal = at("--episodes", 3)
    terminal.wait_for("ep 0/3 ○")
    terminal.press(" ")
    terminal.wait_for(r"● 00:(00\.[4-9]|[0-5][1-9])")
    terminal.process.kill()
    terminal.process.wait()
    terminal = at("--episodes", 3)
    found = terminal.wait_for(r"an interrupted recording of (\d+) steps is episode 0 now, without success")
    terminal.wait_for("ep 1/3 ○")
    terminal.press("q")
    assert terminal.ends() == 0
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.length == int(found[1]) >= 5
    assert episode.meta.success is False


BROKEN = """
import numpy as np
from robopolicy_hardware.mock import MockRobot
class Breaks(MockRobot):
    def __init__(self, clock):
        super().__init__(None, clock)
        self.count = 0
    def read(self):
        self.count += 1
        if self.count == 40:
            raise RuntimeError("the arm is gone")
        return super().read()
"""


def test_a_robot_that_breaks_is_one_line_on_a_terminal_as_it_was(at, tmp_path):
    (tmp_path / "mine.py").write_text(BROKEN)
    terminal = at("--episodes", 3, robot="mine:Breaks", cwd=tmp_path)
    terminal.wait_for("ep 0/3 ○")
    terminal.press(" ")
    terminal.wait_for("robopolicy: unexpected RuntimeError: the arm is gone")
    assert terminal.ends() == 1
    assert terminal.restored()
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert "the arm is gone" in episode.meta.notes


@pytest.mark.parametrize(
    ("came", "code", "says"),
    [
        ("KeyboardInterrupt()", 130, "robopolicy: interrupted; what was committed is kept\n"),
        ("SystemExit(143)", 143, ""),
    ],
)
def test_a_signal_while_a_module_loads_is_no_error_of_ours(tmp_path, capsys, monkeypatch, came, code, says):
    (tmp_path / f"loads{code}.py").write_text(f"raise ImportError('initialization failed') from {came}\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["record", "--robot", f"loads{code}:Arm", "--teleop", "keyboard", "--data", str(tmp_path / "d.zarr")]
    with pytest.raises(SystemExit) as end:
        raise SystemExit(main(words))
    assert end.value.code == code
    assert capsys.readouterr().err == says


@pytest.mark.slow
def test_ones_own_device_is_named_by_module_and_class(at, tmp_path):
    terminal = at("--episodes", 1, teleop="hands:Hand", env={"PYTHONPATH": TESTS})
    terminal.wait_for("ep 0/1 ○")
    terminal.press(" ")
    terminal.wait_for("●.*human")
    time.sleep(0.2)
    terminal.press("\r")
    assert terminal.ends() == 0
    assert set(sources(next(iter(Dataset(tmp_path / "d.zarr"))))) == {"human"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy of random weights: what it wants is nonsense, that safety slows down."""
    import torch

    from robopolicy.clock import SimClock
    from robopolicy.policies.diffusion import DiffusionPolicy
    from robopolicy.training.checkpoint import save_checkpoint
    from sim_envs.worlds import make_world

    world = make_world("twin:lift", SimClock(), cameras=())
    spec = replace(world.spec.select(state=("tool_pos", "tool_quat")), n_obs=2, horizon=16, n_execute=8)
    world.close()
    torch.manual_seed(0)
    policy = DiffusionPolicy(spec)
    rng = np.random.default_rng(0)
    state = {name: rng.uniform(-1, 1, (9, part.dim)).astype(np.float32) for name, part in spec.state.items()}
    action = rng.uniform(-1, 1, (9, spec.action.dim)).astype(np.float32)
    policy.fit_normaliser(type("Arrays", (), {"state": state, "action": action}))
    folder = tmp_path_factory.mktemp("policy") / "p"
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


@pytest.mark.slow
def test_a_policy_drives_and_the_person_takes_over_and_gives_back(at, tmp_path, checkpoint):
    words = ("--episodes", 1, "--cameras", "--checkpoint", checkpoint, "--solver.steps", 4)
    terminal = at(*words, robot="twin:lift")
    terminal.wait_for("a plan takes .* ms")  # before anything moves
    terminal.wait_for("ep 0/1 ○")
    terminal.press(" ")
    terminal.wait_for("●.*policy")
    time.sleep(0.5)
    terminal.press("t")
    terminal.wait_for("●.*human")
    terminal.press("www")
    time.sleep(0.5)
    terminal.press("t")
    terminal.wait_for("●.*policy")
    time.sleep(0.5)
    terminal.press("\r")
    terminal.wait_for("episode 1 of 1: success.*policy [0-9]+%")
    assert terminal.ends() == 0
    (episode,) = Dataset(tmp_path / "d.zarr")
    names = sources(episode)
    drivers = [name for name, before in zip(names, [None, *names], strict=False) if name != before]
    assert drivers == ["policy", "human", "policy"]
    assert marks(episode) == ["takeover", "release"]
    told = {name: episode.meta.extra.get(name) for name in ("checkpoint", "solver", "goal")}
    assert told == {"checkpoint": str(checkpoint), "solver": "ddim, 4 steps", "goal": None}
    steps = np.linalg.norm(np.diff(episode.action()[:, :3], axis=0), axis=1)
    at_switches = [i - 1 for i in range(1, len(names)) if names[i] != names[i - 1]]
    assert steps[at_switches].max() <= np.delete(steps, at_switches).max()


@pytest.mark.slow
def test_without_a_terminal_the_page_still_says_where_it_is(tmp_path):
    pytest.importorskip("viser", reason="viser is not installed: pip install 'robopolicy[teleop]'")
    words = ("record", "--robot", "mock", "--teleop", "browser", "--port", 0, "--data", tmp_path / "d.zarr")
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "robopolicy.cli.main", *map(str, words)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert "no terminal here" in process.stdout.readline()
        assert re.match(r"open http://127.0.0.1:\d+\S+ in a browser", process.stdout.readline())
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def complaint(*words, cwd=None, env=None):
    done = subprocess.run(
        [sys.executable, "-m", "robopolicy.cli.main", "record", *map(str, words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--robot", "mock", "--teleop", "keyboard"], "standard input is no terminal"),
        (["--robot", "ros", "--teleop", "keyboard"], "which topics are its own, as in ros:arm.yaml"),
        (["--robot", "mock", "--teleop", "joystick"], "no teleoperation device 'joystick'; valid: browser, expert"),
        (["--robot", "mock", "--teleop", "browser", "--port", "70000"], "port must be 0-65535|viser is not"),
        (["--robot", "mock", "--teleop", "json:loads"], "could not be made|is no device"),
        (["--robot", "mock", "--teleop", "json:Nothing"], "module json has no 'Nothing'"),
        (["--robot", "mock", "--teleop", "gamepad"], "no gamepad is there|pygame is not installed"),
        (["--robot", "mock", "--teleop", "spacemouse"], "no SpaceMouse is there|hidapi is not installed"),
        (["--robot", "mock", "--cameras", "side"], "expert drives twin:TASK, hand:TASK and robosuite:Lift"),
        (["--robot", "mock", "--teleop", "ros"], "standard input is no terminal"),
        (["--robot", "mock", "--teleop", "browser", "--auto-success"], "--auto-success needs a simulated world"),
        (["--robot", "twin:lift", "--checkpoint", "runs/a"], "--checkpoint wants a person who drives"),
        (["--robot", "twin:lift", "--time-limit", "9"], "--time-limit wants a person who drives"),
        (["--robot", "mock", "--teleop", "keyboard", "--monitor", "m"], "--monitor watches a policy: add its --check"),
        (["--robot", "mock", "--teleop", "keyboard", "--goal", "d:1"], "--goal says how a policy plans: add its"),
        (["--robot", "mock", "--teleop", "keyboard", "--cameras", "side"], "no camera 'side'; valid: front"),
        (["--robot", "tiny_worlds:PointWorld", "--teleop", "keyboard", "--rate", "30"], "runs at 10 Hz, not at 30 Hz"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_no_dataset(tmp_path, words, says):
    assert re.search(says, complaint(*words, "--data", tmp_path / "d.zarr", cwd=TESTS))
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize("robot", ["twin:lift", "mock"])
def test_an_address_is_no_place_to_record_into(tmp_path, robot):
    who = ("--teleop", "expert" if robot == "twin:lift" else "hands:Hand")
    said = complaint("--robot", robot, *who, "--data", "s3://lab/d.zarr", cwd=tmp_path, env={"PYTHONPATH": TESTS})
    assert "is an address, which is only read" in said
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path / "d.zarr").exists()


def test_a_dataset_of_another_robot_is_refused_before_anyone_drives(tmp_path):
    words = ("record", "--robot", "twin:lift", "--cameras", "--data", tmp_path / "d.zarr", "--episodes", 1)
    subprocess.run([sys.executable, "-m", "robopolicy.cli.main", *map(str, words)], check=True, capture_output=True)
    terminal = InTerminal("record", "--robot", "mock", "--teleop", "keyboard", "--data", tmp_path / "d.zarr")
    try:
        terminal.wait_for("robopolicy: .*camera|state")
        assert terminal.ends() == 1
        assert terminal.restored()
    finally:
        terminal.close()
    said = complaint("--robot", "twin:lift", "--cameras", "--data", tmp_path / "d.zarr", "--episodes", 2, "--new")
    assert "exists already" in said
    assert len(Dataset(tmp_path / "d.zarr")) == 1
