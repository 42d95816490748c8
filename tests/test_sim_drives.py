"""The twin commanded by joint positions, and with cameras of their own rate."""

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import UnknownName, UnsafeCommand
from robopolicy.testing import RobotContract
from sim_envs.arm import LIMITS
from sim_envs.drives import JOINT_ACTION, MAX_SPEED
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

MS = 1_000_000


@pytest.fixture
def world():
    clock = SimClock()
    twin = Twin(make_task("lift"), clock, cameras=(), action="joint")
    yield clock, twin
    twin.close()


def run(clock, twin, duration_s, every_ms=10):
    """Return the joints' positions (N, 7) and speeds (N, 7), one row each ``every_ms``."""
    rows = []
    for _ in range(round(duration_s * 1000 / every_ms)):
        clock.sleep_until(clock.now_ns() + every_ms * MS)
        state = twin.read().state
        rows.append((state["q"], state["dq"]))
    return np.array([q for q, _ in rows]), np.array([dq for _, dq in rows])


class TestJointTwin(RobotContract):
    def make(self, clock):
        return Twin(make_task("lift"), clock, cameras=("front",), action="joint")


def test_it_goes_where_its_joints_are_sent_and_the_gripper_too(world):
    clock, twin = world
    goal = twin.stop() + np.array([0.3, -0.2, 0.1, 0.2, -0.3, 0.1, 0.4, 0.0], np.float32)
    goal[-1] = 0.5
    sent = twin.command(goal, clock.now_ns())
    run(clock, twin, 2.0)
    state = twin.read().state
    np.testing.assert_array_equal(sent, goal)
    np.testing.assert_allclose(state["q"], goal[:7], atol=2e-3)
    np.testing.assert_allclose(state["gripper"], [0.5], atol=0.02)
    assert twin.spec.action == JOINT_ACTION


def test_a_leap_is_walked_at_the_speeds_that_the_arm_has(world):
    clock, twin = world
    goal = twin.stop()
    goal[:7] += np.array([2.0, 0, 0, 0, 0, 0, -2.0])
    twin.command(goal, clock.now_ns())
    q, speeds = run(clock, twin, 2.0, every_ms=50)
    assert (np.abs(np.diff(q, axis=0)).max(axis=0) < 1.25 * MAX_SPEED * 0.05).all()  # the joint servos overshoot
    assert (np.abs(speeds).max(axis=0) < 1.5 * MAX_SPEED).all()
    assert np.abs(speeds[:, 0]).max() > 0.9 * MAX_SPEED[0]  # and no slower than need be


def test_a_ramp_is_followed_with_little_lag(world):
    clock, twin = world
    start = twin.stop()
    lags = []
    for k in range(100):
        wanted = start.copy()
        wanted[0] += 0.5 * k * 0.01  # 0.5 rad/s
        twin.command(wanted, clock.now_ns())
        q, _ = run(clock, twin, 0.01)
        lags.append(float(wanted[0] - q[-1][0]))
    assert 0 < max(lags[50:]) < 0.5 * 0.04  # 40 ms


def test_what_is_beyond_the_joints_ends_at_their_ends(world):
    clock, twin = world
    goal = twin.stop()
    goal[[0, 6]] = 10.0
    twin.command(goal, clock.now_ns())
    q, _ = run(clock, twin, 6.0)
    np.testing.assert_allclose(q[-1][[0, 6]], np.array(LIMITS)[[0, 6], 1], atol=0.01)
    assert (q <= np.array(LIMITS)[:, 1] + 0.05).all()


def test_a_stop_in_mid_motion_is_at_rest_within_a_tenth_of_a_second(world):
    clock, twin = world
    goal = twin.stop()
    goal[0] += 1.5
    twin.command(goal, clock.now_ns())
    _, before = run(clock, twin, 0.4)
    held = twin.stop()
    q, after = run(clock, twin, 0.5)
    assert abs(before[-1][0]) > 1.0
    assert np.abs(after[10:]).max() < 0.1
    np.testing.assert_allclose(q[-1], held[:7], atol=2e-3)


@pytest.mark.parametrize(
    ("change", "why"),
    [((slice(0, 1), np.nan), "not finite in joint1"), ((slice(7, 8), np.inf), "not finite in gripper")],
)
def test_what_is_no_set_point_is_refused(world, change, why):
    clock, twin = world
    wrong = twin.stop()
    wrong[change[0]] = change[1]
    with pytest.raises(UnsafeCommand, match=why):
        twin.command(wrong, clock.now_ns())
    with pytest.raises(UnsafeCommand, match=r"shape \(10,\); want \(8,\): joint1 joint2"):
        twin.command(np.zeros(10), clock.now_ns())


def test_an_unknown_kind_of_action_is_named():
    with pytest.raises(UnknownName, match=r"no action of the twin 'torque'.*tool_pose"):
        Twin(make_task("lift"), SimClock(), cameras=(), action="torque")


def test_a_recorded_state_can_be_put_back_whatever_commands_it(world):
    clock, twin = world
    before = twin.read()
    twin.command(twin.stop() + 0.2, clock.now_ns())
    run(clock, twin, 1.0)
    twin.reset_to(before.state)
    np.testing.assert_allclose(twin.read().state["q"], before.state["q"], atol=1e-5)
    run(clock, twin, 0.5)
    np.testing.assert_allclose(twin.read().state["q"], before.state["q"], atol=2e-3)  # and it stays there


def test_cameras_have_their_own_rate_and_their_pictures_the_stamps_of_when_they_were_drawn():
    clock = SimClock()
    twin = Twin(make_task("lift"), clock, cameras=("front",), camera_hz=25.0)
    stamps, pictures = [], []
    for k in range(40):
        clock.sleep_until(k * 10 * MS)
        seen = twin.read()
        stamps.append(seen.image_stamps_ns["front"])
        pictures.append(seen.images["front"])
        assert seen.stamp_ns == clock.now_ns()
    twin.reset(4)
    again = twin.read()
    twin.close()
    assert np.unique(stamps).tolist() == [k * 40 * MS for k in range(10)]
    assert np.max(np.array([k * 10 * MS for k in range(40)]) - stamps) == 30 * MS
    assert not np.shares_memory(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert (again.images["front"] != pictures[-1]).any()  # a new start is seen at once
