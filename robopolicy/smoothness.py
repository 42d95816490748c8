"""How smooth a motion is: its speed, and two published measures of it, for demonstrations and rollouts alike."""

import numpy as np

PADDING = 4  # SPARC: the spectrum is interpolated 2**4 times
AMPLITUDE = 0.05  # SPARC: the spectrum ends where it stays below this part of its first value
CUTOFF_HZ = 10.0  # SPARC: and here at the latest
HALF_WINDOW_S = 0.1  # speeds are displacements over twice this: shaking on the spot is not motion


def speeds(positions: np.ndarray, rate_hz: float, half_window_s: float = HALF_WINDOW_S) -> np.ndarray:
    """Return the speed (T,) of ``positions`` (T, P), in their unit per second, as displacement over a short window."""
    steps = max(round(half_window_s * rate_hz), 1)
    now = np.arange(len(positions))
    before, after = np.maximum(now - steps, 0), np.minimum(now + steps, len(positions) - 1)
    span_s = np.maximum(after - before, 1) / rate_hz
    speed: np.ndarray = np.linalg.norm(positions[after] - positions[before], axis=1) / span_s
    return speed


def spectral_arc_length(speed: np.ndarray, rate_hz: float) -> float:
    """Return SPARC of a speed profile (T,): about -1.4 for one smooth reach, the more negative the more jerky.

    The negative arc length of the amplitude spectrum, normalised in both axes (Balasubramanian, Melendez-Calderon,
    Roby-Brami and Burdet 2015, "On the analysis of movement smoothness", eq. 8-10), with their adaptive cutoff. NaN
    if nothing moves. Not to be compared between tasks: many-stroke movements have longer spectra.
    """
    if len(speed) < 4 or not np.any(speed > 0):
        return float("nan")
    size = 2 ** (int(np.ceil(np.log2(len(speed)))) + PADDING)
    spectrum = np.abs(np.fft.rfft(speed, size))
    spectrum = spectrum / spectrum.max()
    frequency = np.fft.rfftfreq(size, 1 / rate_hz)
    within = np.flatnonzero((frequency <= CUTOFF_HZ) & (spectrum >= AMPLITUDE))
    spectrum, frequency = spectrum[: within[-1] + 1], frequency[: within[-1] + 1]
    if len(frequency) < 2:
        return float("nan")
    across = np.diff(frequency) / (frequency[-1] - frequency[0])
    return -float(np.hypot(across, np.diff(spectrum)).sum())


def log_dimensionless_jerk(positions: np.ndarray, rate_hz: float) -> float:
    """Return the log dimensionless jerk of positions (T, P): -5.3 for one minimum-jerk reach, less is jerkier.

    ``-ln(duration^3 / peak speed^2 x integral of |jerk|^2)``, Balasubramanian et al. 2015, eq. 4 (Hogan and
    Sternad 2009). NaN if nothing moves.
    """
    if len(positions) < 5:
        return float("nan")
    velocity = np.gradient(positions, 1 / rate_hz, axis=0)
    jerk = np.diff(positions, n=3, axis=0) * rate_hz**3
    peak = float(np.linalg.norm(velocity, axis=1).max())
    total = float((jerk**2).sum()) / rate_hz
    if peak <= 0 or total <= 0:
        return float("nan")
    duration_s = (len(positions) - 1) / rate_hz
    return -float(np.log(duration_s**3 / peak**2 * total))
