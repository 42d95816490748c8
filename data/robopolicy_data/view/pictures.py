"""Frames as the page shows them: reduced, depth coloured, many on one sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.spec import CameraSpec
from robopolicy_data.episode import Episode

BLOCK = 16  # pixels of a JPEG block with its chroma: cells of whole blocks do not bleed into one another
SHEET_PIXELS = 4_000_000  # browsers decode a sheet whole
QUALITY = 72
AT_ONCE = 16  # full frames in memory
THUMB_WIDTH, THUMB_FRAMES = 128, 12


@dataclass(frozen=True)
class Cell:
    """The size of a reduced frame, and of the place it has on a sheet, in pixels."""

    width: int
    height: int

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width in whole blocks."""
        return math.ceil(self.height / BLOCK) * BLOCK, math.ceil(self.width / BLOCK) * BLOCK


def reduced(camera: CameraSpec, width: int) -> Cell:
    """Return the size of a frame that is at most ``width`` wide."""
    width = min(width, camera.width)
    return Cell(width, max(1, round(camera.height * width / camera.width)))


def sheets(episode: Episode, camera: str, spec: CameraSpec, frames: np.ndarray, cell: Cell) -> list[bytes]:
    """Return JPEG sheets with the given frames (N,), `per_sheet` a sheet, left to right and top to bottom."""
    columns, count = layout(cell)
    found = []
    coloured = depth_range(episode, camera) if spec.kind == "depth" else None
    for first in range(0, len(frames), count):
        chosen = frames[first : first + count]
        pictures = [
            _resized(colour(frame, coloured), cell)
            for some in range(0, len(chosen), AT_ONCE)
            for frame in episode.frames(camera, chosen[some : some + AT_ONCE])
        ]
        found.append(_encode(_grid(pictures, columns, cell), _quality(cell)))
    return found


def layout(cell: Cell) -> tuple[int, int]:
    """Return a sheet's columns and how many frames it holds."""
    height, width = cell.padded
    columns = max(1, 2560 // width)
    return columns, columns * max(1, SHEET_PIXELS // (columns * width * height))


def thumbnail(episode: Episode, camera: str, spec: CameraSpec) -> tuple[bytes, int, Cell]:
    """Return a JPEG strip of the episode's course, how many frames it has, and the size of each."""
    cell = reduced(spec, THUMB_WIDTH)
    count = episode.frame_count(camera)
    frames = np.unique(np.linspace(0, count - 1, min(count, THUMB_FRAMES)).round().astype(int))
    coloured = depth_range(episode, camera) if spec.kind == "depth" else None
    pictures = [_resized(colour(f, coloured), cell) for f in episode.frames(camera, frames)]
    return _encode(_grid(pictures, len(pictures), cell)), len(pictures), cell


def depth_range(episode: Episode, camera: str) -> tuple[int, int]:
    """Return the depths (near, far) in mm between which nearly all of an episode lies; a few frames are looked at."""
    count = episode.frame_count(camera)
    frames = episode.frames(camera, np.unique(np.linspace(0, count - 1, min(count, 6)).round().astype(int)))
    known = frames[frames > 0]
    if not len(known):
        return 0, 1
    near, far = np.quantile(known[:: max(1, len(known) // 200_000)], [0.01, 0.99])
    return int(near), max(int(far), int(near) + 1)


def depth_in_words(depths_mm: tuple[int, int]) -> str:
    """Return the range as a caption."""
    return f"{depths_mm[0] / 1000:.2f} to {depths_mm[1] / 1000:.2f} m"


def colour(frame: np.ndarray, depths_mm: tuple[int, int] | None) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB: a picture as it is; of a depth map (H, W) near is red, far blue, unknown black."""
    if depths_mm is None:
        return frame
    import cv2

    near, far = depths_mm
    share = np.clip((far - frame.astype(np.float32)) / (far - near), 0, 1)
    mapped: np.ndarray = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    mapped[frame == 0] = 0
    return mapped


def jpeg(picture: np.ndarray, quality: int = 92) -> bytes:
    """Encode (H, W, 3) uint8 RGB."""
    return _encode(picture, quality)


def _resized(picture: np.ndarray, cell: Cell) -> np.ndarray:
    import cv2

    if picture.shape[:2] == (cell.height, cell.width):
        return picture
    smaller: np.ndarray = cv2.resize(picture, (cell.width, cell.height), interpolation=cv2.INTER_AREA)
    return smaller


def _grid(pictures: Sequence[np.ndarray], columns: int, cell: Cell) -> np.ndarray:
    height, width = cell.padded
    columns = min(columns, len(pictures))
    sheet = np.zeros((math.ceil(len(pictures) / columns) * height, columns * width, 3), np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        place = sheet[row * height : (row + 1) * height, column * width : (column + 1) * width]
        place[...] = np.pad(picture, ((0, height - cell.height), (0, width - cell.width), (0, 0)), mode="edge")
    return sheet


def _quality(cell: Cell) -> int:
    """Return the JPEG quality of a sheet: small frames are shown enlarged."""
    return QUALITY if cell.width > 160 else 88


def _encode(picture: np.ndarray, quality: int = QUALITY) -> bytes:
    import simplejpeg

    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality, "RGB", "420")
    return data
