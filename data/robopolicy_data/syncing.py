"""Growing files put on the disk in the background, so that little is left for the commit to wait for."""

import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from robopolicy_data.files import AppendFile

PERIOD_S = 1.0
BYTES = 4_000_000  # not yet on the disk, before that


class Syncing:
    """Flushes from a thread of its own, at most once a second or every few megabytes; the writer never waits for it.

    A flush that fails may have lost what was appended before it, and the kernel tells only once: it is never forgotten.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._running: Future[None] | None = None
        self._began_s, self._unsynced = time.monotonic(), 0

    def wrote(self, count: int, files: Iterable[AppendFile]) -> None:
        """Say that ``count`` bytes were appended to ``files``; flush them if it is time to. Raises nothing."""
        self._unsynced += count
        if self._unsynced < BYTES and time.monotonic() - self._began_s < PERIOD_S:
            return
        if self._running is not None and (not self._running.done() or self._running.exception() is not None):
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "sync")
        self._running = self._pool.submit(_sync, list(files))
        self._began_s, self._unsynced = time.monotonic(), 0

    def require_good(self, *, wait: bool = False) -> None:
        """Raise what a flush has failed with, an OSError; with ``wait`` also one that still runs."""
        if self._running is not None and (wait or self._running.done()):
            self._running.result()

    def close(self) -> None:
        """Wait and let the thread go; idempotent. Before this the files must stay open."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool, self._running = None, None


def _sync(files: list[AppendFile]) -> None:
    for file in files:
        file.sync()
