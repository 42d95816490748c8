"""Recorded commands as the joint actuators' set-points: what the twin's own drive makes of them."""

import mujoco
import numpy as np

from robopolicy.errors import UnknownName
from sim_envs.arm import JOINTS
from sim_envs.drives import Drive, JointDrive, ToolDrive
from sim_envs.servo import RATE_HZ, ToolServo

DRIVES = ("tool_pose", "joint")


def driven(
    model: mujoco.MjModel, kind: str, q: np.ndarray, start_s: float, end_s: float, due_s: np.ndarray, sent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return when each set-point takes force (K,) s and the set-points (K, 7) rad, a tick of the drive apart.

    The twin does the same while it simulates, so parameters identified behind its drive are right in the twin.

    Args:
        model: with the arm in it.
        kind: of the commands, ``"tool_pose"`` or ``"joint"``.
        q: (7,) rad, where the arm rests in the beginning.
        start_s: when the drive starts to tick.
        end_s: when the recording ends.
        due_s: (N,) when each command was due, rising.
        sent: (N, A) the commands.

    Raises:
        UnknownName: on another kind of command.
    """
    if kind not in DRIVES:
        raise UnknownName("kind of command to identify from", kind, DRIVES)
    drive: Drive = ToolDrive(model, ToolServo(model)) if kind == "tool_pose" else JointDrive(model)
    data = mujoco.MjData(model)
    data.qpos[[model.joint(name).qposadr[0] for name in JOINTS]] = q
    mujoco.mj_kinematics(model, data)
    drive.start(np.asarray(q, float))
    drive.aim(drive.present(data, 1.0))
    ticks = start_s + np.arange(int(np.ceil((end_s - start_s) * RATE_HZ)) + 1) / RATE_HZ
    newest = np.searchsorted(due_s, ticks + 1e-9, side="right") - 1  # (K,) -1 before the first command
    targets = np.empty((len(ticks), len(JOINTS)))
    for k, row in enumerate(newest):
        if row >= 0 and (k == 0 or row != newest[k - 1]):
            drive.aim(drive.checked(sent[row]))
        targets[k] = drive.tick()
    return ticks, targets
