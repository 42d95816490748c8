"""The SpaceMouse's HID reports, built from the public protocol; at the seam of the USB device stands a fake one."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from robopolicy.errors import UsageError
from robopolicy.testing import TeleopContract
from robopolicy.types import Status
from robopolicy_hardware.mock import ARM
from robopolicy_hardware.teleop.spacemouse import Cap, SpaceMouseTeleop

sys.path.insert(0, str(Path(__file__).parent))
from test_teleop_target import seen


def moved(x=0, y=0, z=0):
    return b"\x01" + struct.pack("<3h", x, y, z)


def turned(x=0, y=0, z=0):
    return b"\x02" + struct.pack("<3h", x, y, z)


def buttons(bits):
    return b"\x03" + struct.pack("<H", bits)


class FakeDevice:
    """What hidapi's non-blocking device does: a report a read, an empty one when there is none."""

    def __init__(self):
        self.reports, self.gone, self.closed = [], False, 0

    def read(self, size):
        if self.gone:
            raise OSError("read error")
        return list(self.reports.pop(0)) if self.reports else []

    def close(self):
        self.closed += 1


class TestUntouched(TeleopContract):
    def make(self):
        return SpaceMouseTeleop(ARM, device=FakeDevice()), ARM

    def observe(self, spec):
        return seen()


def run(reports, ticks=3, speed=1.0):
    """Report every tick of 50 ms; return how far the command moved."""
    device = FakeDevice()
    teleop = SpaceMouseTeleop(ARM, speed=speed, device=device)
    teleop.engage(seen(), None)
    values = []
    for k in range(ticks):
        device.reports += reports
        values.append(teleop.read(seen(stamp_ns=k * 50_000_000)).values)
    return values[-1] - values[0]


@pytest.mark.parametrize(
    ("report", "way"),
    [
        (moved(y=-350), (0.02, 0, 0)),
        (moved(x=-350), (0, 0.02, 0)),
        (moved(z=-350), (0, 0, 0.02)),
        (moved(y=-700), (0.02, 0, 0)),
        (moved(x=20), (0, 0, 0)),
    ],
    ids=["pushed away", "to the left", "pulled up", "beyond full", "the dead middle"],
)
def test_the_cap_moves_the_tool_as_the_hand_moves(report, way):
    np.testing.assert_allclose(run([report])[:3], way, atol=1e-5)


def test_twisting_the_cap_anticlockwise_turns_the_tool_about_the_vertical():
    way = run([turned(z=-350)])
    np.testing.assert_allclose(way[:3], 0, atol=1e-6)
    assert way[4] == pytest.approx(np.sin(0.8 * 0.1), abs=1e-4), "y of the tool's x axis, which lies forward"


def test_six_counts_in_one_report_are_both():
    cap = Cap()
    assert cap.take(b"\x01" + struct.pack("<6h", 1, 2, 3, 4, 5, 350))
    np.testing.assert_allclose(cap.linear * 350, (1, 2, 3))
    np.testing.assert_allclose(cap.angular * 350, (4, 5, 350))


@pytest.mark.parametrize("report", [b"", b"\x01", b"\x01\x00\x00\x00", b"\x17\x64", b"\x02\xff", b"\x03"])
def test_other_reports_and_short_ones_are_left_aside(report):
    cap = Cap()
    cap.take(moved(y=-350))
    assert not cap.take(report)
    np.testing.assert_allclose(cap.linear, (0, -1, 0))


def test_a_silent_cap_is_taken_for_let_go(monkeypatch):
    """A wireless one that loses its receiver never says that it is at rest."""
    device, now = FakeDevice(), [10**9]
    monkeypatch.setattr("time.monotonic_ns", lambda: now[0])
    teleop = SpaceMouseTeleop(ARM, device=device)
    teleop.engage(seen(), None)
    device.reports.append(moved(y=-350))
    teleop.read(seen(stamp_ns=0))
    x = [teleop.read(seen(stamp_ns=50_000_000)).values[0]]
    now[0] += 300_000_000
    x += [teleop.read(seen(stamp_ns=k * 50_000_000)).values[0] for k in (2, 3)]
    assert x[0] > 0.401
    assert x[0] == x[1] == x[2]


def test_left_button_grips_right_button_starts_and_ends():
    device = FakeDevice()
    teleop = SpaceMouseTeleop(ARM, device=device)
    teleop.engage(seen(), None)
    device.reports += [buttons(1), buttons(0)]
    assert teleop.read(seen()).values[9] == 0.0
    assert list(teleop.events()) == []
    device.reports += [buttons(1), buttons(0), buttons(2)]
    assert list(teleop.events()) == ["start"]
    assert teleop.read(seen()).values[9] == 1.0
    teleop.show(Status("recording", 0, 1))
    device.reports += [buttons(0), buttons(2)]
    assert list(teleop.events()) == ["success"]


def test_unplugged_it_holds():
    device = FakeDevice()
    teleop = SpaceMouseTeleop(ARM, device=device)
    teleop.engage(seen(), None)
    device.gone = True
    assert teleop.read(seen()).source == "hold"
    assert list(teleop.events()) == []
    assert device.closed == 1


def test_no_spacemouse_is_one_line():
    pytest.importorskip("hid", reason="hidapi is not installed: pip install 'robopolicy[teleop]'")
    with pytest.raises(UsageError, match="no SpaceMouse is there"):
        SpaceMouseTeleop(ARM)
