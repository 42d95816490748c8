"""twin:drawer: either drawer counts, handles are where they are said to be, slips and collisions are told."""

import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of
from robopolicy.clock import SimClock
from sim_envs.drawer import APART, DEPTH, HANDLE_Z, HEIGHT, NECK, OPEN, TRAVEL, WALL, Drawer
from sim_envs.twin import Twin

sys.path.insert(0, str(Path(__file__).parent))
from playing import Played, recovered


@pytest.fixture(scope="module")
def used():
    return Twin(Drawer(), SimClock(), cameras=())


@pytest.fixture
def twin(used):
    used.reset(0)
    return used


def settle(twin, seconds=0.1):
    twin._clock.sleep_until(twin._clock.now_ns() + round(seconds * 1e9))
    twin.read()


@pytest.mark.parametrize("side", ["left", "right"])
def test_either_drawer_is_a_success_and_says_which(twin, side):
    for share, mode, done in ((0.2, None, False), (0.9, side, False), (1.01, side, True)):
        twin.data.joint(f"{side}_drawer").qpos = share * OPEN
        settle(twin)
        assert mode_of(twin) == mode
        assert twin.success() == done
        assert twin.score() == pytest.approx(min(share, 1.0), abs=0.02)


def test_a_drawer_stays_where_it_is_left(twin):
    twin.data.joint("left_drawer").qpos = 0.05
    settle(twin)
    before = float(twin.observed_state()["left_open"][0])
    settle(twin, 3.0)
    assert float(twin.observed_state()["left_open"][0]) == pytest.approx(before, abs=1e-4)
    assert float(twin.observed_state()["right_open"][0]) == pytest.approx(0.0, abs=1e-4)


def test_handles_are_where_chest_and_opening_say(twin):
    for seed in range(5):
        twin.reset(seed)
        twin.data.joint("right_drawer").qpos = 0.03
        settle(twin, 0.02)
        state = twin.observed_state()
        x, y, yaw = state["chest"]
        forward, left = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        for side, sign in (("left", 1), ("right", -1)):
            ahead = -(DEPTH / 2 + WALL + NECK[0] + state[f"{side}_open"][0])
            np.testing.assert_allclose(
                state[f"{side}_handle"], [x, y] + ahead * forward + sign * APART * left, atol=1e-5
            )


def test_no_drawer_comes_out_of_the_chest():
    played = Played("drawer", 0)
    side = played.expert._side
    assert played.go()
    played.go(until=lambda _: False, steps=30)  # pulled on against the end
    assert OPEN < float(played.look().state[f"{side}_open"][0]) < TRAVEL + 0.004
    other = "left" if side == "right" else "right"
    assert float(played.look().state[f"{other}_open"][0]) < 0.001


def test_a_handle_that_slips_is_told_until_the_drawer_is_open():
    played = Played("drawer", 1)
    side = played.expert._side
    assert played.go(until=lambda seen: seen.state[f"{side}_open"][0] > 0.03)
    assert set(played.failures) == {""}
    away = played.world.stop()
    away[-1] = 1.0
    played.hold(away, 0.4)
    away[2] += 0.08
    played.hold(away, 0.8)
    assert failure_of(played.world) == "slipped"
    assert played.go()
    assert failure_of(played.world) == ""
    assert mode_of(played.world) == side


def test_the_hand_on_the_chest_is_a_collision_while_it_lasts():
    played = Played("drawer", 2)
    chest = played.look().state["chest"]
    press = played.world.stop()
    press[:3] = [chest[0], chest[1], HEIGHT + 0.06]
    played.hold(press, 1.5)
    assert failure_of(played.world) == ""
    press[2] = HEIGHT - 0.004
    played.hold(press, 1.0)
    assert failure_of(played.world) == "collided"
    assert played.look().state["tool_pos"][2] > HEIGHT - 0.004, "the fingers do not go through the wood"
    press[2] = HEIGHT + 0.06
    played.hold(press, 1.0)
    assert failure_of(played.world) == ""


def test_the_handle_is_as_high_as_the_expert_takes_it(twin):
    assert twin.data.geom("left_handle").xpos[2] == pytest.approx(HANDLE_Z)


@pytest.mark.parametrize("at", [20, 36])
def test_the_expert_finds_a_chest_that_was_pushed_away(at):
    assert recovered("drawer", range(4), at) == 4
