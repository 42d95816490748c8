"""Where a MuJoCo camera is and how it projects, in OpenCV's convention."""

from typing import Any

import mujoco
import numpy as np

from sim_envs.arm import TOOL

FLIP = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera looks along -z with y up; OpenCV's along +z with y down


def calibrate(model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int) -> dict[str, Any]:
    """Return ``{"K": 3x3, "T_base_cam": 4x4}`` as lists, and ``"T_tool_cam"`` if the camera rides on the hand.

    A point p in the base frame lands on the pixel K T_base_cam^-1 p; the centre of the first pixel is (0, 0).
    """
    index = model.camera(camera).id
    focal = height / 2 / np.tan(np.radians(model.cam_fovy[index]) / 2)  # pixels, the same both ways
    matrix = [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]
    pose = _pose(data.cam_xpos[index], data.cam_xmat[index].reshape(3, 3) @ FLIP)
    found: dict[str, Any] = {"K": matrix, "T_base_cam": pose.tolist()}
    if model.cam_bodyid[index] != 0:
        site = model.site(TOOL).id
        tool = _pose(data.site_xpos[site], data.site_xmat[site].reshape(3, 3))
        found["T_tool_cam"] = (np.linalg.inv(tool) @ pose).tolist()
    return found


def _pose(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose
