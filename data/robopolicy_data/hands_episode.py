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
)

RESIDUAL_SHARE = 0.015  # of a picture's longer side: detectors' own scatter is below, a camera that moved above

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

    def to_json(self) -> dict[str, Any]:
        """Return what is kept with the episode."""
        changes = np.flatnonzero(np.diff(self.grasp, prepend=0)).tolist()
        return {
            "handedness": self.votes.chosen,
            "votes": {"left": self.votes.left, "right": self.votes.right},
            "views": {view: counts(track, self.start, self.stop) for view, track in self.tracks.items()},
            "residual_px": None if self.residual_px is None else round(self.residual_px, 3),
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
            one = counts(track, self.start, self.stop)
            lines.append(
                f"view {view}: {one['detected']} of {one['pictures']} pictures show the hand, {one['without_hand']} do "
                f"not; {one['interpolated']} steps interpolated, {one['trimmed']} cut off at the ends"
            )
        if self.residual_px is None:
            lines.append("one view only: a camera that moved since calibration would not be noticed")
        else:
            lines.append(
                f"the views agree within {self.residual_px:.2f} px (median reprojection residual, "
                f"{self.max_residual_px:.1f} allowed)"
            )
        grasps = runs(self.grasp > 0)
        when = ", ".join(f"{first / rate_hz:.2f} to {stop / rate_hz:.2f} s" for first, stop in grasps) or "never"
        by = "aperture of thumb and index"
        by = by if self.contact is None else f"contact with the mask and {by}"
        lines.append(f"{self.votes}; it grasps {when} ({by})")
        return lines


def counts(track: Track, start: int, stop: int) -> dict[str, int]:
    """Return how many pictures of a view showed the hand, had it interpolated, were cut off, and lay in between."""
    return {
        "pictures": len(track.detected),
        "detected": int(track.detected.sum()),
        "without_hand": int((~track.detected).sum()),
        "interpolated": int(track.filled[start:stop].sum()),
        "trimmed": len(track.detected) - (stop - start),
    }


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
    raw = {view: follow(hands, votes.chosen) for view, hands in found.items()}
    require_detected(raw, rules.min_detected)
    tracks = {view: fill_gaps(track, rules.max_gap) for view, track in raw.items()}
    start, stop = common_span(tracks, rate_hz, rules.max_gap)
    seen = {view: track.landmarks[start:stop] for view, track in tracks.items()}
    keypoints = {view: hand_keypoints(landmarks, votes.chosen) for view, landmarks in seen.items()}
    residual, limit, space = None, None, next(iter(seen.values()))
    if len(seen) > 1:
        order = [cameras[view] for view in seen]
        limit = rules.max_residual_px or RESIDUAL_SHARE * max(max(c.size) for c in order if c.size is not None)
        both = np.all([track.detected[start:stop] for track in tracks.values()], axis=0)
        residual = _residual({view: points[both] for view, points in keypoints.items()}, cameras, limit)
        space = triangulate(np.stack(list(seen.values())), order).points
    apart = aperture(space)
    contact = None if gaps is None else gaps(seen, start, stop)
    closed = grasp(apart, rate_hz, rules.grasp, contact)
    return HandEpisode(tracks, votes, start, stop, keypoints, apart, closed, contact, residual, limit)


def _residual(keypoints: Mapping[str, np.ndarray], cameras: Mapping[str, Camera], limit: float) -> float:
    """Return the median distance of points (n, 5, 2) from where all views together put them, px."""
    views = list(keypoints)
    if not len(keypoints[views[0]]):
        raise DatasetError("there is no step at which all views detected the hand, so they cannot be compared")
    found = triangulate(np.stack([keypoints[view] for view in views]), [cameras[view] for view in views])
    residual = float(np.median(found.residual_px))
    if not residual <= limit:
        raise DatasetError(
            f"views {', '.join(views)} disagree by {residual:.1f} px (median reprojection residual; "
            f"want {limit:.1f} or less, --max-residual): a camera moved since calibration, the videos do not begin at "
            "the same instant, or they show different hands"
        )
    return residual
