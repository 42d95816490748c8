"""How fast a command may move: one factor for the whole step, and no faster than it can brake before the box ends."""

from dataclasses import dataclass

import numpy as np

EXACT = 1e-12


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

    speed: np.ndarray | None
    norms: tuple[tuple[slice, float], ...]
    acceleration: np.ndarray | None
    period_s: float
    step: np.ndarray | None = None
    step_norm: tuple[slice, float] | None = None

    def __post_init__(self) -> None:
        free = None if self.acceleration is None else np.isinf(self.acceleration)
        object.__setattr__(self, "_free", free if free is not None and free.any() else None)
        object.__setattr__(self, "_brake", None if free is None else np.where(free, 1.0, self.acceleration))

    def velocity(
        self,
        step: np.ndarray,
        before: np.ndarray,
        goal_speed: np.ndarray,
        below: np.ndarray,
        above: np.ndarray,
        dt_s: float,
    ) -> np.ndarray:
        """Return the velocity (D,) for the next ``dt_s``, the nearest allowed to ``step / dt_s``.

        Without acceleration limits it has the direction of the step. With them it has where it can: from rest, and
        whenever some fraction of it may follow the velocity before. Otherwise it brakes the rest as fast as allowed. A
        goal that moves is followed without a lag; one that is far is neared no faster than it can brake.

        Args:
            step: (D,) from the command before to the one wanted.
            before: (D,) velocity of the command before.
            goal_speed: (D,) velocity of what is wanted; one beyond the limits is that of a goal that jumped, and 0.
            below: (D,) room to the lower end of the box, at least 0; infinity without one.
            above: (D,) room to the upper end.
            dt_s: time since the command before, at most the period.
        """
        step = step * self._step_fraction(step)
        wanted = step / dt_s
        wanted = wanted * self.fraction(wanted)
        if self.acceleration is None:
            return wanted
        if self.fraction(goal_speed) < 1:
            goal_speed = np.zeros_like(step)
        nearing = np.abs(wanted - goal_speed)
        behind = self._nearest(np.abs(step - goal_speed * dt_s))  # what lies between it and a goal that moves on
        brakes = np.where(nearing > EXACT, behind / np.maximum(nearing, EXACT), 1.0)
        wanted = goal_speed + (wanted - goal_speed) * min(1.0, float(brakes.min()))
        wanted = wanted * self.fraction(wanted)
        low, high = self._reachable(before, below, above, dt_s)
        fraction = _fraction_within(np.zeros_like(wanted), wanted, low, high)
        if fraction is not None:
            return fraction * wanted
        brake = np.clip(0.0, low, high)
        along = _fraction_within(brake, wanted, low, high)
        return brake + (along or 0.0) * (wanted - brake)

    def fraction(self, velocity: np.ndarray) -> float:
        """Return the largest f up to 1 with f ``velocity`` (D,) within the limits of speed."""
        found = 1.0
        if self.speed is not None:
            found = min(found, float((self.speed / np.maximum(np.abs(velocity), EXACT)).min()))
        for axes, limit in self.norms:
            found = min(found, limit / max(float(np.linalg.norm(velocity[axes])), EXACT))
        return found

    def _step_fraction(self, step: np.ndarray) -> float:
        found = 1.0
        if self.step is not None:
            found = min(found, float((self.step / np.maximum(np.abs(step), EXACT)).min()))
        if self.step_norm is not None:
            axes, limit = self.step_norm
            found = min(found, limit / max(float(np.linalg.norm(step[axes])), EXACT))
        return found

    def _reachable(
        self, before: np.ndarray, below: np.ndarray, above: np.ndarray, dt_s: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Velocities (D,) to (D,) that the acceleration allows, and from which it can stop inside the box."""
        assert self.acceleration is not None
        change = self.acceleration * dt_s
        low, high = before - change, before + change
        low = np.maximum(low, -self._stoppable(below))
        high = np.minimum(high, self._stoppable(above))
        # after ticks of uneven length both may be out of reach: then it brakes as fast as it may
        high = np.maximum(high, before - change)
        low = np.minimum(low, before + change)
        return np.minimum(low, high), np.maximum(low, high)

    def _nearest(self, distance: np.ndarray) -> np.ndarray:
        """The fastest v (D,) from which it comes to rest within ``distance``, braking at each period from the next on.

        In units of a period's braking, v = m a T: m T + (m - 1) T + ... of n + 1 terms, n the whole part of m.
        """
        brake = self._brake * self.period_s
        u = distance / (brake * self.period_s)
        n = np.floor((np.sqrt(1 + 8 * u) - 1) / 2)
        v: np.ndarray = brake * (u / (n + 1) + n / 2)
        return v if self._free is None else np.where(self._free, np.inf, v)

    def _stoppable(self, room: np.ndarray) -> np.ndarray:
        """The fastest v (D,) with v * period + v^2 / 2a <= room: one more period, then braking."""
        t, a, free = self.period_s, self._brake, self._free
        v: np.ndarray = a * (np.sqrt(t * t + 2 / a * room) - t)
        return v if free is None else np.where(free, np.inf, v)


def _fraction_within(start: np.ndarray, stop: np.ndarray, low: np.ndarray, high: np.ndarray) -> float | None:
    """Return the largest f in [0, 1] with low <= start + f (stop - start) <= high in every axis, or None."""
    way = stop - start
    moving = np.abs(way) > EXACT
    if not moving.all():
        if (~moving & ((start < low - EXACT) | (start > high + EXACT))).any():
            return None
        if not moving.any():
            return 1.0
        start, way, low, high = start[moving], way[moving], low[moving], high[moving]
    one, other = (low - start) / way, (high - start) / way
    least = max(0.0, float(np.minimum(one, other).max()))
    most = min(1.0, float(np.maximum(one, other).min()))
    return most if least <= most + EXACT else None
