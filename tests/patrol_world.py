"""A task that only memory solves: to visit two stations in turns, seen by a coarse camera among others that move."""

import numpy as np

from robopolicy.spec import ActionSpec, PolicySpec, StateSpec
from robopolicy.types import Observation

PIXELS = 16
VISITS = 8  # that make a success
MAX_STEP_M = 0.36
SPEC = PolicySpec(
    state={"retina": StateSpec(PIXELS, ("1",))},
    action=ActionSpec("vector", ("x",), ("m",)),
    rate_hz=10.0, n_obs=8, horizon=4, n_execute=2,
)  # fmt: skip


class PatrolWorld:
    """A robot on a rail with home at 0 and a station at either end, -1 m and 1 m.

    After each visit it comes home and pauses; nothing there tells which station is next but the way it came. All
    that is seen is a row of noisy pixels: the robot is a narrow bump, passers-by are wide ones that hide it at times.
    Two visits of the same station in a row are a failure.

    Args:
        clock: of the loop.
        passers: how many.
        noise: standard deviation of a pixel; the robot's bump is 1 high.
    """

    instruction = "visit both stations in turns"
    max_steps = 100

    def __init__(self, clock, passers=5, noise=0.1):
        self.spec = SPEC
        self._clock, self._passers, self._noise = clock, passers, noise
        self.reset(0)

    def reset(self, seed):
        self._rng = np.random.default_rng(seed)
        self.x = 0.0
        self._others = self._rng.uniform(-1.2, 1.2, self._passers)
        self._speeds = self._rng.normal(0, 0.08, self._passers)
        self.visits = []  # -1 or 1 each
        self._away = True  # it was home since the last visit

    def read(self):
        return Observation(self._clock.now_ns(), {"retina": self.see()})

    def see(self):
        at = np.linspace(-1.3, 1.3, PIXELS)
        seen = np.exp(-0.5 * ((at - self.x) / 0.12) ** 2)
        for other in self._others:
            seen += 0.7 * np.exp(-0.5 * ((at - other) / 0.15) ** 2)
        return (seen + self._rng.normal(0, self._noise, PIXELS)).astype(np.float32)

    def command(self, action, due_ns=0):
        self.x = float(np.clip(self.x + np.clip(action[0] - self.x, -MAX_STEP_M, MAX_STEP_M), -1.2, 1.2))
        self._speeds = 0.9 * self._speeds + self._rng.normal(0, 0.05, self._passers)
        self._others = self._others + self._speeds
        self._others = np.where(np.abs(self._others) > 1.3, -self._others, self._others)
        if abs(self.x) > 0.9 and self._away:
            self.visits.append(int(np.sign(self.x)))
        self._away = abs(self.x) < 0.1 or (self._away and abs(self.x) <= 0.9)
        return np.array(action, np.float32)

    def stop(self, reason=""):
        return np.float32([self.x])

    def close(self):
        pass

    def in_turns(self):
        """How many visits were made before one was repeated."""
        repeated = [i for i in range(1, len(self.visits)) if self.visits[i] == self.visits[i - 1]]
        return repeated[0] if repeated else len(self.visits)

    def success(self):
        return self.in_turns() >= VISITS

    def score(self):
        return min(self.in_turns() / VISITS, 1.0)


def demonstrate(seed, **world):
    """Return what an expert saw (T, PIXELS) and commanded (T, 1): a random side first, five visits in all."""
    made = PatrolWorld(None, **world)
    made.reset(seed)
    rng = np.random.default_rng([seed, 1])
    side, seen, done = rng.choice([-1.0, 1.0]), [], []
    for _ in range(5):
        step = rng.uniform(0.30, MAX_STEP_M)
        out = np.append(np.arange(step, 1, step), 1.0)
        pause = [0.0] * int(rng.integers(1, 3))
        for x in (*pause, *out, 1.0, *np.maximum(1 - np.append(np.arange(step, 1, step), 1.0), 0)):
            seen.append(made.see())
            done.append(made.command(np.float32([side * x])))
        side = -side
    return np.stack(seen), np.stack(done), made
