"""Files put on the disk by threads: in the background while they grow, and all at once for a commit."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from pathlib import Path

from robopolicy_data.files import AppendFile, sync

THREADS = 16  # flushes at once: a commit has about thirty files, and those that wait together share what the disk does
PERIOD_S = 1.0
BYTES = 1_000_000  # not yet on the disk, before that


class Syncing:
    """Flushes in the background, at most once a second or every megabyte; the writer waits for it only to commit.

    A flush that fails may have lost what was appended before it, and the kernel tells only once: it is never forgotten.

    Args:
        pool: of `THREADS` threads; they are started by the first flush, so that a commit need not start them.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._running: list[Future[None]] = []  # and those that failed
        self._began_s, self._unsynced = time.monotonic(), 0

    def wrote(self, count: int, files: Iterable[AppendFile]) -> None:
        """Say that ``count`` bytes were appended to ``files``; flush them if it is time to. Raises nothing."""
        self._unsynced += count
        if self._unsynced < BYTES and time.monotonic() - self._began_s < PERIOD_S:
            return
        if all(one.done() and one.exception() is None for one in self._running):
            self.flush(files)
            self._began_s, self._unsynced = time.monotonic(), 0

    def flush(self, files: Iterable[AppendFile], paths: Iterable[Path | str] = ()) -> None:
        """Begin to flush what ``files`` have that is not on the disk yet, and other files and folders whole."""
        todo: list[Callable[[], None]] = [file.sync for file in files if file.dirty]
        todo += [partial(sync, path) for path in paths]
        self._running += [self._pool.submit(_each, todo[k::THREADS]) for k in range(min(THREADS, len(todo)))]

    def require_good(self, *, wait: bool = False) -> None:
        """Raise what a flush has failed with, an OSError; with ``wait`` also one that still runs."""
        if wait:
            wait_for(self._running)  # woken once, not by each
        for one in list(self._running):
            if one.done():
                one.result()
                self._running.remove(one)

    def close(self) -> None:
        """Wait for what runs; idempotent. Before this the files must stay open."""
        wait_for(self._running)


def _each(todo: list[Callable[[], None]]) -> None:
    for flush in todo:
        flush()
