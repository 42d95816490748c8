import numpy as np
import pytest

from robopolicy.clock import SimClock
from sim_envs.arm import FINGERS
from sim_envs.contacts import Contacts, is_off_table
from sim_envs.scene import TABLE_CENTRE, TABLE_HALF
from sim_envs.stack import HALF, Stack
from sim_envs.twin import Twin


@pytest.fixture(scope="module")
def twin():
    twin = Twin(Stack(), SimClock(), cameras=())
    for name, height in (("blue", HALF), ("red", 3 * HALF)):
        twin.data.joint(name).qpos = [0.6, 0.15, height, 1, 0, 0, 0]
        twin.data.joint(name).qvel = 0
    twin._clock.sleep_until(1_000_000_000)
    twin.read()
    return twin


def test_forces_at_rest_are_weights(twin):
    contacts = Contacts(twin.model, twin.data)
    weight = 0.08 * 9.81  # N, of a cube
    assert contacts.force("red", "blue") == pytest.approx(weight, rel=0.02)
    assert contacts.force("blue", "red") == pytest.approx(weight, rel=0.02)
    assert contacts.force("blue", "world") == pytest.approx(2 * weight, rel=0.02)
    assert contacts.force("red", "world") == 0.0


def test_who_touches_whom(twin):
    contacts = Contacts(twin.model, twin.data)
    assert contacts.touch("red", "blue")
    assert contacts.touch("blue", "red")
    assert contacts.touch("world", "blue")
    assert not contacts.touch("red", "world")
    assert not contacts.by_arm(("red", "blue"))
    assert not contacts.held("red")


def test_held_is_between_the_fingers_and_not_under_their_tips():
    clock = SimClock()
    twin = Twin(Stack(), clock, cameras=())
    contacts, (x, y), told = Contacts(twin.model, twin.data), (0.45, 0.05), {}
    for name, height, grips in (("pressed on", HALF + 0.022, (0.0, 0.0)), ("gripped", HALF - 0.004, (1.0, 0.0))):
        twin.reset(0)
        twin.data.joint("red").qpos = [x, y, HALF, 1, 0, 0, 0]
        for z, grip in ((0.12, grips[0]), (height, grips[0]), (height, grips[1])):
            for _ in range(15):
                twin.command(np.array([x, y, z, 1, 0, 0, 0, -1, 0, grip]), clock.now_ns())
                clock.sleep_until(clock.now_ns() + 50_000_000)
                twin.read()
        assert all(contacts.touch(finger, "red") for finger in FINGERS), name
        told[name] = contacts.held("red")
    assert told == {"pressed on": False, "gripped": True}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("side", [-1, 1])
def test_off_the_table_is_beyond_its_edges_or_under_its_top(axis, side):
    point = np.array([*TABLE_CENTRE, 0.02])
    assert not is_off_table(point)
    point[axis] += side * (TABLE_HALF[axis] - 0.001)
    assert not is_off_table(point)
    point[axis] += side * 0.002
    assert is_off_table(point)
    assert is_off_table(np.array([*TABLE_CENTRE, -0.02]))
