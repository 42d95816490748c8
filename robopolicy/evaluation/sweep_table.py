"""The table of a sweep: rows in a journal as they come, sealed into parquet; a row an episode, whoever wrote it."""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from robopolicy.errors import EvaluationError, MissingExtra
from robopolicy.evaluation.outcomes import Outcome
from robopolicy.evaluation.suite import parsed
from robopolicy.training.files import replace_file

JOURNALS, PARTS = "journal", "parts"
SEAL_ROWS = 5000  # of one journal, which then is begun anew
VARYING = (
    "wall_s",
    "recorded_s",
    "host",
    "attempts",
)  # columns that another run of the same episodes may fill otherwise


@dataclass(frozen=True)
class Row:
    """One episode of a sweep, beside its outcome."""

    identity: str  # of all that decides how it goes
    checkpoint: str  # its name in the suite
    checkpoint_path: str
    checkpoint_sha: str
    world: str
    axis: str  # of the perturbation; several are joined by " + ", none is ""
    severity: float | None  # of it: 0 without any, None of several
    seed: int
    software: str  # versions
    git_sha: str  # of the checkout it ran from; "" if it was none
    host: str
    gl_renderer: str  # that drew; "" if nothing was drawn
    attempts: int  # how often it was begun
    recorded_s: float  # Unix time

    @staticmethod
    def axis_of(perturbations: Sequence[str]) -> tuple[str, float | None]:
        """Return axis and severity of ``("camera:0.5",)``."""
        pairs = [parsed(perturbation) for perturbation in perturbations]
        severity = 0.0 if not pairs else pairs[0][1] if len(pairs) == 1 else None
        return " + ".join(axis for axis, _ in pairs), severity


class Journal:
    """The rows that one process adds: a line each, flushed to the disk before `append` returns.

    Any number of processes, of any machines, may have theirs in one folder. Whoever holds a journal has it locked.

    Args:
        folder: of the sweep; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / JOURNALS).mkdir(parents=True, exist_ok=True)
        (folder / PARTS).mkdir(exist_ok=True)
        self._begin()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row, in one write unless the disk takes only a part; it raises OSError when that is full."""
        line = (json.dumps(row) + "\n").encode()
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)
        self._rows += 1
        if self._rows >= SEAL_ROWS:
            self.close()
            self._begin()

    def close(self) -> None:
        """Seal the rows into a parquet part; idempotent."""
        if self._file >= 0:
            _seal(self._path, self._folder)
            os.close(self._file)
            self._file = -1

    def _begin(self) -> None:
        """Open a new file and lock it; one that was taken for abandoned before it was locked is given up."""
        while True:
            name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._path, self._rows = self._folder / JOURNALS / name, 0
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            with suppress(OSError):  # a file system without locks: nobody else seals it then
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:
                return _flush(self._path.parent)
            os.close(self._file)


def seal_abandoned(folder: str | Path) -> int:
    """Seal the journals that processes of this machine left behind when they were killed; return how many.

    Those of other machines are left alone, alive or not: whether a lock is held there cannot be known everywhere.
    `read` reads them as they are.
    """
    sealed = 0
    for path in sorted((Path(folder) / JOURNALS).glob(f"{socket.gethostname()}-*.jsonl")):
        with suppress(FileNotFoundError), open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # somebody is writing it, or nobody can know
                continue
            _seal(path, Path(folder))
            sealed += 1
    return sealed


def read_rows(folder: str | Path) -> list[dict[str, Any]]:
    """Return every episode that ``folder`` holds, sealed or not, one row each, in order of their identity.

    Of an episode that was recorded more than once the first that came to an end counts; a row that only tells of a
    crash or a hang gives way to it.

    Raises:
        EvaluationError: if a sealed part cannot be read.
    """
    rows: dict[str, dict[str, Any]] = {}
    # Journals first: one that is sealed meanwhile is then read twice and not missed.
    for row in [*_journal_rows(Path(folder)), *_sealed_rows(Path(folder))]:
        other = rows.get(row["identity"])
        if other is None or _rank(row) < _rank(other):
            rows[row["identity"]] = row
    return [rows[identity] for identity in sorted(rows)]


def read(folder: str | Path) -> Any:
    """Return `read_rows` as a ``pyarrow.Table``.

    Raises:
        EvaluationError: if there is no sweep, or a sealed part cannot be read.
    """
    folder = Path(folder)
    if not (folder / JOURNALS).is_dir():
        raise EvaluationError(f"{folder} holds no sweep (no {JOURNALS}/); is it the folder of --out?")
    return _arrow().Table.from_pylist(read_rows(folder), schema=schema())


def schema() -> Any:
    """Return the ``pyarrow.Schema`` of the table: the fields of `Row`, then those of `Outcome`."""
    pa = _arrow()
    hints = {**get_type_hints(Row), **get_type_hints(Outcome)}
    names = [field.name for field in (*fields(Row), *fields(Outcome))]
    return pa.schema([(name, _arrow_type(pa, hints[name])) for name in dict.fromkeys(names)])


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a row holds."""
    return Outcome.from_json({name: value for name, value in row.items() if value is not None})


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    return row.get("error") is not None, row.get("recorded_s") or 0.0


def _seal(path: Path, folder: Path) -> None:
    """Write a journal as a parquet part of the same name, then remove it: after a crash between, both are there."""
    import pyarrow.parquet as parquet

    pa = _arrow()
    rows = list(_lines(path))
    if rows:
        sink = pa.BufferOutputStream()
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema()), sink, compression="zstd")
        replace_file(folder / PARTS / f"{path.stem}.parquet", sink.getvalue().to_pybytes())
        _flush(folder / PARTS)
    path.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _journal_rows(folder: Path) -> Iterable[dict[str, Any]]:
    for path in sorted((folder / JOURNALS).glob("*.jsonl")):
        with suppress(FileNotFoundError):  # sealed meanwhile
            yield from _lines(path)


def _sealed_rows(folder: Path) -> Iterable[dict[str, Any]]:
    import pyarrow.parquet as parquet

    pa = _arrow()
    for path in sorted((folder / PARTS).glob("*.parquet")):
        try:
            yield from parquet.ParquetFile(path).read().to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise EvaluationError(f"{path} is damaged ({' '.join(str(error).split())[:120]}); move it away") from error


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    for text in path.read_bytes().splitlines():
        try:
            row = json.loads(text)
        except ValueError:  # the last line of a process that was killed
            continue
        if isinstance(row, dict) and "identity" in row:
            yield row


def _arrow_type(pa: Any, hint: Any) -> Any:
    """The column of a dataclass's field: what JSON makes of it."""
    if get_origin(hint) is UnionType:
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        return pa.list_(_arrow_type(pa, get_args(hint)[0]))
    plain = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    if hint in plain:
        return plain[hint]
    return pa.struct([(name, _arrow_type(pa, part)) for name, part in get_type_hints(hint).items()])


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise MissingExtra("pyarrow", "sweep") from None
    return pyarrow
