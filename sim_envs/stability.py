"""Physics that is no physics any more: noticed, and put to rest where somebody puts it."""

import mujoco
import numpy as np

BAD = [w.value for w in (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL,
                         mujoco.mjtWarning.mjWARN_BADQACC)]  # fmt: skip
FASTEST = 1e3  # m/s or rad/s


def blew_up(data: mujoco.MjData) -> bool:
    """Whether a state is not finite, too fast, or was put back to its defaults by MuJoCo since `forget_warnings`."""
    warned = any(data.warning[kind].number for kind in BAD)
    fine = np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all() and np.abs(data.qvel).max(initial=0) < FASTEST
    return warned or not fine


def forget_warnings(data: mujoco.MjData) -> None:
    """Set MuJoCo's counters to nothing: its own reset leaves them at one, the first time and every other."""
    for kind in BAD:
        data.warning[kind].number = 0


def rest(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Go on at rest from the positions that ``data`` was given after it blew up."""
    for what in (data.qvel, data.qacc_warmstart, data.xfrc_applied, data.qfrc_applied):
        what[:] = 0
    mujoco.mj_forward(model, data)
    forget_warnings(data)
