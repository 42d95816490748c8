"""Motions that show an arm's parameters: sums of sines about a posture, from rest to rest, no faster than asked."""

from collections.abc import Callable, Mapping

import numpy as np

from robopolicy.errors import ContractError
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Observation

BAND_HZ = (0.1, 2.5)
WAVES = 6  # a joint
RAMP_S = 1.0  # in which a motion swells and fades
# By kind of command: how many of its numbers move (-1: all but the gripper), and how far, fast and hard.
LIMITS: Mapping[str, tuple[int, Mapping[str, float]]] = {
    "joint": (-1, {"reach": 0.3, "max_speed": 0.6, "max_acceleration": 4.0}),  # rad
    "tool_pose": (3, {"reach": 0.06, "max_speed": 0.2, "max_acceleration": 2.0}),  # m
}


def multi_sine(
    home: np.ndarray,
    rng: np.random.Generator,
    *,
    duration_s: float,
    rate_hz: float,
    reach: float = 0.3,
    max_speed: float = 0.6,
    max_acceleration: float = 4.0,
) -> np.ndarray:
    """Return joint targets (K, J) rad that begin and end at ``home`` (J,) at rest.

    Frequencies are spread evenly over the logarithm of `BAND_HZ`: slow ones show friction, quick ones inertia.

    Args:
        home: the posture, rad (or m, then all else too); `reach` about it has to be free of obstacles.
        rng: draws frequencies and phases.
        duration_s: of all, longer than three ramps.
        rate_hz: targets a second.
        reach: rad; no joint goes farther from home.
        max_speed: rad/s of each joint.
        max_acceleration: rad/s^2 of each joint.

    Raises:
        ContractError: on a duration too short or a limit that is not positive.
    """
    if duration_s < 3 * RAMP_S or rate_hz < 4 * BAND_HZ[1]:
        raise ContractError(
            f"{duration_s:g} s at {rate_hz:g} Hz; want at least {3 * RAMP_S:g} s at {4 * BAND_HZ[1]:g} Hz"
        )
    if not min(reach, max_speed, max_acceleration) > 0:
        raise ContractError("reach, speed and acceleration of an excitation have to be positive")
    home = np.asarray(home, float)
    times = np.arange(round(duration_s * rate_hz)) / rate_hz
    edge = np.clip(np.minimum(times, times[-1] - times) / RAMP_S, 0, 1)
    swell = edge**3 * (10 - 15 * edge + 6 * edge**2)  # no jump in speed or acceleration
    found = np.empty((len(times), len(home)))
    slots = np.linspace(*np.log(BAND_HZ), WAVES + 1)
    for joint in range(len(home)):
        hz = np.exp(rng.uniform(slots[:-1], slots[1:]))
        phases = rng.uniform(0, 2 * np.pi, WAVES)
        size = 1 / hz  # of each wave: the same speed, so that slow ones reach far and quick ones accelerate
        wave = swell * (size[:, None] * np.sin(2 * np.pi * hz[:, None] * times + phases[:, None])).sum(axis=0)
        speed = np.abs(np.diff(wave)).max() * rate_hz
        acceleration = np.abs(np.diff(wave, 2)).max() * rate_hz**2
        factor = min(reach / np.abs(wave).max(), max_speed / speed, max_acceleration / acceleration)
        found[:, joint] = home[joint] + factor * wave
    return found


class Exciter:
    """An agent that moves the arm about where an episode finds it; the gripper and the hand's turn stay.

    Args:
        spec: of the robot, whose commands are joints or tool poses.
        hold: gives the command (A,) that keeps the robot where it is, such as its ``stop``.
        duration_s: of a motion.
        size: factor on how far, fast and hard it moves, 1 at most.

    Raises:
        ContractError: on another kind of command, or a size of no motion.
    """

    def __init__(self, spec: PolicySpec, hold: Callable[[], np.ndarray], *, duration_s: float, size: float) -> None:
        if spec.action.kind not in LIMITS:
            raise ContractError(f"commands of kind {spec.action.kind} cannot be excited; want {' or '.join(LIMITS)}")
        if not 0 < size <= 1:
            raise ContractError(f"size is {size:g}; want a factor above 0, 1 at most")
        self.decision = None
        self._spec, self._hold, self._duration_s, self._size = spec, hold, duration_s, size
        self._rows = np.zeros((0, spec.action.dim), np.float32)
        self._next = 0

    def reset(self, seed: int = 0) -> None:
        """Draw a new motion about the present place."""
        hold = np.asarray(self._hold(), np.float64)
        moving, limits = LIMITS[self._spec.action.kind]
        wave = multi_sine(
            hold[:moving], np.random.default_rng(seed), duration_s=self._duration_s, rate_hz=self._spec.rate_hz,
            **{name: self._size * limit for name, limit in limits.items()},
        )  # fmt: skip
        self._rows = np.tile(hold.astype(np.float32), (len(wave), 1))
        self._rows[:, : wave.shape[1]] = wave
        self._next = 0

    def act(self, observation: Observation) -> Command:
        """Return the next target of the motion, the last one for ever."""
        row = self._rows[min(self._next, len(self._rows) - 1)]
        self._next += 1
        return Command(row.copy(), "policy")

    def done(self, observation: Observation) -> bool:
        """Whether the motion is over."""
        return self._next >= len(self._rows)
