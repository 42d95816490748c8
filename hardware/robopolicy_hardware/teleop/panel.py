"""The control panel that every session has: the terminal's keys and one line, around whatever device drives."""

from collections.abc import Sequence

import numpy as np

from robopolicy.interfaces import Teleop
from robopolicy.types import Command, Event, Observation, Phase, Status
from robopolicy_hardware.teleop.terminal import Terminal

KEYS: dict[str, Event] = {
    "space": "start", "enter": "success", "f": "failure", "backspace": "discard", "r": "redo", "u": "undo",
    "p": "pause", "t": "takeover", "q": "quit",
}  # fmt: skip
HELP = "space start  enter success  f failure  backspace discard  r redo  u undo  p pause  t takeover  q quit"
SIGNS: dict[Phase, str] = {"waiting": "○", "recording": "●", "paused": "‖", "saving": "…"}
BELLS: dict[tuple[Phase, Phase], int] = {  # how often it rings at which change
    ("waiting", "recording"): 1, ("recording", "saving"): 2, ("paused", "saving"): 2,
}  # fmt: skip


class Panel:
    """A `Teleop`: the device drives, the terminal's keys are the buttons, its last line shows the state, it beeps.

    One beep at the start of an episode, two at its end. Keys that are no buttons go to the device's ``press(key)``, if
    it has one.

    Args:
        device: drives.
        terminal: open.
    """

    def __init__(self, device: Teleop, terminal: Terminal) -> None:
        self._device, self._terminal = device, terminal
        self._phase: Phase | None = None

    @property
    def latency_s(self) -> float:
        """Age of the operator's newest command, as far as the device knows it."""
        return float(getattr(self._device, "latency_s", 0.0))

    @property
    def trouble(self) -> str:
        """What keeps the device from working, in one line worth telling once."""
        return str(getattr(self._device, "trouble", ""))

    def engage(self, observation: Observation, set_point: np.ndarray | None) -> None:
        """Engage the device."""
        self._device.engage(observation, set_point)

    def read(self, observation: Observation) -> Command:
        """Return the device's command."""
        return self._device.read(observation)

    def events(self) -> Sequence[Event]:
        """Return the buttons pressed, the terminal's and the device's own."""
        press = getattr(self._device, "press", None)
        pressed: list[Event] = []
        for key in self._terminal.pressed():
            if key in KEYS:
                pressed.append(KEYS[key])
            elif press is not None:
                press(key)
        return [*pressed, *self._device.events()]

    def show(self, status: Status) -> None:
        """Redraw the line, ring at starts and ends, and let the device show it too."""
        if self._phase is not None:
            for _ in range(BELLS.get((self._phase, status.phase), 0)):
                self._terminal.bell()
        self._phase = status.phase
        self._terminal.draw(line(status))
        self._device.show(status)

    def close(self) -> None:
        """Close the device and give the terminal back; idempotent."""
        try:
            self._device.close()
        finally:
            self._terminal.close()


def line(status: Status) -> str:
    """Return the state in one line, e.g. ``ep 12/20 ● 00:07.3 20.0 Hz cam 30.0 drop 0 lat 14 ms human``."""
    minutes, seconds = divmod(status.time_s, 60.0)
    camera = f" cam {status.camera_hz:.1f}" if status.camera_hz else ""
    text = (
        f"ep {status.episode}/{status.episodes} {SIGNS[status.phase]} {int(minutes):02d}:{seconds:04.1f} "
        f"{status.rate_hz:.1f} Hz{camera} drop {status.dropped} lat {status.latency_s * 1e3:.0f} ms {status.source}"
    )
    return "  ".join([text, *filter(None, (status.message, HELP if status.phase == "waiting" else ""))])
