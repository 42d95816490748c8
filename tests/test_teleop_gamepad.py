"""The gamepad, through SDL's own virtual joystick: everything but the USB cable is real."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import UsageError
from robopolicy.testing import TeleopContract
from robopolicy.types import Status
from robopolicy_hardware.mock import ARM
from robopolicy_hardware.teleop import gamepad
from robopolicy_hardware.teleop.gamepad import GamepadTeleop

sys.path.insert(0, str(Path(__file__).parent))
from test_teleop_target import seen

pygame = pytest.importorskip("pygame", reason="pygame is not installed: pip install 'robopolicy[teleop]'")

GAMEPAD, AXES, BUTTONS = 1, 6, 15
NAMES = gamepad.BUTTONS
STICKS = {"left_x": 0, "left_y": 1, "right_x": 2, "right_y": 3, "trigger_left": 4, "trigger_right": 5}


class VirtualPad:
    """A pad that SDL believes in; axes -1 to 1, buttons by name."""

    def __init__(self):
        with open("/proc/self/maps") as maps:
            path = next((line.split()[-1] for line in maps if "libSDL2-2" in line), None)
        if path is None:
            pytest.skip("pygame has no SDL2 library of its own here")
        self.sdl = ctypes.CDLL(path)
        self.sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self.index = self.sdl.SDL_JoystickAttachVirtual(GAMEPAD, AXES, BUTTONS, 0)
        assert self.index >= 0
        self.joystick = ctypes.c_void_p(self.sdl.SDL_JoystickOpen(self.index))

    def push(self, **values):
        for name, value in values.items():
            if name in STICKS:
                axis = ctypes.c_int16(round(32767 * value))
                self.sdl.SDL_JoystickSetVirtualAxis(self.joystick, STICKS[name], axis)
            else:
                self.sdl.SDL_JoystickSetVirtualButton(self.joystick, NAMES[name], ctypes.c_uint8(value))

    def unplug(self):
        if self.index is not None:
            self.sdl.SDL_JoystickDetachVirtual(self.index)
            self.index = None


@pytest.fixture
def pad():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        patch.setenv("SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS", "1")
        patch.setenv("SDL_NO_SIGNAL_HANDLERS", "1")
        pygame.display.init()
        pygame.joystick.init()
        pad = VirtualPad()
        yield pad
        pad.unplug()
        pygame.quit()


class TestUntouched(TeleopContract):
    @pytest.fixture(autouse=True)
    def _plugged(self, pad):
        pass

    def make(self):
        return GamepadTeleop(ARM), ARM

    def observe(self, spec):
        return seen()


def run(teleop, ticks=3):
    """Let ``ticks`` of 50 ms pass with whatever is pressed; return the last command and how far it moved."""
    teleop.events()
    teleop.engage(seen(), None)
    first = None
    for k in range(ticks):
        teleop.events()
        command = teleop.read(seen(stamp_ns=k * 50_000_000))
        first = command.values if first is None else first
    return command, None if command.values is None else command.values - first


def test_without_the_deadman_button_it_holds(pad):
    teleop = GamepadTeleop(ARM)
    pad.push(left_y=-1.0)
    command, _ = run(teleop)
    assert (command.source, command.reason) == ("hold", "the right shoulder button is not held")
    pad.push(right=1)
    assert run(teleop)[0].source == "human"
    teleop.close()


@pytest.mark.parametrize(
    ("pushed", "moved"),
    [
        ({"left_y": -1.0}, (0.02, 0, 0)),
        ({"left_x": -1.0}, (0, 0.02, 0)),
        ({"right_y": -1.0}, (0, 0, 0.02)),
        ({"left_y": 0.05, "right_x": 0.0}, (0, 0, 0)),
    ],
    ids=["forward", "left", "up", "the dead middle"],
)
def test_sticks_are_speeds(pad, pushed, moved):
    teleop = GamepadTeleop(ARM)
    pad.push(right=1, **pushed)
    _, way = run(teleop)
    np.testing.assert_allclose(way[:3], moved, atol=1e-5)
    teleop.close()


def test_right_stick_and_cross_turn_and_the_triggers_grip(pad):
    teleop = GamepadTeleop(ARM)
    ways = []
    for pushed in ({"right_x": 1.0}, {"up": 1}, {"east": 1}):
        pad.push(right=1, right_x=0.0, up=0, east=0)
        pad.push(**pushed)
        _, way = run(teleop)
        assert np.abs(way[3:9]).max() > 0.01
        np.testing.assert_allclose(way[:3], 0, atol=1e-6)
        ways.append(tuple(way[3:9].round(5)))
    assert len(set(ways)) == 3
    pad.push(trigger_right=1.0)
    assert run(teleop)[0].values[9] == 0.0
    pad.push(trigger_right=0.0, trigger_left=1.0)
    assert run(teleop)[0].values[9] == 1.0
    teleop.close()


def test_buttons_are_events_once_each(pad):
    teleop = GamepadTeleop(ARM)
    assert teleop.events() == []
    pad.push(a=1)
    assert teleop.events() == ["start"]
    assert teleop.events() == []
    pad.push(a=0)
    teleop.events()
    teleop.show(Status("recording", 0, 1))
    pad.push(a=1, b=1, x=1, y=1, back=1, start=1)
    assert sorted(teleop.events()) == ["discard", "failure", "pause", "redo", "success", "takeover"]
    teleop.close()


def test_unplugged_it_holds_and_says_so(pad):
    teleop = GamepadTeleop(ARM)
    pad.push(right=1, left_y=-1.0)
    assert run(teleop)[0].source == "human"
    pad.unplug()
    command, _ = run(teleop)
    assert (command.source, command.reason) == ("hold", "the gamepad is gone")
    teleop.close()


def test_no_gamepad_is_one_line():
    with pytest.raises(UsageError, match="no gamepad is there"):
        GamepadTeleop(ARM)
    pygame.quit()
