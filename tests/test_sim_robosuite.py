"""robosuite's tasks behind our interface. Most tests need robosuite itself:

python tests/peers/robosuite_install.py FOLDER && FOLDER/bin/python -m pytest tests/test_sim_robosuite.py
"""

import inspect
import os
import sys

import numpy as np
import pytest

from robopolicy.cli.worlds import make_clock, make_safety, make_world
from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import MissingExtra, NoGLBackend, UnknownCamera, UnknownTask, UnsafeCommand, UsageError
from robopolicy.loop import run_episode
from robopolicy.rotations import matrix_to_rotvec, quat_to_matrix, rot6d_to_matrix, rotvec_to_matrix
from robopolicy.spec import TOOL_POSE
from robopolicy.testing import EnvironmentContract
from robopolicy.types import EpisodeMeta
from sim_envs.lift_expert import LiftExpert
from sim_envs.rendering import probe
from sim_envs.robosuite_compat import load_robosuite
from sim_envs.robosuite_env import TASKS

PERIOD_NS = 50_000_000
OTHERS = [name for name in TASKS if name not in ("Lift", "PickPlaceCan")]


@pytest.fixture
def robosuite():
    pytest.importorskip("robosuite", reason="robosuite is not in this Python; see this file's first lines")
    return load_robosuite()


@pytest.fixture
def gl():
    try:
        probe()
    except NoGLBackend as error:
        pytest.skip(str(error))


@pytest.fixture
def lift(robosuite):
    clock = SimClock()
    world = make_world("robosuite:Lift", clock)
    yield world, clock
    world.close()


def hold(world, clock, command, steps):
    """Command the same for so many steps; return what is seen then."""
    start_ns = clock.now_ns()
    for k in range(steps):
        clock.sleep_until(start_ns + k * PERIOD_NS)
        world.read()
        world.command(command, start_ns + k * PERIOD_NS)
    clock.sleep_until(start_ns + steps * PERIOD_NS)
    return world.read()


def test_without_it_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", None)
    with pytest.raises(MissingExtra, match=r"robosuite is not installed.*pip install 'robopolicy\[robosuite\]'"):
        make_world("robosuite:Lift", SimClock())


def test_unknown_tasks_and_rates_are_refused_with_what_would_be_right():
    with pytest.raises(UnknownTask, match=r"valid: Can, Door, Lift, .*Square, Stack, ToolHang"):
        make_world("robosuite:Lfit", SimClock())
    with pytest.raises(UsageError, match="30 Hz does not divide that: 10, 20, 25"):
        make_world("robosuite:Lift", SimClock(), rate_hz=30.0)
    assert isinstance(make_clock("robosuite:Lift", realtime=False), SimClock)
    assert isinstance(make_clock("robosuite:Lift", realtime=True), WallClock)


def test_what_the_shim_changes_is_still_there(robosuite):
    from robosuite.controllers.parts import controller
    from robosuite.utils import binding_utils

    assert robosuite.__version__ == "1.5.2"
    assert "mujoco.mj_fullM(self.sim.model._model, mass_matrix, self.sim.data.qM)" in inspect.getsource(controller)
    source = inspect.getsource(binding_utils.MjModel)
    assert "joint_type in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)" in source
    assert "qM" not in inspect.getsource(binding_utils), "MjData.qM is the shim's"


def test_the_mass_matrix_that_its_controller_sees_is_mujocos(lift):
    import mujoco

    world, _ = lift
    world.reset(1)
    sim, arm = world._env.sim, world._robot.part_controllers["right"]
    arm.update(force=True)
    full = np.zeros((sim.model.nv, sim.model.nv))
    mujoco.mj_fullM(sim.model._model, sim.data._data, full)
    np.testing.assert_array_equal(arm.mass_matrix, full[arm.qvel_index][:, arm.qvel_index])
    assert np.linalg.eigvalsh(arm.mass_matrix).min() > 0


def test_nothing_is_changed_for_anyone_else(robosuite):
    import mujoco

    np.random.seed(5)  # noqa: NPY002
    environment = dict(os.environ)
    full, joint = mujoco.mj_fullM, mujoco.mjtJoint
    clock = SimClock()
    world = make_world("robosuite:Lift", clock)
    world.reset(3)
    hold(world, clock, world.stop(), 3)
    assert (mujoco.mj_fullM, mujoco.mjtJoint) == (full, joint)
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    assert np.random.random() == drawn  # noqa: NPY002
    assert os.environ.get("MUJOCO_GL") == environment.get("MUJOCO_GL")
    assert load_robosuite() is robosuite, "a second time changes nothing"


class TestRobosuiteLift(EnvironmentContract):
    @pytest.fixture(autouse=True)
    def installed(self, robosuite):
        pass

    def make(self, clock):
        return make_world("robosuite:Lift", clock)


def test_state_and_action_are_the_twins(lift):
    world, _ = lift
    twin = make_world("twin:lift", SimClock())
    assert world.spec == twin.spec, "so a checkpoint of one is accepted by the other"
    assert world.spec.action == TOOL_POSE


@pytest.mark.parametrize("task", ["Lift", "Can", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_a_seed_names_a_start_in_a_new_world_and_in_a_used_one(robosuite, task):
    clock = SimClock()
    world, other = make_world(f"robosuite:{task}", clock), make_world(f"robosuite:{task}", clock)
    starts = []
    for seed in (7, 8, 7):
        world.reset(seed)
        state = world.read().state
        starts.append((world._env.sim.data.qpos.copy(), {k: v.copy() for k, v in state.items()}))
        hold(world, clock, world.stop(), 2)
    other.reset(7)
    for part in ("geom_size", "body_mass", "geom_friction", "geom_rgba", "body_pos"):  # it draws some of them itself
        ours, theirs = (getattr(one._env.sim.model._model, part) for one in (world, other))
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(starts[0][0], starts[2][0])
    np.testing.assert_array_equal(starts[0][0], other._env.sim.data.qpos)
    for name, value in other.read().state.items():
        np.testing.assert_array_equal(value, starts[0][1][name])
        np.testing.assert_array_equal(value, starts[2][1][name])
    things = [name for name in world.spec.state if name not in ("q", "dq", "tool_pos", "tool_quat", "gripper")]
    assert things
    moved = [name for name in things if not np.array_equal(starts[0][1][name], starts[1][1][name])]
    assert moved, "another seed puts the objects elsewhere"
    assert not world.success()


def test_the_same_commands_repeat_bit_for_bit_in_a_used_world(lift):
    world, clock = lift
    seen = []
    for _ in range(2):
        world.reset(2)
        goal = world.stop()
        goal[:3] += [0.05, -0.04, -0.06]
        goal[9] = 0.0
        seen.append(hold(world, clock, goal, 12).state)
    for name, value in seen[0].items():
        np.testing.assert_array_equal(value, seen[1][name])


@pytest.mark.parametrize("task", ["Lift", "Can"])
def test_a_tool_pose_is_reached_in_the_base_frame(robosuite, task):
    clock = SimClock()
    world = make_world(f"robosuite:{task}", clock)
    world.reset(0)
    goal = world.stop()
    turn = rotvec_to_matrix(np.array([0.1, 0.0, 0.5])) @ rot6d_to_matrix(goal[3:9])
    goal[:3] += [0.06, 0.08, 0.05]
    goal[3:9] = [*turn[:, 0], *turn[:, 1]]
    state = hold(world, clock, goal, 80).state
    np.testing.assert_allclose(state["tool_pos"], goal[:3], atol=0.002)
    error = quat_to_matrix(state["tool_quat"]).T @ turn
    assert np.linalg.norm(matrix_to_rotvec(error)) < 0.02


def test_the_tool_frame_is_ours(lift):
    world, _ = lift
    world.reset(0)
    data, model = world._env.sim.data, world._env.sim.model
    rotation = quat_to_matrix(world.read().state["tool_quat"])
    assert rotation[2, 2] < -0.9, "z goes out of the hand, down"
    assert rotation[0, 0] > 0.9, "x is forward"
    fingers = [data.body_xpos[model.body_name2id(f"gripper0_right_{side}finger")] for side in ("left", "right")]
    between = fingers[1] - fingers[0]
    along = abs(between @ rotation[:, 1]) / np.linalg.norm(between)
    assert along > 0.99, "y is the way in which the fingers open"
    middle = np.mean(
        [data.geom_xpos[model.geom_name2id(f"gripper0_right_finger{i}_pad_collision")] for i in (1, 2)], axis=0
    )
    in_base = world._T_base_world[:3, :3] @ middle + world._T_base_world[:3, 3]
    assert np.linalg.norm(in_base - world.read().state["tool_pos"]) < 0.02, "the tool is between the finger tips"


@pytest.mark.parametrize("opening", [0.0, 0.5, 1.0])
def test_the_gripper_goes_to_what_is_commanded(lift, opening):
    world, clock = lift
    world.reset(0)
    goal = world.stop()
    goal[9] = opening
    assert hold(world, clock, goal, 30).state["gripper"][0] == pytest.approx(opening, abs=0.1)


def test_objects_lie_on_the_table_of_the_base_frame(lift):
    world, _ = lift
    for seed in range(4):
        world.reset(seed)
        state = world.read().state
        assert state["cube_pos"][2] == pytest.approx(0.03, abs=0.015)  # its half edge is 2 cm, and it starts 1 cm up
        assert 0.45 < state["cube_pos"][0] < 0.65
        up = quat_to_matrix(state["cube_quat"])[2]
        assert abs(up[2]) == pytest.approx(1.0, abs=1e-6)


def test_an_agent_of_the_twin_solves_lift_through_the_ordinary_loop(lift):
    world, clock = lift
    for seed in range(2):
        world.reset(seed)
        run_episode(
            world, LiftExpert(), clock, make_safety(world.spec), EpisodeMeta("lift", "robosuite", seed=seed),
            max_steps=world.max_steps, done=lambda _: world.success(),
        )  # fmt: skip
        assert world.success(), seed
        assert world.score() > 0.9


def test_nothing_moves_before_the_first_command_and_stop_holds(lift):
    world, clock = lift
    world.reset(0)
    before = world.read().state
    clock.sleep_until(clock.now_ns() + 20 * PERIOD_NS)
    np.testing.assert_array_equal(world.read().state["q"], before["q"])
    goal = world.stop()
    goal[0] += 0.2
    here = hold(world, clock, goal, 6).state["tool_pos"]
    held = world.stop("test")
    np.testing.assert_allclose(held[:3], here, atol=1e-6)
    np.testing.assert_array_equal(world.stop("again"), held)
    clock.sleep_until(clock.now_ns() + 20 * PERIOD_NS)
    assert np.linalg.norm(world.read().state["tool_pos"] - here) < 0.03  # m; it had speed


@pytest.mark.parametrize("command", [np.zeros(7), np.full(10, np.nan), np.r_[0.5, 0, 0.2, 1, 0, 0, 1, 0, 0, 1]])
def test_bad_commands_are_refused(lift, command):
    with pytest.raises(UnsafeCommand):
        lift[0].command(command, 0)


def test_disturb_puts_the_object_elsewhere(lift):
    world, _ = lift
    world.reset(4)
    before = world.read().state
    assert "cube" in world.disturb(np.random.default_rng(0))
    after = world.read().state
    assert np.linalg.norm(after["cube_pos"] - before["cube_pos"]) > 0.005
    np.testing.assert_array_equal(after["q"], before["q"])
    with pytest.raises(UsageError, match="no disturbance"):
        make_world("robosuite:Door", SimClock()).disturb(np.random.default_rng(0))


def test_cameras_are_calibrated_in_the_base_frame(robosuite, gl):
    clock = SimClock()
    world = make_world("robosuite:Lift", clock, cameras=("agentview", "robot0_eye_in_hand"))
    world.reset(0)
    seen = world.read()
    known = world.camera_calibration()
    cube = np.append(seen.state["cube_pos"], 1.0)
    k, pose = (np.array(known["agentview"][name]) for name in ("K", "T_base_cam"))
    x, y, z = k @ (np.linalg.inv(pose) @ cube)[:3]
    red, green, blue = seen.images["agentview"][round(y / z), round(x / z)].astype(int)
    assert red > 1.5 * max(green, blue), "there the picture shows the red cube"
    assert seen.images["agentview"].shape == (96, 96, 3)
    ride = np.array(known["robot0_eye_in_hand"]["T_tool_cam"])
    goal = world.stop()
    goal[:3] += [0.05, 0.1, 0.05]
    hold(world, clock, goal, 10)
    again = world.camera_calibration()
    np.testing.assert_allclose(again["robot0_eye_in_hand"]["T_tool_cam"], ride, atol=1e-9)
    assert again["agentview"] == known["agentview"]
    assert world.picture().shape == (240, 320, 3)
    with pytest.raises(UnknownCamera, match="agentview"):
        make_world("robosuite:Lift", SimClock(), cameras=("wrist",))
    world.close()
    world.close()
