"""What a served twin does that the policy side does not know: delays, noise, lost pictures, other physics."""

import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError
from sim_envs.imperfections import Imperfect, Imperfections
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

MS = 1_000_000


def make(cameras=(), seed=0, camera_hz=25.0, **imperfections):
    clock = SimClock()
    twin = Twin(make_task("lift"), clock, cameras=cameras, action="joint", camera_hz=camera_hz)
    return clock, twin, Imperfect(twin, Imperfections(**imperfections), clock, np.random.default_rng(seed))


def moved(latency_s):
    """Return after how many ms the arm's first joint has moved by a millirad."""
    clock, _, robot = make(command_latency_s=latency_s)
    goal = robot.stop()
    start, goal[0] = goal[0], goal[0] + 0.3
    robot.command(goal, clock.now_ns())
    for k in range(500):
        clock.sleep_until(k * MS * 2)
        if abs(robot.read().state["q"][0] - start) > 1e-3:
            return 2 * k
    raise AssertionError("it did not move")


def test_a_command_is_followed_later_by_its_latency():
    assert moved(0.2) - moved(0.0) == pytest.approx(200, abs=12)  # the servo's ticks are 10 ms apart


def test_noise_is_of_the_sensors_and_of_its_size_and_the_seed_says_which():
    _, twin, robot = make(joint_noise_rad=1e-3, position_noise_m=2e-3)
    seen = [robot.read().state for _ in range(400)]
    true = twin.read().state
    off_q = np.concatenate([one["q"] - true["q"] for one in seen])
    off_cube = np.concatenate([one["cube_pos"] - true["cube_pos"] for one in seen])
    assert off_q.std() == pytest.approx(1e-3, rel=0.1)
    assert off_cube.std() == pytest.approx(2e-3, rel=0.15)
    for name in ("dq", "tool_quat", "gripper"):
        assert all(np.array_equal(one[name], true[name]) for one in seen)
    again = make(joint_noise_rad=1e-3, position_noise_m=2e-3)[2].read().state
    np.testing.assert_array_equal(again["q"], seen[0]["q"])
    assert (make(seed=1, joint_noise_rad=1e-3)[2].read().state["q"] != seen[0]["q"]).any()


def test_a_picture_comes_late_with_the_stamp_of_when_it_was_taken():
    clock, _, robot = make(("front",), camera_latency_s=0.1)
    ages = []
    for k in range(60):
        clock.sleep_until(k * 10 * MS)
        seen = robot.read()
        if seen.images:
            ages.append((seen.stamp_ns - seen.image_stamps_ns["front"]) / 1e9)
        else:
            assert k < 10  # before the first one there is none, not a black one
    robot.close()
    assert (min(ages), max(ages)) == pytest.approx((0.1, 0.13), abs=1e-6)


@pytest.mark.parametrize(("drop", "low", "high"), [(0.0, 1.0, 1.0), (0.5, 0.3, 0.7), (1.0, 0.0, 0.0)])
def test_pictures_are_lost_as_often_as_asked(drop, low, high):
    clock, _, robot = make(("front",), camera_drop=drop)
    came = set()
    for k in range(100):
        clock.sleep_until(k * 40 * MS)
        came |= set(robot.read().image_stamps_ns.values())
    robot.close()
    assert low <= len(came) / 100 <= high


def test_a_camera_that_stops_leaves_its_last_picture_with_its_old_stamp():
    clock, _, robot = make(("front",), camera_stops_s=1.0)
    for k in range(200):
        clock.sleep_until(k * 10 * MS)
        seen = robot.read()
    robot.close()
    assert seen.stamp_ns == 1_990 * MS
    assert seen.image_stamps_ns["front"] == 960 * MS
    assert seen.images["front"].shape == (96, 96, 3)


def test_physics_change_by_their_factors_and_the_arm_keeps_its_mass():
    _, twin, _ = make()
    model = twin.model
    before = {name: getattr(model, name).copy() for name in
              ("geom_friction", "body_mass", "body_inertia", "actuator_gainprm", "actuator_biasprm")}  # fmt: skip
    Imperfections(friction=0.5, mass=2.0, damping=1.5, gain=0.8).alter(model)
    np.testing.assert_allclose(model.geom_friction[:, 0], 0.5 * before["geom_friction"][:, 0])
    np.testing.assert_array_equal(model.geom_friction[:, 1:], before["geom_friction"][:, 1:])
    heavier = [model.body(k).name for k in range(model.nbody) if model.body_mass[k] != before["body_mass"][k]]
    assert heavier == ["cube"]
    assert model.body("cube").mass == pytest.approx(2 * before["body_mass"][model.body("cube").id])
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], 0.8 * before["actuator_gainprm"][:, 0])
    np.testing.assert_allclose(model.actuator_biasprm[:, 1], 0.8 * before["actuator_biasprm"][:, 1])
    np.testing.assert_allclose(model.actuator_biasprm[:, 2], 1.5 * before["actuator_biasprm"][:, 2])


def test_without_imperfections_it_is_the_twin():
    clock, twin, robot = make(("front",))
    clock.sleep_until(100 * MS)
    seen, true = robot.read(), twin.read()
    assert seen.image_stamps_ns == true.image_stamps_ns
    for name, value in true.state.items():
        np.testing.assert_array_equal(seen.state[name], value)
    assert robot.success() == twin.success()  # everything else is the twin's
    robot.close()


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"camera_drop": 1.5}, "camera_drop is 1.5; want a probability"),
        ({"mass": 0.0}, "mass is 0; want a factor above 0"),
        ({"joint_noise_rad": float("nan")}, "joint_noise_rad is nan"),
        ({"command_latency_s": -0.1}, "command_latency_s is -0.1"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, why):
    with pytest.raises(ContractError, match=why):
        Imperfections(**wrong)
