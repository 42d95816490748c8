"""One hand followed through each view: which hand it is, gaps filled, the steps at which all views have it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy.geometry.keypoints import Handedness
from robopolicy_data.hands import LANDMARKS
from robopolicy_data.hands_chains import SAME, Found, chains, chosen, way

CLEAR = 0.6  # share of the votes that decides which hand it is


@dataclass(frozen=True)
class Track:
    """A hand through the T steps of one view."""

    landmarks: np.ndarray  # (T, 21, 2) px, NaN where there is none
    detected: np.ndarray  # (T,) bool; landmarks without are interpolated
    overruled: np.ndarray  # (T,) bool; detected, but labelled as the other hand
    beside: np.ndarray  # (T,) bool; detected, and another hand in the picture has its label

    @property
    def known(self) -> np.ndarray:
        """(T,) bool: detected or interpolated."""
        return np.isfinite(self.landmarks[:, 0, 0])

    @property
    def filled(self) -> np.ndarray:
        """(T,) bool: interpolated."""
        return self.known & ~self.detected


@dataclass(frozen=True)
class Votes:
    """Which hand the pictures of all views say it is."""

    left: int
    right: int
    chosen: Handedness

    def __str__(self) -> str:
        return f"{self.chosen} hand ({self.left} pictures say left, {self.right} right)"


def vote(found: Mapping[str, Found], wanted: Handedness | None = None) -> Votes:
    """Return which hand the episode is of: the majority of all pictures of all views, or ``wanted``.

    Raises:
        DatasetError: if there is no hand at all, or no clear majority and none is wanted.
    """
    labels = [hand.handedness for view in found.values() for hands in view for hand in hands]
    left, right = labels.count("left"), labels.count("right")
    if wanted is None and max(left, right) < max(CLEAR * len(labels), 1):
        if not labels:
            counts = ", ".join(f"{view} {len(hands)}" for view, hands in found.items())
            raise DatasetError(f"no hand in any picture ({counts} of them)")
        raise DatasetError(
            f"which hand is it? {left} pictures say left, {right} right, and {CLEAR:.0%} of them must agree; "
            "say which with --hand left or --hand right"
        )
    return Votes(left, right, wanted or ("left" if left > right else "right"))


def follow(found: Found, which: Handedness, rate_hz: float = 10.0, most: int = 5) -> Track:
    """Follow one hand through a view, by where it is and by its label, never farther than a hand moves.

    A picture does not show it if what is there is out of its reach (see `hands_chains.chains`), or is labelled
    as the other hand beside one that has its label. Lost for longer than ``most`` steps, it is found anew anywhere.

    Args:
        found: the hands in each of T pictures.
        which: hand it is.
        rate_hz: pictures a second.
        most: steps without it that can be bridged.
    """
    landmarks, flags = np.full((len(found), LANDMARKS, 2), np.nan), np.zeros((2, len(found)), bool)
    for chain in chosen(chains(found, which, rate_hz, most), which, most):
        for step, hand in chain.hands.items():
            wrong = hand.handedness != which
            beside = any(other.handedness == which and way(other, hand) >= SAME for other in found[step])
            if not (wrong and beside):
                landmarks[step], flags[:, step] = hand.landmarks_px, (wrong, beside)
    return Track(landmarks, np.isfinite(landmarks[:, 0, 0]), *flags)


def without(track: Track, odd: np.ndarray) -> Track:
    """Return the track without the steps that are odd (T,) bool."""
    landmarks = np.where(odd[:, None, None], np.nan, track.landmarks)
    return Track(landmarks, track.detected & ~odd, track.overruled & ~odd, track.beside & ~odd)


def fill_gaps(track: Track, most: int) -> Track:
    """Interpolate linearly over gaps of at most ``most`` steps between two detections."""
    landmarks, steps = track.landmarks.copy(), np.flatnonzero(track.detected)
    for before, after in zip(steps[:-1].tolist(), steps[1:].tolist(), strict=True):
        if 1 < after - before <= most + 1:
            share = np.arange(1, after - before)[:, None, None] / (after - before)
            landmarks[before + 1 : after] = (1 - share) * landmarks[before] + share * landmarks[after]
    return replace(track, landmarks=landmarks)


def require_detected(tracks: Mapping[str, Track], least: float) -> None:
    """Refuse views in which the hand was found too rarely.

    Raises:
        DatasetError: with the numbers of every view.
    """
    if any(track.detected.mean() < least for track in tracks.values()):
        counts = ", ".join(
            f"view {view} {int(track.detected.sum())} of {len(track.detected)} ({track.detected.mean():.0%})"
            for view, track in tracks.items()
        )
        raise DatasetError(f"too few pictures with the hand: {counts}; want {least:.0%} of every view (--min-detected)")


def common_span(tracks: Mapping[str, Track], rate_hz: float, most: int) -> tuple[int, int]:
    """Return the steps (start, stop) from the first to the last at which all views know the hand.

    Raises:
        DatasetError: if there are no two of them, or a view loses the hand in between, naming where and how long.
    """
    known = np.all([track.known for track in tracks.values()], axis=0)
    steps = np.flatnonzero(known)
    if len(steps) < 2:
        raise DatasetError(f"there are {len(steps)} steps at which all views have the hand; want 2 or more")
    start, stop = int(steps[0]), int(steps[-1]) + 1
    if len(steps) == stop - start:
        return start, stop
    told = []
    for view, track in tracks.items():
        for first, end in runs(~track.known[start:stop]):
            told.append(f"view {view} for {end - first} steps at {(start + first) / rate_hz:.2f} s")
    raise DatasetError(
        f"the hand is lost for longer than {most} steps: {', '.join(told)}; cut the videos there, or raise --max-gap"
    )


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, one past the last) of every run of True in (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
