"""A gamepad drives, through SDL: every pad that SDL knows has the same names for its sticks and buttons."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from robopolicy.errors import MissingExtra, UsageError
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Event, Observation, Status
from robopolicy_hardware.teleop.jog import Buttons, Jog, alive

# SDL's own numbers: SDL_GameControllerAxis and SDL_GameControllerButton.
LEFT_X, LEFT_Y, RIGHT_X, RIGHT_Y, TRIGGER_LEFT, TRIGGER_RIGHT = range(6)
BUTTONS = {
    "a": 0, "b": 1, "x": 2, "y": 3, "back": 4, "start": 6, "left": 9, "right": 10,
    "up": 11, "down": 12, "west": 13, "east": 14,
}  # fmt: skip
EVENTS: dict[str, Event | str] = {
    "a": "go", "b": "failure", "x": "discard", "y": "takeover", "back": "redo", "start": "pause",
}  # fmt: skip
HELP = (
    "hold the right shoulder to move: left stick forward and sideways, right stick up and yaw, cross pitch and roll, "
    "triggers close (right) and open (left);  A start, success  B failure  "
    "X discard  Y takeover  back redo  start pause"
)


class GamepadTeleop:
    """A `Teleop`: sticks are speeds as long as the right shoulder button is held; let go, or unplugged, it holds.

    Args:
        spec: of the robot.
        speed: factor of 0.2 m/s and 0.8 rad/s at full deflection.

    Raises:
        MissingExtra: if pygame is not installed.
        UsageError: if there is no gamepad.
    """

    help = HELP

    def __init__(self, spec: PolicySpec, *, speed: float = 1.0) -> None:
        self._jog = Jog(spec, speed=speed)
        self._pygame, self._pad = _open()
        self._buttons = Buttons(EVENTS)

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Start from where the robot is."""
        self._jog.engage(observation, set_point)

    def read(self, observation: Observation) -> Command:
        """Return the command of the sticks, or a hold while the right shoulder is not held."""
        if self._pad is None or not self._pad.attached():
            return Command(None, "hold", reason="the gamepad is gone")
        if not self._is_down("right"):
            return Command(None, "hold", reason="the right shoulder button is not held")
        axis = alive(np.array([self._pad.get_axis(i) for i in range(6)]) / 32767.0)
        cross = {name: float(self._is_down(name)) for name in ("up", "down", "west", "east")}
        linear = np.array([-axis[LEFT_Y], -axis[LEFT_X], -axis[RIGHT_Y]])
        angular = np.array([cross["east"] - cross["west"], cross["up"] - cross["down"], -axis[RIGHT_X]])
        return self._jog.drive(observation, linear, angular, _grip(axis))

    def events(self) -> Sequence[Event]:
        """Return the events of the buttons pressed since the last call."""
        if self._pad is None:
            return ()
        self._pygame.event.pump()
        self._pygame.event.clear()
        if self._pad.attached():
            self._buttons.look(frozenset(name for name in BUTTONS if self._is_down(name)))
        return self._buttons.events()

    def show(self, status: Status) -> None:
        """Note the phase: A starts an episode or ends it with success."""
        self._buttons.phase = status.phase

    def close(self) -> None:
        """Let the pad go; idempotent."""
        if self._pad is not None:
            self._pad.quit()
            self._pad = None

    def _is_down(self, name: str) -> bool:
        return bool(self._pad.get_button(BUTTONS[name]))


def _grip(axis: np.ndarray) -> float | None:
    if axis[TRIGGER_RIGHT] > 0.5:
        return 0.0
    return 1.0 if axis[TRIGGER_LEFT] > 0.5 else None


def _open() -> tuple[Any, Any]:
    settings = {
        "SDL_VIDEODRIVER": "dummy",  # no display is needed, and none may be there
        "SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS": "1",  # there is no window that could have the focus
        "SDL_NO_SIGNAL_HANDLERS": "1",  # Ctrl-C and SIGTERM stay ours
        "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    }
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import pygame
        from pygame._sdl2 import controller
    except ImportError as error:
        raise MissingExtra("pygame", "teleop") from error
    pygame.display.init()
    pygame.joystick.init()
    controller.init()
    pygame.event.pump()
    for number in range(pygame.joystick.get_count()):
        if controller.is_controller(number):
            return pygame, controller.Controller(number)
    raise UsageError("no gamepad is there; plug one in (Linux: it needs read access to /dev/input)")
