"""The terminal as a device, in a real pseudo-terminal: keys, the line, and how it is left."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from robopolicy.errors import UsageError
from robopolicy.testing import TeleopContract
from robopolicy.types import Status
from robopolicy_hardware.mock import ARM
from robopolicy_hardware.teleop.keyboard import STEP_M, KeyboardTeleop
from robopolicy_hardware.teleop.panel import HELP, KEYS, Panel, line
from robopolicy_hardware.teleop.terminal import Terminal, split_keys

sys.path.insert(0, str(Path(__file__).parent))
from test_teleop_target import seen


class Pty:
    """A terminal whose other end the test holds."""

    def __init__(self, columns=120):
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, columns))
        self.stream = os.fdopen(slave, "r+b", buffering=0)
        self.before = termios.tcgetattr(self.stream)

    def press(self, data):
        os.write(self.master, data)

    def shown(self):
        shown = b""
        while select.select([self.master], [], [], 0.05)[0]:  # what was written comes a moment later
            shown += os.read(self.master, 1 << 16)
        return shown.decode()

    def restored(self):
        return termios.tcgetattr(self.stream) == self.before

    def close(self):
        os.close(self.master)
        self.stream.close()


@pytest.fixture
def tty():
    tty = Pty()
    yield tty
    tty.close()


class TestKeyboard(TeleopContract):
    def make(self):
        return KeyboardTeleop(ARM), ARM

    def observe(self, spec):
        return seen()


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"w", ["w"]),
        (b"W ", ["W", "space"]),
        (b"\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        (b"\x1b[A\x1b[D\x1bOB", ["up", "left", "down"]),
        (b"\x1b[1;5Aq", ["q"]),
        (b"\x1b[3~q", ["q"]),
        (b"\x1b", ["escape"]),
        (b"\xc3\xa4t\x00", ["t"]),
        (b"\x1b[200~rm -rf\x1b[201~", ["r", "m", "space", "-", "r", "f"]),
        (b"", []),
    ],
)
def test_bytes_are_keys(data, keys):
    assert split_keys(data) == keys


def test_keys_come_at_once_unseen_and_without_waiting(tty):
    with Terminal(tty.stream, tty.stream) as terminal:
        assert terminal.pressed() == []
        tty.press(b"w\x13 \r")  # Ctrl-S among them: output does not stop
        time.sleep(0.05)
        assert terminal.pressed() == ["w", "space", "enter"]
        assert terminal.pressed() == []
        assert "w" not in tty.shown(), "a key is not echoed"


def test_an_arrow_that_comes_in_pieces_is_one_key(tty):
    with Terminal(tty.stream, tty.stream) as terminal:
        tty.press(b"\x1b")
        signal.signal(signal.SIGALRM, lambda number, frame: tty.press(b"[A"))
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        assert terminal.pressed() == ["up"]
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_terminal_is_put_back_whatever_ends_the_block(tty, error):
    try:
        with Terminal(tty.stream, tty.stream) as terminal:
            assert not tty.restored()
            terminal.draw("x")
            if error is not None:
                raise error
    except (RuntimeError, KeyboardInterrupt, SystemExit):
        pass
    assert tty.restored()
    assert tty.shown().endswith("\x1b[K\x1b[?25h"), "the line is gone and the cursor is back"
    terminal.close()


def test_after_a_stop_and_fg_it_reads_keys_again(tty):
    with Terminal(tty.stream, tty.stream) as terminal:
        termios.tcsetattr(tty.stream, termios.TCSANOW, tty.before)  # as a shell does
        os.kill(os.getpid(), signal.SIGCONT)
        tty.press(b"p")
        time.sleep(0.02)
        assert terminal.pressed() == ["p"]
    assert tty.restored()
    assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL


def test_the_line_is_redrawn_when_it_changes_and_cut_to_the_width():
    tty = Pty(columns=20)
    with Terminal(tty.stream, tty.stream) as terminal:
        tty.shown()
        terminal.draw("0123456789" * 4)
        shown = tty.shown()
        assert shown == "\r\x1b[K" + ("0123456789" * 4)[:19]
        terminal.draw("0123456789" * 4)
        assert tty.shown() == ""
    tty.close()


def test_a_terminal_that_takes_nothing_does_not_stop_the_loop(tty):
    with Terminal(tty.stream, tty.stream) as terminal:
        termios.tcflow(tty.stream, termios.TCOOFF)  # as Ctrl-S would
        start_s = time.process_time(), time.monotonic()
        for k in range(2000):
            terminal.say(f"{k} " * 40)
        assert time.monotonic() - start_s[1] < 60
        termios.tcflow(tty.stream, termios.TCOON)
    assert tty.restored()


def test_what_is_no_terminal_is_said():
    read, write = os.pipe()
    with os.fdopen(read) as stream, os.fdopen(write, "w") as other, pytest.raises(UsageError, match="no terminal"):
        Terminal(stream, other)


def test_every_button_of_the_panel_is_an_event_and_other_keys_drive(tty):
    keyboard = KeyboardTeleop(ARM)
    with Terminal(tty.stream, tty.stream) as terminal:
        panel = Panel(keyboard, terminal)
        panel.engage(seen(), None)
        before = panel.read(seen()).values
        tty.press(b" \rf\x7fruptq")
        time.sleep(0.02)
        assert panel.events() == list(KEYS.values())
        tty.press(b"wwAg")
        time.sleep(0.02)
        assert panel.events() == []
        moved = panel.read(seen()).values - before
        assert moved[:3] == pytest.approx([2 * STEP_M, 5 * STEP_M, 0], abs=1e-6)
        assert before[9] + moved[9] == 0.0
        panel.close()
    assert tty.restored()


def test_every_moving_key_moves_and_turns_its_own_way():
    keyboard = KeyboardTeleop(ARM, speed=2.0)
    ways = {}
    for key in "wsadecjliknm":
        keyboard.engage(seen(), None)
        before = keyboard.read(seen()).values
        keyboard.press(key)
        ways[key] = tuple(np_round(keyboard.read(seen()).values - before))
    assert len(set(ways.values())) == len(ways)
    assert all(any(way) for way in ways.values())
    assert ways["w"][0] == pytest.approx(0.02)


def np_round(values):
    return [round(float(v), 5) + 0.0 for v in values]


def test_what_was_pressed_before_it_was_engaged_moves_nothing():
    keyboard = KeyboardTeleop(ARM)
    keyboard.press("W")
    keyboard.engage(seen(), None)
    assert keyboard.read(seen()).values[0] == pytest.approx(0.4)


def test_it_beeps_once_at_the_start_and_twice_at_the_end(tty):
    with Terminal(tty.stream, tty.stream) as terminal:
        panel = Panel(KeyboardTeleop(ARM), terminal)
        beeps = []
        for phase in ("waiting", "waiting", "recording", "paused", "recording", "saving", "waiting"):
            panel.show(Status(phase, 0, 1))
            beeps.append(tty.shown().count("\a"))
        assert beeps == [0, 0, 1, 0, 0, 2, 0]


def test_the_line_says_what_matters():
    status = Status("recording", 12, 20, 67.3, 19.97, 0.014, 3, "human", "hm", camera_hz=29.96)
    assert line(status) == "ep 12/20 ● 01:07.3 20.0 Hz cam 30.0 drop 3 lat 14 ms human  hm"
    waiting = line(Status("waiting", 0, 1, message="nobody is there"))
    assert "cam" not in waiting
    assert waiting.endswith(f"  nobody is there  {HELP}")


def test_a_program_whose_terminal_vanishes_ends_by_that_and_not_in_a_loop():
    code = (
        "import sys, time\n"
        "from robopolicy.cli.signals import ended_by_signals\n"
        "from robopolicy_hardware.teleop.terminal import Terminal\n"
        "with ended_by_signals(), Terminal(sys.stdin, sys.stderr) as t:\n"
        "    print('up', flush=True)\n"
        "    while True: t.pressed(); t.draw(str(time.time())); time.sleep(0.01)\n"
    )
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", f"import os, fcntl, termios\nos.setsid()\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n{code}"],
        stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while b"up" not in shown:
        shown += os.read(master, 1000)
    os.close(master)
    assert process.wait(timeout=20) == 128 + signal.SIGHUP
