"""Recorded states seen again from any camera: the twin is posed, nothing is simulated."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, UnknownCamera
from robopolicy.interfaces import Task
from sim_envs.arm import look
from sim_envs.calibration import calibrate
from sim_envs.rendering import OFFSCREEN, Painter
from sim_envs.twin import Twin

FREE = "free"  # name of the camera that is put somewhere


@dataclass(frozen=True)
class Eye:
    """A camera of one's own.

    Raises:
        ContractError: if it looks nowhere.
    """

    position: tuple[float, float, float]  # m, base frame
    target: tuple[float, float, float]  # m, it looks there, the base frame's z up in the picture
    fovy_deg: float = 45.0

    def __post_init__(self) -> None:
        way = np.subtract(self.target, self.position)
        if not np.isfinite(way).all() or np.linalg.norm(way) < 1e-6:
            raise ContractError(f"a camera at {self.position} cannot look at {self.target}")
        if not 1.0 <= self.fovy_deg <= 170.0:
            raise ContractError(f"a field of view of {self.fovy_deg:g} degrees; want 1 to 170")


class Views:
    """Draws recorded states.

    Args:
        task: what was on the table.
        camera: one of the twin's (``front``, ``wrist``, ``view``), or an `Eye`.
        size: (H, W) pixels, at most 480 x 640.

    Raises:
        UnknownCamera: naming those there are.
        ContractError: if the picture is too large.
    """

    def __init__(self, task: Task, camera: str | Eye, size: tuple[int, int] = (240, 320)) -> None:
        if not (0 < size[0] <= OFFSCREEN[0] and 0 < size[1] <= OFFSCREEN[1]):
            raise ContractError(f"a picture of {size[0]} x {size[1]}; at most {OFFSCREEN[0]} x {OFFSCREEN[1]} (H x W)")
        self._twin = Twin(_WithEye(task, camera) if isinstance(camera, Eye) else task, SimClock(), cameras=())
        self.camera = FREE if isinstance(camera, Eye) else camera
        names = [self._twin.model.camera(i).name for i in range(self._twin.model.ncam)]
        if self.camera not in names:
            raise UnknownCamera("camera", self.camera, names)
        self._size = size
        self._painter: Painter | None = None

    def draw(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return what the camera sees of ``state``, as `Twin.reset_to` takes it; (H, W, 3) uint8 RGB.

        Raises:
            ContractError: naming what the state lacks.
            NoGLBackend: with the remedy.
        """
        if self._painter is None:
            self._painter = Painter(self._twin.model)
        self._twin.reset_to(state)
        return self._painter.draw(self._twin.data, self.camera, *self._size)

    def draw_all(self, states: Iterable[Mapping[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Draw one after the other."""
        return map(self.draw, states)

    def calibration(self) -> dict[str, Any]:
        """Return ``{"K": 3x3, "T_base_cam": 4x4}`` of the last picture, as `Twin.camera_calibration` does."""
        return calibrate(self._twin.model, self._twin.data, self.camera, *self._size)

    def close(self) -> None:
        """Free the renderer; idempotent."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None


class _WithEye:
    """A task whose scene has one camera more."""

    def __init__(self, task: Task, eye: Eye) -> None:
        self._task, self._eye = task, eye

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build(self) -> mujoco.MjSpec:
        """Return the task's scene with the camera in it."""
        scene, eye = self._task.build(), self._eye
        straight = abs(np.subtract(eye.target, eye.position)[:2]).max() < 1e-6  # down or up: x is up in the picture
        quat = look(eye.position, eye.target, up=(1, 0, 0) if straight else (0, 0, 1))
        scene.worldbody.add_camera(name=FREE, pos=eye.position, quat=quat, fovy=eye.fovy_deg)
        return scene
