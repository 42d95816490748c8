"""twin:peg: a hole with three millimetres of play, and an expert that stands a fallen peg up."""

import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.behaviour import failure_of
from robopolicy.clock import SimClock
from sim_envs.peg import CHAMFER, HALF, HALF_LENGTH, PLAY, RIM, Peg
from sim_envs.twin import Twin

sys.path.insert(0, str(Path(__file__).parent))
from playing import Played, recovered


@pytest.fixture(scope="module")
def used():
    return Twin(Peg(), SimClock(), cameras=())


@pytest.fixture
def twin(used):
    used.reset(0)
    return used


def put(twin, position, yaw=0.0, *, lying=False):
    half = yaw / 2
    quat = np.array([np.cos(half), 0, 0, np.sin(half)])
    if lying:  # its length along x, then turned
        s = np.sqrt(0.5)
        quat = s * np.array([np.cos(half), -np.sin(half), np.cos(half), np.sin(half)])
    joint = twin.data.joint("peg")
    joint.qpos = [*position, *quat]
    joint.qvel = 0


def settle(twin, seconds=1.0):
    twin._clock.sleep_until(twin._clock.now_ns() + round(seconds * 1e9))
    twin.read()


@pytest.mark.parametrize("aside", [0.0, 0.7 * PLAY, 1.2 * PLAY])
def test_let_go_over_the_hole_it_falls_in(twin, aside):
    x, y, yaw = twin.observed_state()["hole"]
    put(twin, [x + aside * np.cos(yaw), y + aside * np.sin(yaw), RIM + HALF_LENGTH + 0.002], yaw)
    settle(twin)
    assert twin.success()
    assert twin.score() == 1.0
    assert failure_of(twin) == ""
    assert twin.observed_state()["peg_pos"][2] == pytest.approx(HALF_LENGTH, abs=0.001)


@pytest.mark.parametrize("aside", [-0.005, 0.005])
def test_the_chamfer_guides_a_peg_in_the_gripper_that_comes_beside(aside):
    played = Played("peg", 4)
    read = played.world.read

    def misjudged():
        seen = read()
        seen.state["hole"][1] += aside
        return seen

    played.world.read = misjudged
    assert played.go()
    assert played.failures[-1] == ""


@pytest.mark.parametrize(("aside", "turned"), [(0.0, np.pi / 4), (CHAMFER + HALF, 0.0)])
def test_across_or_beside_the_hole_it_does_not(twin, aside, turned):
    x, y, yaw = twin.observed_state()["hole"]
    put(twin, [x + aside * np.cos(yaw), y + aside * np.sin(yaw), RIM + HALF_LENGTH + 0.001], yaw + turned)
    settle(twin)
    assert not twin.success()


def test_the_hole_is_as_wide_as_it_says(twin):
    """1.5 mm from the peg to each of the four walls, as they were compiled."""
    x, y, yaw = twin.observed_state()["hole"]
    put(twin, [x, y, HALF_LENGTH], yaw)
    settle(twin, 0.002)
    between = {}
    for k in range(4):
        wall = twin.data.geom(f"block_wall{k}")
        half = twin.model.geom(f"block_wall{k}").size
        inward = wall.xmat.reshape(3, 3)[:, 0]
        between[k] = abs((wall.xpos - twin.data.body("peg").xpos) @ inward) - half[0] - 0.012
    assert list(between.values()) == pytest.approx([0.0015] * 4, abs=2e-5)
    assert twin.model.geom("peg").size.tolist() == [0.012, 0.012, 0.035]


def test_a_standing_peg_stands_still(twin):
    before = twin.observed_state()
    settle(twin, 4.0)
    for name in ("peg_pos", "peg_quat"):
        np.testing.assert_allclose(twin.observed_state()[name], before[name], atol=5e-5)


def test_pressed_on_the_rim_it_jams_and_does_not_go_through():
    played = Played("peg", 0)
    assert played.go(until=lambda seen: seen.state["peg_pos"][2] > HALF_LENGTH + 0.04)
    state = played.look().state
    grip = state["tool_pos"] - state["peg_pos"]
    press = played.world.stop()
    press[-1] = 0.0
    hole = state["hole"]
    over = np.array([hole[0], hole[1] + 0.024, RIM + HALF_LENGTH + 0.02])
    for height in (0.02, 0.004, -0.004, -0.008):
        over[2] = RIM + HALF_LENGTH + height
        press[:3] = over + grip
        played.hold(press, 1.0)
    assert failure_of(played.world) == "jammed"
    bottom = played.look().state["peg_pos"][2] - HALF_LENGTH
    assert bottom > RIM - CHAMFER - 0.002
    press[2] += 0.05
    played.hold(press, 0.6)
    assert failure_of(played.world) != "jammed"


def test_a_peg_that_lies_has_toppled_and_beside_the_table_it_is_off(twin):
    put(twin, [0.45, -0.2, HALF], lying=True)
    settle(twin, 0.2)
    assert failure_of(twin) == "toppled"
    put(twin, [0.5, -0.7, HALF_LENGTH])
    settle(twin, 0.02)
    assert failure_of(twin) == "off_table"


def test_a_dropped_peg_is_told_until_it_is_taken_again():
    played = Played("peg", 1)
    assert played.go(until=lambda seen: seen.state["peg_pos"][2] > HALF_LENGTH + 0.02)
    assert set(played.failures) == {""}
    open_hand = played.world.stop()
    open_hand[-1] = 1.0
    played.hold(open_hand, 0.6)
    assert failure_of(played.world) in ("dropped", "toppled")
    assert played.go()
    assert failure_of(played.world) == ""


def test_the_hole_can_be_moved(twin):
    before = twin.observed_state()["hole"]
    twin._task.move_goal(np.array([0.02, -0.03, 0.1]))
    settle(twin, 0.002)
    np.testing.assert_allclose(twin.observed_state()["hole"] - before, [0.02, -0.03, 0.1], atol=1e-5)


@pytest.mark.parametrize("yaw", [0.0, 1.5, -2.4])
def test_the_expert_stands_a_fallen_peg_up(yaw):
    played = Played("peg", 2)
    hole = played.look().state["hole"]
    put(played.world, [0.44, -np.sign(hole[1]) * 0.12, HALF + 0.001], yaw, lying=True)
    played.wait(0.3)
    assert failure_of(played.world) == "toppled"
    assert played.go()
    assert failure_of(played.world) == ""


@pytest.mark.slow
def test_the_expert_recovers_a_tossed_peg():
    assert recovered("peg", range(20), 40) >= 18
