import numpy as np
import pytest

from robopolicy.rotations import matrix_to_quat, rot6d_to_matrix
from sim_envs.grasping import (
    DOWN,
    TILT_LEAD,
    TURN_LEAD,
    Grasp,
    Hand,
    about_y,
    about_z,
    nearest_turn,
    tilt_of,
    yaw_of,
)

CUBE = Grasp(held=(0.4, 0.6))
CENTRE = np.array([0.5, 0.1, 0.02])


def off(x, y, z):
    return CENTRE + np.array([x, y, z])


def state(position, yaw=0.0, tilt=0.0):
    return {"tool_pos": np.array(position), "tool_quat": matrix_to_quat(about_z(yaw) @ about_y(tilt) @ DOWN)}


@pytest.mark.parametrize("yaw", [-2.5, -0.3, 0.0, 1.2])
@pytest.mark.parametrize("tilt", [0.0, 0.4, 1.2, np.pi / 2])
def test_yaw_and_tilt_of_a_tool_are_told_apart(yaw, tilt):
    quat = state([0, 0, 0], yaw, tilt)["tool_quat"]
    assert yaw_of(quat) == pytest.approx(yaw, abs=1e-6)
    assert tilt_of(quat) == pytest.approx(tilt, abs=1e-6)


def test_a_tilted_tool_points_back():
    pointing = (about_y(np.pi / 2) @ DOWN)[:, 2]
    np.testing.assert_allclose(pointing, [-1, 0, 0], atol=1e-12)


def test_commands_stay_within_their_leads_and_turn_both_ways_at_once():
    hand = Hand(wander_m=0.0)
    here = state([0.4, 0.0, 0.2], yaw=0.3, tilt=0.5)
    action = hand.towards(here, np.array([0.6, 0.0, 0.2]), -0.9, 0.0, lead=0.008, tilt=1.5).values
    move = action[:3] - here["tool_pos"]
    assert 0.85 * 0.008 - 1e-6 <= np.linalg.norm(move) <= 0.008 + 1e-6
    assert move[0] > 0
    quat = matrix_to_quat(rot6d_to_matrix(action[3:9]))
    assert yaw_of(quat) == pytest.approx(0.3 - TURN_LEAD, abs=1e-4)
    assert tilt_of(quat) == pytest.approx(0.5 + TILT_LEAD, abs=1e-4)
    assert action[9] == 0.0


def test_the_wander_is_as_wide_as_said():
    hand = Hand(wander_m=0.002)
    hand.reset(np.random.default_rng(3))
    here = state([0.4, 0.0, 0.2])
    off = [hand.towards(here, here["tool_pos"], 0.0, 1.0).values[:3] - here["tool_pos"] for _ in range(4000)]
    np.testing.assert_allclose(np.std(off, axis=0), 0.002, rtol=0.15)


def test_it_opens_and_rises_before_it_tries_again_and_goes_up_before_it_goes_aside():
    closed_empty, grip = CUBE.approach(off(0.05, 0, 0.0), CENTRE, 0.0, 0.0)
    assert grip == 1.0
    np.testing.assert_allclose(closed_empty[:2], off(0.05, 0, 0)[:2])
    assert closed_empty[2] == pytest.approx(CENTRE[2] + CUBE.hover)
    low_beside, _ = CUBE.approach(off(0.05, 0, 0.01), CENTRE, 0.0, 1.0)
    np.testing.assert_allclose(low_beside[:2], off(0.05, 0, 0)[:2])
    high_beside, _ = CUBE.approach(off(0.05, 0, 0.08), CENTRE, 0.0, 1.0)
    np.testing.assert_allclose(high_beside, off(0, 0, CUBE.hover))
    over, _ = CUBE.approach(off(0.001, 0, 0.08), CENTRE, 0.0, 1.0)
    np.testing.assert_allclose(over, off(0, 0, CUBE.depth))
    across, _ = CUBE.approach(off(0.001, 0, 0.08), CENTRE, 0.6, 1.0)
    assert across[2] == pytest.approx(CENTRE[2] + CUBE.hover), "it turns before it goes down"


def test_it_closes_around_the_thing_and_then_holds_it():
    around = off(0.002, 0, CUBE.depth)
    assert CUBE.approach(around, CENTRE, 0.0, 1.0)[1] == 0.0
    assert CUBE.holds(around, CENTRE, 0.0, 0.5)
    assert not CUBE.holds(around, CENTRE, 0.0, 0.2), "nothing is between the fingers"
    assert not CUBE.holds(off(0, 0, 0.05), CENTRE, 0.0, 0.5)


@pytest.mark.parametrize(
    ("angle", "period", "turn"), [(3.0, np.pi, 3.0 - np.pi), (-0.2, np.pi / 2, -0.2), (1.5, 1.0, -0.5)]
)
def test_the_nearest_turn(angle, period, turn):
    assert nearest_turn(angle, period) == pytest.approx(turn)
