"""The node with a real policy behind it: over DDS between real processes, and through the fake rclpy."""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")
pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
import recordings
from fake_ros_arm import LOOPBACK, Arm
from node_parts import Ears, until

from robopolicy.cli import node_rig, worlds
from robopolicy.cli.node import open_rig
from robopolicy.cli.timing import Timing
from robopolicy.cli.train import train
from robopolicy.clock import WallClock
from robopolicy.errors import ConfigError, ContractError
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.topics.config import load_config
from robopolicy_data.writer import DatasetWriter
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.dds import Topics
from robopolicy_hardware.ros.node_overrides import merged, said_otherwise
from robopolicy_hardware.ros.node_parameters import Parameters, as_told
from robopolicy_hardware.ros.rclpy_topics import RclpyTopics
from robopolicy_hardware.ros.server import RobotServer
from robopolicy_hardware.safety_limits import load_limits

os.environ["CYCLONEDDS_URI"] = LOOPBACK  # read once, when the first participant is made
DOMAIN = 40 + os.getpid() % 50  # beside other tests on this machine
FAKES = Path(__file__).parent / "fake_rclpy"
ROS = ("rclpy", "rosidl_runtime_py", "std_srvs", "rcl_interfaces")
BOOL = "std_msgs/msg/Bool"
ARM = PolicySpec(
    state={"q": StateSpec(3, ("rad",)), "dq": StateSpec(3, ("rad/s",))},
    action=ActionSpec("joint", ("a", "b", "c"), ("rad",)),
    rate_hz=20.0,
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A policy of the fake arm that sees its joints only, hardly trained."""
    folder = tmp_path_factory.mktemp("node")
    with DatasetWriter(folder / "d.zarr", ARM) as writer:
        episode = writer.begin(recordings.META)
        for step in recordings.make_steps(0, 6, spec=ARM):
            episode.add(step)
        episode.commit()
    train(
        folder / "d.zarr", folder / "policy", settings={"steps": 1, "batch_size": 4, "device": "cpu", "num_threads": 1}
    )
    return folder / "policy"


def test_topics_are_in_the_namespace_and_stamped_at_arrival_in_simulated_time(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "{rate_hz: 20, cameras: {front: /front/image_raw}, state: {q: {topic: joint_states, joints: [a]}}, "
        "action: {topic: commands, kind: joint, names: [a], gripper: {topic: /grip, closed: 0, open: 1}}}"
    )
    config = load_config(tmp_path / "a.yaml")
    told = as_told(config, "/left/robopolicy", Parameters())
    assert (told.state["q"].topic, told.action.topic) == ("/left/joint_states", "/left/commands")
    assert (told.cameras["front"].topic, told.action.gripper.topic) == ("/front/image_raw", "/grip")
    assert {one.stamp for one in told.observed().values()} == {"header"}
    told = as_told(config, "/robopolicy", Parameters(use_sim_time=True))
    assert told.state["q"].topic == "/joint_states"
    assert {one.stamp for one in told.observed().values()} == {"bag"}


def test_keys_said_otherwise_are_read_as_if_they_stood_in_the_file(tmp_path):
    file = tmp_path / "arm.yaml"
    file.write_text("{rate_hz: 20, state: {q: {topic: /q, joints: [a]}}, action: {topic: /c, kind: joint, names: [a]}}")
    with said_otherwise(file, {"action.topic": "/other", "state.q.max_age_s": 0.5}, "a file") as told:
        config = load_config(told)
    assert (config.action.topic, config.state["q"].max_age_s, config.state["q"].topic) == ("/other", 0.5, "/q")
    assert not told.exists()
    with said_otherwise(file, {}, "a file") as told:
        assert told == file
    said = "arm.yaml, action.topi said otherwise: no key in action 'topi'; valid: "
    with pytest.raises(ConfigError, match=said), said_otherwise(file, {"action.topi": "/x"}, "a file") as told:
        load_config(told)
    with pytest.raises(ContractError, match=r"rate_hz\.x: 'rate_hz' has no keys of its own"):
        merged({"rate_hz": 20}, {"rate_hz.x": 1})
    limits = tmp_path / "limits.yaml"
    limits.write_text("{max_rate: 1.0, mjcf: arm.xml}")
    for path in (limits, None):
        with said_otherwise(path, {"max_rate": [0.5, 0.5, 0.5]}, "a file") as told:
            read, watchdogs = load_limits(told, ARM)
        assert (read.max_rate, watchdogs.silent_s) == ((0.5,) * 3, 0.1)
        assert read.mjcf == (str(tmp_path / "arm.xml") if path else None)


@pytest.mark.parametrize(("rate_hz", "told"), [(0.0, "in the loop"), (50.0, "beside the loop at 50 Hz, seams fade")])
def test_the_nodes_monitor_hears_how_plans_come(monkeypatch, rate_hz, told):
    """So that one that was calibrated on others is refused, as deploy refuses it."""
    asked = {}
    monkeypatch.setattr(worlds, "make_agent", lambda checkpoint, **rest: asked.update(rest))
    node_rig._agent(
        Parameters("mock", "c", "m"), Timing(rate_hz or None), None, WallClock(), replace(ARM, rate_hz=50.0)
    )
    assert (asked["monitor"], asked["timing"]) == ("m", told)
    assert (asked["play"] is None) == (told == "in the loop")


@pytest.mark.slow
@pytest.mark.parametrize("beside", [[], ["--control-rate", "50"]], ids=["in the loop", "beside the loop"])
def test_a_node_over_dds_drives_stops_by_a_button_and_holds_at_its_end(tmp_path, checkpoint, beside):
    arm = Arm(tmp_path, DOMAIN)
    words = ["node", "--transport", "dds", "--domain", DOMAIN, "--namespace", "left", "--robot", f"ros:{arm.config}"]
    words += ["--checkpoint", checkpoint, "--allow-slow", *beside]
    node = subprocess.Popen(
        [sys.executable, "-m", "robopolicy", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    topics = Topics(DOMAIN, node="operator")
    try:
        ears = Ears(topics, "/left/robopolicy")
        press = {word: topics.publisher(f"/left/robopolicy/{word}", BOOL) for word in ("start", "stop")}
        until(lambda: node.poll() is not None or (ears.now["state"] and press["stop"].subscribers), 120)
        assert node.poll() is None, node.stdout.read()
        until(lambda: press["start"].subscribers)
        assert "/left/robopolicy" in topics.nodes()
        before = len(arm.commands("/joint_commands"))
        press["start"].send(message(BOOL)(True))

        def drives(before):
            """It does; on a busy machine an observation may be too old, which ends an episode: then once more."""
            if ears.now["ended"] and not ears.now["running"]:
                press["start"].send(message(BOOL)(True))
                time.sleep(0.5)
            return ears.now["state"] == "running" and len(arm.commands("/joint_commands")) > before + 10

        until(lambda: drives(before), 60)
        press["stop"].send(message(BOOL)(True))
        until(lambda: ears.now["state"] == "hold" and ears.now["running"] is False, 60)
        assert ears.now["reason"] == "asked on /left/robopolicy/stop"
        time.sleep(0.2)
        sent = len(arm.commands("/joint_commands"))
        time.sleep(0.5)
        assert len(arm.commands("/joint_commands")) == sent  # it was told once where to hold
        press["start"].send(message(BOOL)(True))
        until(lambda: drives(sent), 60)
        for _ in range(3):
            node.send_signal(signal.SIGTERM)  # a terminal and a launch system both send it
        out, _ = node.communicate(timeout=60)
        assert node.returncode == 0, out
        assert "Traceback" not in out
        assert ears.now["state"] == "hold"
        assert ears.now["reason"] == "the node ends"
        commands = arm.commands("/joint_commands")
        assert np.abs(np.diff(commands[:-1], axis=0)).max() <= 1.5 / 20 + 1e-3  # the default limit of a joint, rad/s
    finally:
        topics.close()
        node.kill()
        node.wait()
        node.stdout.close()
        arm.close()


@pytest.mark.slow
def test_the_lifecycle_node_opens_a_robot_behind_topics_of_its_own_executor(tmp_path, checkpoint, monkeypatch):
    """Configuring waits for messages that the same node receives: with one thread it would wait for ever."""
    for name in [n for n in sys.modules if n.split(".")[0] in ROS or n.endswith("ros.lifecycle")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(FAKES))
    lifecycle = importlib.import_module("robopolicy_hardware.ros.lifecycle")
    import rclpy
    from rclpy.node import NODES

    text = (
        "rate_hz: 20\nstate:\n  q: {topic: /joint_states, joints: [a, b, c], max_age_s: 2.0}\n"
        "  dq: {topic: /joint_states, field: velocity, joints: [a, b, c], max_age_s: 2.0}\n"
        "action: {topic: /commands, type: sensor_msgs/msg/JointState, kind: joint, names: [a, b, c], units: rad}\n"
    )
    (tmp_path / "arm.yaml").write_text(text)
    clock = WallClock()
    far = RclpyTopics()
    robot = MockRobot(ARM, clock)
    server, going = RobotServer(robot, load_config(tmp_path / "arm.yaml"), far, clock), [True]

    def step():
        while going[0]:
            server.step()
            time.sleep(0.01)

    contexts = []
    made = rclpy.Context
    monkeypatch.setattr(rclpy, "Context", lambda: contexts.append(made()) or contexts[-1])
    told = Parameters(robot=f"ros:{tmp_path / 'arm.yaml'}", checkpoint=str(checkpoint), allow_slow=True, max_steps=40)
    threads = [
        threading.Thread(target=step),
        threading.Thread(
            target=lifecycle.run_lifecycle_node, args=(told, open_rig),
            kwargs={"name": "policy", "namespace": "", "domain": None, "ros_args": []},
        ),
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    try:
        node = until(lambda: NODES.get("/policy"))
        until(lambda: node.executor is not None)
        ears = Ears(far, "/policy")
        assert node.change_state("configure"), node.logged
        rival = RclpyTopics()
        rival.publisher("/commands", "sensor_msgs/msg/JointState")
        assert not node.change_state("activate")
        want = "activate: 2 publish on /commands (/policy, /robopolicy); two would fight over the robot: stop the other"
        assert node.logged[-1] == ("error", want)
        rival.close()
        node.logged.clear()
        assert node.change_state("activate")
        assert node.call("/policy/start").success
        until(lambda: ears.now["state"] == "running", 60)
        until(lambda: not node.driven.running, 60)
        assert node.driven.ended == ""
        assert server.received > 10
        assert ("info", "the episode is over") in node.logged
        assert node.change_state("deactivate")
        assert node.change_state("cleanup")
        assert json.dumps(node.logged).count("error") == 0
    finally:
        going[0] = False
        contexts[0].try_shutdown()  # the node's: its rival has one too
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
        server.close()
        far.close()
        for name in [n for n in sys.modules if n.split(".")[0] in ROS or n.endswith("ros.lifecycle")]:
            del sys.modules[name]
