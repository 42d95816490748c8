"""twin:stack: what counts as stacked, which way round, and what has gone wrong since when."""

import sys
from pathlib import Path

import mujoco
import numpy as np
import pytest

from robopolicy.behaviour import failure_of, mode_of
from robopolicy.clock import SimClock
from sim_envs.stack import APART, HALF, MAX_YAW, Stack
from sim_envs.twin import Twin

sys.path.insert(0, str(Path(__file__).parent))
from playing import Played, recovered

LIES = (0.60, 0.12)  # m, out of the arm's way


@pytest.fixture(scope="module")
def used():
    return Twin(Stack(), SimClock(), cameras=())


@pytest.fixture
def twin(used):
    used.reset(0)
    return used


def put(twin, name, position, yaw=0.0):
    joint = twin.data.joint(name)
    joint.qpos = [*position, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    joint.qvel = 0


def settle(twin, seconds=0.5):
    twin._clock.sleep_until(twin._clock.now_ns() + round(seconds * 1e9))
    twin.read()


@pytest.mark.parametrize(("top", "base"), [("red", "blue"), ("blue", "red")])
def test_either_cube_on_the_other_is_a_success_and_says_which(twin, top, base):
    put(twin, base, [*LIES, HALF])
    put(twin, top, [LIES[0] + 0.005, LIES[1] - 0.008, 3 * HALF + 0.001], yaw=0.5)
    settle(twin)
    assert twin.success()
    assert mode_of(twin) == f"{top}_on_{base}"
    assert failure_of(twin) == ""
    assert twin.score() == 1.0


def test_a_stack_stands_still(twin):
    put(twin, "blue", [*LIES, HALF])
    put(twin, "red", [*LIES, 3 * HALF], yaw=0.3)
    settle(twin)
    before = twin.observed_state()
    settle(twin, 5.0)
    for name in ("red_pos", "blue_pos", "red_quat", "blue_quat"):
        np.testing.assert_allclose(twin.observed_state()[name], before[name], atol=2e-5)


@pytest.mark.parametrize("aside", [0.024, 0.039])
def test_a_cube_that_cannot_stay_there_is_none(twin, aside):
    put(twin, "blue", [*LIES, HALF])
    put(twin, "red", [LIES[0] + aside, LIES[1], 3 * HALF])
    twin.read()
    assert not twin.success()
    settle(twin, 1.0)
    assert not twin.success()
    assert mode_of(twin) is None


def test_a_cube_in_the_air_is_none(twin):
    put(twin, "blue", [*LIES, HALF])
    put(twin, "red", [*LIES, 3 * HALF + 0.01])
    twin.read()
    assert not twin.success()
    assert mode_of(twin) == "red_on_blue"  # what it would be


@pytest.mark.parametrize(
    ("base_z", "lean", "speed", "stands"),
    [
        (HALF, 0.0, 0.0, True),
        (HALF, 0.0, 0.1, False),  # it slides
        (HALF, 0.22, 0.0, False),  # it stands on an edge
        (0.10, 0.0, 0.0, False),  # both fall
    ],
)
def test_what_only_looks_like_a_stack_for_a_moment_is_none(twin, base_z, lean, speed, stands):
    put(twin, "blue", [*LIES, base_z])
    height = HALF * (np.cos(lean) + np.sin(lean)) + HALF  # between the middles
    put(twin, "red", [*LIES, base_z + height - 1e-4])
    twin.data.joint("red").qpos[3:] = [np.cos(lean / 2), np.sin(lean / 2), 0, 0]
    twin.data.joint("red").qvel[0] = speed
    mujoco.mj_forward(twin.model, twin.data)
    assert twin.task._stands_over("red", "blue")
    assert twin.task._contacts.touch("red", "blue")
    assert twin.success() is stands


def test_it_is_done_only_when_the_fingers_have_let_go():
    played = Played("stack", 3)
    task, top, base = played.world._task, played.expert._top, played.expert._base

    def keep_closed(action):
        if task._stands_over(top, base):
            action[-1] = 0.0
        return action

    assert not played.go(steps=100, override=keep_closed)
    assert task._contacts.held(top)
    assert task._contacts.touch(top, base)
    assert task._stands_over(top, base)
    assert 0.5 < played.world.score() < 1.0
    assert played.go()
    assert not task._contacts.by_arm((top,))


def test_a_dropped_cube_is_so_from_then_until_it_is_held_again():
    played = Played("stack", 0)
    top = f"{played.expert._top}_pos"
    assert played.go(until=lambda seen: seen.state[top][2] > 0.06)
    assert set(played.failures) == {""}
    open_hand = played.world.stop()
    open_hand[-1] = 1.0
    played.hold(open_hand, 0.6)
    assert failure_of(played.world) == "dropped"
    start = len(played.failures)
    assert played.go()
    assert failure_of(played.world) == ""
    later = played.failures[start:]
    assert later[0] == "dropped"
    mended = later.index("")
    assert set(later[mended:]) == {""}, "once mended, the episode's failure is over"


def test_put_to_another_state_what_was_dropped_before_is_forgotten():
    played = Played("stack", 0)
    start = played.look().state
    assert played.go(until=lambda seen: seen.state[f"{played.expert._top}_pos"][2] > 0.06)
    open_hand = played.world.stop()
    open_hand[-1] = 1.0
    played.hold(open_hand, 0.5)
    assert failure_of(played.world) == "dropped"
    played.world.reset_to(start)
    played.look()
    assert failure_of(played.world) == ""


def test_a_stack_that_falls_has_toppled_until_somebody_takes_a_cube(twin):
    put(twin, "blue", [*LIES, HALF])
    put(twin, "red", [*LIES, 3 * HALF])
    settle(twin)
    assert twin.success()
    put(twin, "red", [LIES[0] - 0.1, LIES[1], HALF])
    settle(twin)
    assert not twin.success()
    assert failure_of(twin) == "toppled"


def test_a_touched_stack_has_not_toppled():
    played = Played("stack", 1)
    assert played.go()
    base = f"{played.expert._base}_pos"
    over = played.world.stop()
    for grip in (1.0, 0.0):
        over[:3], over[-1] = [*played.look().state[base][:2], 0.15], grip
        played.hold(over, 1.0)
    assert played.world.success()
    over[2] = 0.083  # the finger tips reach 5 mm further down
    played.hold(over, 0.6)
    assert played.world._task._contacts.by_arm((played.expert._top,))
    assert not played.world.success()
    assert failure_of(played.world) == ""


def test_cubes_of_other_sizes_stack_at_another_height():
    twin = Twin(Stack(), SimClock(), cameras=())
    for name, half in (("red", 0.014), ("blue", 0.026)):
        model, geom = twin.model, twin.model.geom(name).id
        model.geom_size[geom] = model.geom_aabb[geom, 3:] = half
        model.geom_rbound[geom] = np.sqrt(3) * half
    put(twin, "blue", [*LIES, 0.026])
    put(twin, "red", [*LIES, 0.0665])
    settle(twin)
    assert twin.success()


def test_a_cube_beside_the_table_is_off_it(twin):
    put(twin, "red", [0.5, 0.70, HALF])
    settle(twin, 0.1)
    assert failure_of(twin) == "off_table"


def test_cubes_start_apart_and_anywhere(twin):
    places, yaws = [], []
    for seed in range(60):
        twin.reset(seed)
        state = twin.observed_state()
        red, blue = state["red_pos"], state["blue_pos"]
        assert np.linalg.norm((red - blue)[:2]) >= APART - 1e-6
        places.append(red[:2] - blue[:2])
        yaws.append(2 * np.arctan2(state["red_quat"][3], state["red_quat"][0]))
    assert {tuple(np.sign(place)) for place in places} == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    assert max(np.abs(yaws)) <= MAX_YAW + 1e-6
    assert min(yaws) < -0.3 < 0.3 < max(yaws)


def test_the_mode_is_the_seeds_and_the_start_does_not_tell_it():
    tops = []
    for seed in range(40):
        played = Played("stack", 0)
        played.expert.reset(seed)
        tops.append(played.expert._top)
    assert tops.count("red") == 20
    assert len({tuple(tops[i : i + 2]) for i in range(0, 40, 2)}) == 2


@pytest.mark.parametrize("at", [25, 45])
def test_the_expert_takes_a_tossed_cube_again(at):
    assert recovered("stack", range(4), at) == 4
