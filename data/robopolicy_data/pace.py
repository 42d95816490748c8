"""How fast steps and frames really come: what an operator must hear of while recording."""

from collections import Counter, deque

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Observation

MIN_RATE = 0.95  # of the labelled rate
WINDOW_S = 2.0
STALL_S = 0.5  # a camera without a new frame for that long stalls; a slow one for five of its periods


class Pace:
    """The achieved rate of the steps, the age of each camera's newest frame, and states that are no numbers.

    Args:
        spec: what is labelled.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self._spec = spec
        self._stamps: deque[int] = deque(maxlen=max(int(WINDOW_S * spec.rate_hz), 10))
        self._first_ns, self._steps = 0, 0
        self._bad: Counter[str] = Counter()  # steps with a NaN or an infinity, by state
        self._bad_now: tuple[str, ...] = ()
        self._frames = {name: [0, 0, 0, 0] for name in spec.cameras}  # first stamp, newest, how many, longest gap

    def saw(self, seen: Observation) -> None:
        """Count a step in."""
        if not self._steps:
            self._first_ns = seen.stamp_ns
        self._steps += 1
        self._stamps.append(seen.stamp_ns)
        self._bad_now = tuple(name for name, values in seen.state.items() if not np.isfinite(values).all())
        self._bad.update(self._bad_now)
        for name, frames in self._frames.items():
            stamp = seen.image_stamps_ns.get(name, seen.stamp_ns)
            if not frames[2]:
                frames[:] = stamp, stamp, 1, 0
            elif stamp != frames[1]:
                frames[3] = max(frames[3], stamp - frames[1])
                frames[1], frames[2] = stamp, frames[2] + 1

    @property
    def rate_hz(self) -> float:
        """Steps a second over the last two; 0 before there are two steps."""
        return _rate(self._stamps[0], self._stamps[-1], len(self._stamps)) if self._stamps else 0.0

    def now(self) -> str:
        """Return what is wrong at present, "" if nothing."""
        if self._bad_now:
            return f"state {self._bad_now[0]!r} is NaN or infinite: nothing can be learnt from this episode"
        for name, (first, newest, count, _) in self._frames.items():
            age = self._stamps[-1] - newest if self._stamps else 0
            if count and age > _stall_ns(first, newest, count):
                return f"camera {name!r} stalls: no new frame for {age / 1e9:.1f} s"
        return self._slow(self.rate_hz) if len(self._stamps) >= 10 else ""

    def whole(self) -> str:
        """Return what was wrong with the whole episode, "" if nothing."""
        found = [f"state {name!r} was NaN or infinite in {n} of {self._steps} steps" for name, n in self._bad.items()]
        found += [
            f"camera {name!r} stalled: no new frame for {gap / 1e9:.1f} s"
            for name, (first, newest, count, longest) in self._frames.items()
            if (gap := max(longest, self._stamps[-1] - newest if self._stamps else 0)) > _stall_ns(first, newest, count)
        ]
        if self._steps >= 10:
            found.append(self._slow(_rate(self._first_ns, self._stamps[-1], self._steps)))
        return "; ".join(text for text in found if text)

    def _slow(self, rate_hz: float) -> str:
        labelled = self._spec.rate_hz
        return f"{rate_hz:.4g} Hz, labelled {labelled:g} Hz" if rate_hz < MIN_RATE * labelled else ""


def _rate(first_ns: int, last_ns: int, count: int) -> float:
    return (count - 1) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else 0.0


def _stall_ns(first_ns: int, newest_ns: int, count: int) -> float:
    period = (newest_ns - first_ns) / (count - 1) if count > 1 else 0.0
    return max(STALL_S * 1e9, 5 * period)
