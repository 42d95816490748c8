"""Writing so that what was written stays: whole appends, durable files, one clear line when the disk is full."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import google_crc32c

from robopolicy.errors import DiskFull

_FLUSHES = 32  # at once: a commit has about fifty files and folders, and those that wait together share a flush
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_full_as(message: Callable[[], str]) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "file too large" into `DiskFull` saying ``message()``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DiskFull(f"{os.strerror(error.errno)}: {message()}") from error


def crc32c(*parts: bytes) -> bytes:
    """Return the CRC-32C of the concatenated parts as the 4 little-endian bytes that zarr's codec appends."""
    value = 0
    for part in parts:
        value = google_crc32c.extend(value, part)
    return value.to_bytes(4, "little")


class AppendFile:
    """A file that only grows, by whole appends: one that fails or is interrupted half-way is taken back.

    Args:
        path: made, and must not exist unless ``resume`` says how many of its bytes to keep.
        resume: bytes.
    """

    def __init__(self, path: Path | str, *, resume: int | None = None) -> None:
        new = os.O_CREAT | os.O_EXCL if resume is None else 0
        self._fd = os.open(path, os.O_RDWR | new | os.O_CLOEXEC, 0o644)
        self.size = resume or 0  # bytes
        self._changes, self._synced = 0, -1  # how often it changed, and up to which change it is on the disk
        if resume is not None:
            os.ftruncate(self._fd, resume)

    @property
    def dirty(self) -> bool:
        """Whether something of it is not on the disk yet."""
        return self._changes != self._synced

    def append(self, *parts: bytes) -> int:
        """Write the parts at the end, without a flush to the disk; return the offset of the first byte."""
        start, whole = self.size, b"".join(parts)
        try:
            write_all(self._fd, whole, start)
            self.size = start + len(whole)
        except BaseException:  # Ctrl-C too: the caller may go on with the next step
            self.size = start
            os.ftruncate(self._fd, start)
            raise
        finally:
            self._changes += 1  # after the write: a flush that began before it does not count
        return start

    def cut(self, size: int) -> None:
        """Keep the first ``size`` bytes only."""
        os.ftruncate(self._fd, size)
        self.size = size
        self._changes += 1

    def read(self) -> bytes:
        """Return all of it."""
        return os.pread(self._fd, self.size, 0)

    def sync(self) -> None:
        """Wait until what was appended is on the disk; from any thread."""
        changes = self._changes
        os.fdatasync(self._fd)
        self._synced = max(self._synced, changes)

    def close(self) -> None:
        """Close; idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write_all(fd: int, data: bytes, offset: int = 0) -> None:
    """Write every byte from ``offset`` on: ``os.pwrite`` alone may stop early, as it does when the disk fills."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def write_file(path: Path | str, *parts: bytes) -> None:
    """Write a whole file, without a flush to the disk; an old one is written over where it lies, which is quicker."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        data = b"".join(parts)
        write_all(fd, data)
        os.ftruncate(fd, len(data))
    finally:
        os.close(fd)


def replace_durable(path: Path, data: bytes) -> None:
    """Write ``path`` so that at every instant it is either absent (or old) or whole."""
    partial = path.with_name(f"{path.name}.partial")
    write_file(partial, data)
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path | str) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, all durable: a folder's name is kept by the one above it."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def sync_tree(folder: Path) -> None:
    """Wait until a folder and all in it are on the disk; threaded, since many flushes at once cost little more."""
    paths = [Path(where) / name for where, _, files in os.walk(folder) for name in (*files, ".")]

    def flush(start: int) -> None:
        for path in paths[start::_FLUSHES]:
            sync(path)

    with ThreadPoolExecutor(_FLUSHES) as pool:
        list(pool.map(flush, range(min(_FLUSHES, len(paths)))))


def copy_tree(source: Path, target: Path, *, link: bool) -> None:
    """Copy a folder, less hidden things, without a flush; with ``link`` by hard links where the disk allows."""

    def place(one: str, other: str) -> None:
        if link:
            try:
                os.link(one, other)
                return
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                    raise
        shutil.copyfile(one, other)

    shutil.copytree(source, target, copy_function=place, ignore=shutil.ignore_patterns(".*"))
