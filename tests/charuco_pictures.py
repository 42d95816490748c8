"""Pictures of a ChArUco board whose truth is known: lens, blur of the sensor and noise included."""

import cv2
import numpy as np

from robopolicy.geometry.cameras import Camera
from robopolicy.rotations import rotvec_to_matrix
from robopolicy_hardware.cameras.board import Board
from robopolicy_hardware.cameras.charuco import Sighting

BOARD = Board(7, 5, 0.035, 0.026)
SIZE = (480, 640)
FINE = 2  # samples of a pixel both ways
A_SQUARE = 60  # texels
GREY = 120  # of everything else


def look(eye, target, roll=0.0):
    """T_base_cam (4, 4) of a camera at ``eye`` that looks at ``target``, the base's z up in the picture."""
    z = np.subtract(target, eye) / np.linalg.norm(np.subtract(target, eye))
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1) @ rotvec_to_matrix(np.array([0, 0, roll]))
    pose[:3, 3] = eye
    return pose


class Sensor:
    """Takes pictures of a board with a camera.

    Each pixel is the mean of FINE x FINE rays, each bent by the lens, cut with the board's plane.
    """

    def __init__(self, camera: Camera, board: Board = BOARD, *, noise: float = 2.0, seed: int = 0) -> None:
        self.camera, self.board, self._noise = camera, board, noise
        self._rng = np.random.default_rng(seed)
        height, width = camera.size
        x = (np.arange(width * FINE) + 0.5) / FINE - 0.5
        y = (np.arange(height * FINE) + 0.5) / FINE - 0.5
        rays = camera.rays(np.stack(np.meshgrid(x, y), axis=-1))
        self._rays = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], axis=-1)
        margin = A_SQUARE // 2  # white paper
        self._texture = cv2.copyMakeBorder(board.picture(A_SQUARE, margin), 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=GREY)
        self._origin = margin + 2 - 0.5  # texel of the board's corner

    def picture(self, T_cam_board: np.ndarray, tint=(1.0, 0.97, 0.92)) -> np.ndarray:
        """(H, W, 3) uint8 RGB of a board somewhere in front of the camera."""
        turn, place = T_cam_board[:3, :3], T_cam_board[:3, 3]
        reach = (place @ turn[:, 2]) / (self._rays @ turn[:, 2])
        on = (self._rays * reach[..., None] - place) @ turn[:, :2]
        texels = (on / self.board.square_m * A_SQUARE + self._origin).astype(np.float32)
        texels[reach <= 0] = -1e4
        seen = cv2.remap(
            self._texture, texels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=GREY
        )
        height, width = self.camera.size
        grey = seen.reshape(height, FINE, width, FINE).mean(axis=(1, 3)) * 0.8 + 20
        rgb = grey[..., None] * np.array(tint) + self._rng.normal(0, self._noise, (height, width, 3))
        return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def facing(distance: float, tilt=(0.0, 0.0, 0.0), aside=(0.0, 0.0), board: Board = BOARD) -> np.ndarray:
    """T_cam_board of a board whose middle is on the axis, shifted ``aside`` m and tilted by a rotation vector, rad."""
    pose = np.eye(4)
    pose[:3, :3] = rotvec_to_matrix(np.asarray(tilt, float))
    middle = np.array([*board.size_m, 0.0]) / 2
    pose[:3, 3] = np.array([*aside, distance]) - pose[:3, :3] @ middle
    return pose


def many_poses(count: int, seed: int = 0, distance=(0.32, 0.5)) -> list[np.ndarray]:
    """Poses before a camera, tilted in every direction, near the middle and the edges."""
    rng, poses = np.random.default_rng(seed), []
    for k in range(count):
        angle = 2 * np.pi * k / count * 2.4
        tilt = np.radians(rng.uniform(15, 38)) * np.array([np.cos(angle), np.sin(angle), 0])
        far = rng.uniform(*distance)
        aside = rng.uniform(-0.28, 0.28) * far, rng.uniform(-0.2, 0.2) * far
        poses.append(facing(far, tilt + np.array([0, 0, rng.uniform(-0.5, 0.5)]), aside))
    return poses


def seen_exactly(camera, T_cam_board, view="front", moment="0", board=BOARD, rng=None, noise=0.1) -> Sighting:
    """What a perfect finder with ``noise`` px would say of a board: the corners inside the picture."""
    points = board.corners
    pixels = Camera(camera.K, np.eye(4), camera.distortion).project(points @ T_cam_board[:3, :3].T + T_cam_board[:3, 3])
    inside = camera.inside(pixels)
    if rng is not None:
        pixels = pixels + rng.normal(0, noise, pixels.shape)
    return Sighting(view, moment, points[inside], pixels[inside], camera.size)


K = np.array([[611.0, 0, 318.7], [0, 608.0, 241.2], [0, 0, 1]])
LENS = (-0.21, 0.07, 0.001, -0.002)
MIDDLE = np.array([0.45, 0.0, 0.2])  # m, where the board is carried
CAMERAS = {
    "left": Camera(K, look((0.95, 0.38, 0.55), MIDDLE), LENS, SIZE),
    "right": Camera(K, look((0.95, -0.36, 0.5), MIDDLE, roll=0.1), LENS, SIZE),
}
T_TOOL_BOARD = np.eye(4)
T_TOOL_BOARD[:3, :3] = rotvec_to_matrix(np.array([0.1, 0.05, -0.2]))
T_TOOL_BOARD[:3, 3] = (-0.12, -0.09, 0.05)


def boards_in_base(count: int, seed: int = 0, turn_deg=(25, 25, 30), reach=(0.16, 0.16, 0.14)) -> list[np.ndarray]:
    """T_base_board of boards carried about MIDDLE, facing between the two cameras."""
    rng = np.random.default_rng(seed)
    between = np.mean([camera.T_base_cam[:3, 3] for camera in CAMERAS.values()], axis=0)
    facing_them, found = look(between, MIDDLE)[:3, :3], []
    for _ in range(count):
        pose = np.eye(4)
        pose[:3, :3] = facing_them @ rotvec_to_matrix(rng.uniform(-1, 1, 3) * np.radians(turn_deg))
        pose[:3, 3] = MIDDLE + rng.uniform(-1, 1, 3) * reach - pose[:3, :3] @ [*np.array(BOARD.size_m) / 2, 0]
        found.append(pose)
    return found


def told(pose: np.ndarray, rng, mm: float, deg: float) -> np.ndarray:
    """A pose as an arm says it that errs by so much along and about each axis, 1 sigma."""
    made = pose.copy()
    made[:3, 3] += rng.normal(0, mm / 1000, 3)
    made[:3, :3] = made[:3, :3] @ rotvec_to_matrix(rng.normal(0, np.radians(deg), 3))
    return made


def apart(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """How far two poses are apart, mm and degrees."""
    between = np.linalg.inv(a) @ b
    angle = np.arccos(np.clip((np.trace(between[:3, :3]) - 1) / 2, -1, 1))
    return 1000 * float(np.linalg.norm(between[:3, 3])), float(np.degrees(angle))
