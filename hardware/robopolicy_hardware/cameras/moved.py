"""Whether calibrated cameras agree with a board seen anew, and with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import CalibrationError
from robopolicy_hardware.cameras.charuco import Sighting, pose_of, rms
from robopolicy_hardware.cameras.hand_eye import Problem, Setup
from robopolicy_hardware.cameras.lens import Lens


@dataclass(frozen=True)
class Agreement:
    """How well cameras agree.

    Args:
        residual_px: {view: root mean square reprojection error}.
        how: what it was measured against, in words.
        sure: whether a camera whose residual is large is the one that moved, and not another.
    """

    residual_px: dict[str, float]
    how: str
    sure: bool = True


def cross_view(
    sightings: Sequence[Sighting], lenses: Mapping[str, Lens], cameras: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Return {view: px}: how far cameras are from one common pose of the board at each moment that two of them saw.

    It asks nothing of the arm: the pose of each moment is the one that fits all its pictures best.

    Args:
        sightings: moments that one camera alone saw are passed over.
        lenses: {view: lens}.
        cameras: {view: T_base_cam (4, 4)}; others are passed over.
    """
    errors: dict[str, list[np.ndarray]] = {}
    for shots in _together(sightings, cameras):
        problem = Problem(shots, lenses, Setup(), cameras, _first_pose(shots[0], lenses, cameras), fixed=cameras)
        problem.solve("linear")
        for one, error in zip(shots, problem.errors(), strict=True):
            errors.setdefault(one.view, []).append(error)
    return {view: rms(np.concatenate(found)) for view, found in errors.items()}


def agreement(
    sightings: Sequence[Sighting],
    lenses: Mapping[str, Lens],
    cameras: Mapping[str, np.ndarray],
    setup: Setup,
    max_error_px: float,
) -> Agreement:
    """Return how well cameras, where their calibration says they are, agree with new pictures.

    With a known pose of the board each camera is judged by itself. With tool poses the place of the board is free, and
    is the one of the camera that its own pictures fit best with. With neither, cameras can only disagree with each
    other; of three or more, the one without which the others agree is named.

    Args:
        sightings: the new pictures.
        lenses: {view: lens}.
        cameras: {view: T_base_cam, or T_tool_cam of a camera on the tool}.
        setup: what moves with what.
        max_error_px: above it they disagree.

    Raises:
        CalibrationError: if the pictures cannot tell.
    """
    views = list(dict.fromkeys(one.view for one in sightings))
    if setup.T_board is not None:
        return Agreement(_against(sightings, lenses, cameras, setup, setup.T_board), "the board's known pose")
    if all(setup.moves(view) for view in views) and views:
        return _with_tool(sightings, lenses, cameras, setup, max_error_px)
    fixed = {view: cameras[view] for view in views if not setup.moves(view)}
    residual = cross_view(sightings, lenses, fixed)
    if len(residual) < 2:
        raise CalibrationError(
            "one camera alone cannot tell whether it moved; give the board's pose, the tool's in each picture, or "
            "pictures of two cameras at the same moments"
        )
    return _without_one(residual, sightings, lenses, fixed, max_error_px)


def _with_tool(
    sightings: Sequence[Sighting],
    lenses: Mapping[str, Lens],
    cameras: Mapping[str, np.ndarray],
    setup: Setup,
    max_error_px: float,
) -> Agreement:
    views = list(dict.fromkeys(one.view for one in sightings))
    own: dict[str, tuple[float, np.ndarray]] = {}
    for view in views:
        shots = [one for one in sightings if one.view == view]
        tries = []
        for one in shots[:: max(len(shots) // 8, 1)]:
            seen = pose_of(one, lenses[view].K, lenses[view].coefficients)
            problem = Problem(
                shots, lenses, setup, cameras, np.linalg.inv(setup.between(one)) @ cameras[view] @ seen, fixed=views
            )
            problem.solve("soft_l1")
            tries.append((rms(np.concatenate(problem.errors())), problem.board))
        own[view] = min(tries, key=lambda pair: pair[0])
    best = min(own, key=lambda view: own[view][0])
    residual = _against(sightings, lenses, cameras, setup, own[best][1])
    sure = len(views) == 1 or all(own[view][0] > max_error_px for view in views if residual[view] > max_error_px)
    return Agreement(residual, f"the tool's poses and the board as {best} sees it", sure)


def _without_one(
    residual: dict[str, float],
    sightings: Sequence[Sighting],
    lenses: Mapping[str, Lens],
    cameras: Mapping[str, np.ndarray],
    max_error_px: float,
) -> Agreement:
    how = "one pose of the board at each moment"
    if max(residual.values()) <= max_error_px or len(residual) < 3:
        return Agreement(residual, how, sure=max(residual.values()) <= max_error_px)
    rest: dict[str, dict[str, float]] = {}
    for view in residual:
        left = {name: place for name, place in cameras.items() if name != view}
        rest[view] = cross_view([one for one in sightings if one.view != view], lenses, left)
    agreeing = {view: left for view, left in rest.items() if left and max(left.values()) <= max_error_px}
    if len(agreeing) != 1:
        return Agreement(residual, how, sure=False)
    ((odd, left),) = agreeing.items()
    errors = []
    for shots in _together(sightings, cameras):
        of_rest = [one for one in shots if one.view != odd]
        if len(of_rest) == len(shots) or not of_rest:
            continue
        problem = Problem(of_rest, lenses, Setup(), cameras, _first_pose(of_rest[0], lenses, cameras), fixed=cameras)
        problem.solve("linear")
        its = [one for one in shots if one.view == odd]
        errors += Problem(its, lenses, Setup(), cameras, problem.board, fixed=cameras).errors()
    return Agreement({**left, odd: rms(np.concatenate(errors))}, "the board as the others see it")


def _against(
    sightings: Sequence[Sighting],
    lenses: Mapping[str, Lens],
    cameras: Mapping[str, np.ndarray],
    setup: Setup,
    board: np.ndarray,
) -> dict[str, float]:
    problem = Problem(sightings, lenses, replace(setup, T_board=board), cameras, board, fixed=cameras)
    errors: dict[str, list[np.ndarray]] = {}
    for one, error in zip(sightings, problem.errors(), strict=True):
        errors.setdefault(one.view, []).append(error)
    return {view: rms(np.concatenate(found)) for view, found in errors.items()}


def _together(sightings: Sequence[Sighting], cameras: Mapping[str, np.ndarray]) -> list[list[Sighting]]:
    """Return the sightings of each moment that two or more of the cameras saw."""
    moments: dict[str, list[Sighting]] = {}
    for one in sightings:
        if one.view in cameras:
            moments.setdefault(one.moment, []).append(one)
    return [shots for shots in moments.values() if len({one.view for one in shots}) > 1]


def _first_pose(seen: Sighting, lenses: Mapping[str, Lens], cameras: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return T_base_board as one sighting has it."""
    pose: np.ndarray = cameras[seen.view] @ pose_of(seen, lenses[seen.view].K, lenses[seen.view].coefficients)
    return pose
