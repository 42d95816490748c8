"""How fast a loop really runs: achieved rates of steps and cameras, now and over the episode, and who drove."""

from collections import Counter, deque

from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta, Observation, Step

WINDOW_S = 2.0  # over which "now" is taken


class Pace:
    """A watcher that counts; ask it at any time.

    Attributes:
        steps: so far.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._sources: Counter[str] = Counter()
        self._first_ns = self._last_ns = 0
        self._seen = 0
        self._stamps: deque[int] = deque()  # of the observations of the last seconds
        self._frames: dict[str, deque[int]] = {}  # of each camera's different frames, likewise

    def see(self, observation: Observation) -> None:
        """Note an observation, whether or not a step follows."""
        now_ns = observation.stamp_ns
        self._first_ns = now_ns if self._seen == 0 else self._first_ns
        self._last_ns, self._seen = now_ns, self._seen + 1
        _push(self._stamps, now_ns, now_ns)
        for name, stamp_ns in observation.image_stamps_ns.items():
            frames = self._frames.setdefault(name, deque())
            if not frames or stamp_ns != frames[-1]:
                _push(frames, stamp_ns, now_ns)

    def on_start(self, meta: EpisodeMeta, spec: PolicySpec) -> None:
        """Nothing to count yet."""

    def on_step(self, step: Step) -> None:
        """One more."""
        self.steps += 1
        self._sources[step.source] += 1

    def on_end(self, meta: EpisodeMeta) -> None:
        """Nothing more to count."""

    @property
    def time_s(self) -> float:
        """From the first observation to the newest, seconds."""
        return (self._last_ns - self._first_ns) / 1e9

    @property
    def mean_hz(self) -> float:
        """Observations a second over the whole episode."""
        return (self._seen - 1) / self.time_s if self.time_s > 0 else 0.0

    @property
    def rate_hz(self) -> float:
        """Observations a second, of late."""
        return _rate(self._stamps)

    @property
    def camera_hz(self) -> float:
        """New frames a second of the slowest camera, of late; 0 without cameras."""
        return min((_rate(frames) for frames in self._frames.values()), default=0.0)

    def shares(self) -> dict[str, float]:
        """Return the share of the steps that each source gave, largest first."""
        return {name: count / self.steps for name, count in self._sources.most_common()} if self.steps else {}


def _push(stamps: deque[int], stamp_ns: int, now_ns: int) -> None:
    stamps.append(stamp_ns)
    while now_ns - stamps[0] > WINDOW_S * 1e9:
        stamps.popleft()
        if not stamps:
            break


def _rate(stamps: deque[int]) -> float:
    return (len(stamps) - 1) * 1e9 / (stamps[-1] - stamps[0]) if len(stamps) > 1 and stamps[-1] > stamps[0] else 0.0
