"""A terminal as a device: keys one at a time without waiting, one line redrawn, everything restored at the end."""

import os
import select
import signal
import sys
import termios
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any, TextIO

from robopolicy.errors import UsageError

REDRAW_S = 0.1
ESCAPE_WAIT_S = 0.02  # the rest of an arrow key's bytes comes at once, also over SSH
NAMES = {
    b" ": "space", b"\r": "enter", b"\n": "enter", b"\x7f": "backspace", b"\x08": "backspace", b"\t": "tab",
    b"\x1b": "escape", b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left",
    b"\x1bOA": "up", b"\x1bOB": "down", b"\x1bOC": "right", b"\x1bOD": "left",
}  # fmt: skip


class Terminal:
    """Reads keys and draws one line; as a context manager it puts the terminal back whatever happens.

    Neither reading nor drawing ever waits: a line that a stopped or slow terminal cannot take is not drawn. Works
    wherever there is a terminal: in tmux, over SSH, without a display.

    Args:
        source: where keys come from, usually ``sys.stdin``.
        sink: where the line goes, usually ``sys.stderr``.

    Raises:
        UsageError: if either is no terminal.
    """

    def __init__(self, source: TextIO | None = None, sink: TextIO | None = None) -> None:
        source, sink = source or sys.stdin, sink or sys.stderr
        for stream, name in ((source, "standard input"), (sink, "standard error")):
            if not stream.isatty():
                raise UsageError(f"{name} is no terminal; run the command in one (over SSH: ssh -t)")
        self._in, self._out = source.fileno(), sink.fileno()
        self._before: list[Any] | None = None
        self._resume: Any = None
        self._bytes = b""
        self._line, self._drawn = "", ""
        self._drawn_s = 0.0

    def open(self) -> None:
        """Hand over keys at once and unseen; Ctrl-C stays what it is, Ctrl-S and Ctrl-Q become keys."""
        if self._before is None:
            self._before = termios.tcgetattr(self._in)
            if threading.current_thread() is threading.main_thread():  # after Ctrl-Z and fg the shell has set its own
                self._resume = signal.signal(signal.SIGCONT, self._again)
        mode = termios.tcgetattr(self._in)
        mode[0] &= ~(termios.IXON | termios.ICRNL)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._in, termios.TCSANOW, mode)
        self._write(b"\x1b[?25l")  # no cursor

    def close(self) -> None:
        """Put the terminal back as it was; idempotent."""
        if self._before is None:
            return
        self._write(b"\r\x1b[K\x1b[?25h")
        before, self._before = self._before, None
        with suppress(termios.error, OSError):  # the terminal itself may be gone, as when an SSH connection breaks
            termios.tcsetattr(self._in, termios.TCSANOW, before)
        if self._resume is not None:
            signal.signal(signal.SIGCONT, self._resume)

    def pressed(self) -> list[str]:
        """Return the names of the keys pressed since the last call: a character, or space, enter, up, ..."""
        while _ready(self._in, 0.0):
            got = self._read()
            self._bytes += got
            if not got:
                break
        if self._bytes.endswith((b"\x1b", b"\x1b[", b"\x1bO")) and _ready(self._in, ESCAPE_WAIT_S):
            self._bytes += self._read()
        keys, self._bytes = split_keys(self._bytes), b""
        return keys

    def draw(self, line: str) -> None:
        """Show ``line`` instead of the one before, at most ten times a second; cut to the width there is."""
        self._line = line
        now_s = time.monotonic()
        if line != self._drawn and now_s - self._drawn_s >= REDRAW_S:
            self._drawn, self._drawn_s = line, now_s
            self._paint()

    def say(self, text: str) -> None:
        """Print ``text`` above the line, for good."""
        self._write(b"\r\x1b[K" + text.encode() + b"\r\n")
        self._paint()

    def bell(self) -> None:
        """Beep."""
        self._write(b"\a")

    def _again(self, number: int, frame: Any) -> None:
        with suppress(termios.error, OSError):  # a terminal that vanishes continues what it stopped, too
            self.open()

    def _paint(self) -> None:
        try:
            width = os.get_terminal_size(self._out).columns
        except OSError:
            width = 0
        self._write(b"\r\x1b[K" + self._line[: (width or 80) - 1].encode())  # some terminals say 0

    def _read(self) -> bytes:
        try:
            return os.read(self._in, 1024)
        except OSError:
            return b""

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # nobody may be there to see it any more
            if select.select([], [self._out], [], 0.0)[1]:
                os.write(self._out, data)

    def __enter__(self) -> "Terminal":
        try:
            self.open()
        except BaseException:  # a signal in the middle of it
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def split_keys(data: bytes) -> list[str]:
    """Return the names of the keys whose bytes these are, one after the other; unknown sequences are left out."""
    keys = []
    while data:
        length = _sequence_length(data)
        name = NAMES.get(data[:length])
        if name is not None:
            keys.append(name)
        elif length == 1 and 32 < data[0] < 127:
            keys.append(chr(data[0]))
        data = data[length:]
    return keys


def _sequence_length(data: bytes) -> int:
    """How many bytes the first key has: ESC [ ... letter or ESC O letter count as one."""
    if data[:2] not in (b"\x1b[", b"\x1bO"):
        return 1
    for i, byte in enumerate(data[2:], start=3):
        if 0x40 <= byte <= 0x7E:
            return i
    return len(data)


def _ready(fd: int, wait_s: float) -> bool:
    try:
        return bool(select.select([fd], [], [], wait_s)[0])
    except (OSError, ValueError):
        return False
