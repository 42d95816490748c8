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
from robopolicy_data.metadata import episode_attributes, to_bytes
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
        dtype = row_dtype(PolicySpec.from_json(header["spec"]))
    except (OSError, ValueError, KeyError, TypeError, RobopolicyError) as error:
        raise DatasetError(f"{path} is not a journal: {error}") from error
    whole = len(rest) // dtype.itemsize
    good = 0
    while good < whole:
        record = rest[good * dtype.itemsize : (good + 1) * dtype.itemsize]
        if crc32c(record[:-4]) != record[-4:]:
            break
        good += 1
    return Journal(header, np.frombuffer(rest[: good * dtype.itemsize], dtype))
