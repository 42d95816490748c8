"""Motions that show an arm's parameters: sums of sines about a posture, from rest to rest, no faster than asked."""

import numpy as np

from robopolicy.errors import ContractError

BAND_HZ = (0.1, 2.5)
WAVES = 6  # a joint
RAMP_S = 1.0  # in which a motion swells and fades


def multi_sine(
    home: np.ndarray,
    rng: np.random.Generator,
    *,
    duration_s: float,
    rate_hz: float,
    reach_rad: float = 0.3,
    max_speed: float = 0.6,
    max_acceleration: float = 4.0,
) -> np.ndarray:
    """Return joint targets (K, J) rad that begin and end at ``home`` (J,) at rest.

    Frequencies are spread evenly over the logarithm of `BAND_HZ`: slow ones show friction, quick ones inertia.

    Args:
        home: the posture, rad; `reach_rad` about it has to be free of obstacles.
        rng: draws frequencies and phases.
        duration_s: of all, longer than three ramps.
        rate_hz: targets a second.
        reach_rad: no joint goes farther from home.
        max_speed: rad/s of each joint.
        max_acceleration: rad/s^2 of each joint.

    Raises:
        ContractError: on a duration too short or a limit that is not positive.
    """
    if duration_s < 3 * RAMP_S or rate_hz < 4 * BAND_HZ[1]:
        raise ContractError(
            f"{duration_s:g} s at {rate_hz:g} Hz; want at least {3 * RAMP_S:g} s at {4 * BAND_HZ[1]:g} Hz"
        )
    if not min(reach_rad, max_speed, max_acceleration) > 0:
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
        factor = min(reach_rad / np.abs(wave).max(), max_speed / speed, max_acceleration / acceleration)
        found[:, joint] = home[joint] + factor * wave
    return found
