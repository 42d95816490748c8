"""The tool servo: what a step is, how fast it walks, and that it stays finite where the arm loses a direction."""

import mujoco
import numpy as np
import pytest

from robopolicy.clock import SimClock
from robopolicy.rotations import matrix_to_rotvec, quat_to_matrix
from sim_envs.arm import HOME, JOINTS, TOOL
from sim_envs.servo import DAMPING, GAIN, MAX_SPEED, MAX_TURN, POSTURE_GAIN, RATE_HZ, ToolServo
from sim_envs.tasks import make_task
from sim_envs.twin import Twin

DOWN = np.array([0.0, 1.0, 0.0, 0.0])
STRETCHED = np.array([0.0, 0.6, 0.0, -0.0698, 0.0, 1.6, 0.0])  # the elbow as straight as it gets
FOLDED = np.array([0.0, -1.76, 0.0, -3.07, 0.0, 0.0, 0.0])  # axes 5 and 7 in one line
SIDEWAYS = np.array([1.2, 0.3, -0.8, -1.5, 0.7, 2.0, 0.5])


def model_of(task):
    return Twin(make_task(task), SimClock(), cameras=()).model


@pytest.fixture(scope="module", params=["lift", "stack"])
def model(request):
    return model_of(request.param)


class Oracle:
    """Buss 2004, eq. 11, term by term."""

    def __init__(self, model):
        self.model, self.data, self.site = model, mujoco.MjData(model), model.site(TOOL).id
        self.qpos = [model.joint(name).qposadr[0] for name in JOINTS]
        self.dofs = [model.joint(name).dofadr[0] for name in JOINTS]
        self.low, self.high = np.array([model.joint(name).range for name in JOINTS]).T

    def tool(self, q):
        self.data.qpos[self.qpos] = q
        mujoco.mj_forward(self.model, self.data)
        return self.data.site_xpos[self.site].copy(), self.data.site_xmat[self.site].reshape(3, 3).copy()

    def step(self, q, position, quat):
        at, rotation = self.tool(q)
        error = np.concatenate([position - at, matrix_to_rotvec(quat_to_matrix(quat) @ rotation.T)])
        move = GAIN * error
        for part, most in ((slice(0, 3), MAX_SPEED), (slice(3, 6), MAX_TURN)):
            length = np.linalg.norm(move[part])
            move[part] *= min(1.0, most / RATE_HZ / max(length, 1e-12))
        whole = np.zeros((6, self.model.nv))
        mujoco.mj_jacSite(self.model, self.data, whole[:3], whole[3:], self.site)
        j = whole[:, self.dofs]
        posture = POSTURE_GAIN * (np.array(HOME) - q)
        pull = np.linalg.solve(j @ j.T + DAMPING**2 * np.eye(6), move - j @ posture)
        return np.clip(q + posture + j.T @ pull, self.low, self.high)


@pytest.mark.parametrize("start", [np.array(HOME), SIDEWAYS, STRETCHED, FOLDED])
def test_a_step_is_damped_least_squares(model, start):
    servo, oracle, rng = ToolServo(model), Oracle(model), np.random.default_rng(0)
    servo.start(start)
    for _ in range(20):
        position = rng.uniform([0.3, -0.3, 0.0], [0.7, 0.3, 0.5])
        quat = rng.normal(size=4)
        quat /= np.linalg.norm(quat)
        want = oracle.step(servo.q, position, quat)
        servo.tick(position, quat)
        np.testing.assert_allclose(servo.q, want, atol=1e-9)


def test_the_tool_keeps_its_speeds(model):
    servo, oracle = ToolServo(model), Oracle(model)
    fastest = turning = 0.0
    for goal, quat in (([0.5, 0.35, 0.3], [0.0, 0.7, 0.7, 0.0]), ([0.4, -0.35, 0.1], DOWN)):
        for _ in range(60):
            before = oracle.tool(servo.q)
            servo.tick(np.array(goal), np.array(quat) / np.linalg.norm(quat))
            after = oracle.tool(servo.q)
            fastest = max(fastest, float(np.linalg.norm(after[0] - before[0])) * RATE_HZ)
            turning = max(turning, float(np.linalg.norm(matrix_to_rotvec(after[1] @ before[1].T))) * RATE_HZ)
    assert 0.95 * MAX_SPEED < fastest < 1.05 * MAX_SPEED
    assert 0.5 * MAX_TURN < turning < 1.05 * MAX_TURN


@pytest.mark.parametrize("start", [STRETCHED, FOLDED])
@pytest.mark.parametrize("goal", [[3.0, 0.0, 0.3], [0.0, 0.0, 0.0], [-0.5, 0.1, 0.2], [0.0, 0.0, 1.4]])
def test_near_singular_poses_it_stays_finite_and_slow(model, start, goal):
    servo = ToolServo(model)
    servo.start(start)
    most = np.hypot(MAX_SPEED, MAX_TURN) / RATE_HZ / (2 * DAMPING)  # the norm of a damped inverse is 1 / (2 damping)
    most += 3 * POSTURE_GAIN * np.linalg.norm(servo._high - servo._low)
    for k in range(400):
        before = servo.q
        sent = servo.tick(np.array(goal), DOWN if k % 100 < 50 else np.array([1.0, 0, 0, 0]))
        assert np.isfinite(sent).all()
        assert np.linalg.norm(servo.q - before) <= most
        assert (servo._low <= servo.q).all()
        assert (servo.q <= servo._high).all()


def test_two_servos_of_one_model_do_not_share(model):
    one, other, alone = (ToolServo(model) for _ in range(3))
    for _ in range(10):
        one.tick(np.array([0.5, 0.2, 0.3]), DOWN)
        other.tick(np.array([0.4, -0.2, 0.1]), DOWN)
        alone.tick(np.array([0.5, 0.2, 0.3]), DOWN)
    np.testing.assert_array_equal(one.q, alone.q)
