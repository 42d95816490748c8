"""A robot that a person or a recording drives, limited and watched by a file of limits."""

from contextlib import ExitStack

import numpy as np
import pytest

pytest.importorskip("ruamel.yaml", reason="ruamel.yaml is not installed: pip install 'robopolicy[ros]'")

from robopolicy.cli import watched
from robopolicy.cli.watched import by_hand
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import UnsafeCommand, UsageError
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.signals import EmergencyStop
from robopolicy_hardware.safety import limits_for
from robopolicy_hardware.supervisor import Supervised
from sim_envs.worlds import make_world

BOOL = "std_msgs/msg/Bool"
ESTOP = "max_speed_m_s: 0.05\nwatchdogs: {estop_s: 60, estop_topic: /estop, silent_s: null}\n"


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """Write a file of limits; its topics are on the wire that is returned beside it."""
    wire = Wire()
    monkeypatch.setattr(watched, "topics_of", lambda domain: LocalTopics(wire))
    monkeypatch.setattr(watched, "FIRST_WORD_S", 0.0)

    def write(text):
        path = tmp_path / "limits.yaml"
        path.write_text(text)
        return path, wire

    return write


def test_without_a_file_the_robot_is_itself_and_its_limits_are_the_cautious_ones():
    with ExitStack() as stack:
        clock = WallClock()
        robot = MockRobot(None, clock)
        driven, safety = by_hand(robot, None, stack, None)
        assert driven is robot
        wanted = robot.stop() + np.float32([0.5, *np.zeros(9)])
        moved = safety.limit(wanted, robot.read(), clock.now_ns())[0] - robot.stop()[0]
        assert 0 < moved <= limits_for(robot.spec).max_speed_m_s / robot.spec.rate_hz + 1e-6


def test_a_simulated_world_is_limited_and_stays_a_world(limits):
    path, _ = limits("max_speed_m_s: 0.05")
    with ExitStack() as stack:
        world = make_world("twin:lift", SimClock(), cameras=())
        stack.callback(world.close)
        driven, safety = by_hand(world, path, stack, None)
        assert driven is world
        at = world.stop()
        sent = safety.limit(at + np.float32([0.5, *np.zeros(9)]), world.read(), 0)
        assert sent[0] - at[0] <= 0.05 / world.spec.rate_hz + 1e-6


def test_a_robot_is_watched_and_an_emergency_stop_ends_what_a_person_drives(limits, monkeypatch):
    path, wire = limits(ESTOP)
    button = LocalTopics(wire).publisher("/estop", BOOL)
    with ExitStack() as stack:
        with pytest.raises(UsageError, match="nothing is heard of the emergency stop for ever"):
            by_hand(MockRobot(None, WallClock()), path, stack, None)
        said = message(BOOL)(False)
        monkeypatch.setattr(EmergencyStop, "wait", lambda self, timeout_s: button.send(said))
        driven, _ = by_hand(MockRobot(None, WallClock()), path, stack, None)
        assert isinstance(driven, Supervised)
        held = driven.stop()
        driven.command(held, 0)
        button.send(message(BOOL)(True))
        with pytest.raises(UnsafeCommand, match="the emergency stop is pressed"):
            driven.command(held, 0)
        assert driven.state == "fault"


def test_a_deadmans_switch_is_refused_where_a_person_drives(limits):
    path, _ = limits("watchdogs: {deadman_s: 1, deadman_topic: /held}")
    with (
        ExitStack() as stack,
        pytest.raises(UsageError, match="deadman_topic is of deploy and the node; here leave it"),
    ):
        by_hand(MockRobot(None, WallClock()), path, stack, None)
