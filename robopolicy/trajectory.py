"""Chunks as a motion: a smooth curve through the rows of a plan, and from one plan into the next without a jump."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.types import ActionChunk

NS = 1e-9
OLDER = 0.01  # m of ACT's weights exp(-m i), i = 0 the oldest plan


@dataclass(frozen=True)
class Curve:
    """A C1 curve through the rows of a chunk: cubic Hermite pieces, coming to rest at its last row.

    Slopes are those of Fritsch and Butland (1984), at the first row a parabola's that keeps to them: between two rows
    the curve stays between them, so a gripper does not overshoot and a limit that all rows keep is kept. Elements are
    interpolated one by one; the six numbers of a rotation are its columns no longer after that, but near them: whoever
    uses them makes them orthonormal.

    Args:
        chunk: rows and when each is due.
    """

    chunk: ActionChunk

    def __post_init__(self) -> None:
        if len(self.chunk.stamps_ns) == 0:
            raise ContractError("curve: a chunk without rows; want at least one")
        object.__setattr__(self, "_slopes", _slopes(self.chunk.stamps_ns, self.chunk.values.astype(np.float64)))

    @property
    def end_ns(self) -> int:
        """When its last row is due: from then on it holds."""
        return int(self.chunk.stamps_ns[-1])

    def at(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return position (A,) and velocity (A,) per second at ``now_ns``, float64."""
        stamps, values, slopes = self.chunk.stamps_ns, self.chunk.values, self._slopes  # type: ignore[attr-defined]
        if now_ns < stamps[0] or now_ns >= stamps[-1]:
            edge = 0 if now_ns < stamps[0] else -1
            return values[edge].astype(np.float64), np.zeros(values.shape[1])
        k = int(np.searchsorted(stamps, now_ns, side="right")) - 1
        width_s = (stamps[k + 1] - stamps[k]) * NS
        u = (now_ns - stamps[k]) * NS / width_s
        return hermite(u, width_s, values[k].astype(np.float64), values[k + 1], slopes[k], slopes[k + 1])


class Motion:
    """What is played: the newest plan's curve, and what is left of the offset with which it came.

    A plan that arrives late, or was made from an arm that lags its command, does not begin where the running motion is.
    The difference in position and velocity at that instant is taken along and faded out by one cubic that begins with
    both and ends with neither, so the motion is C1 whatever comes.

    Args:
        fade_s: how long an offset lasts; with 0 a new plan takes over with a jump, for comparison.
    """

    def __init__(self, fade_s: float) -> None:
        if not (fade_s >= 0 and np.isfinite(fade_s)):
            raise ContractError(f"motion: a fade of {fade_s} s; want a finite time, 0 or more")
        self._fade_s = fade_s
        self._curve: Curve | None = None
        self._since_ns = 0
        self._offset: tuple[np.ndarray, np.ndarray] | None = None  # position (A,), velocity (A,) at _since_ns

    @property
    def started(self) -> bool:
        """Whether there is anything to play."""
        return self._curve is not None

    @property
    def end_ns(self) -> int:
        """When the newest plan is over; 0 without one."""
        return 0 if self._curve is None else self._curve.end_ns

    @property
    def rest_ns(self) -> int:
        """When it comes to rest: its newest plan is over, and so is the fading; 0 without one."""
        return 0 if self._curve is None else max(self._curve.end_ns, self._since_ns + round(self._fade_s / NS))

    def put(self, chunk: ActionChunk, now_ns: int, start: np.ndarray | None = None) -> None:
        """Go on with ``chunk`` from ``now_ns`` on, from where the motion is or, without one, from ``start`` (A,).

        Raises:
            ContractError: if the chunk has no rows.
        """
        curve = Curve(chunk)
        if self._curve is not None:
            at, speed = self.at(now_ns)
        elif start is not None:
            at, speed = np.asarray(start, np.float64), np.zeros(chunk.values.shape[1])
        else:
            at, speed = curve.at(now_ns)
        there, there_speed = curve.at(now_ns)
        self._curve, self._since_ns = curve, now_ns
        self._offset = (at - there, speed - there_speed)

    def at(self, now_ns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return position (A,) and velocity (A,) per second at ``now_ns``, float64.

        Raises:
            ContractError: if nothing was put yet.
        """
        if self._curve is None:
            raise ContractError("nothing to play; call put first")
        value, speed = self._curve.at(now_ns)
        into_s = (now_ns - self._since_ns) * NS
        if self._offset is None or into_s >= self._fade_s:
            return value, speed
        left = into_s / self._fade_s
        zero = np.zeros_like(value)
        offset, offset_speed = hermite(max(left, 0.0), self._fade_s, self._offset[0], zero, self._offset[1], zero)
        return value + offset, speed + offset_speed


def ensembled(newest: ActionChunk, older: Sequence[ActionChunk]) -> ActionChunk:
    """Return the newest plan averaged with what older ones say of the same instants: temporal ensembling.

    Weights are exp(-m i), i = 0 the oldest (Zhao et al. 2023, ACT, algorithm 2), and each older plan's fades linearly
    to 0 towards its own last row: a plan that ends is no jump. The rows stay those of the newest.

    Args:
        newest: (H, A).
        older: (H', A) each, oldest first; those without a row after the newest's first are left out.
    """
    stamps = newest.stamps_ns
    total = np.zeros(newest.values.shape)
    weights = np.zeros(len(stamps))
    alive = [one for one in older if one.stamps_ns[-1] > stamps[0]]
    for i, one in enumerate(alive):
        end_ns = int(one.stamps_ns[-1])
        weight = np.exp(-OLDER * i) * np.clip((end_ns - stamps) / (end_ns - stamps[0]), 0.0, 1.0)  # (H,)
        curve = Curve(one)
        total += weight[:, None] * np.stack([curve.at(int(ns))[0] for ns in stamps])
        weights += weight
    weight = np.exp(-OLDER * len(alive))
    mean = (total + weight * newest.values) / (weights + weight)[:, None]
    return ActionChunk(stamps, mean.astype(newest.values.dtype), newest.made_ns)


def hermite(
    u: float, width_s: float, start: np.ndarray, stop: np.ndarray, slope: np.ndarray, slope_after: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cubic with these ends and slopes (A,) per second at the fraction ``u`` of its width, and its slope."""
    step = stop - start
    a, b = width_s * slope - step, step - width_s * slope_after
    value = start + u * step + u * (1 - u) * ((1 - u) * a + u * b)
    speed = (step + (1 - 2 * u) * ((1 - u) * a + u * b) + u * (1 - u) * (b - a)) / width_s
    return value, speed


def _slopes(stamps_ns: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Slopes (H, A) per second at the rows: the weighted harmonic mean of the secants, 0 at a turn and at the end."""
    slopes = np.zeros_like(values)
    if len(values) < 3:
        return slopes
    width = np.diff(stamps_ns)[:, None] * NS
    secant = np.diff(values, axis=0) / width
    before, after = secant[:-1], secant[1:]
    share = (width[:-1] + 2 * width[1:]) / (3 * (width[:-1] + width[1:]))
    same = before * after > 0
    weighted = share * after + (1 - share) * before
    np.divide(before * after, weighted, out=slopes[1:-1], where=same)
    parabola = ((2 * width[0] + width[1]) * secant[0] - width[0] * secant[1]) / (width[0] + width[1])
    most = 3 * np.abs(secant[0])  # more would leave what the rows span
    slopes[0] = np.where(parabola * secant[0] > 0, np.clip(parabola, -most, most), 0.0)
    return slopes
