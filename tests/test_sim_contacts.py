import numpy as np
import pytest

from robopolicy.clock import SimClock
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
