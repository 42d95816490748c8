"""The journal beside an unfinished episode: all of it but the pictures, so that a killed recording can be read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.files import AppendFile, crc32c
from robopolicy_data.frames import Coding
from robopolicy_data.layout import align_path
from robopolicy_data.metadata import episode_attributes, require_readable, to_bytes
from robopolicy_data.rows import row_dtype


def journal_header(meta: EpisodeMeta, uuid: str, recorded: str, spec: PolicySpec, coding: Coding) -> dict[str, Any]:
    """Return what the first line of a journal says."""
    return {**episode_attributes(meta, 0, uuid, recorded), "spec": spec.to_json(), "coding": asdict(coding)}


class JournalWriter:
    """One line of JSON (spec, meta, coding), then one fixed-size record (`rows.row_dtype`) a step."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.file = AppendFile(path)
        self.file.append(to_bytes(header), b"\n")

    def append(self, row: np.ndarray) -> None:
        """Append one record, its ``crc32c`` filled in here."""
        row["crc32c"] = int.from_bytes(crc32c(row.tobytes()[:-4]), "little")
        self.file.append(row.tobytes())

    def close(self) -> None:
        """Close; idempotent."""
        self.file.close()


@dataclass(frozen=True)
class Journal:
    """What a journal holds up to its first damaged record."""

    header: Mapping[str, Any]
    rows: np.ndarray  # (T,) of rows.row_dtype


def read_journal(path: Path) -> Journal:
    """Read a journal; a torn last record is left out.

    Raises:
        DatasetError: if not even the header is whole.
    """
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
        header = json.loads(first)
        spec = PolicySpec.from_json(header["spec"])
        version = str(header["robopolicy"].get("version", "1.0"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RobopolicyError) as error:
        raise DatasetError(f"{path} is not a journal: {error}") from error
    require_readable(version, path)
    dtype = row_dtype(spec)
    if not version.startswith("1."):
        return Journal(header, np.frombuffer(_whole(rest, dtype), dtype))
    old = np.dtype([(name, dtype[name]) for name in dtype.names or () if not name.startswith("align/")])
    found = np.frombuffer(_whole(rest, old), old)
    rows = np.zeros(len(found), dtype)
    for name in old.names or ():
        rows[name] = found[name]
    for name in spec.cameras:  # format 1 had a frame of every camera a step
        rows[align_path(name)] = np.arange(len(rows))
    return Journal(header, rows)


def _whole(records: bytes, dtype: np.dtype) -> bytes:
    """Return the records before the first damaged one."""
    size, good = dtype.itemsize, 0
    while (
        good + size <= len(records)
        and crc32c(records[good : good + size - 4]) == records[good + size - 4 : good + size]
    ):
        good += size
    return records[:good]
