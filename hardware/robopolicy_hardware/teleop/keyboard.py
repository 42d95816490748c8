"""The keyboard of a terminal drives: each press moves the target by one fixed step."""

from collections.abc import Sequence

import numpy as np

from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Event, Observation, Status
from robopolicy_hardware.teleop.target import ToolTarget

STEP_M = 0.01
STEP_RAD = float(np.deg2rad(5.0))
MOVES: dict[str, tuple[float, float, float]] = {  # in the base frame: x away from the base, y left, z up
    "w": (1, 0, 0), "s": (-1, 0, 0), "a": (0, 1, 0), "d": (0, -1, 0), "e": (0, 0, 1), "c": (0, 0, -1),
    "up": (1, 0, 0), "down": (-1, 0, 0), "left": (0, 1, 0), "right": (0, -1, 0),
}  # fmt: skip
TURNS: dict[str, tuple[float, float, float]] = {
    "j": (0, 0, 1), "l": (0, 0, -1), "i": (0, 1, 0), "k": (0, -1, 0), "n": (1, 0, 0), "m": (-1, 0, 0),
}  # fmt: skip
HELP = "w s a d move  e c up down  j l yaw  i k pitch  n m roll  g gripper  (capitals: five steps)"


class KeyboardTeleop:
    """A `Teleop` that is told of each key by ``press``, as the panel does; untouched it stays where it is.

    A capital moves five steps. A terminal tells of presses only, never of keys held down or let go: so a press is a
    step, not a speed, and a lost connection moves nothing.

    Args:
        spec: of the robot.
        speed: factor of the step of 1 cm and 5 degrees a press.
    """

    help = HELP

    def __init__(self, spec: PolicySpec, *, speed: float = 1.0) -> None:
        self._target = ToolTarget(spec)
        self._speed = speed
        self._linear, self._angular = np.zeros(3), np.zeros(3)
        self._toggle = False

    def press(self, key: str) -> None:
        """Take one key; those that mean nothing are ignored."""
        size = self._speed * (5.0 if len(key) == 1 and key.isupper() else 1.0)
        name = key.lower()
        if name in MOVES:
            self._linear += size * STEP_M * np.array(MOVES[name])
        elif name in TURNS:
            self._angular += size * STEP_RAD * np.array(TURNS[name])
        elif name == "g":
            self._toggle = not self._toggle

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Start from where the robot is; what was pressed before is forgotten."""
        self._target.engage(observation, set_point)
        self._forget()

    def read(self, observation: Observation) -> Command:
        """Return the target, moved by what was pressed."""
        gripper = (0.0 if self._target.gripper > 0.5 else 1.0) if self._toggle else None
        self._target.see(observation)
        self._target.move(self._linear, self._angular, gripper)
        self._forget()
        return Command(self._target.command(), "human")

    def events(self) -> Sequence[Event]:
        """The panel has the buttons."""
        return ()

    def show(self, status: Status) -> None:
        """The panel shows it."""

    def close(self) -> None:
        """There is nothing to release."""

    def _forget(self) -> None:
        self._linear, self._angular, self._toggle = np.zeros(3), np.zeros(3), False
