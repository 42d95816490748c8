"""Deadman, emergency stop and buttons on topics, alone and as a supervised robot sees them."""

import time

import numpy as np
import pytest

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'robopolicy[ros]'")

from robopolicy.clock import WallClock
from robopolicy.errors import UnsafeCommand
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.ros import signals
from robopolicy_hardware.ros.codec import message
from robopolicy_hardware.ros.local import LocalTopics, Wire
from robopolicy_hardware.ros.signals import BOOL, Button, EmergencyStop, Heartbeat
from robopolicy_hardware.supervisor import Supervised, Watchdogs


@pytest.fixture
def say():
    """What publishes true or false on /word, and the transport that hears it at once."""
    wire = Wire()
    topics, ears = LocalTopics(wire), LocalTopics(wire)
    publisher = topics.publisher("/word", BOOL)
    yield lambda word: publisher.send(message(BOOL)(word)), ears
    topics.close()
    ears.close()


def until(so, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while not so():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_a_heartbeat_has_the_age_of_its_newest_word_and_none_once_let_go(say):
    tell, topics = say
    beat = Heartbeat(topics, "/word")
    assert beat.age_s() is None
    tell(True)
    young = beat.age_s()
    time.sleep(0.05)
    old = beat.age_s()
    assert 0 <= young < old
    assert old >= 0.05
    tell(True)
    assert beat.age_s() < old
    tell(False)
    assert beat.age_s() is None
    tell(True)
    beat.close()
    beat.close()
    assert beat.age_s() is None


def test_a_short_press_is_one_for_everybody_who_asks_within_a_second(say, monkeypatch):
    tell, topics = say
    stop = EmergencyStop(topics, "/word")
    assert stop.pressed_and_age() == (False, None)
    tell(False)
    pressed, age_s = stop.pressed_and_age()
    assert (pressed, age_s >= 0) == (False, True)
    monkeypatch.setattr(signals, "RECENT_S", 60.0)
    tell(True)
    tell(False)
    assert [stop.pressed_and_age()[0] for _ in range(3)] == [True] * 3
    monkeypatch.setattr(signals, "RECENT_S", 0.0)
    assert stop.pressed_and_age()[0] is False
    tell(True)
    assert [stop.pressed_and_age()[0] for _ in range(3)] == [True] * 3


def test_the_first_word_of_an_emergency_stop_can_be_waited_for(say):
    tell, topics = say
    stop = EmergencyStop(topics, "/word")
    assert not stop.wait(0.0)
    tell(False)
    assert stop.wait(60.0)


def test_silence_of_an_emergency_stop_ages_on_after_it_is_closed(say):
    tell, topics = say
    stop = EmergencyStop(topics, "/word")
    tell(False)
    stop.close()
    tell(False)
    first = stop.pressed_and_age()[1]
    time.sleep(0.02)
    assert stop.pressed_and_age()[1] >= first + 0.02


def test_a_button_counts_what_is_true(say):
    tell, topics = say
    presses = []
    button = Button(topics, "/word", lambda: presses.append(1))
    for word in (False, True, False, True):
        tell(word)
    assert len(presses) == 2
    button.close()
    tell(True)
    assert len(presses) == 2


def test_a_supervised_robot_holds_without_the_heartbeat_and_faults_at_the_stop(say):
    tell, topics = say
    wire = Wire()
    pulses, hears = LocalTopics(wire), LocalTopics(wire)
    pulse = pulses.publisher("/estop", BOOL)
    beat, stop = Heartbeat(topics, "/word"), EmergencyStop(hears, "/estop")
    clock = WallClock()
    inner = MockRobot(None, clock)
    robot = Supervised(
        inner, Watchdogs(silent_s=None, deadman_s=5.0, estop_s=60.0), deadman=beat.age_s, estop=stop.pressed_and_age
    )
    try:
        held = robot.stop()
        pulse.send(message(BOOL)(False))
        with pytest.raises(UnsafeCommand, match="nobody holds the deadman"):
            robot.command(held, 0)
        tell(True)
        np.testing.assert_array_equal(robot.command(held, 0), held)
        assert robot.state == "running"
        tell(False)
        until(lambda: robot.state == "hold")
        tell(True)
        robot.command(held, 0)
        pulse.send(message(BOOL)(True))
        pulse.send(message(BOOL)(False))
        until(lambda: robot.state == "fault")
        assert robot.reason == "the emergency stop is pressed"
    finally:
        robot.close()
