"""Folders that are written whole or not at all."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from robopolicy.errors import MonitorError


@contextmanager
def whole_folder(folder: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``folder`` once the block has ended well; else nothing changes.

    Args:
        folder: to be written; an older one is replaced if it is one of ``ours``.
        ours: whether a folder that is not empty may be replaced.

    Raises:
        MonitorError: if something else is there.
    """
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or ours(folder))):
        raise MonitorError(f"{folder} holds something else; name another folder")
    scratch, old = (folder.with_name(f".{folder.name}.{end}") for end in ("wip", "old"))
    above = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in (scratch, old):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
        if folder.exists():
            folder.rename(old)
        scratch.rename(folder)
    finally:
        for left in (scratch, old):
            shutil.rmtree(left, ignore_errors=True)
        for parent in above:  # nearest first; those that were made for nothing
            if not any(parent.iterdir()):
                parent.rmdir()
