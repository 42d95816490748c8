"""The read-only reader: plain file reads, every block verified, fresh arrays; nothing here can write."""

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy.spec import PolicySpec
from robopolicy_data.episode import Episode
from robopolicy_data.layout import EPISODES
from robopolicy_data.metadata import read_root, require_imported

__all__ = ["Dataset", "Episode"]


class Dataset(Sequence[Episode]):
    """The committed episodes of a dataset, by position; a snapshot of the moment it was opened.

    Args:
        path: the dataset's folder.
        unfinished: also open one whose import did not come to its end.

    Raises:
        DatasetError: if ``path`` is not a dataset, or half an import.
        NewerFormat: if it was written by a newer major version.
    """

    def __init__(self, path: Path | str, *, unfinished: bool = False) -> None:
        self.path = Path(path)
        self._attributes = read_root(self.path)
        if not unfinished:
            require_imported(self._attributes, self.path)
        try:
            self.spec = PolicySpec.from_json(self._attributes["spec"])
        except (KeyError, RobopolicyError) as error:
            raise DatasetError(f"{self.path}: its attributes hold no spec ({error})") from error
        self._episodes = [Episode(self.path, self.spec, number) for number in _numbers(self.path / EPISODES)]

    @property
    def attrs(self) -> dict[str, Any]:
        """A copy of the dataset's own attributes: format, version, spec, created, software."""
        return copy.deepcopy(self._attributes)

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: Any) -> Any:
        """Return the Episode at a position, or a list of them for a slice."""
        return self._episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}: {len(self)} episodes)"


def _numbers(folder: Path) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(folder) if name.isdigit())
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}") from error
