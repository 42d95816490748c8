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
from robopolicy_data.layout import MONITOR, align_path
from robopolicy_data.metadata import episode_attributes, require_readable, to_bytes
from robopolicy_data.rows import row_dtype

RECORDS = 2  # of what they hold: 2 has the monitor's latency and scores
SCORES = "scores.json"  # beside the journal, once a monitor has spoken: the names


def journal_header(meta: EpisodeMeta, uuid: str, recorded: str, spec: PolicySpec, coding: Coding) -> dict[str, Any]:
    """Return what the first line of a journal says."""
    attributes = episode_attributes(meta, 0, uuid, recorded)
    return {**attributes, "spec": spec.to_json(), "coding": asdict(coding), "records": RECORDS}


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
    if header.get("records") == RECORDS:
        return Journal(header, np.frombuffer(_whole(rest, dtype), dtype))
    single = version.startswith("1.")  # format 1 had a frame of every camera a step
    lacks = [f"{MONITOR}/latency_s", f"{MONITOR}/scores", *(align_path(k) for k in spec.cameras if single)]
    old = np.dtype([(name, dtype[name]) for name in dtype.names or () if name not in lacks])
    found = np.frombuffer(_whole(rest, old), old)
    rows = np.zeros(len(found), dtype)
    for name in old.names or ():
        rows[name] = found[name]
    rows[f"{MONITOR}/latency_s"], rows[f"{MONITOR}/scores"] = np.nan, np.nan
    for name in spec.cameras if single else ():
        rows[align_path(name)] = np.arange(len(rows))
    return Journal(header, rows)


def read_scores(folder: Path) -> tuple[str, ...]:
    """Return the names of an unfinished episode's scores; none if no monitor had spoken."""
    try:
        return tuple(map(str, json.loads((folder / SCORES).read_bytes())))
    except FileNotFoundError:
        return ()
    except ValueError as error:
        raise DatasetError(f"{folder / SCORES} is damaged: {error}") from error


def _whole(records: bytes, dtype: np.dtype) -> bytes:
    """Return the records before the first damaged one."""
    size, good = dtype.itemsize, 0
    while (
        good + size <= len(records)
        and crc32c(records[good : good + size - 4]) == records[good + size - 4 : good + size]
    ):
        good += size
    return records[:good]
