"""The way of the tool in one episode, as it was observed, and how smooth it was."""

from math import isfinite

import numpy as np

from robopolicy.smoothness import spectral_arc_length, speeds
from robopolicy.spec import PolicySpec
from robopolicy.types import Observation

LENGTHS = {"m", "mm", "px"}


class ToolPath:
    """Collects where the tool is: the stream ``tool_pos``, or in a plane what the action's target is of.

    A robot without ``tool_pos`` whose actions are positions (all in m, mm or px) is taken to tell its own position
    first in the first stream that begins with as many elements of the same unit, as Push-T's ``state`` does with the
    pusher's x and y. Where there is no such stream there is no path.

    Args:
        spec: of the robot or world.
    """

    def __init__(self, spec: PolicySpec) -> None:
        self.newest_ns: int | None = None
        self._rate_hz = spec.rate_hz
        self._stream, self._size = _stream(spec)
        self._stamps_ns: list[int] = []
        self._positions: list[np.ndarray] = []  # (P,) each

    def add(self, observation: Observation) -> None:
        """Take one observation."""
        self.newest_ns = observation.stamp_ns
        if self._stream is not None and self._stream in observation.state:
            self._stamps_ns.append(observation.stamp_ns)
            self._positions.append(np.asarray(observation.state[self._stream][: self._size], np.float64))

    def smoothness(self) -> float | None:
        """Return the spectral arc length (SPARC, without unit) of the tool's speed: 0 at most, nearer 0 is smoother.

        Balasubramanian, Melendez-Calderon, Roby-Brami and Burdet 2015, "On the analysis of movement smoothness",
        eq. 8-10; the same number as ``sparc`` of ``robopolicy data quality`` for demonstrations, so that a policy can
        be held against the people it learnt from. Compare it within one task, between episodes of about the same
        strokes. Noise of the observed positions counts as roughness. Steps that passed without a command are
        interpolated. None if there is no path, or nothing moved.
        """
        if len(self._positions) < 4:
            return None
        stamps_s = (np.asarray(self._stamps_ns, np.int64) - self._stamps_ns[0]) * 1e-9
        path = np.stack(self._positions)  # (T, P)
        even_s = np.arange(round(stamps_s[-1] * self._rate_hz) + 1) / self._rate_hz
        path = np.stack([np.interp(even_s, stamps_s, column) for column in path.T], axis=1)
        if not np.isfinite(path).all():
            return None
        value = spectral_arc_length(speeds(path, self._rate_hz), self._rate_hz)
        return round(value, 4) if isfinite(value) else None


def _stream(spec: PolicySpec) -> tuple[str | None, int]:
    """The stream that tells where the tool is, and how many of its elements do."""
    if "tool_pos" in spec.state:
        return "tool_pos", spec.state["tool_pos"].dim
    action = spec.action
    units = action.units * action.dim if len(action.units) == 1 else action.units
    if action.kind != "vector" or len(set(units)) != 1 or not set(units) <= LENGTHS or action.dim > 3:
        return None, 0
    for name, state in spec.state.items():
        own = state.units * state.dim if len(state.units) == 1 else state.units
        if own[: action.dim] == units:
            return name, action.dim
    return None, 0
