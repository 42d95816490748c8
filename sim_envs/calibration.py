"""Where a MuJoCo camera is and how it projects, in OpenCV's convention."""

from typing import Any

import mujoco
import numpy as np

from sim_envs.arm import TOOL

FLIP = np.diag([1.0, -1.0, -1.0])  # MuJoCo's camera looks along -z with y up; OpenCV's along +z with y down


def calibrate(model: mujoco.MjModel, data: mujoco.MjData, camera: str, height: int, width: int) -> dict[str, Any]:
    """Return ``{"K": 3x3, "T_base_cam": 4x4, "size": [H, W]}`` as lists; ``"T_tool_cam"`` if it rides on the hand.

    A point p in the base frame lands on the pixel K T_base_cam^-1 p; the centre of the first pixel is (0, 0).
    """
    pose = camera_pose(model, data, camera)
    found: dict[str, Any] = {
        "K": intrinsics(model, camera, height, width),
        "T_base_cam": pose.tolist(),
        "size": [height, width],
    }
    if model.cam_bodyid[model.camera(camera).id] != 0:
        site = model.site(TOOL).id
        tool = _pose(data.site_xpos[site], data.site_xmat[site].reshape(3, 3))
        found["T_tool_cam"] = (np.linalg.inv(tool) @ pose).tolist()
    return found


def intrinsics(model: mujoco.MjModel, camera: str, height: int, width: int) -> list[list[float]]:
    """Return K (3, 3), pixels, of a picture of that size."""
    focal = height / 2 / np.tan(np.radians(model.cam_fovy[model.camera(camera).id]) / 2)  # the same both ways
    return [[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]


def camera_pose(model: mujoco.MjModel, data: mujoco.MjData, camera: str) -> np.ndarray:
    """Return T_world_cam (4, 4) as the camera stands now."""
    index = model.camera(camera).id
    return _pose(data.cam_xpos[index], data.cam_xmat[index].reshape(3, 3) @ FLIP)


def _pose(position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose
