"""What the hands found in several views come to: one hand, its five points a view, its grasp, or a refusal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.geometry.cameras import Camera
from robopolicy.geometry.keypoints import Handedness, hand_keypoints
from robopolicy.geometry.triangulation import triangulate
from robopolicy_data.hands_grasp import Contact, GraspRule, aperture, grasp
from robopolicy_data.hands_tracks import (
    Found,
    Track,
    Votes,
    common_span,
    fill_gaps,
    follow,
    require_detected,
    runs,
    vote,
    without,
)

RESIDUAL_SHARE = 0.015  # of a picture's longer side: detectors' own scatter is below, a camera that moved above

_WHY = "a camera moved since calibration, the videos do not begin at the same instant, or they show different hands"

Gaps = Callable[[Mapping[str, np.ndarray], int, int], Contact]  # landmarks of the steps start to stop


@dataclass(frozen=True)
class HandRules:
    """How far to trust what a detector found."""

    max_gap: int = 5  # steps in a row without a hand that are interpolated
    min_detected: float = 0.7  # share of a view's pictures
    max_residual_px: float | None = None  # between the views; None: `RESIDUAL_SHARE` of the longer side
    hand: Handedness | None = None  # None: what the majority of pictures says
    grasp: GraspRule = field(default_factory=GraspRule)


@dataclass(frozen=True)
class HandEpisode:
    """One hand through all views; the episode is the steps ``start`` to ``stop`` of T, excluded."""

    tracks: Mapping[str, Track]  # {view: of all T steps}
    votes: Votes
    start: int
    stop: int
    keypoints: Mapping[str, np.ndarray]  # {view: (stop - start, 5, 2) px, in the order of ROLES}
    aperture: np.ndarray  # (stop - start,) sizes of the hand
    grasp: np.ndarray  # (stop - start,) 1 closed, 0 open
    contact: Contact | None
    residual_px: float | None  # median of points and steps between the views; None: there is one view
    max_residual_px: float | None
    odd: int  # steps at which the views disagreed by more, and which count as without a hand

    def to_json(self) -> dict[str, Any]:
        """Return what is kept with the episode."""
        changes = np.flatnonzero(np.diff(self.grasp, prepend=0)).tolist()
        return {
            "handedness": self.votes.chosen,
            "votes": {"left": self.votes.left, "right": self.votes.right},
            "views": {view: counts(track, self.start, self.stop) for view, track in self.tracks.items()},
            "residual_px": None if self.residual_px is None else round(self.residual_px, 3),
            "odd_steps": self.odd,
            "grasp": {
                "from": "aperture" if self.contact is None else "contact and aperture",
                "steps": int(self.grasp.sum()),
                "changes": changes,
            },
        }

    def told(self, rate_hz: float) -> list[str]:
        """Return in lines what was understood."""
        lines = []
        for view, track in self.tracks.items():
            lines.append(f"view {view}: {counted(track, self.start, self.stop)}")
        if self.residual_px is None:
            lines.append("one view only: a camera that moved since calibration would not be noticed")
        else:
            lines.append(
                f"the views agree within {self.residual_px:.2f} px (median reprojection residual, "
                f"{self.max_residual_px:.1f} allowed); {self.odd} steps at which they do not count as without a hand"
            )
        grasps = runs(self.grasp > 0)
        when = ", ".join(f"{first / rate_hz:.2f} to {stop / rate_hz:.2f} s" for first, stop in grasps) or "never"
        by = "aperture of thumb and index"
        by = by if self.contact is None else f"contact with the mask and {by}"
        lines.append(f"{self.votes}; it grasps {when} ({by})")
        return lines


def counts(track: Track, start: int, stop: int) -> dict[str, int]:
    """Return how many pictures of a view showed the hand, how it was labelled there, and what became of the rest."""
    return {
        "pictures": len(track.detected),
        "detected": int(track.detected.sum()),
        "without_hand": int((~track.detected).sum()),
        "overruled": int(track.overruled.sum()),
        "beside": int(track.beside.sum()),
        "interpolated": int(track.filled[start:stop].sum()),
        "trimmed": len(track.detected) - (stop - start),
    }


def counted(track: Track, start: int, stop: int) -> str:
    """Return `counts` in words."""
    one = counts(track, start, stop)
    words = (
        f"{one['detected']} of {one['pictures']} pictures show the hand, {one['without_hand']} do not; "
        f"{one['interpolated']} steps interpolated, {one['trimmed']} cut off at the ends"
    )
    if one["overruled"]:
        words += f"; {one['overruled']} labels of the other hand overruled"
    if one["beside"]:
        words += f"; {one['beside']} pictures show another hand of the same label too: was the right one followed?"
    return words


def understand(
    found: Mapping[str, Found],
    cameras: Mapping[str, Camera],
    rate_hz: float,
    rules: HandRules,
    gaps: Gaps | None = None,
) -> HandEpisode:
    """Return one hand's motion from what was found in the pictures of every view.

    Args:
        found: {view: the hands in each of T pictures}.
        cameras: of the same views, calibrated.
        rate_hz: steps a second.
        rules: what is refused and what is interpolated.
        gaps: tells contact with the object, given {view: (n, 21, 2)} and the steps they are of; None: no masks.

    Raises:
        DatasetError: if too few pictures show the hand, it is lost for long, it is not clear which hand it is, or the
            views disagree so much that a camera must have moved; with the numbers.
    """
    votes = vote(found, rules.hand)
    tracks = {view: follow(hands, votes.chosen, rate_hz, rules.max_gap) for view, hands in found.items()}
    require_detected(tracks, rules.min_detected)
    residual, limit, odd = None, None, np.zeros(len(next(iter(tracks.values())).detected), bool)
    if len(tracks) > 1:
        sizes = [camera.size for view in tracks if (camera := cameras[view]).size is not None]
        limit = rules.max_residual_px or RESIDUAL_SHARE * max(max(size) for size in sizes)
        residual, odd = _compared(tracks, cameras, votes.chosen, limit)
        tracks = {view: without(track, odd) for view, track in tracks.items()}
        try:
            require_detected(tracks, rules.min_detected)
        except DatasetError as error:
            raise DatasetError(
                f"views {', '.join(tracks)} disagree by more than {limit:.1f} px (--max-residual) at {odd.sum()} of "
                f"{len(odd)} steps, by {residual:.1f} px in the median: {_WHY}. Without those steps, {error}"
            ) from error
    tracks = {view: fill_gaps(track, rules.max_gap) for view, track in tracks.items()}
    start, stop = common_span(tracks, rate_hz, rules.max_gap)
    seen = {view: track.landmarks[start:stop] for view, track in tracks.items()}
    keypoints = {view: hand_keypoints(landmarks, votes.chosen) for view, landmarks in seen.items()}
    apart = _aperture(seen, cameras)
    contact = None if gaps is None else gaps(seen, start, stop)
    closed = grasp(apart, rate_hz, rules.grasp, contact)
    count = int(odd.sum())
    return HandEpisode(tracks, votes, start, stop, keypoints, apart, closed, contact, residual, limit, count)


def _compared(
    tracks: Mapping[str, Track], cameras: Mapping[str, Camera], which: Handedness, limit: float
) -> tuple[float, np.ndarray]:
    """Return the median distance of the five points from where all views together put them, px, and the odd steps (T,).

    Odd is a step at which most points are farther off than ``limit``, for one view has found something else there, or
    are where a lens shows nothing.
    """
    both = np.all([track.detected for track in tracks.values()], axis=0)
    if not both.any():
        raise DatasetError("there is no step at which all views detected the hand, so they cannot be compared")
    points = np.stack([hand_keypoints(track.landmarks[both], which) for track in tracks.values()])
    residuals = triangulate(points, [cameras[view] for view in tracks]).residual_px  # (n, 5)
    shown = ~np.isnan(residuals)
    if not shown.any():
        raise DatasetError(
            f"by the calibration of views {', '.join(tracks)}, no lens shows anything where the hand is; is the "
            "distortion that of these cameras, at this size?"
        )
    residual = float(np.median(residuals[shown]))
    if np.isinf(residual):
        raise DatasetError(
            f"the hand is behind a camera, or nowhere, by the calibration of views {', '.join(tracks)}: their rays do "
            "not meet in front of them; T_base_cam is the pose of the camera in the base, not its inverse"
        )
    if not residual <= limit:
        raise DatasetError(
            f"views {', '.join(tracks)} disagree by {residual:.1f} px (median reprojection residual; want {limit:.1f} "
            f"or less, --max-residual): {_WHY}"
        )
    odd = np.zeros(len(both), bool)
    odd[both] = ~(np.median(np.where(shown, residuals, np.inf), axis=1) <= limit)
    return residual, odd


def _aperture(seen: Mapping[str, np.ndarray], cameras: Mapping[str, Camera]) -> np.ndarray:
    """Return apertures (T,), in space if two views tell it, else as the first view shows them."""
    flat = aperture(next(iter(seen.values())))
    if len(seen) == 1:
        return flat
    space = aperture(triangulate(np.stack(list(seen.values())), [cameras[view] for view in seen]).points)
    known = np.flatnonzero(np.isfinite(space))  # not where an interpolated hand has no place in space
    return np.interp(np.arange(len(space)), known, space[known]) if len(known) else flat
