"""How fast a command may move: one factor for the whole step, and no faster than it can brake before the box ends.

In plain floats, axis by axis: at every control step there are few axes, and arrays take several times as long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

EXACT = 1e-12


class Brake:
    """How fast one axis may be so that it comes to rest in time.

    Args:
        acceleration: units/s^2; infinity does not limit.
        period_s: between two commands.
    """

    def __init__(self, acceleration: float, period_s: float) -> None:
        self.acceleration = acceleration
        self._free = math.isinf(acceleration)
        self._double = 2 / acceleration
        self._period_s, self._square_s2 = period_s, period_s * period_s
        self._speed = acceleration * period_s  # lost in a period
        self._way = self._speed * period_s

    def nearest(self, distance: float) -> float:
        """The fastest v from which it comes to rest within ``distance``, braking at each period from the next on.

        In units of a period's braking, v = m a T: m T + (m - 1) T + ... of n + 1 terms, n the whole part of m.
        """
        if self._free:
            return math.inf
        u = distance / self._way
        n = (math.sqrt(1 + 8 * u) - 1) // 2
        return self._speed * (u / (n + 1) + n / 2)

    def stoppable(self, room: float) -> float:
        """The fastest v with v * period + v^2 / 2a <= room: one more period, then braking."""
        if self._free:
            return math.inf
        return self.acceleration * (math.sqrt(self._square_s2 + self._double * room) - self._period_s)


@dataclass(frozen=True)
class Reach:
    """Limits of D axes of motion; None, or infinity in an element, does not limit.

    Args:
        speed: (D,) of each axis, units/s.
        norms: ((axes, speed), ...): of the norm over some axes, units/s.
        acceleration: (D,) of each axis, units/s^2.
        period_s: the longest that two commands are apart; braking is planned for it.
        step: (D,) of each axis, units a command.
        step_norm: (axes, step): of the norm over some axes, units a command.
    """

    speed: Sequence[float] | None
    norms: tuple[tuple[slice, float], ...]
    acceleration: Sequence[float] | None
    period_s: float
    step: Sequence[float] | None = None
    step_norm: tuple[slice, float] | None = None
    brakes: tuple[Brake, ...] = field(init=False, repr=False, compare=False)  # (D,), or none

    def __post_init__(self) -> None:
        object.__setattr__(self, "brakes", tuple(Brake(one, self.period_s) for one in self.acceleration or ()))

    def velocity(
        self,
        step: list[float],
        before: list[float],
        goal_speed: list[float],
        below: list[float],
        above: list[float],
        dt_s: float,
    ) -> list[float]:
        """Return the velocity (D,) for the next ``dt_s``, the nearest allowed to ``step / dt_s``.

        Without acceleration limits it has the direction of the step. With them it has where it can: from rest, and
        whenever some fraction of it may follow the velocity before. Otherwise it brakes the rest as fast as allowed. A
        goal that moves is followed without a lag; one that is far is neared no faster than it can brake.

        Args:
            step: (D,) from the command before to the one wanted, finite as all the others.
            before: (D,) velocity of the command before.
            goal_speed: (D,) velocity of what is wanted; one beyond the limits is that of a goal that jumped, and 0.
            below: (D,) room to the lower end of the box, at least 0; infinity without one.
            above: (D,) room to the upper end.
            dt_s: time since the command before, at most the period.
        """
        step = _times(self._step_fraction(step), step)
        wanted = [one / dt_s for one in step]
        wanted = _times(self.fraction(wanted), wanted)
        if self.acceleration is None:
            return wanted
        if self.fraction(goal_speed) < 1:
            goal_speed = [0.0] * len(step)
        wanted = self._nearing(wanted, step, goal_speed, dt_s)
        wanted = _times(self.fraction(wanted), wanted)
        low, high = self._reachable(before, below, above, dt_s)
        fraction = _fraction_within([0.0] * len(step), wanted, low, high)
        if fraction is not None:
            return _times(fraction, wanted)
        brake = [min(max(0.0, least), most) for least, most in zip(low, high, strict=True)]
        along = _fraction_within(brake, wanted, low, high) or 0.0
        return [start + along * (stop - start) for start, stop in zip(brake, wanted, strict=True)]

    def fraction(self, velocity: list[float]) -> float:
        """Return the largest f up to 1 with f ``velocity`` (D,) within the limits of speed."""
        found = _within_each(velocity, self.speed)
        for axes, limit in self.norms:
            found = min(found, _within_norm(velocity[axes], limit))
        return found

    def _step_fraction(self, step: list[float]) -> float:
        found = _within_each(step, self.step)
        if self.step_norm is not None:
            axes, limit = self.step_norm
            found = min(found, _within_norm(step[axes], limit))
        return found

    def _nearing(self, wanted: list[float], step: list[float], goal_speed: list[float], dt_s: float) -> list[float]:
        """Slow down so that it can brake before the goal, whose own velocity is not counted."""
        share = 1.0
        for brake, velocity, way, goal in zip(self.brakes, wanted, step, goal_speed, strict=True):
            nearing = abs(velocity - goal)
            if nearing > EXACT:
                behind = abs(way - goal * dt_s)  # what lies between it and a goal that moves on
                share = min(share, brake.nearest(behind) / nearing)
        return [goal + share * (velocity - goal) for velocity, goal in zip(wanted, goal_speed, strict=True)]

    def _reachable(
        self, before: list[float], below: list[float], above: list[float], dt_s: float
    ) -> tuple[list[float], list[float]]:
        """Velocities (D,) to (D,) that the acceleration allows, and from which it can stop inside the box."""
        low, high = [], []
        for brake, velocity, under, over in zip(self.brakes, before, below, above, strict=True):
            change = brake.acceleration * dt_s
            slowest, fastest = velocity - change, velocity + change
            # after ticks of uneven length the box may be out of reach: then it brakes as fast as it may
            least = min(max(slowest, -brake.stoppable(under)), fastest)
            most = max(min(fastest, brake.stoppable(over)), slowest)
            low.append(min(least, most))
            high.append(max(least, most))
        return low, high


def _times(factor: float, values: list[float]) -> list[float]:
    return values if factor == 1.0 else [factor * one for one in values]


def _within_each(values: list[float], limits: Sequence[float] | None) -> float:
    """The largest factor up to 1 that brings each value (D,) to its limit (D,)."""
    found = 1.0
    if limits is not None:
        for value, limit in zip(values, limits, strict=True):
            if abs(value) > limit:
                found = min(found, limit / abs(value))
    return found


def _within_norm(values: list[float], limit: float) -> float:
    """The largest factor up to 1 that brings the norm of the values to the limit."""
    array = np.array(values)
    norm = math.sqrt(array.dot(array))
    return limit / norm if norm > limit else 1.0


def _fraction_within(start: list[float], stop: list[float], low: list[float], high: list[float]) -> float | None:
    """Return the largest f in [0, 1] with low <= start + f (stop - start) <= high in every axis, or None."""
    least, most = 0.0, 1.0
    for begin, end, lowest, highest in zip(start, stop, low, high, strict=True):
        way = end - begin
        if abs(way) > EXACT:
            enters, leaves = (lowest - begin) / way, (highest - begin) / way
            if way < 0:
                enters, leaves = leaves, enters
            least = enters if enters > least else least
            most = leaves if leaves < most else most
        elif begin < lowest - EXACT or begin > highest + EXACT:
            return None
    return most if least <= most + EXACT else None
