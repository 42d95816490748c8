"""Devices by name: ``keyboard``, ``gamepad``, ``spacemouse``, ``ros``, ``browser``, ``package.module:Class``."""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopolicy.errors import UnknownName, UsageError
from robopolicy.interfaces import Scene, Teleop
from robopolicy.spec import PolicySpec

DEVICES = ("keyboard", "gamepad", "spacemouse", "ros", "browser")
OWN = "package.module:Class"


@dataclass(frozen=True)
class DeviceOptions:
    """What the devices may be told; each takes what concerns it."""

    speed: float = 1.0  # factor of how far or fast the hand moves the tool
    host: str = "127.0.0.1"  # browser: the page's address
    port: int = 8765
    token: str | None = None  # browser: None makes one up
    topic: str | None = None  # ros: what the teleoperator publishes
    kind: str | None = None  # ros: its message type
    domain: int | None = None  # ros: None takes ROS_DOMAIN_ID


def make_teleop(
    name: str, spec: PolicySpec, *, scene: Scene | None = None, options: DeviceOptions | None = None
) -> Teleop:
    """Return the device called ``name``, for a robot of ``spec``.

    Args:
        name: one of `DEVICES`, or your own class as ``package.module:Class``, called with the spec.
        spec: of the robot.
        scene: what the browser draws in 3-D.
        options: see there.

    Raises:
        UnknownName: naming the devices.
        UsageError: if there is no such device here, or the robot cannot be driven with it.
        MissingExtra: if its package is not installed.
    """
    options = options or DeviceOptions()
    if name == "keyboard":
        from robopolicy_hardware.teleop.keyboard import KeyboardTeleop

        return KeyboardTeleop(spec, speed=options.speed)
    if name == "gamepad":
        from robopolicy_hardware.teleop.gamepad import GamepadTeleop

        return GamepadTeleop(spec, speed=options.speed)
    if name == "spacemouse":
        from robopolicy_hardware.teleop.spacemouse import SpaceMouseTeleop

        return SpaceMouseTeleop(spec, speed=options.speed)
    if name == "ros":
        from robopolicy_hardware.teleop.ros import RosTeleop

        return RosTeleop(spec, topic=options.topic, kind=options.kind, domain=options.domain, speed=options.speed)
    if name == "browser":
        from robopolicy_hardware.teleop.browser import BrowserTeleop

        return BrowserTeleop(spec, scene=scene, host=options.host, port=options.port, token=options.token)
    return _own(name, spec)


def _own(name: str, spec: PolicySpec) -> Teleop:
    module, _, attribute = name.partition(":")
    if not (module and attribute):
        raise UnknownName("teleoperation device", name, [*DEVICES, OWN])
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as python -m does; an installed command does not
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # their module exists and misses something of its own
        raise UnknownName("teleoperation device", name, [*DEVICES, OWN]) from error
    if not hasattr(found, attribute):
        raise UsageError(f"module {module} has no {attribute!r}; name the device's class, as in {OWN}")
    try:
        device = getattr(found, attribute)(spec)
    except TypeError as error:
        raise UsageError(f"device {name} could not be made with a spec as its only argument: {error}") from error
    if not isinstance(device, Teleop):
        raise UsageError(
            f"{name} is no device: it needs engage, read, events, show and close (robopolicy.interfaces.Teleop)"
        )
    return device
