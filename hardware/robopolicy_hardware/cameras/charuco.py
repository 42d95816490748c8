"""The corners of a ChArUco board, found in pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robopolicy_hardware.cameras.board import Board

FEWEST = 6  # corners that a picture must show, not all of them on a line
WINDOW = 2, 7  # px around a corner in which it is sought, at least and at most, to each side
SQUARE_PX = 12.0  # a square's edge below which corners are not found well


@dataclass(frozen=True)
class Sighting:
    """A board seen in one picture.

    Args:
        view: name of the camera.
        moment: name of the instant; pictures of several cameras at the same one share it.
        points: (N, 3) m, corners in the board's frame.
        pixels: (N, 2), where they are in the picture; the centre of the first pixel is (0, 0).
        size: (H, W) of the picture.
    """

    view: str
    moment: str
    points: np.ndarray
    pixels: np.ndarray
    size: tuple[int, int]

    @property
    def square_px(self) -> float:
        """Edge of a square in the picture, as a mean over the seen area."""
        flat, seen = (one - one.mean(axis=0) for one in (self.points[:, :2], self.pixels))
        linear = np.linalg.lstsq(flat, seen, rcond=None)[0]
        x, y = self.points[:, 0], self.points[:, 1]
        gaps = np.concatenate([np.diff(np.unique(np.round(x, 6))), np.diff(np.unique(np.round(y, 6)))])
        return float(np.sqrt(abs(np.linalg.det(linear))) * gaps.min())


class BoardFinder:
    """Finds one board.

    Args:
        board: which.

    Raises:
        UnknownName, ContractError: as `Board.opencv`.
    """

    def __init__(self, board: Board) -> None:
        import cv2

        self._cv2, self._corners = cv2, board.corners
        self._gap = (1 - board.marker_m / board.square_m) / 2  # between a corner and the next marker, of a square
        parameters = cv2.aruco.DetectorParameters()
        parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_NONE  # the chessboard's corners are refined
        self._detector: Any = cv2.aruco.CharucoDetector(
            board.opencv(), cv2.aruco.CharucoParameters(), parameters, cv2.aruco.RefineParameters()
        )

    def find(self, picture: np.ndarray, view: str = "camera", moment: str = "0") -> Sighting | None:
        """Return what a picture (H, W, 3) RGB or (H, W) uint8 shows of the board; None if that is too little."""
        grey = picture if picture.ndim == 2 else self._cv2.cvtColor(picture, self._cv2.COLOR_RGB2GRAY)
        pixels, ids, _, _ = self._detector.detectBoard(np.ascontiguousarray(grey))
        if ids is None or len(ids) < FEWEST:
            return None
        points = self._corners[np.ravel(ids)]
        if min(np.linalg.svd(points[:, :2] - points[:, :2].mean(axis=0), compute_uv=False)) < 1e-6:
            return None  # on a line
        height, width = grey.shape
        seen = Sighting(view, moment, points, np.asarray(pixels, np.float64).reshape(-1, 2), (height, width))
        return replace(seen, pixels=self._refined(grey, seen))

    def _refined(self, grey: np.ndarray, seen: Sighting) -> np.ndarray:
        """Return corners found anew, in windows that no marker reaches into.

        OpenCV 4.10 puts those of its own half a pixel off.
        """
        cv2 = self._cv2
        half = int(np.clip(self._gap * seen.square_px, *WINDOW))
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 40, 1e-3)
        start = np.ascontiguousarray(seen.pixels, np.float32).reshape(-1, 1, 2)
        found = cv2.cornerSubPix(np.ascontiguousarray(grey), start, (half, half), (-1, -1), stop)
        return np.asarray(found, np.float64)[:, 0]


def pose_of(seen: Sighting, K: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Return T_cam_board (4, 4) m by which a sighting reprojects best."""
    import cv2

    shots = seen.points, seen.pixels, K, distortion
    found, turns, shifts, _ = cv2.solvePnPGeneric(*shots, flags=cv2.SOLVEPNP_IPPE)
    if not found:
        raise ValueError(f"no pose of the board in {seen.view} {seen.moment}")
    turn, shift = cv2.solvePnPRefineLM(*shots, turns[0], shifts[0])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], np.ravel(shift)
    return pose


def project(points: np.ndarray, K: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Return pixels (N, 2) of points (N, 3) m in the camera's frame."""
    import cv2

    zero = np.zeros(3)
    found: np.ndarray = cv2.projectPoints(np.ascontiguousarray(points), zero, zero, K, distortion)[0][:, 0]
    return found


def rms(errors: np.ndarray | Sequence[float]) -> float:
    """Return the root mean square of the lengths of errors (..., 2), pixels."""
    errors = np.asarray(errors, np.float64).reshape(-1, 2)
    return float(np.sqrt(np.mean(np.sum(errors**2, axis=1)))) if len(errors) else 0.0
