import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from robopolicy.clock import WallClock
from robopolicy.errors import ContractError, StaleFrame, UnsafeCommand, UsageError
from robopolicy.spec import TOOL_POSE, ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import RobotContract
from robopolicy_hardware.mock import MockRobot
from robopolicy_hardware.supervisor import Supervised, Watchdogs

JOINTS = PolicySpec(
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("j1", "j2", "gripper"), ("rad", "rad", "open")),
)
TOOLS = PolicySpec(
    state={"tool_pos": StateSpec(3, ("m",)), "tool_quat": StateSpec(4, ("quat",)), "gripper": StateSpec(1, ("open",))},
    action=TOOL_POSE,
)
NUMBERS = PolicySpec(state={"state": StateSpec(2, ("1",))}, action=ActionSpec("vector", ("a", "b"), ("1",)))
GOAL = np.float32([0.1, 0.2, 1.0])


class Remembers(MockRobot):
    """A mock that remembers why it was stopped and from which thread."""

    def __init__(self, *args, **options):
        self.stops, self.silent, self.hangs = [], False, None
        super().__init__(*args, **options)

    def read(self):
        if self.silent:
            raise StaleFrame("camera front: nothing comes")
        if self.hangs is not None:
            self.hangs.wait(60)
        return super().read()

    def stop(self, reason=""):
        self.stops.append((reason, threading.current_thread().name))
        return super().stop(reason)


@pytest.fixture
def watched():
    made = []

    def make(watchdogs=None, **options):
        robot = Remembers(JOINTS, WallClock())
        made.append(Supervised(robot, watchdogs, **options))
        return made[-1], robot

    yield make
    for one in made:
        one.close()
        one.close()


def until(so, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while not so():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


class TestSupervised(RobotContract):
    def make(self, clock):
        return Supervised(MockRobot(JOINTS, clock))


def test_from_idle_to_running_and_back(watched):
    robot, _ = watched(Watchdogs(silent_s=None))
    assert (robot.state, robot.reason) == ("idle", "")
    robot.read()
    assert robot.state == "ready"
    robot.command(GOAL, 0)
    assert robot.state == "running"
    robot.stop("lunch")
    assert (robot.state, robot.reason) == ("hold", "lunch")
    robot.command(GOAL, 0)
    assert (robot.state, robot.reason) == ("running", "")


def test_a_loop_that_hangs_is_held_by_the_watchdogs_thread_and_may_go_on(watched):
    robot, inner = watched(Watchdogs(silent_s=0.05))
    robot.read()
    time.sleep(0.2)
    assert inner.stops == []  # a robot that was never commanded is nobody's to stop
    robot.command(GOAL, 0)
    until(lambda: inner.stops)
    (reason, thread), *_ = inner.stops
    assert thread == "watchdogs"
    assert reason.startswith("no command for 0.")
    assert robot.state == "hold"
    until(lambda: robot.state == "hold")
    time.sleep(0.1)
    assert len(inner.stops) == 1  # it holds; once is enough
    robot.command(GOAL, 0)
    assert robot.state == "running"


def test_a_stream_that_stops_holds_the_robot(watched):
    robot, inner = watched(Watchdogs(silent_s=None))
    robot.read()
    robot.command(GOAL, 0)
    inner.silent = True
    with pytest.raises(StaleFrame):
        robot.read()
    assert (robot.state, robot.reason) == ("hold", "camera front: nothing comes")
    assert inner.stops[-1][0] == "camera front: nothing comes"


def test_a_fault_is_latched_until_a_person_resets_it(watched):
    robot, _ = watched(Watchdogs(silent_s=None))
    robot.read()
    robot.command(GOAL, 0)
    held = robot.fault("it smells")
    assert robot.state == "fault"
    assert held.shape == (3,)
    for again in (lambda: robot.command(GOAL, 0),) * 2:
        with pytest.raises(UnsafeCommand, match="fault: it smells; put it right, then reset"):
            again()
    robot.stop("end of episode")
    robot.read()
    assert (robot.state, robot.reason) == ("fault", "it smells")
    robot.reset()
    assert robot.state == "idle"
    robot.read()
    robot.command(GOAL, 0)
    assert robot.state == "running"


def test_an_arm_that_does_not_follow_is_a_fault(watched):
    robot, _ = watched(Watchdogs(silent_s=None, tracking=(0.3, 0.3, 5.0)))
    robot.read()
    robot.command(np.float32([0.1, 0.1, 0.0]), 0)
    robot.read()
    assert robot.state == "running"
    robot.command(np.float32([0.1, 0.9, 0.0]), 0)
    robot.read()
    assert robot.state == "fault"
    assert robot.reason.startswith("j2 is 0.")
    assert robot.reason.endswith("from its command; at most 0.3 is allowed")


def tool(x, turn):
    """A tool pose at x m, turned about z."""
    return np.float32([x, 0, 0.2, np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0, 1])


@pytest.mark.parametrize(
    ("goal", "says"),
    [(tool(0.54, 0.1), None), (tool(0.56, 0.0), "the tool's position is 0.06 from its command; at most 0.05"),
     (tool(0.5, 0.3), "the tool's rotation is 0.3 from its command; at most 0.2")],
)  # fmt: skip
def test_a_tool_that_does_not_follow_is_a_fault(goal, says):
    class Stuck(MockRobot):
        def read(self):
            seen = super().read()
            told = {"tool_pos": np.float32([0.5, 0, 0.2]), "tool_quat": np.float32([1, 0, 0, 0])}
            return replace(seen, state={**seen.state, **told})

    robot = Supervised(Stuck(TOOLS, WallClock()), Watchdogs(silent_s=None, tracking=(0.05, 0.2)))
    try:
        robot.read()
        robot.command(goal, 0)
        robot.read()
        assert robot.state == ("running" if says is None else "fault")
        assert says is None or robot.reason.startswith(says)
    finally:
        robot.close()


def test_without_the_deadman_nothing_moves_and_letting_go_holds(watched):
    age = [None]
    robot, _ = watched(Watchdogs(silent_s=None, deadman_s=0.2), deadman=lambda: age[0])
    robot.read()
    with pytest.raises(UnsafeCommand, match="nobody holds the deadman's switch: its last word is ever old"):
        robot.command(GOAL, 0)
    age[0] = 0.05
    robot.command(GOAL, 0)
    assert robot.state == "running"
    age[0] = 0.5
    until(lambda: robot.state == "hold")
    assert "0.50 s old" in robot.reason
    age[0] = 0.0
    robot.command(GOAL, 0)
    assert robot.state == "running"


def test_the_emergency_stop_is_latched_and_so_is_its_silence(watched):
    word = [(False, 0.0)]
    robot, _ = watched(Watchdogs(silent_s=None, estop_s=0.2), estop=lambda: word[0])
    for bad, why in (((True, 0.0), "the emergency stop is pressed"), ((False, 0.9), "nothing is heard of the emer")):
        word[0] = (False, 0.0)
        robot.reset()
        robot.read()
        robot.command(GOAL, 0)
        word[0] = bad
        until(lambda: robot.state == "fault")
        assert robot.reason.startswith(why)
        word[0] = (False, 0.0)
        with pytest.raises(UnsafeCommand, match="fault: "):
            robot.command(GOAL, 0)


@pytest.mark.parametrize("before", ["idle", "ready", "hold"])
def test_a_press_while_nothing_runs_is_latched_and_asks_nothing_of_the_robot(watched, before):
    word = [(False, 0.0)]
    robot, inner = watched(Watchdogs(silent_s=None, estop_s=5.0), estop=lambda: word[0])
    if before != "idle":
        robot.read()
    if before == "hold":
        robot.stop("lunch")
    assert (robot.state, robot.refusal()) == (before, None)
    stops = len(inner.stops)
    word[0] = (True, 0.0)
    until(lambda: robot.state == "fault")
    with pytest.raises(UsageError, match="nothing is reset: the emergency stop is pressed"):
        robot.reset()
    word[0] = (False, 0.0)
    assert robot.refusal() == "the robot is in a fault: the emergency stop is pressed; put it right, then reset"
    assert robot.trips == ["the emergency stop is pressed"]
    assert len(inner.stops) == stops, "it does not move, or somebody else moves it"
    with pytest.raises(UnsafeCommand, match="fault: the emergency stop is pressed; put it right, then reset"):
        robot.command(GOAL, 0)
    robot.reset()
    assert (robot.state, robot.refusal()) == ("idle", None)


def test_an_emergency_stop_of_which_nothing_is_heard_refuses_a_start_and_a_reset(watched):
    word = [(False, None)]
    robot, _ = watched(Watchdogs(silent_s=None, estop_s=0.2), estop=lambda: word[0])
    assert robot.refusal() == "nothing is heard of the emergency stop for ever"
    word[0] = (False, 0.0)
    assert robot.refusal() is None
    assert robot.state == "idle", "nothing ran: it is a fault of those who would begin now"
    robot.fault("it smells")
    word[0] = (False, 0.9)
    with pytest.raises(UsageError, match=r"nothing is reset: nothing is heard of the emergency stop for 0\.90 s$"):
        robot.reset()
    assert robot.state == "fault"


def test_stops_and_commands_from_many_threads_end_in_a_hold(watched):
    robot, inner = watched(Watchdogs(silent_s=None))
    robot.read()
    going = [True]

    def command():
        while going[0]:
            robot.command(GOAL, 0)

    threads = [threading.Thread(target=command)]
    threads += [threading.Thread(target=lambda: [robot.stop("now") for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join()
    going[0] = False
    threads[0].join()
    robot.stop("the last word")
    assert (robot.state, robot.reason) == ("hold", "the last word")
    assert len(inner.stops) == 801


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"silent_s": np.nan}, "watchdog silent_s is nan; want finite and above 0"),
        ({"tracking": (0.1, 0.0)}, "watchdog tracking is"),
        ({"tracking": (0.1,)}, "tracking has 1 numbers; the action has 3"),
        ({"deadman_s": 0.1}, "deadman: its age limit and what tells its age go together"),
        ({"estop_s": 0.1}, "estop: its age limit and what tells of it go together"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(limits, says):
    with pytest.raises(ContractError, match=says):
        Supervised(MockRobot(JOINTS, WallClock()), Watchdogs(**limits))


@pytest.mark.parametrize(
    ("spec", "tracking", "says"),
    [
        (TOOLS, (0.1,) * 10, "tracking has 10 numbers; a tool pose has 2, m and rad"),
        (
            replace(TOOLS, state={"q": StateSpec(7, ("rad",))}),
            (0.1, 0.1),
            "compares with tool_pos and tool_quat; the robot has q",
        ),
        (
            replace(JOINTS, state={"q": StateSpec(2, ("rad",))}),
            (0.1,) * 3,
            "compares with q and gripper, 3 numbers together",
        ),
        (NUMBERS, (0.1, 0.1), "is of joint and tool_pose commands; these are vector"),
    ],
)
def test_a_tracking_error_that_nobody_could_tell_is_refused(spec, tracking, says):
    with pytest.raises(ContractError, match=says):
        Supervised(MockRobot(spec, WallClock()), Watchdogs(tracking=tracking))


def test_a_command_is_late_by_what_is_beyond_its_period():
    slow = replace(JOINTS, rate_hz=2.0)
    inner = Remembers(slow, WallClock())
    robot = Supervised(inner, Watchdogs(silent_s=0.1))
    try:
        robot.read()
        for _ in range(3):
            robot.command(GOAL, 0)
            time.sleep(0.45)  # a loop of 2 Hz
            assert inner.stops == []
        until(lambda: inner.stops)
        assert robot.trips == [inner.stops[0][0]]
        silent_s = float(inner.stops[0][0].split()[3])
        assert silent_s >= 0.6
    finally:
        robot.close()


@pytest.mark.parametrize("alone", [False, True])
def test_a_read_that_hangs_delays_the_stop_of_a_simulation_only(alone):
    inner = Remembers(JOINTS, WallClock())
    robot = Supervised(inner, Watchdogs(silent_s=0.05), alone=alone)
    robot.read()
    robot.command(GOAL, 0)
    inner.hangs = threading.Event()
    reading = threading.Thread(target=robot.read)
    reading.start()
    try:
        if alone:
            time.sleep(0.5)
            assert inner.stops == [], "never beside a call that goes on"
        else:
            until(lambda: inner.stops)
            assert inner.stops[0][1] == "watchdogs"
        inner.hangs.set()
        until(lambda: inner.stops)
        assert robot.state == "hold"
    finally:
        inner.hangs.set()
        reading.join()
        robot.close()


class Slow(Remembers):
    """A mock whose commands, or motions, hang until it is told, and whose stops can fail."""

    def __init__(self, *args, **options):
        self.hung, self.going, self.broken = threading.Event(), threading.Event(), 0
        super().__init__(*args, **options)

    def command(self, action, due_ns):
        self.hung.set()
        self.going.wait(60)
        return super().command(action, due_ns)

    def follow(self, chunk, velocities):
        self.command(GOAL, 0)

    def stop(self, reason=""):
        held = super().stop(reason)
        if self.broken:
            self.broken -= 1
            raise OSError("the network is down")
        return held


@pytest.mark.parametrize("way", ["command", "follow"])
def test_a_fault_stays_although_a_command_was_on_its_way(way):
    inner, ended = Slow(JOINTS, WallClock()), []
    robot = Supervised(inner)
    robot.read()

    def command():
        with pytest.raises(UnsafeCommand, match="fault: it smells; put it right"):
            getattr(robot, way)(GOAL, 0)
        ended.append(1)

    thread = threading.Thread(target=command)
    thread.start()
    try:
        assert inner.hung.wait(60)
        robot.fault("it smells")
        inner.going.set()
        thread.join()
        assert ended
        assert (robot.state, robot.reason) == ("fault", "it smells")
        assert len(inner.stops) == 2, "after the command too"
    finally:
        inner.going.set()
        robot.close()


def test_a_stop_that_fails_is_tried_again_and_does_not_end_the_watching():
    inner = Slow(JOINTS, WallClock())
    inner.going.set()
    robot = Supervised(inner, Watchdogs(silent_s=0.05))
    try:
        robot.read()
        inner.broken = 3
        robot.command(GOAL, 0)
        until(lambda: len(inner.stops) == 4 and robot.reason == inner.stops[0][0])
        assert {thread for _, thread in inner.stops} == {"watchdogs"}
        assert (robot.state, len(robot.trips)) == ("hold", 1)
        inner.broken = 10**9
        robot.command(GOAL, 0)
        until(lambda: robot.reason.endswith("the loop is late; the robot could not be stopped: the network is down"))
        robot.command(GOAL, 0)
        inner.broken = 0
        until(lambda: robot.state == "hold" and "could not" not in robot.reason)
    finally:
        inner.broken = 0
        robot.close()


@pytest.mark.parametrize("what", ["deadman", "estop"])
def test_a_switch_that_can_no_longer_be_asked_is_a_fault_and_does_not_end_the_watching(watched, what):
    broken = []

    def ask():
        if broken:
            raise RuntimeError("the network is down")
        return (False, 0.0) if what == "estop" else 0.0

    robot, inner = watched(Watchdogs(silent_s=None, **{f"{what}_s": 5.0}), **{what: ask})
    robot.read()
    robot.command(GOAL, 0)
    broken.append(True)
    until(lambda: robot.state == "fault" and inner.stops)
    assert robot.reason == "the watchdogs cannot look: the network is down"
    assert robot.trips == [robot.reason]
    broken.clear()
    robot.reset()
    robot.read()
    robot.command(GOAL, 0)
    broken.append(True)
    until(lambda: len(robot.trips) == 2)


def test_every_reason_for_which_it_stopped_itself_is_remembered(watched):
    word = [(False, 0.0)]
    robot, _ = watched(Watchdogs(silent_s=0.05, estop_s=5.0), estop=lambda: word[0])
    robot.read()
    robot.stop("lunch")
    assert robot.trips == [], "that was somebody else"
    robot.command(GOAL, 0)
    until(lambda: len(robot.trips) == 1)
    robot.command(GOAL, 0)
    word[0] = (True, 0.0)
    until(lambda: robot.state == "fault")
    time.sleep(0.1)
    assert len(robot.trips) <= 3
    assert robot.trips[0].startswith("no command for ")
    assert robot.trips[-1] == "the emergency stop is pressed"


def test_a_topic_without_an_age_is_refused():
    with pytest.raises(ContractError, match="deadman_topic: say deadman_s too"):
        Watchdogs(deadman_topic="/deadman")
