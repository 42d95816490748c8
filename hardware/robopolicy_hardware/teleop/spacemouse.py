"""A 3Dconnexion SpaceMouse drives, read through hidapi."""

import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from robopolicy.errors import MissingExtra, UsageError
from robopolicy.spec import PolicySpec
from robopolicy.types import Command, Event, Observation, Status
from robopolicy_hardware.teleop.jog import Buttons, Jog, alive

VENDORS = (0x256F, 0x046D)  # 3Dconnexion; Logitech, which sold the older ones
MULTI_AXIS = (0x01, 0x08)  # HID usage page and usage: generic desktop, multi-axis controller
FULL = 350.0  # counts at full deflection
QUIET_NS = 250_000_000  # a deflected cap reports every 8 to 16 ms; after this it is taken for let go
HELP = "cap moves and turns the tool;  left button gripper  right button start, success"
# The cap's axes are x right, y to the person, z down; the base's x away from the person, y left, z up.
TO_BASE = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


class Cap:
    """What the cap and the buttons are doing, from HID reports.

    Report 1 is translation, three int16 little-endian counts, or translation and rotation, six; report 2 is rotation;
    report 3 is one bit a button. Reports that are none of these are left aside.
    """

    def __init__(self) -> None:
        self.linear, self.angular = np.zeros(3), np.zeros(3)  # (3,) of full deflection, axes of the cap
        self.buttons = 0

    def take(self, report: bytes) -> bool:
        """Take one report, its number first; return whether it was one of the cap or the buttons."""
        if not report:
            return False
        number, data = report[0], bytes(report[1:])
        if number == 1 and len(data) >= 12:
            both = np.array(struct.unpack("<6h", data[:12])) / FULL
            self.linear, self.angular = both[:3], both[3:]
        elif number in (1, 2) and len(data) >= 6:
            three = np.array(struct.unpack("<3h", data[:6])) / FULL
            self.linear, self.angular = (three, self.angular) if number == 1 else (self.linear, three)
        elif number == 3 and data:
            self.buttons = int.from_bytes(data[:4], "little")
        else:
            return False
        return True


class SpaceMouseTeleop:
    """A `Teleop`: the cap's deflections are speeds; at rest the tool stays, unplugged it holds.

    Args:
        spec: of the robot.
        speed: factor of 0.2 m/s and 0.8 rad/s at full deflection.
        device: an open, non-blocking ``hid.device``; None opens the first SpaceMouse there is.

    Raises:
        MissingExtra: if hidapi is not installed.
        UsageError: if there is no SpaceMouse, or it may not be read.
    """

    help = HELP

    def __init__(self, spec: PolicySpec, *, speed: float = 1.0, device: Any = None) -> None:
        self._jog = Jog(spec, speed=speed)
        self._device = device if device is not None else _open()
        self._cap = Cap()
        self._buttons = Buttons({"1": "go"})
        self._heard_ns = 0
        self._toggle = False

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Start from where the robot is."""
        self._jog.engage(observation, set_point)

    def read(self, observation: Observation) -> Command:
        """Return the command of the cap, or a hold once the device is gone."""
        self._listen()
        if self._device is None:
            return Command(None, "hold", reason="the SpaceMouse is gone")
        quiet = time.monotonic_ns() - self._heard_ns > QUIET_NS
        linear = np.zeros(3) if quiet else TO_BASE @ alive(np.clip(self._cap.linear, -1, 1))
        angular = np.zeros(3) if quiet else TO_BASE @ alive(np.clip(self._cap.angular, -1, 1))
        gripper = (0.0 if self._jog.target.gripper > 0.5 else 1.0) if self._toggle else None
        self._toggle = False
        return self._jog.drive(observation, linear, angular, gripper)

    def events(self) -> Sequence[Event]:
        """Return the events of the buttons pressed since the last call."""
        self._listen()
        return self._buttons.events()

    def show(self, status: Status) -> None:
        """Note the phase: the right button starts an episode or ends it with success."""
        self._buttons.phase = status.phase

    def close(self) -> None:
        """Let the device go; idempotent."""
        if self._device is not None:
            self._device.close()
            self._device = None

    def _listen(self) -> None:
        while self._device is not None:
            try:
                report = bytes(self._device.read(64))
            except OSError:  # unplugged
                self.close()
                return
            if not report:
                return
            if self._cap.take(report):
                self._heard_ns = time.monotonic_ns()
                down = frozenset(str(i) for i in range(2) if self._cap.buttons >> i & 1)
                self._toggle ^= "0" in self._buttons.look(down)


def _open() -> Any:
    try:
        try:
            import hidraw as hid  # the kernel's own driver, where there is one
        except ImportError:
            import hid
    except ImportError as error:
        raise MissingExtra("hidapi", "teleop") from error
    found = [
        info
        for info in hid.enumerate()
        if info["vendor_id"] in VENDORS and (info["usage_page"], info["usage"]) == MULTI_AXIS
    ]
    if not found:
        raise UsageError("no SpaceMouse is there; plug one in (Linux: it needs read access to its /dev/hidraw*)")
    device = hid.device()
    try:
        device.open_path(found[0]["path"])
    except OSError as error:
        raise UsageError(
            f"{found[0]['product_string']} may not be read; on Linux give a udev rule that grants /dev/hidraw*: {error}"
        ) from error
    device.set_nonblocking(True)
    return device
