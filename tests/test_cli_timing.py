"""`robopolicy deploy` with a policy that plans beside the loop, a robot that is watched, and limits from a file."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robopolicy.cli import deploy as deploying
from robopolicy.cli import watched
from robopolicy.cli.deploy import check_pace, deploy
from robopolicy.cli.main import main
from robopolicy.cli.running import Running
from robopolicy.cli.timing import IN_THE_LOOP, Timing, may_last_s
from robopolicy.cli.watched import following
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import ConfigError, TooSlow, UnsafeCommand, UsageError
from robopolicy.policies.config import DiffusionConfig
from robopolicy.policies.diffusion import DiffusionPolicy
from robopolicy.policies.latency import Latency
from robopolicy.policies.mlp import MlpConfig
from robopolicy.policies.processes import FlowConfig
from robopolicy.policies.solvers import SolverConfig
from robopolicy.realtime import RealTime
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.training.checkpoint import save_checkpoint
from robopolicy.types import Plan
from robopolicy_data.reader import Dataset
from robopolicy_hardware.safety import limits_for
from robopolicy_hardware.supervisor import Supervised
from sim_envs.worlds import make_world

SMALL = DiffusionConfig(MlpConfig(width=16, depth=1), process=FlowConfig(), solver=SolverConfig("euler", 2))
MOCK = PolicySpec(
    state={"q": StateSpec(3, ("rad",))}, action=ActionSpec("joint", ("a", "b", "c"), ("rad",)), rate_hz=20.0,
    n_obs=2, horizon=16, n_execute=8,
)  # fmt: skip


def save(folder, spec, low, high, seed=0):
    """A checkpoint that was never trained: its plans are noise between ``low`` and ``high``."""
    torch.manual_seed(seed)
    policy = DiffusionPolicy(spec, SMALL)
    rng = np.random.default_rng(seed)
    state = {name: rng.uniform(-1, 1, (50, part.dim)).astype(np.float32) for name, part in spec.state.items()}
    policy.fit_normaliser(
        SimpleNamespace(state=state, action=rng.uniform(low, high, (50, spec.action.dim)).astype("f4"))
    )
    save_checkpoint(folder, policy, train={"steps": 0})
    return folder


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    return save(tmp_path_factory.mktemp("mock"), MOCK, -0.05, 0.05)


@pytest.fixture(scope="module")
def lifting(tmp_path_factory):
    world = make_world("twin:lift", SimClock(), cameras=())
    spec = replace(world.spec, n_obs=2, horizon=16, n_execute=8)
    world.close()
    return save(tmp_path_factory.mktemp("lift"), spec, 0.9, 1.0)


class Stir:
    """Stirs above the table, a little off it in every plan, beginning where the tool is."""

    config = SimpleNamespace(max_delay=0, real_time=None)

    def __init__(self, spec):
        self.spec = spec

    def reset(self):
        pass

    def plan(self, window, *, n=1, previous=None, delay_steps=0, executed=None, generator=None):
        newest = window[-1]
        t = newest.stamp_ns * 1e-9 + np.arange(self.spec.horizon) / self.spec.rate_hz
        circle = np.stack([0.45 + 0.06 * np.cos(2 * t), 0.06 * np.sin(2 * t), np.full_like(t, 0.22)], -1)
        off = newest.state["tool_pos"] - circle[0] + torch.randn(3, generator=generator).numpy() * 0.003
        rows = np.zeros((len(t), 10), np.float32)
        rows[:, :3] = circle + off * np.linspace(1, 0.3, len(t))[:, None]
        rows[:, 3:9] = [1, 0, 0, 0, -1, 0]
        rows[:, 9] = 1.0
        return Plan(rows[None], np.zeros(2, np.float32))


class Plans:
    """A watcher that notes at which steps a plan came, and what was sent."""

    def __init__(self, robot, agent):
        self.robot, self.agent = robot, agent
        self.arrived, self.sent, self.sources, self.threads = [], [], [], set()

    def on_start(self, meta, spec):
        self.meta, self.spec = meta, spec

    def on_step(self, step):
        if self.agent.decision is not None:
            self.arrived.append(len(self.sent))
        self.sent.append(step.sent)
        self.sources.append(step.source)
        self.threads |= {thread.name for thread in threading.enumerate()}

    def on_end(self, meta):
        self.meta = meta


def watching(seen):
    def watch(robot, agent):
        seen.append(Plans(robot, agent))
        return seen

    return watch


@pytest.mark.parametrize("latency_s", [0.05, 0.1, 0.2])
def test_in_the_twin_a_new_plan_is_no_larger_a_step_of_velocity_than_there_is_inside_one(
    lifting, monkeypatch, latency_s
):
    monkeypatch.setattr(Running, "load", lambda self, device: Stir(deploying_spec(lifting)))
    monkeypatch.setattr(deploying, "check_pace", lambda *args, **kwargs: None)
    seen = []
    deploy("twin:lift", lifting, max_steps=800, timing=Timing(100.0, None, latency_s), watch=watching(seen))
    (plans,) = seen
    assert plans.spec.rate_hz == 100
    assert isinstance(plans.agent, RealTime)
    driven = np.array([source == "policy" for source in plans.sources])
    assert np.flatnonzero(driven)[0] == round(latency_s * 100)
    at = np.array(plans.sent)[driven][:, :3]
    arrived = np.array(plans.arrived) - np.flatnonzero(driven)[0]
    assert len(arrived) == pytest.approx(8 / 0.4, abs=2)
    assert np.ptp(at, axis=0)[:2].min() > 0.1, "it stirs"
    steps = np.linalg.norm(np.diff(at, 2, axis=0), axis=1) * 100
    near = np.isin(np.arange(2, len(at)), np.add.outer(arrived[1:], [0, 1, 2]))
    assert near.sum() > 40
    assert steps[near].max() <= 1.2 * steps[~near].max()
    limits = limits_for(plans.spec)
    assert np.linalg.norm(np.diff(at, axis=0), axis=1).max() * 100 <= limits.max_speed_m_s * 1.001


def deploying_spec(checkpoint):
    from robopolicy.training.checkpoint import read_spec

    return read_spec(checkpoint)


def test_real_time_is_watched_and_planned_beside_and_leaves_no_thread(mock, tmp_path):
    seen = []
    deploy("mock", mock, max_steps=60, timing=Timing(50.0), record=tmp_path / "d.zarr", watch=watching(seen))
    (plans,) = seen
    assert isinstance(plans.robot, Supervised)
    assert (plans.spec.rate_hz, len(plans.sent)) == (50, 60)
    assert {"inference_0", "watchdogs"} <= plans.threads
    assert plans.arrived
    left = {thread.name for thread in threading.enumerate()}
    assert not {"inference_0", "watchdogs"} & left
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert episode.meta.rate_hz == 50
    assert episode.meta.extra["control_rate_hz"] == 50
    assert plans.robot.state == "hold"
    assert plans.robot.reason == "end of episode"


def test_a_loop_that_hangs_is_stopped_meanwhile_goes_on_and_both_are_recorded(mock, tmp_path):
    class Hangs(Plans):
        def on_step(self, step):
            super().on_step(step)
            if len(self.sent) >= 30 and self.robot.state == "running" and not hasattr(self, "held"):
                deadline_s = time.monotonic() + 60
                while self.robot.state == "running":
                    assert time.monotonic() < deadline_s
                    time.sleep(0.01)
                self.held = self.robot.reason

    seen = []

    def watch(robot, agent):
        seen.append(Hangs(robot, agent))
        return seen

    deploy("mock", mock, max_steps=60, timing=Timing(50.0), record=tmp_path / "d.zarr", watch=watch)
    (plans,) = seen
    assert plans.held.startswith("no command for 0.")
    assert plans.held.endswith("the loop is late")
    assert len(plans.sent) == 60
    assert plans.held in plans.meta.extra["watchdogs"]
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert f"watchdog: {plans.held}" in [mark["name"] for mark in episode.attributes["marks"]]


@contextmanager
def saying(wire, topic, word):
    """Somebody who says the same word on a topic, again and again."""
    from robopolicy_hardware.ros.codec import message
    from robopolicy_hardware.ros.local import LocalTopics

    publisher, over = LocalTopics(wire).publisher(topic, "std_msgs/msg/Bool"), threading.Event()

    def say():
        while not over.wait(0.01):
            publisher.send(message("std_msgs/msg/Bool")(word))

    thread = threading.Thread(target=say)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_nothing_begins_while_the_emergency_stop_is_pressed_or_silent(mock, tmp_path, monkeypatch):
    from robopolicy_hardware.ros.local import LocalTopics, Wire

    wire, data = Wire(), tmp_path / "d.zarr"
    monkeypatch.setattr(deploying, "topics_of", lambda domain: LocalTopics(wire))
    monkeypatch.setattr(watched, "FIRST_WORD_S", 0.1)
    path = tmp_path / "l.yaml"
    path.write_text("watchdogs: {estop_s: 60, estop_topic: /estop}\n")
    with pytest.raises(UsageError, match="robot mock: nothing is heard of the emergency stop for ever"):
        deploy("mock", mock, max_steps=3, limits=path, record=data)
    monkeypatch.setattr(watched, "FIRST_WORD_S", 60.0)
    with saying(wire, "/estop", True), pytest.raises(UsageError, match="the emergency stop is pressed"):
        deploy("mock", mock, max_steps=3, limits=path, record=data)
    assert not data.exists(), "no episode began"
    with saying(wire, "/estop", False):
        deploy("mock", mock, max_steps=3, limits=path, record=data)
    assert [episode.length for episode in Dataset(data)] == [3]


def test_limits_of_a_file_act_and_without_the_deadman_nothing_moves(mock, tmp_path, monkeypatch):
    from robopolicy_hardware.ros.local import LocalTopics, Wire

    wire = Wire()
    monkeypatch.setattr(deploying, "topics_of", lambda domain: LocalTopics(wire))
    path = tmp_path / "l.yaml"
    path.write_text("max_rate: [0.01, 0.01, 0.01]\nwatchdogs: {deadman_s: 60, deadman_topic: /held}\n")
    with pytest.raises(UnsafeCommand, match="nobody holds the deadman's switch"):
        deploy("mock", mock, max_steps=30, timing=Timing(50.0), limits=path)
    with saying(wire, "/held", True):
        seen = []
        deploy("mock", mock, max_steps=60, timing=Timing(50.0), limits=path, watch=watching(seen))
    (plans,) = seen
    moved = np.array([sent for sent, by in zip(plans.sent, plans.sources, strict=True) if by == "policy"])
    assert np.abs(np.diff(moved, axis=0)).max() <= 0.01 / 50 * 1.01
    assert len(moved) > 30


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("max_rates: [1, 1, 1]", ConfigError, "l.yaml: no key in the file 'max_rates'"),
        ("watchdogs: {silent_s: -1}", ConfigError, "watchdog silent_s is -1.0; want finite and above 0"),
        ("watchdogs: {estop_topic: /e}", ConfigError, "estop_topic: say estop_s too"),
        ("watchdogs: {estop_s: 1}", UsageError, "watchdogs.estop_s: say estop_topic too"),
    ],
)
def test_limits_that_make_no_sense_are_refused_before_anything_moves(mock, tmp_path, text, error, says):
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(error, match=says):
        deploy("mock", mock, max_steps=3, limits=tmp_path / "l.yaml")


def test_limits_are_looked_at_before_a_robot_is_waited_for(mock, tmp_path, monkeypatch):
    def waits(*args, **options):
        raise AssertionError("the robot is asked for")

    monkeypatch.setattr("robopolicy.cli.worlds.make_robot", waits)
    (tmp_path / "l.yaml").write_text("watchdogs: {estop_s: 1}")
    with pytest.raises(UsageError, match=r"watchdogs\.estop_s: say estop_topic too"):
        deploy("ros:arm.yaml", mock, limits=tmp_path / "l.yaml")
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        deploy("ros:arm.yaml", mock, limits=tmp_path / "none.yaml")


def test_a_latency_of_simulated_time_is_refused_where_time_is_real(mock, capsys):
    words = ["deploy", "--robot", "mock", "--checkpoint", str(mock), "--latency-ms", "50"]
    assert main(words) == 1
    assert "--latency-ms is of simulated time" in capsys.readouterr().err
    words = ["deploy", "--robot", "twin:lift", "--checkpoint", str(mock), "--control-rate", "100", "--apart"]
    assert main(words) == 1
    assert "--apart is for real time" in capsys.readouterr().err
    words = ["deploy", "--robot", "mock", "--checkpoint", str(mock), "--control-rate", "10"]
    assert main(words) == 1
    assert "--control-rate 10 is below the policy's own 20 Hz" in capsys.readouterr().err


@pytest.mark.slow
def test_a_policy_apart_drives_as_one_beside_the_loop(mock):
    seen = []
    deploy("mock", mock, max_steps=80, timing=Timing(50.0, apart=True), watch=watching(seen))
    (plans,) = seen
    assert plans.arrived
    assert plans.sources[-1] == "policy"
    assert not multiprocessing.active_children()


def test_the_rate_of_a_policy_need_not_be_the_loops_beside_it():
    robot = replace(MOCK, rate_hz=100.0, n_obs=1, horizon=1, n_execute=1)
    assert Timing(100.0).fits(MOCK, robot).rate_hz == 100
    assert IN_THE_LOOP.fits(MOCK, robot).rate_hz == 20
    assert not IN_THE_LOOP.beside
    assert Timing(seams="rtc").beside
    assert Timing(latency_s=0.0).beside


def test_rtc_guides_a_policy_that_was_not_trained_with_prefixes_and_caps_the_delay_of_one_that_was(mock, tmp_path):
    from robopolicy.training.checkpoint import load_policy

    def made(config):
        torch.manual_seed(0)
        policy = DiffusionPolicy(MOCK, config)
        return policy, Timing(50.0, "rtc").agent(SimClock())(policy, 1, None)

    plain, _ = made(SMALL)
    assert plain.config.real_time is not None
    trained, agent = made(replace(SMALL, max_delay=2))
    assert trained.config.real_time is None
    assert agent._most_delay == 2
    as_it_is = load_policy(mock)
    Timing(50.0, "fade").agent(SimClock())(as_it_is, 1, None)
    assert as_it_is.config.real_time is None


def test_how_long_a_plan_may_take_is_until_the_next_is_asked_for(monkeypatch, capsys):
    assert may_last_s(MOCK) == pytest.approx(7 / 20)
    assert may_last_s(replace(MOCK, n_execute=4)) == pytest.approx(4 / 20)
    took = [0.3]
    monkeypatch.setattr(
        "robopolicy.policies.latency.measure_latency", lambda policy, n, **_: Latency(took[0], took[0], 5, n, "cpu", 1)
    )
    monkeypatch.setattr("robopolicy.policies.latency.remedies", lambda policy, latency: ["a smaller network: 5 ms"])
    policy = SimpleNamespace(spec=MOCK, config=SimpleNamespace(max_delay=0))
    with pytest.raises(TooSlow):
        check_pace(policy, 1, waits=False, allow_slow=False)
    check_pace(policy, 1, waits=False, allow_slow=False, beside=True)
    assert "beside the loop it may take 350 ms, until the next one is asked for" in capsys.readouterr().out
    took[0] = 0.4
    with pytest.raises(TooSlow, match=r"may take 350 ms.*a smaller network: 5 ms\. --allow-slow drives all the same"):
        check_pace(policy, 1, waits=False, allow_slow=False, beside=True)


def test_a_robot_that_wants_motions_wants_a_policy_that_plans_beside_the_loop():
    bare = SimpleNamespace(follows=True, spec=MOCK)
    with pytest.raises(UsageError, match="send: chunk; that wants --control-rate"):
        following(bare, bare, SimpleNamespace(act=None), None)
    plain = SimpleNamespace(spec=MOCK)
    assert following(plain, plain, None, None) is plain


KILLED = """
import os, sys
from robopolicy.cli import deploy
from robopolicy.cli.main import main
from robopolicy_hardware.mock import MockRobot
number, steps, stops = int(sys.argv.pop()), [], []
was = MockRobot.stop
def stop(robot, reason=""):
    if reason != "waiting for the first plan":
        print("stop", reason, flush=True)
    return was(robot, reason)
MockRobot.stop = stop
def on_step(ticker, step):
    steps.append(step)
    if len(steps) == 40:
        os.kill(os.getpid(), number)
deploy.Ticker.on_step = on_step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("number", "code", "why"),
    [
        (signal.SIGINT, 130, "ended by KeyboardInterrupt"),
        (signal.SIGTERM, 128 + signal.SIGTERM, f"ended by SystemExit: {128 + signal.SIGTERM}"),
    ],
)
def test_a_signal_stops_a_watched_robot_once_and_the_episode_says_so(mock, tmp_path, number, code, why):
    words = ["deploy", "--robot", "mock", "--checkpoint", mock, "--control-rate", "50", "--record", tmp_path / "d.zarr"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words), str(number.value)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    stops = [line for line in done.stdout.splitlines() if line.startswith("stop ") and "loop is late" not in line]
    assert stops == [f"stop {why}"] or stops == [f"stop {why}: "]
    (episode,) = Dataset(tmp_path / "d.zarr")
    assert why in episode.meta.notes
    assert episode.meta.success is False


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="the system has no schedulers to choose from")
@pytest.mark.parametrize("chosen", [False, True])
def test_a_thread_goes_first_while_it_lasts_and_one_that_did_already_stays_as_it_was(chosen):
    seen = []

    def run():
        try:
            os.sched_setscheduler(0, os.SCHED_RR if chosen else os.SCHED_OTHER, os.sched_param(5 if chosen else 0))
        except PermissionError:
            return
        with Timing(50.0).on_time(WallClock()), Timing(50.0).on_time(WallClock()):
            seen.append((os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority))
        seen.append((os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK, os.sched_getparam(0).sched_priority))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if chosen and not seen:
        pytest.skip("this user may not choose a scheduler")
    let = seen[0][0] == os.SCHED_FIFO
    first = (os.SCHED_FIFO, 10) if let else (os.SCHED_OTHER, 0)
    assert seen == ([(os.SCHED_RR, 5)] * 2 if chosen else [first, (os.SCHED_OTHER, 0)])
