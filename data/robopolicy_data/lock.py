"""One writer a dataset: a lock the kernel drops when the process ends, however it ends."""

import fcntl
import os
from pathlib import Path

from robopolicy.errors import DatasetBusy


class WriterLock:
    """Holds ``path`` until closed. The file also remembers the next episode number, so that none is used twice.

    Raises:
        DatasetBusy: naming the process that is writing.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = self._words()[1:2]
            self.close()
            who = f"process {pid[0]}" if pid else "another process"
            raise DatasetBusy(f"{path.parent} is being written by {who}; one writer at a time") from error
        words = self._words()
        self.next_number = int(words[0]) if words and words[0].isdigit() else 0
        self.remember(self.next_number)

    def remember(self, next_number: int) -> None:
        """Note the number of the next episode."""
        os.pwrite(self._fd, f"{next_number:08d} {os.getpid():10d}\n".encode(), 0)
        self.next_number = next_number

    @property
    def closed(self) -> bool:
        """Whether it was let go."""
        return self._fd < 0

    def close(self) -> None:
        """Let go; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _words(self) -> list[str]:
        return os.pread(self._fd, 64, 0).decode(errors="replace").split()
