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
        self._data = mujoco.MjData(model)  # for kinematics only
        self._site = model.site(TOOL).id
        self._qpos = np.array([model.joint(name).qposadr[0] for name in JOINTS])
        self._dofs = np.array([model.joint(name).dofadr[0] for name in JOINTS])
        self._low, self._high = np.array([model.joint(name).range for name in JOINTS]).T  # (7,) rad
        self._home = np.array(HOME)
        self._jacobian = np.zeros((6, model.nv))
        self._error = np.zeros(6)
        self._inverse, self._turn = np.zeros(4), np.zeros(4)
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
        return self.q + (KV / KP) * (self.q - before) * RATE_HZ

    def solve(self, position: np.ndarray, quat: np.ndarray, *, tolerance: float = 1e-5, ticks: int = 400) -> float:
        """Walk until the tool reaches the pose; return the error that is left (m, with rad counted as m)."""
        for _ in range(ticks):
            self._step(position, quat)
            if np.abs(self._error).max() < tolerance:
                break
        return float(np.abs(self._error).max())

    def _step(self, position: np.ndarray, quat: np.ndarray) -> None:
        model, data, jacobian = self._model, self._data, self._jacobian
        data.qpos[self._qpos] = self.q
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], self._site)
        self._measure(position, quat)
        move = GAIN * self._error  # (6,) m and rad
        linear, angular = move[:3], move[3:]
        linear *= min(1.0, MAX_SPEED / RATE_HZ / (_length(linear) + 1e-12))
        angular *= min(1.0, MAX_TURN / RATE_HZ / (_length(angular) + 1e-12))
        j = jacobian[:, self._dofs]
        posture = POSTURE_GAIN * (self._home - self.q)
        wanted = move - j @ posture
        q = self.q + posture + j.T @ np.linalg.solve(j @ j.T + DAMPED, wanted)
        self.q = np.minimum(np.maximum(q, self._low, out=q), self._high, out=q)  # np.clip takes five times as long

    def _measure(self, position: np.ndarray, quat: np.ndarray) -> None:
        data, inverse, turn = self._data, self._inverse, self._turn
        np.subtract(position, data.site_xpos[self._site], out=self._error[:3])
        mujoco.mju_mat2Quat(inverse, data.site_xmat[self._site])
        inverse[1:] *= -1
        mujoco.mju_mulQuat(turn, quat, inverse)  # the turn in the base frame
        mujoco.mju_quat2Vel(self._error[3:], turn, 1.0)


def _length(vector: np.ndarray) -> float:
    """Return what np.linalg.norm does, which is written for large arrays."""
    return math.sqrt(vector.dot(vector))
