"""What the motion of a hand becomes, for each kind of action."""

from dataclasses import replace

import numpy as np
import pytest

from robopolicy.errors import ContractError, UsageError
from robopolicy.rotations import matrix_to_rotvec, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation
from robopolicy_hardware.mock import ARM
from robopolicy_hardware.teleop.jog import Buttons, Jog, alive
from robopolicy_hardware.teleop.target import MAX_LEAD_M, MAX_LEAD_RAD, ToolTarget

DOWN = np.float32([0, 1, 0, 0])
PLANE = PolicySpec(state={"state": StateSpec(5, ("px",))}, action=ActionSpec("vector", ("x", "y"), ("px",)))
DELTA = replace(ARM, action=ActionSpec("tool_delta", tuple("xyzabcg"), ("m", "m", "m", "rad", "rad", "rad", "open")))


def seen(position=(0.4, 0.0, 0.3), quat=DOWN, gripper=0.7, stamp_ns=0):
    state = {"tool_pos": np.float32(position), "tool_quat": np.float32(quat), "gripper": np.float32([gripper])}
    return Observation(stamp_ns, state)


def test_engaged_it_commands_the_set_point_and_otherwise_where_the_tool_is():
    target = ToolTarget(ARM)
    target.engage(seen(), None)
    here = target.command()
    np.testing.assert_allclose(here[:3], (0.4, 0, 0.3), atol=1e-6)
    np.testing.assert_allclose(rot6d_to_matrix(here[3:9]), quat_to_matrix(DOWN), atol=1e-6)
    assert here[9] == pytest.approx(0.7)
    set_point = here + np.float32([0.03, 0, 0, *np.zeros(6), -0.7])
    target.engage(seen(), set_point)
    np.testing.assert_allclose(target.command(), set_point, atol=1e-6)
    assert target.command().dtype == np.float32


def test_moves_add_up_in_the_base_frame_and_turn_about_the_tool():
    target = ToolTarget(ARM)
    target.engage(seen(), None)
    target.move(np.array([0.01, 0, 0]), np.array([0, 0, 0.2]), 0.0)
    target.move(np.array([0, 0.02, -0.01]), np.array([0, 0, 0.1]))
    command = target.command()
    np.testing.assert_allclose(command[:3], (0.41, 0.02, 0.29), atol=1e-6)
    turn = rot6d_to_matrix(command[3:9]) @ quat_to_matrix(DOWN).T
    np.testing.assert_allclose(matrix_to_rotvec(turn), (0, 0, 0.3), atol=1e-6)
    assert command[9] == 0.0


def test_the_target_never_leads_a_blocked_tool_by_more_than_the_limit_and_does_not_wind_up():
    target = ToolTarget(ARM)
    target.engage(seen(), None)
    for _ in range(100):
        target.move(np.array([0.01, 0, 0]), np.array([0.05, 0, 0]))
        command = target.command(seen())
    assert command[0] - 0.4 == pytest.approx(MAX_LEAD_M, abs=1e-6)
    turn = matrix_to_rotvec(rot6d_to_matrix(command[3:9]) @ quat_to_matrix(DOWN).T)
    assert np.linalg.norm(turn) == pytest.approx(MAX_LEAD_RAD, abs=1e-6)
    target.move(np.array([-0.01, 0, 0]))
    assert target.command(seen())[0] - 0.4 == pytest.approx(MAX_LEAD_M - 0.01, abs=1e-6)


def test_a_handle_is_placed_and_the_lead_limited_all_the_same():
    target = ToolTarget(ARM)
    target.engage(seen(), None)
    target.place(np.array([0.42, 0.01, 0.3]), np.array([1.0, 0, 0, 0]), 0.2)
    assert target.command()[0] == pytest.approx(0.42)
    target.place(np.array([9.0, 0.0, 0.3]))
    assert target.position[0] == pytest.approx(0.4 + MAX_LEAD_M)
    angle = 2 * np.arccos(abs(target.quat @ DOWN))
    assert angle == pytest.approx(MAX_LEAD_RAD, abs=1e-6)


def test_a_plane_of_pixels_is_pushed_up_when_the_hand_goes_forward():
    target = ToolTarget(PLANE)
    target.engage(Observation(0, {"state": np.zeros(5, np.float32)}), np.float32([200, 300]))
    target.move(np.array([0.01, 0.0, 0.5]))
    np.testing.assert_allclose(target.command(), (200, 290))
    target.move(np.array([0.0, 0.02, 0.0]))
    np.testing.assert_allclose(target.command(), (180, 290))
    target.place(np.array([50.0, 60.0, 0.0]))
    np.testing.assert_allclose(target.command(), (50, 60))


def test_a_delta_is_the_motion_since_the_last_command_and_then_nothing():
    target = ToolTarget(DELTA)
    target.engage(seen(), None)
    target.move(np.array([0.01, 0, 0]), np.array([0, 0.1, 0]), 1.0)
    np.testing.assert_allclose(target.command(), (0.01, 0, 0, 0, 0.1, 0, 1), atol=1e-6)
    np.testing.assert_allclose(target.command(), (0, 0, 0, 0, 0, 0, 1), atol=1e-9)


@pytest.mark.parametrize(
    ("action", "says"),
    [
        (ActionSpec("joint", ("j1",), ("rad",)), "leader arm"),
        (ActionSpec("vector", ("a", "b", "c"), ("1",)), "vector of two"),
        (ActionSpec("tracks", ("a",), ("px",)), "tracks actions of 1"),
        (ActionSpec("tool_delta", ("a", "b"), ("m",)), "tool_delta actions of 2"),
    ],
)
def test_what_a_hand_cannot_drive_is_said_at_once(action, says):
    with pytest.raises(UsageError, match=says):
        ToolTarget(PolicySpec(action=action))


def test_a_set_point_of_another_robot_is_refused():
    with pytest.raises(ContractError, match=r"\(3,\); want \(10,\)"):
        ToolTarget(ARM).engage(seen(), np.zeros(3))


def test_sticks_are_speeds_by_the_time_that_passed_and_a_stall_is_no_leap():
    jog = Jog(ARM, speed=0.5)
    jog.engage(seen(), None)
    at = [jog.drive(seen(stamp_ns=t), np.array([1.0, 0, 0]), np.zeros(3)).values[0] for t in (0, 50_000_000, 10**10)]
    np.testing.assert_allclose(np.diff(at), (0.5 * 0.2 * 0.05, 0.5 * 0.2 * 0.1), atol=1e-6)
    jog.engage(seen(stamp_ns=2 * 10**10), None)
    again = jog.drive(seen(stamp_ns=3 * 10**10), np.array([1.0, 0, 0]), np.zeros(3))
    assert again.values[0] == pytest.approx(0.4), "what passed before it was engaged counts for nothing"


def test_sticks_at_rest_are_still_and_full_deflection_is_one():
    np.testing.assert_allclose(alive(np.array([0.05, -0.05, 1.0, -1.0, 0.54])), (0, 0, 1, -1, 0.5), atol=1e-9)


def test_a_button_counts_when_it_goes_down_and_go_depends_on_the_phase():
    buttons = Buttons({"a": "go", "b": "failure"})
    assert buttons.look(frozenset("a")) == {"a"}
    assert buttons.look(frozenset("a")) == frozenset()
    assert buttons.events() == ["start"]
    buttons.phase = "recording"
    buttons.look(frozenset())
    buttons.look(frozenset("abz"))
    assert buttons.events() == ["success", "failure"]
    assert buttons.events() == []
