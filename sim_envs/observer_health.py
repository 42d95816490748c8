"""How well a twin holds: confidence, age, dropouts, divergence."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

RECENT = 0.05  # weight of the newest measurement in the running numbers: about the last second at 30 Hz
TRUST_S = 0.5  # without a measurement after which confidence has halved


@dataclass(frozen=True)
class Health:
    """Of one object, or of the whole twin.

    ``diverged`` says why the twin must not be believed, in one line, or nothing.
    """

    confidence: float  # 0 to 1: how well innovations agree with what they should be, less with the age
    innovation: float  # running root mean square of accepted and rejected innovations, in standard deviations: about 1
    age_s: float  # of the newest accepted measurement; inf before the first
    dropout_rate: float  # 0 to 1: measurements of the last second that were expected and did not come, or were rejected
    accepted: int = 0
    rejected: int = 0  # too far from the twin's history
    restarts: int = 0  # consistent rejections that were believed in the end
    recoveries: int = 0  # physics that had to be put back to the last good state
    diverged: str = ""


@dataclass
class Tally:
    """Counts what becomes of one object's measurements.

    Attributes:
        rate_hz: measurements a second that are expected.
        silence_s: without an accepted measurement after which the twin is called diverged.
    """

    rate_hz: float
    silence_s: float
    accepted: int = 0
    rejected: int = 0
    restarts: int = 0
    invalid: int = 0
    newest_ns: int | None = None
    _square: float = 1.0
    _stamps: list[int] = field(default_factory=list)
    _in_a_row: int = 0

    def take(self, stamp_ns: int, distance: float, *, accepted: bool) -> None:
        """Note a measurement that was so many standard deviations off."""
        self._square += RECENT * (min(distance, 10.0) ** 2 - self._square)
        if accepted:
            self.accepted += 1
            self._in_a_row = 0
            self.newest_ns = max(stamp_ns, self.newest_ns or stamp_ns)
            self._stamps.append(stamp_ns)
        else:
            self.rejected += 1
            self._in_a_row += 1

    def restart(self, stamp_ns: int) -> None:
        """Note that rejected measurements were believed."""
        self.restarts += 1
        self._square, self._in_a_row = 1.0, 0
        self.newest_ns = stamp_ns

    def health(self, now_ns: int, recoveries: int = 0) -> Health:
        """Return how it stands now."""
        age_s = np.inf if self.newest_ns is None else max(0.0, (now_ns - self.newest_ns) / 1e9)
        self._stamps = [stamp for stamp in self._stamps if stamp > now_ns - 1_000_000_000]
        dropout = float(np.clip(1 - len(self._stamps) / self.rate_hz, 0.0, 1.0))
        innovation = float(np.sqrt(self._square))
        agreement = float(np.exp(-0.5 * max(0.0, innovation - 1.0) ** 2))
        confidence = agreement * 0.5 ** (max(0.0, age_s - 2 / self.rate_hz) / TRUST_S) if self.accepted else 0.0
        return Health(
            confidence, innovation, age_s, dropout, self.accepted, self.rejected, self.restarts, recoveries,
            self._diverged(age_s, innovation),
        )  # fmt: skip

    def _diverged(self, age_s: float, innovation: float) -> str:
        if self.newest_ns is None:
            return "not measured yet"
        if self._in_a_row >= 3:
            return f"the last {self._in_a_row} measurements contradict the twin"
        if age_s > self.silence_s:
            return f"not measured for {age_s:.1f} s"
        if innovation > 3.0:
            return f"measurements are {innovation:.1f} standard deviations off"
        return ""


def worst(each: Mapping[str, Health]) -> Health:
    """Return the least of every number over some objects, and the first reason; counts are added up.

    Raises:
        ValueError: without any.
    """
    all_of = list(each.values())
    reasons = [f"{name}: {health.diverged}" for name, health in each.items() if health.diverged]
    return Health(
        min(h.confidence for h in all_of), max(h.innovation for h in all_of), max(h.age_s for h in all_of),
        max(h.dropout_rate for h in all_of), sum(h.accepted for h in all_of), sum(h.rejected for h in all_of),
        sum(h.restarts for h in all_of), max(h.recoveries for h in all_of), "; ".join(reasons),
    )  # fmt: skip
