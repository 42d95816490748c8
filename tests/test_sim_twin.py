import numpy as np
import pytest

from robopolicy.clock import SimClock, WallClock
from robopolicy.errors import NoGLBackend, UnknownCamera, UnsafeCommand, UsageError
from robopolicy.rotations import matrix_to_rot6d, quat_to_matrix
from robopolicy.spec import TOOL_POSE, CameraSpec
from sim_envs.lift import Lift
from sim_envs.rendering import probe
from sim_envs.servo import ToolServo
from sim_envs.twin import HOME_POSITION, HOME_QUAT, Twin

MS = 1_000_000
DOWN = np.diag([1.0, -1, -1])


@pytest.fixture(scope="module")
def gl():
    try:
        return probe()
    except NoGLBackend as error:
        pytest.skip(str(error))


@pytest.fixture
def clock():
    return SimClock(7_000_000_000)


@pytest.fixture
def twin(clock):
    twin = Twin(Lift(), clock, cameras=())
    yield twin
    twin.close()


def pose(position, rotation=DOWN, grip=1.0):
    return np.concatenate([position, matrix_to_rot6d(rotation), [grip]]).astype(np.float32)


def test_time_is_the_clocks(twin, clock):
    assert twin.read().stamp_ns == clock.now_ns()
    clock.sleep_until(clock.now_ns() + 51 * MS)
    assert clock.now_ns() - twin.read().stamp_ns == 1 * MS  # whole substeps of 2 ms
    clock.sleep_until(clock.now_ns() + 1 * MS)
    assert twin.read().stamp_ns == clock.now_ns()


def test_splitting_reads_changes_nothing(clock):
    states = []
    for pieces in (1, 10, 25):
        own = SimClock()
        twin = Twin(Lift(), own, cameras=())
        twin.command(pose([0.5, 0.05, 0.1]), 0)
        for k in range(pieces):
            own.sleep_until((k + 1) * 500 * MS // pieces)
            states.append(twin.read().state) if k == pieces - 1 else twin.read()
    for key in states[0]:
        np.testing.assert_array_equal(states[0][key], states[1][key])
        np.testing.assert_array_equal(states[0][key], states[2][key])


def test_a_command_takes_force_when_it_is_due(twin, clock):
    start = clock.now_ns()
    before = twin.read().state["tool_pos"]
    twin.command(pose(before + np.array([0, 0, 0.05])), start + 100 * MS)
    clock.sleep_until(start + 100 * MS)
    np.testing.assert_allclose(twin.read().state["tool_pos"], before, atol=2e-4)
    clock.sleep_until(start + 130 * MS)
    assert twin.read().state["tool_pos"][2] - before[2] > 0.005


def test_a_command_is_never_in_force_before_it_was_given(twin, clock):
    start = clock.now_ns()
    before = twin.read().state["tool_pos"]
    clock.sleep_until(start + 100 * MS)
    twin.command(pose(before + np.array([0, 0, 0.05])), start)  # came 100 ms late
    np.testing.assert_allclose(twin.read().state["tool_pos"], before, atol=2e-4)


@pytest.mark.parametrize(
    ("offset", "yaw", "tilt"), [((0, 0, 0), 0, 0), ((0.1, 0.15, 0.1), 0.6, 0.2), ((-0.08, -0.12, -0.1), -0.8, -0.3)]
)
def test_the_tool_arrives_where_it_is_sent(twin, clock, offset, yaw, tilt):
    rotation = quat_to_matrix([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])
    rotation = rotation @ quat_to_matrix([np.cos(tilt / 2), np.sin(tilt / 2), 0, 0]) @ DOWN
    goal = HOME_POSITION + offset
    start = clock.now_ns()
    twin.command(pose(goal, rotation, 0.5), start)
    clock.sleep_until(start + 2_000 * MS)
    state = twin.read().state
    np.testing.assert_allclose(state["tool_pos"], goal, atol=1e-3)
    turn = quat_to_matrix(state["tool_quat"]).T @ rotation
    assert np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)) < 5e-3  # rad
    np.testing.assert_allclose(state["gripper"], 0.5, atol=0.02)


def test_inverse_kinematics_over_the_workspace(twin):
    servo = ToolServo(twin.model)
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(30):
        servo.start(np.array(servo.q))
        half = rng.uniform(-0.4, 0.4)
        goal = rng.uniform([0.3, -0.3, 0.01], [0.65, 0.3, 0.4])
        worst = max(worst, servo.solve(goal, np.array([0, np.cos(half), np.sin(half), 0]), tolerance=1e-6))
    assert worst < 1e-3  # m; what is left is the pull of the posture


def test_out_of_reach_stays_within_joint_limits(twin, clock):
    start = clock.now_ns()
    twin.command(pose([3.0, 0, 0.3]), start)
    clock.sleep_until(start + 4_000 * MS)
    state = twin.read().state
    limits = np.array([twin.model.joint(f"joint{i}").range for i in range(1, 8)])
    assert (state["q"] > limits[:, 0] - 0.02).all()
    assert (state["q"] < limits[:, 1] + 0.02).all()
    assert np.isfinite(state["dq"]).all()


def test_stop_holds_and_repeats(twin, clock):
    start = clock.now_ns()
    twin.command(pose(HOME_POSITION + np.array([0.1, 0.1, 0])), start)
    twin.command(pose([0.4, -0.2, 0.3]), start + 400 * MS)
    clock.sleep_until(start + 200 * MS)
    there = twin.read().state["tool_pos"]
    held = twin.stop("test")
    np.testing.assert_allclose(held[:3], there, atol=1e-6)
    for k in range(30):  # the later command is forgotten
        clock.sleep_until(start + (250 + 50 * k) * MS)
        twin.read()
        np.testing.assert_array_equal(twin.stop(), held)
    np.testing.assert_allclose(twin.read().state["tool_pos"], there, atol=2e-3)


def test_stop_keeps_the_grip(twin, clock):
    start = clock.now_ns()
    twin.command(pose(HOME_POSITION, grip=0.0), start)
    clock.sleep_until(start + 100 * MS)
    assert twin.read().state["gripper"] > 0.1  # still closing
    assert twin.stop()[9] == 0.0


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (np.zeros(7), r"want \(10,\)"),
        (pose([0.4, np.nan, 0.2]), "not finite in y"),
        (pose([0.4, 0, 0.2], grip=np.inf), "not finite in gripper"),
        (np.zeros(10), "independent columns"),
    ],
)
def test_bad_commands_are_refused_and_change_nothing(twin, clock, action, line):
    start = clock.now_ns()
    before = twin.read().state["tool_pos"]
    with pytest.raises(UnsafeCommand, match=line):
        twin.command(action, start)
    clock.sleep_until(start + 300 * MS)
    np.testing.assert_allclose(twin.read().state["tool_pos"], before, atol=2e-4)


def test_command_returns_what_was_sent(twin):
    sent = twin.command(pose(HOME_POSITION, grip=3.0), 0)
    assert sent.dtype == np.float32
    assert sent.shape == (TOOL_POSE.dim,)
    assert sent[9] == 1.0


def test_tool_quat_does_not_flip_while_the_tool_points_down(twin, clock):
    start, rng, quats = clock.now_ns(), np.random.default_rng(0), []
    for k in range(60):
        clock.sleep_until(start + k * 50 * MS)
        quats.append(twin.read().state["tool_quat"])
        wobble = quat_to_matrix([1, *rng.uniform(-0.05, 0.05, 3)])
        twin.command(pose(HOME_POSITION, wobble @ DOWN), clock.now_ns())
    quats = np.array(quats)
    assert (quats @ HOME_QUAT > 0).all()
    assert np.linalg.norm(np.diff(quats, axis=0), axis=1).max() < 0.3
    assert len(np.unique(np.sign(quats[:, 0]))) > 1  # w itself does flip


def test_starts_differ_by_seed_and_are_reachable(twin):
    starts = []
    for seed in range(20):
        twin.reset(seed)
        starts.append(np.concatenate([twin.read().state[k] for k in ("tool_pos", "cube_pos")]))
    spread = np.ptp(starts, axis=0)
    assert (spread[[0, 1]] > 0.05).all()
    assert (spread[[3, 4]] > 0.08).all()
    assert np.abs(np.array(starts)[:, 3:5] - [0.5, 0]).max() <= 0.0801


def test_runs_by_the_wall_clock_too():
    clock = WallClock()
    twin = Twin(Lift(), clock, cameras=())
    first = twin.read()
    start = clock.now_ns()
    twin.command(pose(first.state["tool_pos"] + [0, 0, 0.05]), start)
    clock.sleep_until(start + 100 * MS)
    second = twin.read()
    assert second.stamp_ns > first.stamp_ns
    assert clock.now_ns() >= second.stamp_ns
    assert second.state["tool_pos"][2] > first.state["tool_pos"][2] + 0.01


def test_disturbance_is_outside_the_starts_and_a_task_may_have_none(twin, clock):
    for seed in range(5):
        twin.reset(seed)
        twin.disturb(np.random.default_rng(seed))
        clock.sleep_until(clock.now_ns() + 1_000 * MS)
        x, y, z = twin.read().state["cube_pos"]
        assert abs(y) > 0.1
        assert abs(x - 0.5) < 0.2
        assert 0.0 < z < 0.06

    class Calm(Lift):
        disturb = None

    with pytest.raises(UsageError, match="disturb"):
        Twin(Calm(), clock, cameras=()).disturb(np.random.default_rng(0))


def test_unknown_camera_names_the_valid_ones(clock):
    with pytest.raises(UnknownCamera, match="front, side, wrist"):
        Twin(Lift(), clock, cameras=("wrist2",))


def test_cameras_have_the_size_of_the_spec_and_see_the_arm_move(gl, clock):
    twin = Twin(Lift(), clock, size=(64, 80))
    assert twin.spec.cameras == {"front": CameraSpec(64, 80), "wrist": CameraSpec(64, 80)}
    first = twin.read()
    assert first.image_stamps_ns == {"front": first.stamp_ns, "wrist": first.stamp_ns}
    twin.command(pose(HOME_POSITION + np.array([0.05, 0.05, 0.05])), clock.now_ns())
    clock.sleep_until(clock.now_ns() + 500 * MS)
    second = twin.read()
    for name, image in first.images.items():
        assert image.shape == (64, 80, 3)
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - second.images[name]).max() > 50
    assert twin.picture().shape == (240, 320, 3)
    twin.close()
    twin.close()


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_calibration_says_where_the_cube_appears(gl, clock, camera):
    twin = Twin(Lift(), clock, cameras=(camera,), size=(96, 128))
    found = 0
    for seed in range(8):
        twin.reset(seed)
        twin.data.joint("cube").qpos[:2] = twin.data.site("tool").xpos[:2] + np.array([0.07, 0.01 * seed - 0.035])
        image = twin.read().images[camera].astype(int)
        calibration = twin.camera_calibration()[camera]
        pose_inverse = np.linalg.inv(calibration["T_base_cam"])
        point = pose_inverse @ [*twin.data.body("cube").xpos, 1.0]
        u, v, w = np.array(calibration["K"]) @ point[:3]
        u, v = u / w, v / w
        red = (image[..., 0] > 100) & (image[..., 1:].max(axis=2) < 60)
        if not (4 < u < 123 and 4 < v < 91) or red.sum() < 20:
            continue
        found += 1
        rows, columns = np.nonzero(red)
        assert red[round(v), round(u)]
        assert abs(columns.mean() - u) < 2.5  # px
        assert abs(rows.mean() - v) < 2.5
    assert found >= 5
    assert ("T_tool_cam" in calibration) == (camera == "wrist")


def test_pictures_are_a_function_of_the_state(gl):
    def episode():
        own = SimClock()
        twin = Twin(Lift(), own, cameras=("front", "wrist"))
        twin.reset(11)
        twin.command(pose([0.5, 0.05, 0.1]), 0)
        own.sleep_until(400 * MS)
        return twin.read().images

    first, second = episode(), episode()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
