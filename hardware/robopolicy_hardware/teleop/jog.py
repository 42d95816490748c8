"""From sticks and caps to motion: deflections are speeds, and the buttons beside them mean the same everywhere."""

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Event, Observation, Phase
from robopolicy_hardware.teleop.target import ToolTarget

SPEED_M_S = 0.2  # at full deflection
TURN_RAD_S = 0.8
LONGEST_S = 0.1  # of one step: a stall moves the target no further than this
DEAD = 0.08  # of full deflection; sticks never come back to exactly zero


class Jog:
    """Moves a `ToolTarget` at a speed, by the time that passes between observations.

    Args:
        spec: of the robot.
        speed: factor of 0.2 m/s and 0.8 rad/s at full deflection.
    """

    def __init__(self, spec: PolicySpec, *, speed: float = 1.0) -> None:
        self.target = ToolTarget(spec)
        self._speed = speed
        self._before_ns: int | None = None

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Start from where the robot is."""
        self.target.engage(observation, set_point)
        self._before_ns = None

    def drive(
        self, observation: Observation, linear: np.ndarray, angular: np.ndarray, gripper: float | None = None
    ) -> Command:
        """Return the command that moves on at ``linear`` and ``angular`` (3,), 1 at full deflection, base frame."""
        return self.move(
            observation, self._speed * SPEED_M_S * linear, self._speed * TURN_RAD_S * angular, gripper=gripper
        )

    def move(
        self, observation: Observation, linear_m_s: np.ndarray, angular_rad_s: np.ndarray, gripper: float | None = None
    ) -> Command:
        """Return the command that moves on at speeds (3,) in the base frame."""
        before_ns = observation.stamp_ns if self._before_ns is None else self._before_ns
        self._before_ns = observation.stamp_ns
        elapsed_s = min(max((observation.stamp_ns - before_ns) / 1e9, 0.0), LONGEST_S)
        self.target.see(observation)
        self.target.move(elapsed_s * linear_m_s, elapsed_s * angular_rad_s, gripper)
        return Command(self.target.command(), "human")


class Buttons:
    """Which buttons went down since the last look; names to events, of which one depends on the phase.

    Args:
        events: from a button's name to its event; ``"go"`` starts an episode, and ends a running one with success.
    """

    def __init__(self, events: dict[str, Event | str]) -> None:
        self._events = events
        self._down: frozenset[str] = frozenset()
        self._waiting: list[str] = []
        self.phase: Phase = "waiting"

    def look(self, down: frozenset[str]) -> frozenset[str]:
        """Note which are down now; return those that were not before."""
        pressed = down - self._down
        self._down = down
        self._waiting += sorted(name for name in pressed if name in self._events)
        return pressed

    def events(self) -> list[Event]:
        """Return the events since the last call."""
        names, self._waiting = self._waiting, []
        return [self._event(self._events[name]) for name in names]

    def _event(self, event: str) -> Event:
        if event == "go":
            return "success" if self.phase == "recording" else "start"
        return event  # type: ignore[return-value]


def alive(values: np.ndarray) -> np.ndarray:
    """Return deflections (D,) without their dead middle, still up to +-1."""
    size = np.abs(values)
    return np.sign(values) * np.clip((size - DEAD) / (1.0 - DEAD), 0.0, 1.0)
