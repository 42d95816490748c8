"""A stream read at given instants: the nearest sample, the one before or after, or interpolated between two."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from robopolicy.errors import ContractError, UnknownName

How = Literal["interpolate", "nearest", "before", "after"]
HOWS: tuple[str, ...] = ("interpolate", "nearest", "before", "after")


@dataclass(frozen=True)
class Rule:
    """How a stream is read at an instant.

    ``interpolate``: linear between the samples around it, quaternions by SLERP; at an end of the stream its last
    sample is held. ``nearest``, ``before`` (the newest not later), ``after`` (the oldest not earlier): a sample as is.

    Raises:
        ContractError: if a number or a name makes no sense.
    """

    how: How = "interpolate"
    max_age_s: float = 0.1  # no sample farther than this from the instant is used
    latency_s: float = 0.0  # from capture to stamp; taken off every stamp
    quats: tuple[int, ...] = ()  # where in the vector quaternions (wxyz or xyzw) start

    def __post_init__(self) -> None:
        if self.how not in HOWS:
            raise UnknownName("way to align", self.how, HOWS)
        if not (self.max_age_s > 0 and np.isfinite(self.max_age_s) and np.isfinite(self.latency_s)):
            raise ContractError(f"max_age_s {self.max_age_s}, latency_s {self.latency_s}: want finite, the age above 0")

    @property
    def latency_ns(self) -> int:
        """The latency in nanoseconds."""
        return round(self.latency_s * 1e9)


def captures_ns(stamps_ns: np.ndarray, rule: Rule) -> np.ndarray:
    """Return when the samples of a stream were captured, (M',) int64, repeated stamps once: instants to align to."""
    stamps = np.asarray(stamps_ns, np.int64)
    captured: np.ndarray = stamps[np.diff(stamps, prepend=stamps[:1] - 1) != 0] - rule.latency_ns
    return captured


def ticks_ns(start_ns: int, end_ns: int, rate_hz: float) -> np.ndarray:
    """Return the instants of a fixed rate from ``start_ns`` to ``end_ns``, both included, (N,) int64."""
    count = int(np.floor((end_ns - start_ns) * 1e-9 * rate_hz + 1e-6)) + 1 if end_ns >= start_ns else 0
    ticks: np.ndarray = start_ns + np.round(np.arange(count) * (1e9 / rate_hz)).astype(np.int64)
    return ticks


def thinned_ns(references_ns: np.ndarray, rate_hz: float) -> np.ndarray:
    """Return those of the instants (N,) that are nearest to the ticks of a lower rate, each once."""
    references = np.asarray(references_ns, np.int64)
    if not len(references):
        return references
    ticks = ticks_ns(int(references[0]), int(references[-1]), rate_hz)
    before, after = _neighbours(references, ticks)
    later = references[after] - ticks < ticks - references[before]
    kept: np.ndarray = references[np.unique(np.where(later, after, before))]
    return kept


@dataclass(frozen=True)
class Found:
    """Which samples answer for N instants."""

    first: np.ndarray  # (N,) int64 row
    second: np.ndarray  # (N,) int64 row; the first again unless interpolated
    weight: np.ndarray  # (N,) float64 of the second
    stamps_ns: np.ndarray  # (N,) int64
    far_ns: np.ndarray  # (N,) int64: how far from the instant the farther sample lies, -1 if there is none
    missing: np.ndarray  # (N,) bool: none on the side that was asked for
    too_far: np.ndarray  # (N,) bool
    references_ns: np.ndarray  # (N,) int64


def _neighbours(stamps: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the newest sample not later and of the oldest not earlier; an end of the stream is both."""
    after = np.searchsorted(stamps, references, side="left")
    before = np.searchsorted(stamps, references, side="right") - 1
    last = len(stamps) - 1
    return np.where(before < 0, np.minimum(after, last), before), np.where(after > last, before, after)


def find(rule: Rule, stamps: np.ndarray, references: np.ndarray) -> Found:
    """Return which of the samples with increasing ``stamps`` (M,) int64 answer for ``references`` (N,) int64."""
    count = len(references)
    if len(stamps) == 0:
        zero = np.zeros(count, np.int64)
        every = np.ones(count, bool)
        return Found(zero, zero, zero.astype(float), zero, zero - 1, every, every, references)
    before, after = _neighbours(stamps, references)
    to_before, to_after = np.abs(references - stamps[before]), np.abs(stamps[after] - references)
    weight = np.zeros(count)
    if rule.how == "interpolate":
        first, second, used = before, after, references
        gap = stamps[after] - stamps[before]
        np.divide((references - stamps[before]).astype(np.float64), gap, out=weight, where=gap > 0)
        far, missing = np.maximum(to_before, to_after), np.zeros(count, bool)
    else:
        if rule.how == "nearest":
            first, missing = np.where(to_after < to_before, after, before), np.zeros(count, bool)
        elif rule.how == "before":
            first, missing = before, stamps[before] > references
        else:
            first, missing = after, stamps[after] < references
        second, used = first, stamps[first]
        far = np.abs(used - references)
    too_far = missing | (far > round(rule.max_age_s * 1e9))
    return Found(first, second, weight, used, far, missing, too_far, references)


def blend(rule: Rule, first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Between two samples (N, D) each, (N, D) float64; element by element, so that one row gives what many do."""
    part = weight[:, None]
    out: np.ndarray = first + (second - first) * part
    for start in rule.quats:
        four = slice(start, start + 4)
        out[:, four] = _slerp(first[:, four], second[:, four], weight)
    return out


def _slerp(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Along the shorter arc between unit quaternions (N, 4), either order of elements (Shoemake 1985)."""
    first, second = _unit(first), _unit(second)
    cosine = _dot(first, second)
    second = np.where(cosine[:, None] < 0, -second, second)
    cosine = np.minimum(np.abs(cosine), 1.0)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    near = sine < 1e-6  # so close that the chord is the arc
    safe = np.where(near, 1.0, sine)
    a = np.where(near, 1.0 - weight, np.sin((1.0 - weight) * angle) / safe)
    b = np.where(near, weight, np.sin(weight * angle) / safe)
    return _unit(a[:, None] * first + b[:, None] * second)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    total: np.ndarray = a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2] + a[:, 3] * b[:, 3]
    return total


def _unit(quat: np.ndarray) -> np.ndarray:
    length = np.sqrt(_dot(quat, quat))
    unit: np.ndarray = quat / np.where(length == 0, 1.0, length)[:, None]
    return unit


def too_far_line(name: str, rule: Rule, found: Found, row: int) -> str:
    """Return one line on why row ``row`` has no sample near enough."""
    if found.far_ns[row] < 0:
        return f"stream {name!r} has no sample"
    instant = f"the instant {found.references_ns[row]} ns"
    if found.missing[row]:
        return f"stream {name!r} has no sample {rule.how} {instant}"
    away = found.far_ns[row] * 1e-9
    return (
        f"stream {name!r}: the sample it needs is {away:.3f} s from {instant}; at most {rule.max_age_s:g} s is allowed"
    )
