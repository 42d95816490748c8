from dataclasses import replace

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import ConfigError, ContractError, UnsafeCommand
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, quat_to_matrix, rot6d_to_matrix
from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.testing import SafetyContract
from robopolicy.types import Observation
from robopolicy_hardware.mock import ARM, MockRobot
from robopolicy_hardware.safety import SafetyLayer, SafetyLimits, limits_for
from robopolicy_hardware.safety_limits import load_limits, look_at_limits
from robopolicy_hardware.supervisor import Watchdogs

ROTATION = matrix_to_rot6d(np.eye(3))
JOINTS = PolicySpec(
    state={"q": StateSpec(2, ("rad",)), "gripper": StateSpec(1, ("open",))},
    action=ActionSpec("joint", ("j1", "j2", "gripper"), ("rad", "rad", "open")),
    rate_hz=10.0,
)
VECTOR = replace(JOINTS, state={}, action=ActionSpec("vector", ("a", "b"), ("px",)))


QUICK = replace(limits_for(ARM), max_accel_m_s2=None, max_turn_accel_rad_s2=None)


def pose(position, rotation=ROTATION, gripper=1.0):
    return np.concatenate([position, rotation, [gripper]]).astype(np.float32)


def seen(stamp_ns=0, position=(0.4, 0.0, 0.3), quat=(1.0, 0.0, 0.0, 0.0)):
    state = {"tool_pos": np.float32(position), "tool_quat": np.float32(quat), "gripper": np.float32([1.0])}
    return Observation(stamp_ns, state)


def angle(a, b):
    """Between two rot6d, rad."""
    relative = rot6d_to_matrix(a).T @ rot6d_to_matrix(b)
    return np.arccos(np.clip((np.trace(relative) - 1) / 2, -1, 1))


def random_rotation(rng):
    return quat_to_matrix(rng.normal(size=4))


class TestSafetyLayer(SafetyContract):
    def make(self):
        return SafetyLayer(limits_for(ARM), ARM), ARM, pose([0.5, 0.0, 0.3])


def test_what_is_allowed_passes_unchanged():
    layer = SafetyLayer(QUICK, ARM)
    rng = np.random.default_rng(0)
    position, rotation = np.array([0.4, 0.0, 0.3]), np.eye(3)
    for k in range(50):
        position = position + rng.uniform(-0.01, 0.01, 3)  # at most 0.35 m/s
        tilt = np.concatenate([[1.0], rng.uniform(-0.01, 0.01, 3)])
        rotation = rotation @ quat_to_matrix(tilt)
        action = pose(position, matrix_to_rot6d(rotation), rng.uniform())
        sent = layer.limit(action, seen(k * ARM.period_ns, position), k * ARM.period_ns)
        np.testing.assert_allclose(sent, action, atol=1e-6)
        assert sent.dtype == np.float32
    assert not any(layer.counts.values())


def test_the_defaults_let_a_quick_hand_pass():
    """As the scripted experts move: 0.35 m/s and 5 m/s^2 at 20 Hz."""
    layer, centre = SafetyLayer(limits_for(ARM), ARM), np.array([0.5, 0.0, 0.3])
    for k in range(100):
        swing = 0.024 * np.sin(14.6 * k * ARM.period_ns / 1e9) * np.array([0.6, 0.8, 0.0])
        action = pose(centre + swing, matrix_to_rot6d(quat_to_matrix(np.array([1.0, 0.0, 0.0, swing[0]]))))
        sent = layer.limit(action, seen(k * ARM.period_ns, centre), k * ARM.period_ns)
        np.testing.assert_allclose(sent, action, atol=1e-6)
    joints = SafetyLayer(limits_for(JOINTS), JOINTS)
    at = {"q": np.zeros(2, np.float32), "gripper": np.zeros(1, np.float32)}
    for k in range(3):  # 0.7 rad/s from rest in a tick of 0.1 s; the gripper at once
        want = np.float32([0.07 * (k + 1), -0.07 * (k + 1), 1.0])
        now_ns = k * JOINTS.period_ns
        np.testing.assert_allclose(joints.limit(want, Observation(now_ns, at), now_ns), want, atol=1e-6)
    far = joints.limit(np.float32([1.0, -1.0, 1.0]), Observation(3 * JOINTS.period_ns, at), 3 * JOINTS.period_ns)
    np.testing.assert_allclose(far, [0.21 + 0.145, -0.21 - 0.145, 1.0], atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_random_commands_never_break_a_limit(seed):
    rng = np.random.default_rng(seed)
    limits = SafetyLimits(low=(0.2, -0.3, 0.0), high=(0.6, 0.3, 0.5), max_speed_m_s=0.4, max_turn_rad_s=1.0,
                          max_step=(0.015,))  # fmt: skip
    layer = SafetyLayer(limits, ARM)
    start = rng.uniform([0.2, -0.3, 0.0], [0.6, 0.3, 0.5])
    quat = rng.normal(size=4)
    quat /= np.linalg.norm(quat)
    previous = pose(start, matrix_to_rot6d(quat_to_matrix(quat))).astype(float)
    period_s = ARM.period_ns / 1e9
    now_ns, waited_s = 0, period_s
    for _ in range(40):
        elapsed_s = min(waited_s, period_s)
        columns = rng.normal(size=6)  # neither unit nor orthogonal, as a network gives them
        wanted = pose(rng.normal([0.4, 0.0, 0.2], 0.4), columns, rng.normal(0.5, 1.0)).astype(np.float64)
        sent = layer.limit(wanted, seen(now_ns, start, quat), now_ns).astype(np.float64)
        step = sent[:3] - previous[:3]
        assert np.linalg.norm(step) <= min(0.4 * elapsed_s, 0.015) + 1e-6
        assert angle(previous[3:9], sent[3:9]) <= 1.0 * elapsed_s + 1e-5
        assert np.all(sent[:3] >= np.array(limits.low) - 1e-6)
        assert np.all(sent[:3] <= np.array(limits.high) + 1e-6)
        assert 0.0 <= sent[9] <= 1.0
        matrix = np.stack([sent[3:6], sent[6:9]], axis=1)
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(2), atol=1e-6)
        boxed = np.clip(wanted[:3], limits.low, limits.high)
        toward = boxed - previous[:3]
        cosine = step @ toward / (np.linalg.norm(step) * np.linalg.norm(toward) + 1e-12)
        assert cosine > 0.999 or np.linalg.norm(step) < 1e-5, "direction is kept"
        previous = sent
        wait_ns = int(ARM.period_ns * rng.choice([0.5, 1.0, 1.7]))
        now_ns, waited_s = now_ns + wait_ns, wait_ns / 1e9
    assert layer.counts["speed"] > 0
    assert layer.counts["box"] > 0
    assert layer.counts["refused"] == 0


def test_rotation_arrives_along_the_shortest_way():
    layer = SafetyLayer(SafetyLimits(max_turn_rad_s=1.0), ARM)
    rng = np.random.default_rng(3)
    goal = random_rotation(rng)
    target = pose([0.4, 0.0, 0.3], matrix_to_rot6d(goal))
    before = angle(ROTATION, target[3:9])
    for k in range(int(np.ceil(before / (1.0 * ARM.period_ns / 1e9)))):
        sent = layer.limit(target, seen(k * ARM.period_ns), k * ARM.period_ns)
        left = angle(sent[3:9].astype(float), target[3:9])
        assert left == pytest.approx(max(before - 0.05, 0), abs=2e-3)
        before = left
    np.testing.assert_allclose(sent, target, atol=1e-5)


def test_one_factor_slows_the_whole_step():
    limits = SafetyLimits(max_speed_m_s=0.2, max_turn_rad_s=10.0)
    layer = SafetyLayer(limits, ARM)
    quarter = quat_to_matrix(np.array([np.cos(np.pi / 8), 0, 0, np.sin(np.pi / 8)]))
    sent = layer.limit(pose([0.5, 0.0, 0.3], matrix_to_rot6d(quarter)), seen(), 0)
    assert sent[0] == pytest.approx(0.41), "0.2 m/s for 0.05 s, a tenth of the way"
    assert angle(ROTATION, sent[3:9].astype(float)) == pytest.approx(np.pi / 4 / 10, abs=1e-5)


def test_first_command_starts_from_the_measured_pose_and_so_does_one_after_a_pause():
    layer = SafetyLayer(SafetyLimits(max_speed_m_s=0.5), ARM)
    target = pose([0.9, 0.0, 0.3])
    assert layer.limit(target, seen(position=(0.4, 0, 0.3)), 0)[0] == pytest.approx(0.425)
    assert layer.limit(target, seen(ARM.period_ns), ARM.period_ns)[0] == pytest.approx(0.45), "from what was sent"
    later_ns = 10 * ARM.period_ns  # the loop held, the arm was moved by hand
    assert layer.limit(target, seen(later_ns, (0.2, 0, 0.3)), later_ns)[0] == pytest.approx(0.225)
    layer.reset()
    assert layer.limit(target, seen(later_ns, (0.6, 0, 0.3)), later_ns)[0] == pytest.approx(0.625)


def test_from_nowhere_nothing_is_sent():
    layer = SafetyLayer(limits_for(JOINTS), JOINTS)
    at = {"q": np.float32([0.1, np.nan]), "gripper": np.zeros(1, np.float32)}
    with pytest.raises(UnsafeCommand, match="what is measured is not finite"):
        layer.limit(np.zeros(3, np.float32), Observation(0, at), 0)
    turned = replace(seen(), state={**seen().state, "tool_quat": np.full(4, np.nan, np.float32)})
    with pytest.raises(UnsafeCommand, match="what is measured is not finite"):
        SafetyLayer(limits_for(ARM), ARM).limit(pose([0.4, 0, 0.3]), turned, 0)
    lost = replace(seen(), state={**seen().state, "tool_pos": np.float32([np.inf, 0, 0])})
    with pytest.raises(UnsafeCommand, match="what is measured is not finite"):
        SafetyLayer(limits_for(ARM), ARM).limit(pose([0.4, 0, 0.3]), lost, 0)


def test_after_a_stall_it_goes_on_from_the_set_point_in_force():
    """At 100 Hz fifty ms without a command are a stall: the arm lags behind, and must not be called back."""
    spec = replace(JOINTS, rate_hz=100.0)
    layer = SafetyLayer(SafetyLimits(max_rate=(1.0,) * 3, max_accel=(10.0,) * 3), spec)
    at = {"q": np.zeros(2, np.float32), "gripper": np.zeros(1, np.float32)}
    goal = np.float32([1.0, 0.0, 0.0])
    for k in range(50):
        before = layer.limit(goal, Observation(k * spec.period_ns, at), k * spec.period_ns)
    now_ns = 49 * spec.period_ns + 50_000_000
    sent = layer.limit(goal, Observation(now_ns, at), now_ns)
    assert sent[0] - before[0] == pytest.approx(10.0 * 0.01**2, rel=1e-3), "from there, and from rest"
    now_ns += 110_000_000
    assert layer.limit(goal, Observation(now_ns, at), now_ns)[0] == pytest.approx(10.0 * 0.01**2, rel=1e-3), "a pause"


def test_from_outside_the_box_it_comes_back_slowly():
    layer = SafetyLayer(SafetyLimits(low=(0.2, -1, 0), high=(0.8, 1, 1), max_speed_m_s=0.5), ARM)
    sent = layer.limit(pose([0.9, 0.0, 0.3]), seen(position=(1.0, 0, 0.3)), 0)
    assert sent[0] == pytest.approx(0.975)


def test_called_twice_at_one_time_moves_once():
    layer = SafetyLayer(SafetyLimits(max_speed_m_s=0.5), ARM)
    first = layer.limit(pose([0.9, 0.0, 0.3]), seen(), 0)
    np.testing.assert_allclose(layer.limit(pose([0.9, 0.0, 0.3]), seen(), 0), first, atol=1e-7)


@pytest.mark.parametrize(
    ("action", "stamp_ns", "says"),
    [
        (pose([0.4, np.nan, 0.3]), 0, "not finite: y"),
        (pose([0.4, 0.0, np.inf]), 0, "not finite: z"),
        (np.array([0.4, 1e39, 0.3, *ROTATION, 1.0]), 0, "not finite: y"),
        (np.zeros(9, np.float32), 0, r"shape \(9,\); want \(10,\)"),
        (np.zeros((1, 10), np.float32), 0, r"want \(10,\)"),
        (pose([0.4, 0, 0.3], np.zeros(6)), 0, "degenerate"),
        (pose([0.4, 0, 0.3], [1, 0, 0, 2, 0, 0]), 0, "degenerate"),
        (pose([0.4, 0, 0.3]), -300_000_000, "0.300 s old; at most 0.2 s"),
        (pose([0.4, 0, 0.3]), 300_000_000, "-0.300 s old"),
    ],
)
def test_refused_outright_and_the_next_one_is_not_moved_by_it(action, stamp_ns, says):
    layer = SafetyLayer(QUICK, ARM)
    with pytest.raises(UnsafeCommand, match=says):
        layer.limit(action, seen(stamp_ns), 0)
    assert layer.counts == {"refused": 1}
    assert layer.limit(pose([0.9, 0.0, 0.3]), seen(), 0)[0] == pytest.approx(0.425)


@pytest.mark.parametrize(("age_s", "says"), [(10.0, "10.000 s old"), (-0.3, "-0.300 s old")])
def test_one_camera_that_stands_still_is_enough_to_refuse(age_s, says):
    layer = SafetyLayer(limits_for(ARM), ARM)
    now_ns = 20_000_000_000
    stamps = {"front": now_ns - 50_000_000, "wrist": now_ns - round(age_s * 1e9)}
    observation = replace(seen(now_ns), image_stamps_ns=stamps)
    with pytest.raises(UnsafeCommand, match=f"frame of camera 'wrist' is {says}; at most 0.2 s"):
        layer.limit(pose([0.4, 0, 0.3]), observation, now_ns)
    assert layer.counts == {"refused": 1}
    layer.limit(pose([0.4, 0, 0.3]), replace(observation, image_stamps_ns={**stamps, "wrist": now_ns}), now_ns)


@pytest.mark.parametrize("kind", ["tool_delta", "tracks"])
def test_kinds_without_default_limits_want_them_given(kind):
    spec = replace(VECTOR, action=replace(VECTOR.action, kind=kind))
    with pytest.raises(ContractError, match=f"no default safety limits for '{kind}' actions; give them explicitly"):
        limits_for(spec)
    boxed = SafetyLayer(SafetyLimits(low=(-1, -1), high=(1, 1)), spec)
    np.testing.assert_allclose(boxed.limit(np.float32([5, 0]), Observation(0, {}), 0), [1, 0])


def test_joints_are_limited_in_their_own_units_about_where_they_are():
    limits = SafetyLimits(low=(-1, -1, 0), high=(1, 1, 1), max_rate=(1.0, 2.0, 10.0), max_step=(0.5, 0.5, 0.5))
    layer = SafetyLayer(limits, JOINTS)
    observation = Observation(0, {"q": np.float32([0.2, 0.2]), "gripper": np.float32([0.0])})
    sent = layer.limit(np.float32([0.6, 0.4, 0.0]), observation, 0)
    np.testing.assert_allclose(sent, [0.3, 0.25, 0.0], atol=1e-6)  # joint 1 may go .1: a quarter of the step
    np.testing.assert_allclose(SafetyLayer(SafetyLimits(low=(-1,) * 3, high=(1,) * 3), JOINTS).limit(
        np.float32([5, -5, 0.5]), observation, 0), [1, -1, 0.5])  # fmt: skip


def wild(layer, spec, commands, observe, *, seed=0, uneven=False):
    """Send random goals, some near, some far, some jumping every tick; return what was sent and when, s."""
    rng = np.random.default_rng(seed)
    sent, times, now_ns = [], [], 0
    goal = commands(rng)
    for _ in range(2000):
        if rng.random() < (0.02, 0.2, 1.0)[(now_ns // 10**10) % 3]:
            goal = commands(rng)
        sent.append(layer.limit(goal, observe(now_ns), now_ns).astype(np.float64))
        times.append(now_ns * 1e-9)
        now_ns += round(spec.period_ns * (rng.uniform(0.6, 1.0) if uneven else 1.0))
    return np.array(sent), np.array(times)


def dynamics(sent, times):
    """Velocities (T-1, D) and accelerations (T-2, D) of what was sent, each over the time since the command before."""
    dt = np.diff(times)[:, None]
    velocity = np.diff(sent, axis=0) / dt
    return velocity, np.diff(velocity, axis=0) / dt[1:]


@pytest.mark.parametrize("uneven", [False, True])
def test_random_joint_commands_never_break_speed_acceleration_or_box(uneven):
    rate, accel, high = np.array([1.0, 2.0, 3.0]), np.array([5.0, 20.0, 9.0]), np.array([1.0, 0.7, 1.0])
    limits = SafetyLimits(low=tuple(-high), high=tuple(high), margin=0.1, max_rate=tuple(rate), max_accel=tuple(accel))
    layer = SafetyLayer(limits, JOINTS)
    at = {"q": np.float32([0.2, 0.2]), "gripper": np.float32([0.0])}
    sent, times = wild(layer, JOINTS, lambda rng: np.float32(rng.uniform(-1.5, 1.5, 3)),
                       lambda now_ns: Observation(now_ns, at), uneven=uneven)  # fmt: skip
    velocity, acceleration = dynamics(sent, times)
    noise = 1e-6 / np.diff(times).min()  # of float32
    assert (np.abs(sent) <= high - 0.1 + 1e-6).all()
    assert (np.abs(velocity) <= rate + noise).all()
    assert (np.abs(velocity).max(0) >= 0.9 * rate).all()  # and they are used
    assert (np.abs(acceleration) <= accel + 2 * noise / np.diff(times).min()).all()
    assert (np.abs(acceleration).max(0) >= 0.9 * accel).all()


def test_random_poses_never_break_speed_or_acceleration():
    limits = replace(limits_for(ARM), max_accel_m_s2=4.0, max_turn_accel_rad_s2=20.0)
    layer = SafetyLayer(limits, ARM)
    sent, times = wild(
        layer, ARM, lambda rng: pose(rng.uniform([0, -0.8, -0.2], [1, 0.8, 1]), matrix_to_rot6d(random_rotation(rng))),
        seen,
    )  # fmt: skip
    velocity, acceleration = dynamics(sent[:, :3], times)
    assert np.linalg.norm(velocity, axis=1).max() <= 0.5 + 1e-4
    assert np.linalg.norm(acceleration, axis=1).max() <= 4.0 + 1e-2
    turns = np.array([angle(a, b) for a, b in zip(sent[:-1, 3:9], sent[1:, 3:9], strict=True)]) / np.diff(times)
    assert turns.max() <= 2.0 + 1e-2
    assert (sent[:, :3] >= np.array(limits.low) - 1e-6).all()
    assert (sent[:, :3] <= np.array(limits.high) + 1e-6).all()


def test_it_arrives_on_a_straight_line_without_overshoot_and_follows_without_a_lag():
    layer = SafetyLayer(SafetyLimits(max_rate=(1.0, 1.0, 1.0), max_accel=(4.0, 4.0, 4.0)), JOINTS)
    still = {"q": np.zeros(2, np.float32), "gripper": np.zeros(1, np.float32)}

    def follow(rows):
        times = [k * JOINTS.period_ns for k in range(len(rows))]
        layer.reset()
        return np.array([layer.limit(row, Observation(t, still), t) for row, t in zip(rows, times, strict=True)])

    goal = np.float32([0.8, -0.4, 0.2])
    sent = follow(np.tile(goal, (40, 1)))
    np.testing.assert_allclose(sent[:, :2], np.outer(sent[:, 0] / goal[0], goal[:2]), atol=1e-5)
    assert list(np.argmax(sent > goal - 1e-5, axis=0)[[2, 0]]) == [3, 9], "the gripper does not wait for the arm"
    assert (np.diff(sent[:, 0]) >= -1e-6).all()
    np.testing.assert_allclose(sent[-1], goal, atol=1e-5)
    path = np.float32([[0.3 * np.sin(0.1 * k)] * 3 for k in range(100)])
    np.testing.assert_allclose(follow(path)[20:], path[20:], atol=1e-6)
    one = np.float32([0.8, 0.0, 0.0])  # axes with nowhere to go hold up none that has
    np.testing.assert_allclose(follow(np.tile(one, (40, 1)))[-1], one, atol=1e-5)
    ramp = np.float32([[0.05 * k, 0.5, 0.0] for k in range(40)])  # one goal moves, one stands, one is reached
    np.testing.assert_allclose(follow(ramp)[30:], ramp[30:], atol=1e-5)


def test_unknown_units_are_only_checked():
    layer = SafetyLayer(limits_for(VECTOR), VECTOR)
    np.testing.assert_array_equal(layer.limit(np.float32([500, 3]), Observation(0, {}), 0), [500, 3])
    with pytest.raises(UnsafeCommand, match="not finite: b"):
        layer.limit(np.float32([500, np.nan]), Observation(0, {}), 0)
    limited = SafetyLayer(SafetyLimits(max_step=(10.0, 10.0)), VECTOR)
    limited.limit(np.float32([500, 3]), Observation(0, {}), 0)
    tick_ns = VECTOR.period_ns
    np.testing.assert_allclose(limited.limit(np.float32([540, 3]), Observation(tick_ns, {}), tick_ns), [510, 3])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_speed_m_s": np.nan}, "max_speed_m_s is nan"),
        ({"max_speed_m_s": 0.0}, "must be positive"),
        ({"max_age_s": np.inf}, "max_age_s"),
        ({"low": (0, 0, 0)}, "both low and high"),
        ({"low": (0, 0, 1), "high": (1, 1, 1)}, "not below"),
        ({"low": (0, 0), "high": (1, 1, 1)}, "not below"),
        ({"low": (0, 0, 0), "high": (1, 1, 1), "margin": 0.5}, "not below .* by twice the margin of 0.5"),
        ({"margin": -0.1}, "must not be negative"),
        ({"table_m": np.nan}, "table_m is nan"),
        ({"workspace_low": (0, 0, 0)}, "both workspace_low and workspace_high"),
        ({"workspace_low": (0, 0, 0), "workspace_high": (1, 1, 0)}, "want three m each, low below high"),
        ({"workspace_low": (0, 0), "workspace_high": (1, 1)}, "want three m each"),
        ({"links": ("hand",)}, "stay in a workspace or over a table; give one of these"),
        ({"margin": np.nan}, "finite"),
        ({"max_accel": (1.0, 0.0)}, "must be positive"),
        ({"max_rate": (1.0, -1.0)}, "max_rate"),
        ({"max_step": (1.0, np.nan)}, "finite"),
    ],
)
def test_bad_limits_are_refused_at_once(limits, says):
    with pytest.raises(ContractError, match=says):
        SafetyLimits(**limits)


@pytest.mark.parametrize(
    ("limits", "spec", "says"),
    [
        ({"low": (0, 0), "high": (1, 1)}, ARM, "low has 2 numbers; want 3"),
        ({"max_step": (1.0, 1.0)}, ARM, "want 1"),
        ({"max_rate": (1.0,) * 10}, ARM, "max_speed_m_s"),
        ({"max_rate": (1.0,)}, JOINTS, "want 3"),
        ({"max_turn_rad_s": 1.0}, JOINTS, "max_rate"),
        ({"max_accel_m_s2": 1.0}, JOINTS, "joint actions take max_rate, max_accel, not max_accel_m_s2"),
        ({"max_accel": (1.0, 1.0)}, JOINTS, "max_accel has 2 numbers; want 3"),
        ({}, replace(ARM, state={}), "tool_pos"),
        ({"max_rate": (1.0,) * 3}, replace(JOINTS, state={"q": StateSpec(9, ("rad",))}), r"'q \(9,\)'"),
    ],
)
def test_limits_that_do_not_fit_the_robot(limits, spec, says):
    with pytest.raises(ContractError, match=says):
        SafetyLayer(SafetyLimits(**limits), spec)


def test_a_wild_policy_moves_a_robot_no_faster_than_allowed():
    clock = SimClock()
    robot = MockRobot(None, clock)
    layer = SafetyLayer(limits_for(robot.spec), robot.spec)
    rng = np.random.default_rng(0)
    before = robot.read()
    for _ in range(100):
        action = pose(rng.normal(0, 3, 3), rng.normal(size=6), rng.normal())
        robot.command(layer.limit(action, before, clock.now_ns()), clock.now_ns())
        clock.sleep_until(clock.now_ns() + robot.spec.period_ns)
        now = robot.read()
        assert np.linalg.norm(now.state["tool_pos"] - before.state["tool_pos"]) <= 0.5 * 0.05 + 1e-6
        before = now
    assert matrix_to_quat(quat_to_matrix(before.state["tool_quat"])).shape == (4,)


GOOD = """
low: [-1, -2, 0]          # rad, and the gripper
high: [1, 2, 1]
margin: 0.05
max_rate: [1, 2, 3.5]
max_accel: 4              # one for all would be wrong: there are three
"""


def test_limits_of_a_file(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text(
        GOOD.replace("max_accel: 4 ", "max_accel: [4, 4, 8] ") + "watchdogs: {silent_s: 0.2, tracking: [1, 1, 2]}\n"
    )
    limits, watchdogs = load_limits(path, JOINTS)
    assert limits == SafetyLimits(
        low=(-1.0, -2.0, 0.0), high=(1.0, 2.0, 1.0), margin=0.05, max_rate=(1.0, 2.0, 3.5), max_accel=(4.0, 4.0, 8.0)
    )
    assert watchdogs == Watchdogs(silent_s=0.2, tracking=(1.0, 1.0, 2.0))
    path.write_text("")
    assert load_limits(path, ARM)[0] == limits_for(ARM)


def test_null_is_no_limit_and_does_not_watch(tmp_path):
    path = tmp_path / "limits.yaml"
    path.write_text("max_accel: null\nmjcf:\nwatchdogs: {silent_s: null, estop_topic: null}")
    limits, watchdogs = load_limits(path, JOINTS)
    assert limits_for(JOINTS).max_accel is not None
    assert limits == replace(limits_for(JOINTS), max_accel=None)
    assert watchdogs == Watchdogs(silent_s=None)
    layer = SafetyLayer(limits, JOINTS)
    seen = Observation(0, {"q": np.zeros(2, np.float32), "gripper": np.ones(1, np.float32)})
    sent = layer.limit(np.float32([1.0, 0.0, 1.0]), seen, 0)
    assert sent[0] == pytest.approx(1.5 * JOINTS.period_ns / 1e9, rel=1e-3), "its full speed at once"
    path.write_text("low: null\nhigh: null\nmax_accel_m_s2: null\nwatchdogs:")
    assert load_limits(path, ARM)[0] == replace(limits_for(ARM), low=None, high=None, max_accel_m_s2=None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_rat: 1", "no key in the file 'max_rat'; valid: high, links, low, "),
        ("max_accel: -1", r"safety limit max_accel is \(-1.0,\); it must be positive"),
        ("low: [1, 1]\nhigh: [0, 0]", "safety box: low"),
        ("watchdogs: {estop_topic: /e}", "estop_topic: say estop_s too"),
    ],
)
def test_what_no_robot_could_have_is_seen_before_one_is_there(tmp_path, text, says):
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        look_at_limits(path)
    path.write_text("low: [0, 0, 0]\nmax_rate: [1, 2]\nwatchdogs: {estop_s: 1, estop_topic: /e}")
    assert look_at_limits(path).estop_s == 1.0, "half a box, and how long a list is to be, the robot knows"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD, "safety limit max_accel has 1 numbers; want 3"),
        ("max_rat: 1", "no key in the file 'max_rat'; valid: high, links, low, "),
        ("low: [0, 0, x]\nhigh: [1, 1, 1]", "low is .*; want a finite number or a list of such"),
        ("low: [0, 0, .nan]\nhigh: [1, 1, 1]", "low is .*; want a finite number or a list of such"),
        ("max_speed_m_s: 1", "joint actions take max_rate, max_accel, not max_speed_m_s"),
        ("watchdogs: {silent: 1}", "no key in watchdogs 'silent'; valid: deadman_s, "),
        ("watchdogs: {silent_s: -1}", "watchdog silent_s is -1.0; want finite and above 0"),
        ("- 1", "the file is list"),
        ("a: [", "is no YAML"),
        ("max_age_s: null", "max_age_s is null, and cannot be switched off; leave it out for its default"),
        ("high: null\nlow: [0, 0, 0]", "give both low and high, or neither"),
    ],
)
def test_a_file_of_limits_that_makes_no_sense_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load_limits(path, JOINTS)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file or directory; want the YAML file with the limits"):
        load_limits(tmp_path / "none.yaml", JOINTS)
