"""A camera's intrinsics from pictures of a board, and whether the pictures were enough to know them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.errors import CalibrationError, ContractError
from robopolicy.geometry.cameras import Camera
from robopolicy_hardware.cameras.charuco import SQUARE_PX, Sighting, project, rms

MODELS = (0, 4, 5, 8)  # counts of coefficients: none; k1 k2 p1 p2; k3; k4 k5 k6
FEWEST_PICTURES = 8
SPREAD_DEG = 15.0  # between the two boards that are tilted most differently
FOCAL_SD, CENTRE_SD = 0.01, 0.02  # standard deviations above which a lens is not known: of fx; of the width
CELLS, COVERED = (4, 5), 0.3  # of the picture; the share of cells in which corners were seen
OUTLIER, OUTLIER_PX = 3.0, 0.3  # a picture is dropped beyond so many times the median, and at least so many pixels
KEPT = 0.7  # share of the pictures that must be left


@dataclass(frozen=True)
class Lens:
    """Intrinsics, and how well they are known.

    Args:
        K: (3, 3) pixels.
        distortion: coefficients in OpenCV's order.
        size: (H, W) pixels.
        error_px: root mean square reprojection error over all corners.
        errors_px: {moment: of one picture}.
        dropped_px: {moment: of a picture that was left out}.
        focal_sd: standard deviation of fx, as a share of it.
        centre_sd_px: of the principal point.
        covered: share of the picture, in 4 x 5 cells, in which corners were seen.
    """

    K: np.ndarray
    distortion: np.ndarray
    size: tuple[int, int]
    error_px: float = 0.0
    errors_px: dict[str, float] = field(default_factory=dict)
    dropped_px: dict[str, float] = field(default_factory=dict)
    focal_sd: float = 0.0
    centre_sd_px: float = 0.0
    covered: float = 1.0

    @property
    def coefficients(self) -> np.ndarray:
        """The distortion as every function of OpenCV takes it: never empty."""
        return self.distortion if len(self.distortion) else np.zeros(4)


def calibrate_lens(sightings: Sequence[Sighting], coefficients: int = 4, max_error_px: float = 1.0) -> Lens:
    """Return the lens of the camera that took these pictures; those that fit badly are left out, and counted.

    Args:
        sightings: of one camera, at least 8, the board tilted differently in each.
        coefficients: of the distortion: 0, 4, 5 or 8.
        max_error_px: root mean square reprojection error above which it is refused.

    Raises:
        CalibrationError: saying what the pictures lack, or how large the error is.
        ContractError: if there is no such lens model.
    """
    if coefficients not in MODELS:
        raise ContractError(f"a lens of {coefficients} distortion coefficients; want one of {MODELS}")
    used = list(sightings)
    view = _require_enough(used)
    dropped: dict[str, float] = {}
    while True:
        lens, normals = _fit(used, coefficients, view)
        limit = max(OUTLIER * float(np.median([*lens.errors_px.values()])), OUTLIER_PX)
        worst = max(lens.errors_px, key=lens.errors_px.__getitem__)
        if lens.errors_px[worst] <= limit:
            break
        dropped[worst] = lens.errors_px[worst]
        used = [one for one in used if one.moment != worst]
        if len(used) < max(KEPT * len(sightings), FEWEST_PICTURES):
            raise CalibrationError(
                f"camera {view}: {len(dropped)} of {len(sightings)} pictures fit badly (picture {worst}: "
                f"{dropped[worst]:.2f} px); is the board flat, and the one that was told?"
            )
    lens = Lens(**{**vars(lens), "dropped_px": dropped})
    if lens.error_px > max_error_px:
        worst = max(lens.errors_px, key=lens.errors_px.__getitem__)
        raise CalibrationError(
            f"camera {view}: reprojection error {lens.error_px:.2f} px over {len(used)} pictures, the limit is "
            f"{max_error_px:g} (picture {worst}: {lens.errors_px[worst]:.2f} px); is the board flat, in focus, and the "
            "one that was told?"
        )
    _require_known(lens, normals, view)
    return lens


def _require_enough(sightings: Sequence[Sighting]) -> str:
    if not sightings:
        raise CalibrationError("no picture shows enough of the board; is it the one that was told?")
    view = sightings[0].view
    sizes = {one.size for one in sightings}
    if len(sizes) > 1:
        (h, w), (other_h, other_w) = sorted(sizes)[:2]
        raise CalibrationError(f"camera {view}: pictures of {w} x {h} and of {other_w} x {other_h}; want one size")
    if len(sightings) < FEWEST_PICTURES:
        raise CalibrationError(
            f"camera {view}: {len(sightings)} pictures show enough of the board; want {FEWEST_PICTURES} or more, each "
            "tilted differently"
        )
    square = float(np.median([one.square_px for one in sightings]))
    if square < SQUARE_PX:
        raise CalibrationError(
            f"camera {view}: a square of the board is {square:.1f} px wide in its pictures; want {SQUARE_PX:g} or "
            "more: a larger board, or nearer"
        )
    return view


def _fit(used: list[Sighting], coefficients: int, view: str) -> tuple[Lens, np.ndarray]:
    """Return the lens, and where each board faces (M, 3) in the camera's frame."""
    import cv2

    flags = {
        0: cv2.CALIB_FIX_K1 | cv2.CALIB_FIX_K2 | cv2.CALIB_FIX_K3 | cv2.CALIB_ZERO_TANGENT_DIST,
        4: cv2.CALIB_FIX_K3,
        5: 0,
        8: cv2.CALIB_RATIONAL_MODEL,
    }[coefficients]
    height, width = used[0].size
    points = [one.points.astype(np.float32) for one in used]
    pixels = [one.pixels.astype(np.float32) for one in used]
    none: Any = None
    try:
        _, K, distortion, turns, shifts, deviations, _, _ = cv2.calibrateCameraExtended(
            points, pixels, (width, height), none, none, flags=flags
        )
    except cv2.error as error:
        raise CalibrationError(f"camera {view}: its pictures do not determine a lens ({error.err}); {_TILT}") from error
    distortion = np.ravel(distortion)[:coefficients]
    whole = distortion if coefficients else np.zeros(4)
    errors = {}
    for one, turn, shift in zip(used, turns, shifts, strict=True):
        seen = one.points @ cv2.Rodrigues(turn)[0].T + np.ravel(shift)
        errors[one.moment] = project(seen, K, whole) - one.pixels
    spread = np.ravel(deviations)
    lens = Lens(
        K, distortion, used[0].size, rms(np.concatenate([*errors.values()])),
        {moment: rms(one) for moment, one in errors.items()}, {}, float(spread[0] / K[0, 0]),
        float(max(spread[2:4])), _covered(used),
    )  # fmt: skip
    return lens, np.array([cv2.Rodrigues(turn)[0][:, 2] for turn in turns])


def _covered(used: Sequence[Sighting]) -> float:
    """Return the share of the picture's cells with a corner in them."""
    (height, width), (rows, columns) = used[0].size, CELLS
    pixels = np.concatenate([one.pixels for one in used])
    row = np.clip(pixels[:, 1] / height * rows, 0, rows - 1).astype(int)
    column = np.clip(pixels[:, 0] / width * columns, 0, columns - 1).astype(int)
    return len(set(zip(row.tolist(), column.tolist(), strict=True))) / (rows * columns)


_TILT = "tilt the board by 20 to 40 degrees in several directions, near the middle and the edges of the picture"


def _require_known(lens: Lens, normals: np.ndarray, view: str) -> None:
    """Refuse a lens that the pictures do not determine: they are too much alike, or show too little of the picture."""
    spread = float(np.degrees(np.arccos(np.clip(normals @ normals.T, -1, 1))).max())
    width = lens.size[1]
    if spread < SPREAD_DEG:
        raise CalibrationError(
            f"camera {view}: the pictures are too similar: the board's tilts differ by {spread:.1f} degrees; {_TILT}"
        )
    if not (lens.focal_sd <= FOCAL_SD and lens.centre_sd_px <= CENTRE_SD * width):
        raise CalibrationError(
            f"camera {view}: the pictures are too similar: the focal length is known to {100 * lens.focal_sd:.1f} %, "
            f"the centre to {lens.centre_sd_px:.1f} px (1 sigma); {_TILT}"
        )
    if lens.covered < COVERED:
        raise CalibrationError(
            f"camera {view}: corners were seen in {100 * lens.covered:.0f} % of the picture; want "
            f"{100 * COVERED:.0f} % or more, the edges too: the lens is not known elsewhere"
        )
    height = lens.size[0]
    edge = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], float)
    if not np.isfinite(Camera(lens.K, np.eye(4), lens.distortion).rays(edge)).all():
        raise CalibrationError(
            f"camera {view}: the lens found folds the picture's edge over; try fewer distortion coefficients than "
            f"{len(lens.distortion)}, or pictures with the board at the edges"
        )
