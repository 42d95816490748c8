"""What lies in a dataset, in one file beside it: for servers that list no folders, and to open a far one at once."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopolicy.errors import DatasetError
from robopolicy_data.files import disk_full_as, replace_durable
from robopolicy_data.history import half_done
from robopolicy_data.layout import EPISODES
from robopolicy_data.metadata import KEY, json_in, read_root, require_imported, to_bytes, writable_folder
from robopolicy_data.source import FolderSource, Source

CATALOG = "catalog.json"
_KIND = "robopolicy-catalog"


def write_catalog(path: Path | str) -> int:
    """Write the catalog of a local dataset, in one stroke; return how many episodes it lists.

    Readers of the folder itself never look at it; readers of a zip or a URL believe it. So write it anew after each
    change and before each upload.

    Raises:
        DatasetError: if there is no dataset, only half an import, or it is a zip or a URL.
        DiskFull: if there is no room.
    """
    folder = writable_folder(path)
    data, count = _catalog(folder)
    with disk_full_as(lambda: f"cannot write {folder / CATALOG}; the dataset is untouched"):
        replace_durable(folder / CATALOG, data)
    return count


def read_catalog(source: Source) -> dict[int, dict[str, Any]] | None:
    """Return {number: attributes of the episode}, in order, or None if there is no catalog.

    Raises:
        DatasetError: if there is one that cannot be read.
    """
    try:
        found = json.loads(source.read(CATALOG))
    except FileNotFoundError:
        return None
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{source.where}/{CATALOG} is not JSON: {error}") from error
    try:
        if found["format"] != _KIND:
            raise KeyError("format")
        return {int(one["number"]): dict(one["attributes"]) for one in found["episodes"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{source.where}/{CATALOG} is not a catalog of a dataset; write it anew") from error


def catalog_bytes(version: str, episodes: Mapping[int, Any]) -> bytes:
    """Return the file's content: the dataset's format and, of each episode, {number: its attributes}."""
    listed = [{"number": number, "attributes": attributes} for number, attributes in episodes.items()]
    return to_bytes({"format": _KIND, "version": version, "episodes": listed})


def _catalog(folder: Path) -> tuple[bytes, int]:
    source = FolderSource(folder)
    root = read_root(source)
    require_imported(root, folder)
    overlooked = half_done(folder)
    numbers = sorted(int(name) for name in source.list(EPISODES) if name.isdigit() and int(name) not in overlooked)
    own = {n: (json_in(source, f"{EPISODES}/{n:06d}/zarr.json").get("attributes") or {}).get(KEY) for n in numbers}
    return catalog_bytes(root["version"], own), len(own)
