"""The log of edits: each is written down before it is done, so that a kill leaves either before or after."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from robopolicy.errors import DatasetError
from robopolicy_data.files import disk_full_as, sync, write_all
from robopolicy_data.layout import EPISODES, LOCK, TRASH
from robopolicy_data.lock import WriterLock
from robopolicy_data.metadata import KEY, now, read_json, read_root, require_imported, to_bytes, writable_folder
from robopolicy_data.numbers import require_episodes

LOG = "edits.jsonl"


@dataclass(frozen=True)
class Move:
    """An episode and the place it takes, or has, below ``.trash`` while it is not in the dataset."""

    number: int
    place: str


@dataclass(frozen=True)
class Edit:
    """One change: of episodes' places (adds first, then the one removal), or of one episode's attributes.

    It happened if what it removes is gone, or, removing nothing, if what it adds is there, or, moving nothing, if
    the attributes are those of ``after``.
    """

    id: int
    kind: str  # delete, undelete, trim, label, gc, undo
    words: str  # what it did, for people
    when: str
    adds: tuple[Move, ...] = ()
    removes: tuple[Move, ...] = ()  # at most one: its rename is the instant of the change
    number: int | None = None  # whose attributes
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""  # edits of one command share it, and are undone together
    undoes: int | None = None


def edits(path: Path | str) -> list[Edit]:
    """Return what was done to a dataset, oldest first; an edit that was interrupted before it happened is left out."""
    return _read(Path(path))[0]


def half_done(path: Path | str) -> frozenset[int]:
    """Return the episodes to overlook: those an edit has put in place whose counterpart it has not yet removed.

    A dataset is in this state for an instant, or, after a kill, until the next edit. Without them it is what it was.
    """
    root = Path(path)
    try:
        lines = (root / LOG).read_bytes().split(b"\n")
    except FileNotFoundError:
        return frozenset()
    if len(lines) < 2 or b'"adds"' not in lines[-2] or b'"removes"' not in lines[-2]:  # the last whole line
        return frozenset()
    edit = _edit(json.loads(lines[-2]))
    return frozenset() if _happened(root, edit) else frozenset(move.number for move in edit.adds)


class History:
    """The log, held by the one who edits.

    Args:
        root: the dataset.
        lock: the writer's lock, held.
    """

    def __init__(self, root: Path, lock: WriterLock) -> None:
        self.root, self.lock = root, lock
        self._settle()
        lock.remember(max([lock.next_number, *(n + 1 for n in self.numbers()), *(n + 1 for n in self._in_trash())]))

    def numbers(self) -> list[int]:
        """Return the numbers of the committed episodes."""
        return sorted(int(name) for name in os.listdir(self.root / EPISODES) if name.isdigit())

    def episode(self, number: int) -> Path:
        """Return where an episode lies.

        Raises:
            DatasetError: if there is none, naming those there are.
        """
        require_episodes([number], self.numbers(), self.root)
        return self.root / EPISODES / f"{number:06d}"

    def begin(self, kind: str, words: str, **what: Any) -> Edit:
        """Write down what is about to be done, durably, and return it."""
        self._last += 1
        edit = Edit(self._last, kind, words, now(), **what)
        self._append({k: v for k, v in asdict(edit).items() if v not in ("", None, (), {})})
        return edit

    def carry_out(self, edit: Edit) -> None:
        """Move the episodes of an edit that was written down; every folder touched is on the disk when it returns."""
        (self.root / TRASH).mkdir(exist_ok=True)
        for move in edit.adds:
            os.rename(self.root / move.place, self.root / EPISODES / f"{move.number:06d}")
        if edit.adds:
            sync(self.root / EPISODES)
        for move in edit.removes:
            os.rename(self.root / EPISODES / f"{move.number:06d}", self.root / move.place)
        for folder in (TRASH, EPISODES):
            sync(self.root / folder)

    def _settle(self) -> None:
        """Take back what an interrupted edit has done by halves, and say in the log that it never happened."""
        past, self._last, whole = _read(self.root)
        log = self.root / LOG
        if log.exists() and log.stat().st_size > whole:
            os.truncate(log, whole)
        if not past or _happened(self.root, past[-1]):
            return
        (self.root / TRASH).mkdir(exist_ok=True)
        for move in past[-1].adds:
            there = self.root / EPISODES / f"{move.number:06d}"
            if there.exists():
                os.rename(there, self.root / move.place)
        self._append({"void": past[-1].id, "when": now()})

    def _append(self, entry: Mapping[str, Any]) -> None:
        log = self.root / LOG
        new = not log.exists()
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            end = os.fstat(fd).st_size
            try:
                write_all(fd, to_bytes(entry) + b"\n", end)
            except BaseException:
                os.ftruncate(fd, end)
                raise
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            sync(self.root)

    def _in_trash(self) -> list[int]:
        trash = self.root / TRASH
        names = os.listdir(trash) if trash.is_dir() else ()
        return [int(name[8:]) for name in names if name.startswith("episode-") and name[8:].isdigit()]


@contextmanager
def editing(path: Path | str) -> Iterator[History]:
    """Hold a dataset for editing.

    Raises:
        DatasetError: if it is none, or half an import.
        DatasetBusy: if it is being written; naming the process.
        DiskFull: if there is no room for the log; nothing was changed.
    """
    root = writable_folder(path)
    require_imported(read_root(root), root)
    lock = WriterLock(root / LOCK)
    try:
        with disk_full_as(lambda: f"{root} cannot be edited; it is as it was before, or as it is to be"):
            yield History(root, lock)
    finally:
        lock.close()


def trash_place(number: int) -> str:
    """Return where a deleted episode lies."""
    return f"{TRASH}/episode-{number:06d}"


def own_attributes(episode: Path) -> dict[str, Any]:
    """Return an episode's own attributes; DatasetError if they are missing."""
    own = (read_json(episode / "zarr.json").get("attributes") or {}).get(KEY)
    if not isinstance(own, dict):
        raise DatasetError(f"{episode / 'zarr.json'} holds no attributes.{KEY}")
    return own


def _happened(root: Path, edit: Edit) -> bool:
    if edit.removes:
        return not any((root / EPISODES / f"{move.number:06d}").exists() for move in edit.removes)
    if edit.adds:
        return all((root / EPISODES / f"{move.number:06d}").exists() for move in edit.adds)
    if edit.number is not None:
        try:
            own = own_attributes(root / EPISODES / f"{edit.number:06d}")
        except DatasetError:
            return False
        return all(own.get(key) == value for key, value in edit.after.items())
    return True


def _read(root: Path) -> tuple[list[Edit], int, int]:
    """Return the edits, the last id in use, and the bytes that whole lines take: what follows is a torn write."""
    try:
        data = (root / LOG).read_bytes()
    except FileNotFoundError:
        return [], 0, 0
    found: list[Edit] = []
    last = whole = 0
    for row, line in enumerate(data.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            entry = json.loads(line)
            if "void" in entry:
                found = [edit for edit in found if edit.id != entry["void"]]
            else:
                found.append(_edit(entry))
                last = found[-1].id
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"{root / LOG}, line {row}, is no edit: {error}") from error
        whole += len(line)
    return found, last, whole


def _edit(entry: Mapping[str, Any]) -> Edit:
    moves = {key: tuple(Move(**move) for move in entry.get(key, ())) for key in ("adds", "removes")}
    known = {k: v for k, v in entry.items() if k in Edit.__dataclass_fields__}
    return Edit(**{**known, **moves})
