"""The tool servo: damped least-squares inverse kinematics that walks joint targets towards a tool pose."""

import math

import mujoco
import numpy as np

from sim_envs.arm import HOME, JOINTS, KP, KV, TOOL

RATE_HZ = 100.0
GAIN = 0.3  # of the remaining error closed each tick: a time constant of 28 ms
MAX_SPEED = 0.8  # m/s of the tool, whatever is asked
MAX_TURN = 4.0  # rad/s of the tool
DAMPING = 0.02  # bounds joint speeds near singular poses; slows the approach there, does not bias it
DAMPED = DAMPING**2 * np.eye(6)
LEAD = KV / KP * RATE_HZ  # ticks by which a set-point goes before the reference, so that damping costs no lag
POSTURE_GAIN = 0.01  # of the way to the home posture each tick, in the one direction that does not move the tool


class ToolServo:
    """Turns tool poses into joint targets; it looks at its own joint reference, never at the measured joints.

    Buss, Introduction to Inverse Kinematics with Jacobian Transpose, Pseudoinverse and Damped Least Squares
    Methods, 2004, eq. 11, with the posture term in the null space.

    Args:
        model: the compiled scene with the arm in it.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._data = data = mujoco.MjData(model)  # for kinematics only
        self._site = model.site(TOOL).id
        qpos, dof = (int(adr[0]) for adr in (model.joint(JOINTS[0]).qposadr, model.joint(JOINTS[0]).dofadr))
        self._low, self._high = np.array([model.joint(name).range for name in JOINTS]).T  # (7,) rad
        self._home = np.array(HOME)
        # Views of what MuJoCo writes: a chain's joints follow one another, and a slice costs a fifth of an index.
        self._qpos = data.qpos[qpos : qpos + len(JOINTS)]
        self._position, self._matrix = data.site_xpos[self._site], data.site_xmat[self._site]
        jacobian = np.zeros((6, model.nv))
        self._linear, self._angular = jacobian[:3], jacobian[3:]
        self._jacobian = jacobian[:, dof : dof + len(JOINTS)]  # (6, 7)
        self._error, self._move = np.zeros(6), np.zeros(6)  # m and rad
        self._inverse, self._turn = np.zeros(4), np.zeros(4)
        self._square, self._solution = np.zeros((6, 6)), np.zeros(6)
        self.q = np.array(HOME)  # (7,) rad, the reference

    def start(self, q: np.ndarray) -> None:
        """Begin at joint positions ``q`` (7,) rad."""
        self.q = np.clip(q, self._low, self._high)

    def tick(self, position: np.ndarray, quat: np.ndarray) -> np.ndarray:
        """Walk 1 / RATE_HZ seconds towards the tool pose and return the joint actuators' set-points (7,) rad.

        The set-point leads the reference by kv / kp seconds of its velocity, so that damping costs no lag.
        """
        before = self.q
        self._step(position, quat)
        return self.q + LEAD * (self.q - before)

    def solve(self, position: np.ndarray, quat: np.ndarray, *, tolerance: float = 1e-5, ticks: int = 400) -> float:
        """Walk until the tool reaches the pose; return the error that is left (m, with rad counted as m)."""
        for _ in range(ticks):
            self._step(position, quat)
            if max(map(abs, self._error.tolist())) < tolerance:
                break
        return float(np.abs(self._error).max())

    def _step(self, position: np.ndarray, quat: np.ndarray) -> None:
        model, data, j, square = self._model, self._data, self._jacobian, self._square
        self._qpos[:] = self.q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._linear, self._angular, self._site)
        self._measure(position, quat)
        x, y, z, rx, ry, rz = self._error.tolist()  # numpy is written for larger arrays
        near = min(GAIN, MAX_SPEED / RATE_HZ / (math.sqrt(x * x + y * y + z * z) + 1e-12))
        turn = min(GAIN, MAX_TURN / RATE_HZ / (math.sqrt(rx * rx + ry * ry + rz * rz) + 1e-12))
        self._move[:] = near * x, near * y, near * z, turn * rx, turn * ry, turn * rz
        posture = POSTURE_GAIN * (self._home - self.q)
        np.matmul(j, j.T, out=square)
        square += DAMPED
        mujoco.mju_cholFactor(square, 0.0)
        mujoco.mju_cholSolve(self._solution, square, self._move - j @ posture)
        q = self.q + posture + j.T @ self._solution
        self.q = np.minimum(np.maximum(q, self._low, out=q), self._high, out=q)  # np.clip takes five times as long

    def _measure(self, position: np.ndarray, quat: np.ndarray) -> None:
        inverse, turn, error = self._inverse, self._turn, self._error
        np.subtract(position, self._position, out=error[:3])
        mujoco.mju_mat2Quat(inverse, self._matrix)
        mujoco.mju_negQuat(inverse, inverse)
        mujoco.mju_mulQuat(turn, quat, inverse)  # the turn in the base frame
        mujoco.mju_quat2Vel(error[3:], turn, 1.0)
