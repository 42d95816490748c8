"""The read-only reader: plain reads, every block verified, fresh arrays; nothing here can write."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robopolicy.errors import DatasetError, RobopolicyError
from robopolicy.spec import PolicySpec
from robopolicy_data.catalog import read_catalog
from robopolicy_data.described import StreamTable
from robopolicy_data.episode import Episode
from robopolicy_data.history import half_done
from robopolicy_data.layout import EPISODES
from robopolicy_data.metadata import read_root, require_imported
from robopolicy_data.source import Source, open_source

__all__ = ["Dataset", "Episode"]


class Dataset(Sequence[Episode]):
    """The committed episodes of a dataset, by position; a snapshot of the moment it was opened.

    Args:
        where: the dataset's folder, a .zip made without compression, or a URL of either (https://, s3://, ...).
        unfinished: also open one whose import did not come to its end.

    Attributes:
        where: the same, as a name for messages.
        spec: what every episode holds.

    Raises:
        DatasetError: if ``where`` is not a dataset, half an import, or out of reach.
        NewerFormat: if it was written by a newer major version.
        MissingExtra: if the package that speaks the URL's protocol is not installed.
    """

    def __init__(self, where: Path | str, *, unfinished: bool = False) -> None:
        self._source = open_source(where)
        self.where = self._source.where
        self._attributes = read_root(self._source)
        if not unfinished:
            require_imported(self._attributes, self.where)
        try:
            self.spec = PolicySpec.from_json(self._attributes["spec"])
        except (KeyError, RobopolicyError) as error:
            raise DatasetError(f"{self.where}: its attributes hold no spec ({error})") from error
        table = StreamTable(self.spec)
        found = read_catalog(self._source) if self._source.folder is None else None
        listed = dict.fromkeys(_numbers(self._source)) if found is None else found
        self._episodes = [
            Episode(self._source, self.spec, number, table=table, attributes=attributes)
            for number, attributes in listed.items()
        ]

    @property
    def path(self) -> Path:
        """The dataset's folder; DatasetError if it is none but a zip or a URL."""
        if self._source.folder is None:
            raise DatasetError(f"{self.where} is no folder of this machine; copy or unzip it into one first")
        return self._source.folder

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
        return f"Dataset({self.where!r}: {len(self)} episodes)"


def _numbers(source: Source) -> list[int]:
    try:
        numbers = sorted(int(name) for name in source.list(EPISODES) if name.isdigit())
    except OSError as error:
        text = f"{source.where}/{EPISODES} cannot be listed: {error.strerror or error}"
        hint = "" if source.folder else "; a server that lists no folders needs a catalog: robopolicy_data.catalog"
        raise DatasetError(text + hint) from error
    overlooked = frozenset() if source.folder is None else half_done(source.folder)
    return [number for number in numbers if number not in overlooked]
