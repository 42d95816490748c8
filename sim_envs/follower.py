"""A twin that follows an observer's estimate by forces alone: slower than the observer, and it never jumps."""

from collections.abc import Sequence

import mujoco
import numpy as np

from sim_envs.observer_history import turn_between
from sim_envs.stability import blew_up, forget_warnings, rest
from sim_envs.tracked import Tracked

BANDWIDTH_HZ = 3.0  # below 1 / (4 latency) at 64 ms: what the estimate cannot know yet is not chased
BREAKAWAY = 1.2  # of the friction that holds an object at rest is overcome for it, or small errors would stay
NEAR_M, NEAR_RAD = 0.0004, 0.005  # errors at which that help has half its strength


class Follower:
    """Draws the joints and objects of one MuJoCo state to where they are in another, the target.

    A critically damped spring in acceleration, a = w^2 e + 2 w de/dt, becomes forces by the mass matrix; objects at
    rest get the help of `BREAKAWAY`, since friction would swallow small forces. The target is corrected by late
    measurements and re-based (`Observer`), so these forces follow no delayed error.

    Args:
        model: of both.
        data: drawn; somebody else steps it, with the commands.
        joints: names of the measured joints.
        objects: tracked ones.

    Attributes:
        target: an observer's to correct; stepped by `step` with the same commands.
        recoveries: how often the drawn state blew up, and was put where the target is.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, joints: Sequence[str], objects: Sequence[Tracked]
    ) -> None:
        self._model, self._data = model, data
        self.target = mujoco.MjData(model)
        self._qpos = np.array([model.joint(name).qposadr[0] for name in joints], int)
        self._dofs = np.array([model.joint(name).dofadr[0] for name in joints], int)
        self._objects = [
            (int(model.joint(o.name).qposadr[0]), int(model.joint(o.name).dofadr[0]), _held(model, o), o.planar)
            for o in objects
        ]
        self._acceleration, self._force = np.zeros(model.nv), np.zeros(model.nv)
        self.recoveries = 0
        self.begin()

    def begin(self) -> None:
        """Put the target where the drawn state is."""
        for target, source in ((self.target.qpos, self._data.qpos), (self.target.qvel, self._data.qvel)):
            target[:] = source
        self.target.ctrl[:], self.target.time = self._data.ctrl, self._data.time
        self._data.qfrc_applied[:] = 0
        forget_warnings(self._data)
        mujoco.mj_forward(self._model, self.target)

    def pull(self) -> None:
        """Set the forces of the next few steps, by the errors of now."""
        data, target, a = self._data, self.target, self._acceleration
        w = 2 * np.pi * BANDWIDTH_HZ
        a[:] = 0
        a[self._dofs] = w**2 * (target.qpos - data.qpos)[self._qpos] + 2 * w * (target.qvel - data.qvel)[self._dofs]
        for at, dof, held, planar in self._objects:
            error = target.qpos[at : at + 3] - data.qpos[at : at + 3]
            turn = turn_between(data.qpos[at + 3 : at + 7], target.qpos[at + 3 : at + 7])  # base frame
            spin = np.zeros(3)  # MuJoCo's angular velocity is in the body's own frame
            inverse = data.qpos[at + 3 : at + 7] * [1, -1, -1, -1]
            mujoco.mju_rotVecQuat(spin, turn, inverse)
            slip = (target.qvel - data.qvel)[dof : dof + 6]
            a[dof : dof + 3] = w**2 * error + 2 * w * slip[:3] + held[0] * error / (np.linalg.norm(error) + NEAR_M)
            a[dof + 3 : dof + 6] = w**2 * spin + 2 * w * slip[3:] + held[1] * spin / (np.linalg.norm(spin) + NEAR_RAD)
            if planar:
                a[dof + 2 : dof + 5] = 0
        mujoco.mj_mulM(self._model, data, self._force, a)
        data.qfrc_applied[:] = self._force

    def step(self) -> None:
        """Step the target to the time of the drawn state, with the commands that are in force there."""
        if blew_up(self._data):
            self._recover()
        self.target.ctrl[:] = self._data.ctrl
        steps = round((self._data.time - self.target.time) / self._model.opt.timestep)
        if steps > 0:
            mujoco.mj_step(self._model, self.target, steps)
        mujoco.mj_kinematics(self._model, self.target)

    def _recover(self) -> None:
        """Put the drawn state, which blew up, where the target was before this step, at rest."""
        data, target = self._data, self.target
        data.qpos[:], data.ctrl[:], data.time = target.qpos, target.ctrl, target.time
        rest(self._model, data)
        self.recoveries += 1


def _held(model: mujoco.MjModel, one: Tracked) -> tuple[float, float]:
    """Return the linear (m/s^2) and angular (rad/s^2) accelerations that friction on a table takes to overcome."""
    body = int(model.joint(one.name).bodyid[0])
    geoms = [g for g in range(model.ngeom) if model.geom_bodyid[g] == body]
    friction = max((float(model.geom_friction[g, 0]) for g in geoms), default=0.0)
    mass, inertia = float(model.body_mass[body]), float(model.body_inertia[body].max())
    gravity = float(np.linalg.norm(model.opt.gravity))
    arm = float(np.sqrt(inertia / mass))  # the friction's lever: about the radius of gyration
    return BREAKAWAY * friction * gravity, BREAKAWAY * friction * gravity * mass * arm / inertia
