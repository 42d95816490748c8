"""Deleting, bringing back, undoing: renames, so nothing is encoded again and nothing is lost."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from uuid import uuid4

from robopolicy.errors import DatasetError
from robopolicy_data.files import sync
from robopolicy_data.history import Edit, History, Move, editing, edits, trash_place
from robopolicy_data.labels import write_attributes
from robopolicy_data.layout import EPISODES, TRASH
from robopolicy_data.numbers import numbers_in_words, require_episodes

_GONE = ".gone-"  # the name of what is being deleted for good


def delete(path: Path | str, numbers: int | Sequence[int]) -> list[Edit]:
    """Move episodes to the trash; `undo` or `undelete` brings them back as they were.

    Raises:
        DatasetError: if one is not there; then none is deleted.
        DatasetBusy: if the dataset is being written.
    """
    asked = [numbers] if isinstance(numbers, int) else list(numbers)
    with editing(path) as history:
        require_episodes(asked, history.numbers(), history.root)
        return _move(history, asked, "delete", "deleted episode {}", "removes")


def undelete(path: Path | str, numbers: int | Sequence[int]) -> list[Edit]:
    """Bring deleted episodes back under their old numbers.

    Raises:
        DatasetError: if one is not in the trash; then none is brought back.
        DatasetBusy: if the dataset is being written.
    """
    asked = [numbers] if isinstance(numbers, int) else list(numbers)
    with editing(path) as history:
        there = deleted(history.root)
        if missing := set(asked) - set(there):
            what = f"the trash of {history.root} has no episode {numbers_in_words(missing)}"
            raise DatasetError(f"{what}; it has {numbers_in_words(there)}")
        return _move(history, asked, "undelete", "brought episode {} back", "adds")


def undo(path: Path | str) -> list[Edit]:
    """Undo the latest command that is not undone yet and return the edits it undid, newest first.

    What `empty_trash` deleted cannot come back: such edits are passed over.

    Raises:
        DatasetError: if there is nothing to undo.
        DatasetBusy: if the dataset is being written.
    """
    with editing(path) as history:
        log = edits(history.root)
        undone = {edit.undoes for edit in log}
        able = [e for e in log if e.kind not in ("undo", "gc") and e.id not in undone and _can_undo(history, e)]
        if not able:
            raise DatasetError(f"{history.root}: there is nothing to undo")
        last = able[-1]
        group = [edit for edit in able if edit is last or (last.command and edit.command == last.command)][::-1]
        for edit in group:
            _undo(history, edit)
    return group


def deleted(path: Path | str) -> list[int]:
    """Return the numbers of the episodes in the trash."""
    trash = Path(path) / TRASH
    names = os.listdir(trash) if trash.is_dir() else []
    return sorted(int(name[8:]) for name in names if name.startswith("episode-") and name[8:].isdigit())


def empty_trash(path: Path | str) -> tuple[int, int]:
    """Delete for good what lies in the trash: deleted episodes, recordings that were put aside.

    Returns:
        How many folders that were, and how many bytes they took (files that another dataset links to are counted).
    """
    with editing(path) as history:
        trash = history.root / TRASH
        found = sorted(trash.iterdir()) if trash.is_dir() else []
        if not found:
            return 0, 0
        size = sum(file.stat().st_size for file in trash.rglob("*") if file.is_file())
        history.begin("gc", f"emptied the trash: {len(found)} folders")
        gone = [trash / f"{_GONE}{uuid4().hex}" for _ in found]
        for folder, hidden in zip(found, gone, strict=True):  # a kill leaves no half to bring back
            os.rename(folder, hidden)
        sync(trash)
        for hidden in gone:
            shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
        trash.rmdir()
    return len(found), size


def _move(
    history: History, numbers: Sequence[int], kind: str, words: str, way: Literal["adds", "removes"]
) -> list[Edit]:
    """Move episodes to or from the trash, one edit each, all of one command."""
    command, done = uuid4().hex, []
    for number in numbers:
        moves = {way: (Move(number, trash_place(number)),)}
        done.append(history.begin(kind, words.format(number), command=command, **moves))
        history.carry_out(done[-1])
    return done


def _can_undo(history: History, edit: Edit) -> bool:
    """Whether what an edit changed is still where the edit left it."""
    if edit.number is not None:
        return (history.root / EPISODES / f"{edit.number:06d}").is_dir()
    back = all((history.root / move.place / "zarr.json").is_file() for move in edit.removes)
    return back and all((history.root / EPISODES / f"{move.number:06d}").is_dir() for move in edit.adds)


def _undo(history: History, edit: Edit) -> None:
    """Do the reverse, as an edit of its own."""
    reverse = history.begin(
        "undo", f"undid: {edit.words}", undoes=edit.id, adds=edit.removes, removes=edit.adds, number=edit.number,
        before=edit.after, after={key: edit.before.get(key) for key in edit.after},
    )  # fmt: skip
    if edit.number is None:
        history.carry_out(reverse)
    else:
        write_attributes(history.episode(edit.number), edit.before, drop=set(edit.after) - set(edit.before))
