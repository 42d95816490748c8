"""Who drives from which browser: the rules, with a clock of our own."""

import numpy as np
import pytest

from robopolicy_hardware.teleop.browser_hand import Hand

HERE = np.array([0.4, 0.0, 0.2])
UNTURNED = np.array([1.0, 0, 0, 0])


class Room:
    """A hand and its clock."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.hand = Hand(0.5, lambda: self.now_s)


@pytest.fixture
def room() -> Room:
    return Room()


def test_nobody_there_is_a_reason_to_hold(room):
    assert room.hand.look().reason == "no browser is connected"


def test_the_first_browser_drives_and_the_robot_waits_until_it_touches_something(room):
    hand = room.hand
    hand.joined(3, "browser 4")
    assert hand.look().driver == 3
    assert hand.look().reason == "take the handle"
    assert hand.grasped(3, HERE)
    assert hand.look().reason == ""


def test_a_second_browser_watches_until_it_asks(room):
    hand = room.hand
    hand.joined(0, "browser 1")
    hand.joined(1, "browser 2")
    assert not hand.grasped(1, HERE)
    assert not hand.gripped(1, 0.0)
    assert not hand.pressed(1, "success")
    assert hand.pressed(1, "pause"), "stopping is everybody's right"
    assert hand.take_events() == ["pause"]
    assert hand.look().grasp is None
    assert hand.take_grip() is None
    hand.grasped(0, HERE)
    hand.drive(1)
    assert hand.look().driver == 1
    assert hand.look().grasp is None, "what the first one held is not the second one's"
    assert hand.look().reason == "take the handle"
    assert not hand.pressed(0, "success")


def test_a_silent_page_is_not_there_and_one_that_answers_again_is(room):
    hand = room.hand
    hand.joined(0, "browser 1")
    hand.grasped(0, HERE)
    room.now_s += 0.4
    hand.beat(0, 0.03)
    room.now_s += 0.4
    assert hand.look().reason == ""
    assert hand.look().latency_s == 0.03
    room.now_s += 0.2
    assert hand.look().reason == "browser 1 does not answer"
    hand.beat(0, 0.6)
    assert hand.look().reason == "browser 1 does not answer", "an answer to a question from before the silence"
    hand.beat(0, 0.03)
    assert hand.look().reason == ""


def test_anybody_stops_the_robot_but_only_the_driver_lets_it_go_on(room):
    hand = room.hand
    hand.joined(0, "browser 1")
    hand.joined(1, "browser 2")
    assert hand.pressed(1, "pause")
    assert hand.pressed(0, "pause")
    assert hand.take_events() == ["pause"], "both wanted it to stop"
    assert not hand.pressed(1, "pause", paused=True)
    assert hand.pressed(0, "pause", paused=True)
    assert hand.take_events() == ["pause"]


def test_whoever_comes_while_the_driver_is_silent_drives(room):
    hand = room.hand
    hand.joined(0, "browser 1")
    room.now_s += 1.0
    hand.joined(1, "browser 2")
    assert hand.look().driver == 1
    hand.beat(0, 0.1)
    assert hand.look().driver == 1


def test_a_driver_that_goes_hands_over_with_the_robot_at_rest(room):
    hand = room.hand
    hand.joined(0, "browser 1")
    hand.joined(1, "browser 2")
    hand.grasped(0, HERE)
    hand.gripped(0, 0.0)
    hand.left(0)
    state = hand.look()
    assert (state.driver, state.grasp, state.reason) == (1, None, "take the handle")
    assert hand.take_grip() is None
    hand.left(1)
    assert hand.look().driver is None
    hand.moved(1, HERE, UNTURNED)
    hand.beat(1, 0.1)
    assert hand.look().clients == {}


def test_a_grasp_is_followed_to_where_it_was_let_go(room):
    hand = room.hand
    hand.joined(0, "browser 1")
    hand.grasped(0, HERE)
    hand.moved(0, HERE + 0.05, UNTURNED)
    hand.let_go(0)
    grasp = hand.look().grasp
    assert grasp.over
    assert grasp.origin == pytest.approx(HERE)
    assert grasp.position == pytest.approx(HERE + 0.05)
    hand.grasped(0, HERE)
    hand.followed(grasp.number)
    assert hand.look().grasp.number == grasp.number + 1, "the next one is not over"


@pytest.mark.parametrize(("event", "wakes"), [("start", True), ("takeover", True), ("success", False)])
def test_starting_and_taking_over_touch_the_robot(room, event, wakes):
    room.hand.joined(0, "browser 1")
    assert room.hand.pressed(0, event)
    assert (room.hand.look().reason == "") == wakes
    assert room.hand.take_events() == [event]
    assert room.hand.take_events() == []


def test_only_the_driver_says_whether_the_handle_turns(room):
    room.hand.joined(0, "browser 1")
    room.hand.joined(1, "browser 2")
    assert not room.hand.turned_over(1)
    assert room.hand.turned_over(0)
    assert room.hand.look().turning
