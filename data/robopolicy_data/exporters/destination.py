"""Where an export goes: nothing is overwritten, and what has its final name is whole."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from robopolicy.errors import DatasetError, UnknownName
from robopolicy_data.episode import Episode
from robopolicy_data.files import disk_full_as, sync, sync_tree
from robopolicy_data.reader import Dataset


@contextmanager
def fresh(destination: Path | str) -> Iterator[Path]:
    """Give a path beside ``destination`` to write a file or folder to; once it is on the disk, it gets its name.

    If the block fails, nothing is left; if the process is killed, what is left ends in ``.partial``, and the next
    export there replaces it.

    Raises:
        DatasetError: if the destination exists, or what it is to lie in does not.
        DiskFull: if there is no room.
    """
    target = Path(destination)
    if target.exists() or target.is_symlink():
        raise DatasetError(f"{target} exists; export to a new place, or delete it first")
    if not target.parent.is_dir():
        raise DatasetError(f"{target.parent} is no folder; {target.name} is to lie in it")
    partial = target.with_name(f"{target.name}.partial")
    _remove(partial)
    try:
        with disk_full_as(lambda: f"cannot write {target}; nothing of it is left"):
            yield partial
            sync_tree(partial) if partial.is_dir() else sync(partial)
            os.rename(partial, target)
            sync(target.parent)
    except BaseException:
        _remove(partial)
        raise


def chosen(dataset: Dataset, episodes: Sequence[int] | None) -> list[Episode]:
    """Return the episodes at the given positions, in that order; None is all of them.

    Raises:
        UnknownName: if a position is not in the dataset.
        DatasetError: if there is none.
    """
    found = range(len(dataset)) if episodes is None else episodes
    for position in found:
        if not 0 <= position < len(dataset):
            raise UnknownName("episode", str(position), [f"0 to {len(dataset) - 1}"] if len(dataset) else [])
    if not len(found):
        raise DatasetError(f"{dataset.where} has no episodes to export")
    return [dataset[position] for position in found]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
