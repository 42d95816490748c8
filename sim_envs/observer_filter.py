"""How far a twin's estimate of one object is believed, and so how much a measurement moves it."""

from dataclasses import dataclass

import numpy as np

from robopolicy.errors import ContractError

SMOOTHING = 0.1  # weight of the newest innovation in the running mean that shows a lasting bias


@dataclass(frozen=True)
class Noise:
    """Of one kind of number: metres of a position, or radians of a turn.

    Raises:
        ContractError: if one is not a finite number above zero.
    """

    measured: float  # standard deviation of a measurement, each axis
    drift: float  # how far the model may stray from the world in a second while nothing moves
    share: float  # of an object's motion that the model may have wrong
    window_s: float = 0.1  # for which such an error keeps its direction

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value > 0):
                raise ContractError(f"noise: {name} is {value}; want a finite number above 0")


class Belief:
    """The variance of one estimate, a scalar Kalman filter on its error: the same for all axes.

    Kalman, A New Approach to Linear Filtering and Prediction Problems, 1960. The process noise grows with the motion:
    what stands still in both worlds stays where it is, what is pushed goes where the wrong friction pushes it.
    """

    def __init__(self, noise: Noise) -> None:
        self._noise = noise
        self.forget()

    def forget(self) -> None:
        """Believe nothing: the next measurement is taken as it is."""
        self.variance = 1e6 * self._noise.measured**2
        self._mean, self._weight = np.zeros(3), 0.0

    def settle(self) -> None:
        """Believe what was measured just now."""
        self.variance = self._noise.measured**2
        self._mean, self._weight = np.zeros(3), 0.0

    def grow(self, dt_s: float, speed: float) -> None:
        """Let ``dt_s`` pass at ``speed`` (m/s or rad/s)."""
        drift = self._noise.drift + self._noise.share * speed
        self.variance += drift**2 * self._noise.window_s * dt_s

    def distance(self, innovation: np.ndarray, axes: int) -> float:
        """Return how many standard deviations an innovation (3,) is off, a root mean square over its axes."""
        spread = self.variance + self._noise.measured**2
        return float(np.sqrt(innovation @ innovation / (axes * spread)))

    def gain(self, innovation: np.ndarray, axes: int) -> float:
        """Return the share of an innovation (3,) that corrects the estimate, 0 to 1, and note that it does.

        Innovations that lean one way for long are no noise: the model is wrong there, and is believed less.
        """
        measured = self._noise.measured**2
        self._mean = (1 - SMOOTHING) * self._mean + SMOOTHING * innovation
        self._weight = (1 - SMOOTHING) ** 2 * self._weight + SMOOTHING**2
        bias = float(self._mean @ self._mean) / axes
        if bias > 9 * self._weight * (self.variance + measured):
            self.variance += bias
        gain = self.variance / (self.variance + measured)
        self.variance *= 1 - gain
        return gain
