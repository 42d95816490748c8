"""What lies in a dataset, in one file beside it: for servers that list no folders, and to open a far one at once."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robopolicy.errors import DatasetError
from robopolicy_data.files import disk_full_as, replace_durable
from robopolicy_data.history import half_done
from robopolicy_data.layout import EPISODES
from robopolicy_data.metadata import KEY, json_in, read_root, require_imported, to_bytes
from robopolicy_data.source import FolderSource, Source

CATALOG = "catalog.json"
_KIND = "robopolicy-catalog"


def write_catalog(path: Path | str) -> int:
    """Write the catalog of a local dataset, in one stroke; return how many episodes it lists.

    Readers of the folder itself never look at it; readers of a zip or a URL believe it. So write it anew after each
    change and before each upload.

    Raises:
        DatasetError: if there is no dataset, or only half an import.
        DiskFull: if there is no room.
    """
    folder = Path(path)
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


def pack_zip(path: Path | str, destination: Path | str, *, progress: Callable[[int, int], None] | None = None) -> int:
    """Pack the committed episodes of a dataset into one file that `Dataset` and stock zarr read as it is.

    Nothing is compressed: pictures are already, and single frames must be found. The catalog is packed with it.

    Args:
        path: the dataset's folder.
        destination: the .zip file; must not exist, and appears only when whole.
        progress: called with (files packed, files in all).

    Returns:
        How many episodes it holds.

    Raises:
        DatasetError: if there is no dataset, only half an import, or ``destination`` exists.
        DiskFull: if there is no room; nothing is left.
    """
    folder, target = Path(path), Path(destination)
    if target.exists():
        raise DatasetError(f"{target} exists; name another file")
    data, count = _catalog(folder)
    files = [folder / "zarr.json", folder / EPISODES / "zarr.json"]
    for number in sorted(json.loads(data)["episodes"], key=lambda one: one["number"]):
        episode = folder / EPISODES / f"{number['number']:06d}"
        files += sorted(p for p in episode.rglob("*") if p.is_file() and ".partial" not in str(p.relative_to(episode)))
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with disk_full_as(lambda: f"cannot write {target}; the dataset is untouched"):
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:
                packed.writestr(CATALOG, data)
                for done, file in enumerate(files, 1):
                    packed.write(file, file.relative_to(folder).as_posix())
                    if progress is not None:
                        progress(done, len(files))
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _catalog(folder: Path) -> tuple[bytes, int]:
    source = FolderSource(folder)
    root = read_root(source)
    require_imported(root, folder)
    episodes, overlooked = [], half_done(folder)
    for name in sorted(source.list(EPISODES)):
        if name.isdigit() and int(name) not in overlooked:
            own = (json_in(source, f"{EPISODES}/{name}/zarr.json").get("attributes") or {}).get(KEY)
            episodes.append({"number": int(name), "attributes": own})
    listed = {"format": _KIND, "version": root["version"], "episodes": episodes}
    return to_bytes(listed), len(episodes)
