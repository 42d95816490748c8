"""What the twin is commanded with: a tool pose or joint positions, checked, and walked to at the servo's rate."""

import math
from typing import Protocol

import mujoco
import numpy as np

from robopolicy.errors import UnsafeCommand
from robopolicy.rotations import matrix_to_quat, matrix_to_rot6d, rot6d_to_matrix
from robopolicy.spec import TOOL_POSE, ActionSpec
from sim_envs.arm import JOINTS, KP, KV, LIMITS, TOOL
from sim_envs.servo import RATE_HZ, ToolServo

JOINT_ACTION = ActionSpec("joint", (*JOINTS, "gripper"), ("rad",) * len(JOINTS) + ("open",))
GAIN = 0.5  # of the remaining joint error closed each tick: a time constant of 14 ms
MAX_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])  # rad/s, the arm's published limits


class Drive(Protocol):
    """Turns set-points (A,) into the joint actuators' own; the gripper is the last element of every set-point."""

    action: ActionSpec

    def start(self, q: np.ndarray) -> None:
        """Begin at joint positions ``q`` (7,) rad."""
        ...

    def checked(self, action: np.ndarray) -> np.ndarray:
        """Return the set-point as it will be followed, a fresh (A,) float32; raises UnsafeCommand."""
        ...

    def present(self, data: mujoco.MjData, opening: float) -> np.ndarray:
        """Return the set-point (A,) float32 that is where the arm is now."""
        ...

    def aim(self, set_point: np.ndarray) -> None:
        """Walk to ``set_point`` (A,) from now on."""
        ...

    def tick(self) -> np.ndarray:
        """Walk 1 / RATE_HZ seconds and return the joint actuators' set-points (7,) rad."""
        ...


class ToolDrive:
    """Tool poses, through the tool servo.

    Args:
        model: the compiled scene with the arm in it.
        servo: of that model.
    """

    action = TOOL_POSE

    def __init__(self, model: mujoco.MjModel, servo: ToolServo) -> None:
        self._site, self._servo = model.site(TOOL).id, servo

    def start(self, q: np.ndarray) -> None:
        """Begin at joint positions ``q`` (7,) rad."""
        self._servo.start(q)

    def checked(self, action: np.ndarray) -> np.ndarray:
        """Return the set-point as it will be followed; raises UnsafeCommand, also on two parallel columns."""
        sent = finite(action, self.action)
        a, b, c, d, e, f = sent[3:9].tolist()
        if math.hypot(b * f - c * e, c * d - a * f, a * e - b * d) < 1e-3:  # np.cross is written for large arrays
            raise UnsafeCommand("twin: the rotation's two columns are parallel or zero; want two independent columns")
        return sent

    def present(self, data: mujoco.MjData, opening: float) -> np.ndarray:
        """Return the tool's pose now, as a set-point (10,) float32."""
        rotation = data.site_xmat[self._site].reshape(3, 3)
        return np.concatenate([data.site_xpos[self._site], matrix_to_rot6d(rotation), [opening]]).astype(np.float32)

    def aim(self, set_point: np.ndarray) -> None:
        """Walk to the tool pose ``set_point`` (10,) from now on."""
        self._target = set_point[:3].astype(np.float64), matrix_to_quat(rot6d_to_matrix(set_point[3:9]))

    def tick(self) -> np.ndarray:
        """Walk a tick and return the joint actuators' set-points (7,) rad."""
        return self._servo.tick(*self._target)


class JointDrive:
    """Joint positions, walked to no faster than the arm's published joint speeds and never beyond its limits.

    As a position controller does, it keeps its last set-point for ever.

    Args:
        model: the compiled scene with the arm in it.
    """

    action = JOINT_ACTION

    def __init__(self, model: mujoco.MjModel) -> None:
        self._qpos = np.array([model.joint(name).qposadr[0] for name in JOINTS])
        self._low, self._high = np.array(LIMITS).T

    def start(self, q: np.ndarray) -> None:
        """Begin at joint positions ``q`` (7,) rad."""
        self._q = np.clip(q, self._low, self._high)  # the reference, never the measured joints

    def checked(self, action: np.ndarray) -> np.ndarray:
        """Return the set-point as it will be followed; raises UnsafeCommand."""
        return finite(action, self.action)

    def present(self, data: mujoco.MjData, opening: float) -> np.ndarray:
        """Return the joints' positions now, as a set-point (8,) float32."""
        return np.concatenate([data.qpos[self._qpos], [opening]]).astype(np.float32)

    def aim(self, set_point: np.ndarray) -> None:
        """Walk to the joint positions ``set_point`` (8,) from now on."""
        self._target = np.clip(set_point[:-1].astype(np.float64), self._low, self._high)

    def tick(self) -> np.ndarray:
        """Walk a tick and return the joint actuators' set-points (7,) rad; they lead so that damping costs no lag."""
        most = MAX_SPEED / RATE_HZ
        move = np.clip(GAIN * (self._target - self._q), -most, most)
        self._q = self._q + move
        return self._q + (KV / KP) * move * RATE_HZ


def finite(action: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Return an action as float32, its gripper in 0 .. 1.

    Raises:
        UnsafeCommand: on a wrong length or a non-finite number.
    """
    sent = np.array(action, dtype=np.float32)
    if sent.shape != (spec.dim,):
        raise UnsafeCommand(f"twin: action of shape {sent.shape}; want ({spec.dim},): {' '.join(spec.names)}")
    if not np.isfinite(sent).all():
        bad = [name for name, value in zip(spec.names, sent, strict=True) if not np.isfinite(value)]
        raise UnsafeCommand(f"twin: action is not finite in {', '.join(bad)}; the previous set-point stays")
    sent[-1] = min(max(sent[-1], 0.0), 1.0)
    return sent
