"""Writing files so that a crash leaves the old one or the new one, and knowing beforehand that they can be written."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robopolicy.errors import CheckpointError, DiskFull


def replace_file(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, flush it to the disk, then rename it into place.

    Raises:
        DiskFull: if there is no room; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.wip")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left for {path} ({len(content) / 1e6:.1f} MB); free some and resume") from error
        raise


def claim_folder(folder: Path) -> None:
    """Make ``folder`` if it is not there and write to it once, so that a training does not fail at its first save.

    Raises:
        CheckpointError: if it is no folder, holds a dataset, cannot be written, or another training writes to it.
        DiskFull: if there is no room.
    """
    try:
        if (folder / "zarr.json").exists():
            raise CheckpointError(f"{folder} is a dataset; name another folder for the checkpoint")
        if folder.exists() and not folder.is_dir():
            raise CheckpointError(f"{folder} is a file; name a folder for the checkpoint")
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            replace_file(folder / ".probe", b"probe")
            (folder / ".probe").unlink()
    except DiskFull:
        raise
    except OSError as error:
        reason = f"cannot write to {folder}: {error.strerror}; name a folder for the checkpoint that can be written"
        raise CheckpointError(reason) from error


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other trainings out of ``folder`` while the block lasts; the lock goes with the process, however it ends.

    Where a file system knows no locks, nobody is kept out.

    Raises:
        CheckpointError: if another training holds it.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"another training writes to {folder}: wait until it has ended, or name another folder"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(lock)
