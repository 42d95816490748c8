"""A contact sheet of what perturbations look like: an axis a row, a severity a column, the same start in all."""

from collections.abc import Sequence

import cv2
import numpy as np

from robopolicy.clock import SimClock
from robopolicy.errors import ContractError, UnknownName, UsageError
from robopolicy.interfaces import Task
from sim_envs.perturbations import Perturbation, axes_of, perturb
from sim_envs.rendering import OFFSCREEN
from sim_envs.twin import Twin

SEEN = ("pose", "size", "goal", "camera", "lighting", "texture", "distractors")  # at the start of an episode
SEVERITIES = (0.0, 0.25, 0.5, 1.0)
MARGIN, LABEL = 4, 22  # px
INK, PAPER = (40, 40, 40), 250


def draw_sheet(
    task: Task,
    *,
    axes: Sequence[str] | None = None,
    severities: Sequence[float] = SEVERITIES,
    seed: int = 0,
    camera: str = "front",
    size: tuple[int, int] = (180, 240),
) -> tuple[np.ndarray, dict[str, str]]:
    """Return the sheet (H, W, 3) uint8 RGB, and in words what was drawn for each axis at the last severity.

    Args:
        task: what is on the table.
        axes: None is all that can be seen and that this task has.
        severities: 0 to 1 each.
        seed: of the start and of all draws.
        camera: ``front``, ``wrist``, or ``view``, which no axis moves.
        size: (H, W) of each picture, at most 480 x 640.

    Raises:
        UnknownName, UsageError: naming the axes, or the cameras, that there are.
        ContractError: if a severity is none, or a picture too large.
    """
    if not (0 < size[0] <= OFFSCREEN[0] and 0 < size[1] <= OFFSCREEN[1]):
        raise ContractError(f"a picture of {size[0]} x {size[1]}; at most {OFFSCREEN[0]} x {OFFSCREEN[1]} (H x W)")
    world = Twin(task, SimClock(), cameras=(), size=size)
    try:
        cameras = [world.model.camera(i).name for i in range(world.model.ncam)]
        if camera not in cameras:
            raise UnknownName("camera", camera, cameras)
        possible = axes_of(world)
        axes = [name for name in SEEN if name in possible] if axes is None else axes
        if unseen := [name for name in axes if name not in SEEN]:
            raise UsageError(f"{unseen[0]} cannot be seen in a picture of the start; those that can: {', '.join(SEEN)}")
        rows, told = [], {}
        for axis in axes:
            pictures = []
            for severity in severities:
                perturbed = perturb(world, [Perturbation(axis, severity)])
                perturbed.reset(seed)
                pictures.append(world.draw(camera, *size))
                told[axis] = perturbed.describe().get(axis, "nothing")
                perturbed.restore()
            rows.append((axis, pictures))
    finally:
        world.close()
    return _laid_out(rows, [f"{severity:g}" for severity in severities], size), told


def _laid_out(rows: list[tuple[str, list[np.ndarray]]], titles: list[str], size: tuple[int, int]) -> np.ndarray:
    height, width = size[0] + MARGIN, size[1] + MARGIN
    left = 110
    sheet = np.full((LABEL + len(rows) * height, left + len(titles) * width, 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        _write(sheet, title, (left + column * width + size[1] // 2 - 12, LABEL - 7))
    for row, (axis, pictures) in enumerate(rows):
        top = LABEL + row * height
        _write(sheet, axis, (6, top + size[0] // 2))
        for column, picture in enumerate(pictures):
            x = left + column * width
            sheet[top : top + size[0], x : x + size[1]] = picture
    return sheet


def _write(sheet: np.ndarray, text: str, at: tuple[int, int]) -> None:
    cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK, 1, cv2.LINE_AA)
