"""A command in a real pseudo-terminal: press keys, wait for what it shows, look at how it left the terminal."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class InTerminal:
    """Runs ``robopolicy`` words in a pty of its own."""

    def __init__(self, *words, env=None, columns=200, cwd=None):
        self.master, slave = pty.openpty()
        self.slave = slave  # kept open, so that the modes can be read after the end
        termios.tcsetwinsize(slave, (30, columns))
        self.before = termios.tcgetattr(slave)
        self.raw = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "robopolicy.cli.main", *map(str, words)],
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "", **(env or {})},
        )  # fmt: skip

    def press(self, keys):
        os.write(self.master, keys.encode())

    def read(self, wait_s=0.05):
        if select.select([self.master], [], [], wait_s)[0]:
            self.raw += os.read(self.master, 65536).decode(errors="replace")

    @property
    def text(self):
        return ANSI.sub("", self.raw)

    def wait_for(self, pattern, timeout_s=60.0):
        """Wait until what was shown since the last wait matches; return the match."""
        start = getattr(self, "_seen", 0)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self.read()
            found = re.search(pattern, self.text[start:])
            if found:
                self._seen = start + found.end()
                return found
            if self.process.poll() is not None and not select.select([self.master], [], [], 0)[0]:
                break
        raise AssertionError(f"{pattern!r} did not come; shown: {self.text[start:][-1500:]!r}")

    def ends(self, timeout_s=60.0):
        """Wait for the end; return the exit code."""
        deadline_s = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < deadline_s:
            self.read()
        while select.select([self.master], [], [], 0.1)[0]:
            self.read()
        return self.process.wait(timeout=1)

    def restored(self):
        """Whether the terminal is as it was before."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)
