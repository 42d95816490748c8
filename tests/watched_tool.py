"""A gripper that moves in front of cameras one metre away: motions, their tracks in the pictures, and how wrong a found
motion is."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.keypoints import TWIN
from robopolicy.geometry.motion import Tool

FOCAL = 240 / np.tan(np.radians(22.5))  # 640x480, 45 degrees of view from top to bottom
LENS = [-0.21, 0.07, 0.001, -0.002, 0.0]
STEPS = 16


def looking(azimuth: float, elevation: float = 0.6, distance: float = 1.0, lens=()) -> Camera:
    """A camera that looks at the origin from an azimuth and elevation, rad, and a distance, m."""
    ahead = -np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    right = np.cross(ahead, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.column_stack([right, np.cross(ahead, right), ahead])
    pose[:3, 3] = -distance * ahead
    return Camera([[FOCAL, 0, 319.5], [0, FOCAL, 239.5], [0, 0, 1]], pose, lens, (480, 640))


def rig(angle_deg: float = 75, views: int = 2, lens=()) -> list[Camera]:
    """Cameras spread evenly over an angle."""
    return [looking(azimuth, lens=lens) for azimuth in np.radians(np.linspace(-angle_deg / 2, angle_deg / 2, views))]


@dataclass(frozen=True)
class Reach:
    """A part of a reach of the tool, the present first: (H + 1, 3) m, (H + 1, 4) wxyz, (H + 1,)."""

    position: np.ndarray
    quat: np.ndarray
    opening: np.ndarray

    @property
    def start(self) -> Tool:
        return Tool(self.position[0], self.quat[0], float(self.opening[0]))

    def tracks(self, cameras) -> np.ndarray:
        """(V, H + 1, 5, 2) pixels."""
        points = TWIN.placed(self.position, self.quat, self.opening)
        return np.stack([camera.project(points) for camera in cameras])

    def errors(self, position, quat) -> tuple[np.ndarray, np.ndarray]:
        """Of the steps ahead, mm and degrees."""
        turned = Rotation.from_quat(quat, scalar_first=True).inv() * Rotation.from_quat(
            self.quat[1:], scalar_first=True
        )
        return 1e3 * np.linalg.norm(position - self.position[1:], axis=-1), np.degrees(turned.magnitude())


def reach(rng: np.random.Generator, opening: float | None = None, steps: int = STEPS) -> Reach:
    """Minimum-jerk motion of 5 to 25 cm and up to 70 degrees, from any pose, begun at any time before or as it starts.

    Args:
        rng: of the draws.
        opening: of the gripper; None: any, and in every other motion it changes to any other.
        steps: ahead.
    """
    attitude = Rotation.from_quat(rng.normal(size=4))
    place, way, axis = rng.uniform(-0.1, 0.1, 3), rng.normal(size=3), rng.normal(size=3)
    way *= rng.uniform(0.05, 0.25) / np.linalg.norm(way)
    axis *= rng.uniform(0, 1.2) / np.linalg.norm(axis)
    lasts = rng.integers(12, 24)
    at = np.clip((np.arange(steps + 1) + rng.integers(0, lasts // 2)) / lasts, 0, 1)
    share = (10 * at**3 - 15 * at**4 + 6 * at**5)[:, None]
    share = share - share[0]
    ends = rng.uniform(size=2)
    ends[1] = ends[rng.integers(2)]
    openings = np.linspace(*ends, steps + 1) if opening is None else np.full(steps + 1, opening)
    turned = Rotation.from_rotvec(share * axis) * attitude
    return Reach(place + share * way, turned.as_quat(scalar_first=True), openings)
