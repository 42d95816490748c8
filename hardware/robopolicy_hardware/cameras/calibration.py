"""From sightings of a board to entries of `cams.yaml`, and back to the question whether they still hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopolicy.errors import CalibrationError
from robopolicy.geometry.cameras import Camera
from robopolicy_hardware.cameras.board import Board
from robopolicy_hardware.cameras.bundle import adjusted
from robopolicy_hardware.cameras.charuco import Sighting, rms
from robopolicy_hardware.cameras.hand_eye import Places, Problem, Setup, find_places
from robopolicy_hardware.cameras.lens import Lens, calibrate_lens
from robopolicy_hardware.cameras.moved import Agreement, agreement, cross_view


@dataclass(frozen=True)
class Calibrated:
    """What a calibration found.

    Args:
        lenses: {view: its lens}.
        places: of cameras and board; None if nothing was to be placed.
        cross_px: {view: px}: disagreement of cameras with each other, of those that saw the board at the same moments.
        setup: what moved with what.
        board: which was seen.
    """

    lenses: dict[str, Lens]
    places: Places | None
    cross_px: dict[str, float]
    setup: Setup
    board: Board

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return {view: entry of `cams.yaml`}."""
        return {view: self._entry(view, lens) for view, lens in self.lenses.items()}

    def error_px(self, view: str) -> float:
        """Return the camera's reprojection error: with the poses of arm and board if it was placed by them."""
        return self.lenses[view].error_px if not self._placed(view) else self.places.error_px(view)  # type: ignore

    def _placed(self, view: str) -> bool:
        return self.places is not None and view in self.places.cameras

    def _entry(self, view: str, lens: Lens) -> dict[str, Any]:
        entry: dict[str, Any] = {"K": lens.K.tolist()}
        about: dict[str, Any] = {
            "error_px": self.error_px(view), "lens_error_px": lens.error_px, "lens_pictures": len(lens.errors_px),
            "lens_pictures_dropped": len(lens.dropped_px), "focal_sd_percent": 100 * lens.focal_sd,
            "covered_percent": 100 * lens.covered,
        }  # fmt: skip
        errors, dropped = lens.errors_px, lens.dropped_px
        if self.places is not None and self._placed(view):
            on_tool = view in self.setup.on_tool
            entry["T_tool_cam" if on_tool else "T_base_cam"] = self.places.cameras[view].tolist()
            mm, degrees = self.places.deviations.get(view, (0.0, 0.0))
            errors, dropped = self.places.errors_px[view], self.places.dropped_px[view]
            about |= {
                "pictures": len(errors), "dropped": len(dropped), "place_sd_mm": mm, "turn_sd_deg": degrees,
                "board_on": self.setup.board, f"T_{self.setup.board}_board": self.places.board.tolist(),
            }  # fmt: skip
            if view in self.cross_px:
                about["cross_view_px"] = self.cross_px[view]
        about |= {"board": self.board.to_json(), "pictures_px": errors, "dropped_px": dropped}
        return {**entry, "distortion": lens.distortion.tolist(), "size": list(lens.size), "calibration": about}


def calibrate(
    board: Board,
    sightings: Sequence[Sighting],
    setup: Setup | None,
    *,
    placing: Sequence[Sighting] | None = None,
    lenses: Mapping[str, Lens] | None = None,
    coefficients: int = 4,
    max_error_px: float = 1.0,
) -> Calibrated:
    """Return lenses and places of the cameras of these sightings.

    Args:
        board: what was seen.
        sightings: for the lenses; may be empty if all are given.
        setup: what moves with what; None places nothing.
        placing: the sightings that place the cameras; None: the same.
        lenses: {view: known lens}, which is not found anew.
        coefficients: of the distortion: 0, 4, 5 or 8.
        max_error_px: reprojection error above which a camera is refused.

    Raises:
        CalibrationError: naming the camera, and what its pictures lack or how large its error is.
    """
    lenses = dict(lenses or {})
    known = set(lenses)
    for view in dict.fromkeys(one.view for one in sightings):
        if view not in known:
            own = [one for one in sightings if one.view == view]
            lenses[view] = calibrate_lens(own, coefficients, max_error_px)
    if setup is None:
        return Calibrated(lenses, None, {}, Setup(), board)
    same = placing is None
    bad = {(view, moment) for view, lens in lenses.items() for moment in lens.dropped_px} if same else set()
    shots = [one for one in (sightings if placing is None else placing) if (one.view, one.moment) not in bad]
    for one in shots:
        if one.view not in lenses:
            raise CalibrationError(
                f"camera {one.view}: nothing says what its lens is; give pictures of it, or --lenses"
            )
        _require_size(one, lenses[one.view])
    places = find_places(shots, lenses, setup, max_error_px)
    used = [one for one in shots if one.moment not in places.dropped_px[one.view]]
    free = set(lenses) - known if same else set()
    found, cameras, where, deviations = adjusted(used, lenses, setup, places.cameras, places.board, free)
    errors: dict[str, dict[str, float]] = {view: {} for view in cameras}
    for one, error in zip(used, Problem(used, found, setup, cameras, where).errors(), strict=True):
        errors[one.view][one.moment] = rms(error)
    places = Places(cameras, where, errors, places.dropped_px, deviations)
    fixed = {view: place for view, place in cameras.items() if view not in setup.on_tool}
    return Calibrated({**lenses, **found}, places, cross_view(used, found, fixed), setup, board)


def check(
    entries: Mapping[str, Mapping[str, Any]], sightings: Sequence[Sighting], setup: Setup, max_error_px: float = 1.0
) -> Agreement:
    """Return how well calibrated cameras agree with new pictures of a board; see `moved.agreement`.

    Raises:
        CalibrationError: naming a camera without a place, or with pictures of another size.
    """
    lenses, cameras = known_lenses(entries), {}
    for view in dict.fromkeys(one.view for one in sightings):
        key = "T_tool_cam" if view in setup.on_tool else "T_base_cam"
        if view not in entries or key not in entries[view]:
            raise CalibrationError(f"camera {view} has no {key} in the calibration; there are: {', '.join(entries)}")
        cameras[view] = np.array(entries[view][key], np.float64)
    for one in sightings:
        _require_size(one, lenses[one.view])
    return agreement(sightings, lenses, cameras, setup, max_error_px)


def known_lenses(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Lens]:
    """Return the lenses of a file's entries; ContractError names a damaged one."""
    lenses = {}
    for view, entry in entries.items():
        camera = Camera.from_json({**entry, "T_base_cam": np.eye(4)}, view)
        if camera.size is None:
            raise CalibrationError(f"camera {view}: its calibration does not say for which size of pictures it is")
        error = float((entry.get("calibration") or {}).get("lens_error_px", 0.0))
        lenses[view] = Lens(camera.K, camera.distortion, camera.size, error)
    return lenses


def _require_size(seen: Sighting, lens: Lens) -> None:
    if seen.size != lens.size:
        (h, w), (height, width) = seen.size, lens.size
        raise CalibrationError(
            f"camera {seen.view}: picture {seen.moment} is {w} x {h}, its lens was calibrated at {width} x {height}"
        )
