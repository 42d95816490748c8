"""The last step of a calibration: lenses, places and the arm's own errors, all at once.

A lens found from pictures alone and a place found with that lens share its errors: half a per cent of the focal length
is millimetres. Tool poses say more of the lens, but are not exact either. So all that is unknown is sought together,
the tool's pose of each picture too, each within what is known of it: a bundle adjustment (Triggs et al. 2000) with a
prior on the arm.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from robopolicy_hardware.cameras.charuco import Sighting, project
from robopolicy_hardware.cameras.hand_eye import Setup, nudged
from robopolicy_hardware.cameras.lens import Lens

ARM_M, ARM_RAD = 0.0005, np.radians(0.05)  # 1 sigma along and about each axis, of what an arm says of its tool
CORNER_PX = 0.05  # 1 sigma of a corner at least


def adjusted(
    sightings: Sequence[Sighting],
    lenses: Mapping[str, Lens],
    setup: Setup,
    cameras: Mapping[str, np.ndarray],
    board: np.ndarray,
    free_lenses: Collection[str] = (),
) -> tuple[dict[str, Lens], dict[str, np.ndarray], np.ndarray, dict[str, tuple[float, float]]]:
    """Return lenses, places of cameras and board, and deviations {view: (mm, degrees)}, 1 sigma.

    Args:
        sightings: without outliers.
        lenses: {view: lens} to start from.
        setup: what moves with what.
        cameras: {view: (4, 4)} to start from.
        board: (4, 4) to start from; it stays if the setup knows it.
        free_lenses: views whose lens was found from these same pictures, and is found anew.
    """
    from scipy.optimize import least_squares

    adjustment = _Adjustment(sightings, lenses, setup, cameras, board, free_lenses)
    start = np.zeros(adjustment.count)
    found = least_squares(adjustment.residual, start, jac=adjustment.jacobian, method="trf", x_scale="jac", max_nfev=30)
    covariance = np.linalg.pinv(found.jac.T @ found.jac)
    sd = np.sqrt(np.diag(covariance))
    deviations = {
        view: (1000 * float(np.linalg.norm(sd[at + 3 : at + 6])), float(np.degrees(np.linalg.norm(sd[at : at + 3]))))
        for view, at in adjustment.camera_at.items()
    }
    lenses, cameras, board, _ = adjustment.state(found.x)
    return lenses, cameras, board, deviations


class _Adjustment:
    """The unknowns as one vector: places of cameras, of the board, lenses, then the arm's error of each moment."""

    def __init__(
        self,
        sightings: Sequence[Sighting],
        lenses: Mapping[str, Lens],
        setup: Setup,
        cameras: Mapping[str, np.ndarray],
        board: np.ndarray,
        free_lenses: Collection[str],
    ) -> None:
        self._sightings, self._lenses, self._setup = sightings, dict(lenses), setup
        views = list(dict.fromkeys(one.view for one in sightings))
        self._cameras, self._board = {view: cameras[view] for view in views}, board
        at = 0
        self.camera_at = {view: 6 * k for k, view in enumerate(views)}
        at = 6 * len(views)
        self._board_at = None if setup.T_board is not None else at
        at += 0 if self._board_at is None else 6
        self._lens_at: dict[str, int] = {}
        for view in views:
            if view in free_lenses:
                self._lens_at[view] = at
                at += 4 + len(lenses[view].distortion)
        self._of_all = at
        moments = dict.fromkeys(one.moment for one in sightings if setup.moves(one.view))
        self._arm_at = {moment: at + 6 * k for k, moment in enumerate(moments)}
        self.count = at + 6 * len(moments)
        self._ends = np.cumsum([0, *(2 * len(one.points) for one in sightings)])
        self._weights = {
            view: 1 / max(lenses[view].error_px / np.sqrt(2), CORNER_PX)  # error_px is of both coordinates
            for view in views
        }

    def state(self, x: np.ndarray) -> tuple[dict[str, Lens], dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
        """Return lenses, cameras, board, and the arm's errors {moment: (6,)}."""
        cameras = {view: nudged(self._cameras[view], x[at : at + 6]) for view, at in self.camera_at.items()}
        board = self._board if self._board_at is None else nudged(self._board, x[self._board_at : self._board_at + 6])
        lenses = {view: self._lens(view, x) for view in cameras}
        return lenses, cameras, board, {moment: x[at : at + 6] for moment, at in self._arm_at.items()}

    def residual(self, x: np.ndarray) -> np.ndarray:
        """Return what is left, in standard deviations: of all corners, then of the arm."""
        lenses, cameras, board, arm = self.state(x)
        inverse = {view: np.linalg.inv(place) for view, place in cameras.items()}
        errors = []
        for one in self._sightings:
            pose = inverse[one.view] @ self._setup.between(one, arm.get(one.moment)) @ board
            seen = one.points @ pose[:3, :3].T + pose[:3, 3]
            lens = lenses[one.view]
            errors.append((project(seen, lens.K, lens.coefficients) - one.pixels).ravel() * self._weights[one.view])
        whole = np.concatenate([*errors, x[self._of_all :]])
        whole[self._ends[-1] :] /= np.tile(np.repeat([ARM_RAD, ARM_M], 3), len(self._arm_at))
        return whole

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        """Return the derivative by differences; the errors of the arm are changed at all moments at a time."""
        step = 1e-6
        now = self.residual(x)
        made = np.zeros((len(now), len(x)))
        for k in range(self._of_all):
            other = x.copy()
            other[k] += step
            made[:, k] = (self.residual(other) - now) / step
        for k in range(6 if self._arm_at else 0):
            other = x.copy()
            other[self._of_all + k :: 6] += step
            slope = (self.residual(other) - now) / step
            for one, a, b in zip(self._sightings, self._ends[:-1], self._ends[1:], strict=True):
                if self._setup.moves(one.view):
                    made[a:b, self._arm_at[one.moment] + k] = slope[a:b]
            for at in self._arm_at.values():
                row = self._ends[-1] + at - self._of_all + k
                made[row, at + k] = slope[row]
        return made

    def _lens(self, view: str, x: np.ndarray) -> Lens:
        at, lens = self._lens_at.get(view), self._lenses[view]
        if at is None:
            return lens
        change = x[at : at + 4 + len(lens.distortion)]
        K = lens.K.copy()
        K[[0, 1], [0, 1]] *= 1 + change[:2]
        K[:2, 2] += change[2:4] * lens.size[1]
        return replace(lens, K=K, distortion=lens.distortion + change[4:])
