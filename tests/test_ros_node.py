"""The node without its middleware: phases, episodes that start and stop, and what it says of itself."""

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

sys.path.insert(0, str(Path(__file__).parent))
from fake_ros_arm import LOOPBACK
from node_parts import Ears, MockRig, Sways, until

from robopolicy.agents import Guarded
from robopolicy.errors import StaleFrame, UsageError
from robopolicy.types import Observation, Step, Verdict
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.node import RobotNode
from robopolicy_hardware.ros.node_buttons import NodeButtons
from robopolicy_hardware.supervisor import Watchdogs


class Made:
    """A node around a mock rig, and ears on its topics."""

    def __init__(self, **options):
        wire = Wire()
        self.transport, self.far = LocalTopics(wire), LocalTopics(wire)
        self.ears, self.rigs, self.options = Ears(self.far), [], options
        self.node = RobotNode(self.make)

    def make(self):
        self.rigs.append(MockRig(self.transport, **self.options))
        return self.rigs[-1]

    @property
    def rig(self):
        return self.rigs[-1]


@pytest.fixture
def made():
    kept = []

    def make(**options):
        kept.append(Made(**options))
        return kept[-1]

    yield make
    for one in kept:
        one.node.close()
        one.node.close()


def test_a_node_goes_through_its_phases_and_says_so(made):
    one = made()
    node, ears = one.node, one.ears
    assert (node.phase, node.running) == ("unconfigured", False)
    node.configure()
    until(lambda: ears.statuses)
    assert ears.now == {
        "state": "idle", "reason": "", "running": False, "source": "", "steps": 0, "ended": ""
    }  # fmt: skip
    node.activate()
    assert node.start() == "running"
    until(lambda: ears.now["state"] == "running" and ears.now["running"])
    assert ears.now["source"] == "policy"
    assert node.stop("lunch") == "hold: lunch"
    assert not node.running
    until(lambda: ears.now["state"] == "hold" and not ears.now["running"])
    assert ears.now["reason"] == "lunch"
    held = one.rig.inner.read().state["q"]
    time.sleep(0.1)
    np.testing.assert_allclose(one.rig.inner.read().state["q"], held, atol=0.02)
    assert node.start() == "running"
    until(lambda: ears.now["running"])
    node.deactivate()
    assert (node.phase, node.running, one.rig.robot.state) == ("inactive", False, "hold")
    node.cleanup()
    node.cleanup()
    assert (node.phase, one.rig.closed) == ("unconfigured", 1)
    node.configure()
    assert len(one.rigs) == 2


@pytest.mark.parametrize(
    ("steps", "then", "says"),
    [
        ((), "activate", "activate: the node is unconfigured; it must be inactive"),
        ((), "start", "start: the node is unconfigured; it must be active"),
        (("configure",), "start", "start: the node is inactive; it must be active"),
        (("configure",), "configure", "configure: the node is inactive; it must be unconfigured"),
        (("configure",), "deactivate", "deactivate: the node is inactive; it must be active"),
        (("configure", "activate", "start"), "start", "an episode runs already; stop it first"),
        ((), "reset", "the node is unconfigured; configure it first"),
    ],
)
def test_what_is_asked_out_of_turn_is_refused(made, steps, then, says):
    node = made().node
    for step in steps:
        getattr(node, step)()
    with pytest.raises(UsageError, match=says):
        getattr(node, then)()


def test_nothing_is_activated_or_started_beside_another_who_commands(made):
    one = made()
    one.node.configure()
    one.rig.rival = "/moveit"
    with pytest.raises(UsageError, match="/moveit publishes on /commands too"):
        one.node.activate()
    assert one.node.phase == "inactive"
    one.rig.rival = ""
    one.node.activate()
    one.rig.rival = "/moveit"
    with pytest.raises(UsageError, match="/moveit publishes on /commands too"):
        one.node.start()
    assert not one.node.running
    one.rig.rival = ""
    assert one.node.start() == "running"


def test_a_stop_that_comes_while_a_start_is_served_wins(made):
    one = made()
    one.node.configure()
    one.node.activate()
    alone = one.rig.require_alone
    one.rig.require_alone = lambda: one.node.stop("wait!") and alone()
    with pytest.raises(UsageError, match="a stop was asked for meanwhile; start again"):
        one.node.start()
    assert (one.node.running, one.rig.robot.state) == (False, "hold")
    one.rig.require_alone = alone
    with pytest.raises(UsageError, match="a stop was asked for meanwhile"):
        one.node.start(stops=0)  # asked before the stop, served after it
    assert one.node.start() == "running"


def test_a_start_that_waits_behind_another_button_is_not_served_after_a_stop(made):
    one = made()
    said, waits = [], threading.Event()
    buttons = NodeButtons(one.node, one.transport, "/robopolicy", said.append)
    press = {word: one.far.publisher(f"/robopolicy/{word}", "std_msgs/msg/Bool") for word in ("start", "stop", "reset")}
    true = message("std_msgs/msg/Bool")(True)
    one.node.configure()
    one.node.activate()
    one.rig.robot.reset = lambda: waits.wait(60)
    for word in ("reset", "start", "stop"):
        press[word].send(true)
    waits.set()
    until(lambda: len(said) == 3)
    buttons.close()
    assert said[-1] == "start refused: a stop was asked for meanwhile; start again"
    assert not one.node.running


def test_a_stop_that_fails_is_told_and_tried_again_and_the_button_still_works(made):
    one, said = made(), []
    buttons = NodeButtons(one.node, one.transport, "/robopolicy", said.append)
    one.node.configure()
    one.node.activate()
    stop, failed = one.rig.inner.stop, []

    def broken(reason=""):
        if not failed:
            failed.append(reason)
            raise OSError("the network is down")
        return stop(reason)

    one.rig.inner.stop = broken
    press = one.far.publisher("/robopolicy/stop", "std_msgs/msg/Bool")
    press.send(message("std_msgs/msg/Bool")(True))
    until(lambda: said == ["stop: the robot could not be stopped: the network is down; it is tried again"])
    until(lambda: one.rig.robot.reason == "asked on /robopolicy/stop")
    press.send(message("std_msgs/msg/Bool")(True))
    until(lambda: said[1:] == ["stop: hold: asked on /robopolicy/stop"])
    buttons.close()


def test_a_stop_before_anything_is_no_error(made):
    assert made().node.stop("panic") == "nothing to stop: not configured"


def test_a_robot_that_does_not_open_leaves_the_node_unconfigured(made):
    one = made()

    def fails():
        raise StaleFrame("camera front: nothing comes")

    node = RobotNode(fails)
    with pytest.raises(StaleFrame, match="camera front"):
        node.configure()
    assert node.phase == "unconfigured"
    node.close()
    assert one.rigs == []


def test_a_fault_ends_the_episode_latches_and_is_reset_by_a_person(made):
    one = made()
    one.node.configure()
    one.node.activate()
    one.node.start()
    until(lambda: one.rig.robot.state == "running")
    one.rig.robot.fault("it smells")
    until(lambda: not one.node.running)
    assert one.node.ended == "fault: it smells; put it right, then reset"
    until(lambda: one.ears.now["state"] == "fault" and not one.ears.now["running"])
    assert "it smells" in one.ears.now["ended"]
    until(lambda: (one.ears.found("robot") or [0])[0] == 2)
    assert one.ears.found("robot")[1] == "fault: it smells"
    with pytest.raises(UsageError, match="the robot is in a fault: it smells; put it right, then reset"):
        one.node.start()
    assert one.node.reset() == "idle"
    assert one.node.start() == "running"
    assert one.node.ended == ""


def test_an_emergency_stop_pressed_while_nothing_runs_refuses_the_next_start(made):
    word = [(False, 0.0)]
    one = made(watchdogs=Watchdogs(silent_s=5.0, estop_s=5.0), estop=lambda: word[0])
    one.node.configure()
    one.node.activate()
    word[0] = (True, 0.0)
    until(lambda: one.ears.now["state"] == "fault")
    with pytest.raises(UsageError, match="nothing is reset: the emergency stop is pressed; release it"):
        one.node.reset()
    word[0] = (False, 0.0)
    with pytest.raises(UsageError, match="a fault: the emergency stop is pressed; put it right, then reset"):
        one.node.start()
    assert one.node.reset() == "idle"
    word[0] = (False, 9.0)
    with pytest.raises(UsageError, match=r"nothing is heard of the emergency stop for 9\.00 s"):
        one.node.start()
    word[0] = (False, 0.0)
    assert one.node.start() == "running"


def test_diagnostics_tell_rates_latencies_limits_and_the_monitor(made):
    one = made()
    one.node.configure()
    one.node.activate()
    one.node.start()
    until(lambda: (one.ears.found("loop") or ["", "", {}])[2].get("latency p99 ms") and one.rig.agent.step > 60)
    until(lambda: one.ears.found("loop")[2]["steps"] != "0" and "rate Hz" in one.ears.found("loop")[2])
    level, says, values = one.ears.found("loop")
    assert (level, says) == (0, "running, policy")
    assert values["wanted rate Hz"] == "50"
    assert 0 < float(values["rate Hz"]) < 51
    assert float(values["latency p50 ms"]) <= float(values["latency p99 ms"])
    assert values["plan latency ms"] == "20.0"
    _, _, values = one.ears.found("robot")
    assert values["limit speed"] == "1" or int(values["limit speed"]) > 0
    level, says, values = one.ears.found("monitor")
    assert (level, says) == (0, "nominal")
    assert (values["statistic"], values["threshold"], values["p_value"]) == ("0.25", "1", "0.125")
    assert one.ears.diagnostics[-1].status[0].hardware_id == "mock"
    assert abs(one.ears.diagnostics[-1].header.stamp.sec - time.time()) < 60


def test_the_score_is_said_once_a_decision_and_an_alarm_is_an_error(made):
    agent = Sways()
    one = made(agent=agent, max_steps=30)
    one.node.configure()
    one.node.activate()
    one.node.start()
    until(lambda: not one.node.running)
    assert one.ears.scores == [{"statistic": 0.25, "threshold": 1.0, "p_value": 0.125}] * 6
    agent.statistic = 3.0
    one.node.start()
    until(lambda: (one.ears.found("monitor") or [0])[0] == 2)
    assert one.ears.found("monitor")[1] == "alarm: overlap is high"


class Judge:
    """A monitor that alarms at its third decision, until it is acknowledged."""

    def __init__(self, state="alarm"):
        self.state, self.seen, self.acknowledged = state, 0, 0

    def reset(self):
        self.seen = 0

    def acknowledge(self):
        self.acknowledged += 1
        self.seen = -1000

    def step(self, decision):
        self.seen += 1
        state = self.state if self.seen > 2 else "nominal"
        return Verdict(decision.stamp_ns, {"rnd": 0.5}, 1.0, 0.5, 0.1, state, reason=f"it is {state}")


class Decides(Sways):
    """Gives no verdicts of its own, and plans anew when told to."""

    def act(self, observation):
        return replace(super().act(observation), verdict=None)

    def replan(self, history):
        self.step = 0


def test_an_alarm_is_acknowledged_by_a_button_in_the_loops_own_thread_and_the_robot_goes_on(made):
    judge, said = Judge(), []
    one = made(agent=Guarded(Decides(), judge))
    with pytest.raises(UsageError, match="no episode runs: there is no alarm to acknowledge"):
        one.node.acknowledge()
    buttons = NodeButtons(one.node, one.transport, "/robopolicy", said.append)
    press = one.far.publisher("/robopolicy/acknowledge", "std_msgs/msg/Bool")
    one.node.configure()
    one.node.activate()
    one.node.start()
    until(lambda: one.ears.now["running"] and one.ears.now["state"] == "hold")
    assert one.ears.now["reason"] == "it is alarm"
    held, seen = judge.acknowledged, judge.seen
    press.send(message("std_msgs/msg/Bool")(True))
    until(lambda: one.ears.now["state"] == "running")
    buttons.close()
    assert (held, seen, judge.acknowledged) == (0, 3, 1)
    assert said == ["acknowledge: at its next step the monitor is armed again, and the policy plans anew"]
    assert one.node.acknowledge()
    time.sleep(0.1)
    assert judge.acknowledged == 1, "there is nothing to acknowledge"


def test_an_episode_that_the_monitor_stops_says_why(made):
    one = made(agent=Guarded(Decides(), Judge("overrun"), on_alarm="stop"))
    one.node.configure()
    one.node.activate()
    one.node.start()
    until(lambda: not one.node.running)
    until(lambda: one.ears.now["ended"])
    assert one.ears.now["ended"] == "it is overrun"
    assert one.rig.robot.state == "hold"


@pytest.mark.parametrize(
    ("state", "level"),
    [("nominal", 0), ("warn", 1), ("uncalibrated", 1), ("stale", 1), ("alarm", 2), ("overrun", 2), ("fault", 2)],
)
def test_how_grave_each_state_of_the_monitor_is(made, state, level):
    one = made()
    one.node.configure()
    verdict = Verdict(0, {"rnd": 0.5}, 1.0, 0.5, 0.1, state, 0.003, "why")
    seen = Observation(0, {})
    one.rig.topics.on_step(Step(seen, np.zeros(3, np.float32), 0, "policy", verdict))
    (found,) = [one for one in one.rig.topics.findings() if one.name.endswith("monitor")]
    assert (found.level, found.says) == (level, f"{state}: why")
    assert (found.values["score rnd"], found.values["latency ms"]) == ("0.5", "3.00")


def test_a_message_that_cannot_be_sent_is_said_again(made):
    one = made()
    one.node.configure()
    until(lambda: one.ears.statuses)
    publisher = one.rig.topics._diagnostics
    send, failed = publisher.send, []

    def fail(message):
        failed.append(message)
        raise OSError("the network is gone")

    publisher.send = fail
    until(lambda: failed)
    publisher.send = send
    before = len(one.ears.diagnostics)
    until(lambda: len(one.ears.diagnostics) > before)


def test_a_loop_that_hangs_is_told_and_a_stop_holds_it_and_lets_it_command_nothing_more(made, monkeypatch):
    monkeypatch.setattr("robopolicy_hardware.ros.node.JOIN_S", 0.25)
    go_on = threading.Event()
    one = made(agent=Sways(lambda step: step == 20 and go_on.wait(60)))
    one.node.configure()
    one.node.activate()
    one.node.start()
    until(lambda: (one.ears.found("loop") or [0])[0] == 2)
    assert one.ears.found("loop")[1].startswith("no step for ")
    told = one.node.stop("enough")
    assert told == "hold: enough; the loop hangs for 0.25 s now, and will command nothing when it goes on"
    sent = []
    command = one.rig.inner.command
    one.rig.inner.command = lambda *args: sent.append(args) or command(*args)
    with pytest.raises(UsageError, match="the loop hangs"):
        one.node.cleanup()
    go_on.set()
    until(lambda: not one.node.running)
    assert sent == []
    assert one.rig.robot.state == "hold"


def test_buttons_on_topics_start_stop_and_reset(made):
    one = made()
    said = []
    buttons = NodeButtons(one.node, one.transport, "/robopolicy", said.append)
    press = {word: one.far.publisher(f"/robopolicy/{word}", "std_msgs/msg/Bool") for word in ("start", "stop", "reset")}
    true = message("std_msgs/msg/Bool")(True)
    press["start"].send(true)
    until(lambda: said == ["start refused: start: the node is unconfigured; it must be active"])
    one.node.configure()
    one.node.activate()
    press["start"].send(true)
    until(lambda: said[1:] == ["start: running"])
    until(lambda: one.rig.robot.state == "running")
    press["stop"].send(true)
    until(lambda: said[2:] == ["stop: hold: asked on /robopolicy/stop"])
    one.rig.robot.fault("it smells")
    press["reset"].send(true)
    until(lambda: said[3:] == ["reset: idle"])
    buttons.close()
    buttons.close()
    press["start"].send(true)
    assert len(said) == 4


def test_status_waits_for_those_who_come_later_and_ask_for_it():
    """A ROS 2 node that subscribes with transient local has the newest status at once, and no older one."""
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'robopolicy[ros]'")
    os.environ["CYCLONEDDS_URI"] = LOOPBACK
    from cyclonedds.core import Policy, Qos
    from cyclonedds.domain import DomainParticipant
    from cyclonedds.sub import DataReader
    from cyclonedds.topic import Topic
    from cyclonedds.util import duration

    from robopolicy_hardware.ros.dds import Topics
    from robopolicy_hardware.ros.dds_types import struct_of
    from robopolicy_hardware.ros.node_messages import STRING, status_message

    domain = 220 - os.getpid() % 5
    topics = Topics(domain)
    try:
        latched, plain = topics.publisher("/status", STRING, latched=True), topics.publisher("/plain", STRING)
        for publisher in (latched, plain):
            publisher.send(status_message({"n": 1}))
            publisher.send(status_message({"n": 2}))
        participant = DomainParticipant(domain)
        asks = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.Durability.TransientLocal)
        reader = DataReader(participant, Topic(participant, "rt/status", struct_of(STRING)), qos=asks)
        samples = []
        until(lambda: samples.extend(reader.take(N=10)) or samples)
        assert [b'"n": 2' in sample.cdr for sample in samples] == [True]
        other = DataReader(participant, Topic(participant, "rt/plain", struct_of(STRING)), qos=asks)
        time.sleep(0.2)
        assert other.take(N=10) == []  # a volatile publisher and a reader that asks for more do not match
    finally:
        topics.close()
