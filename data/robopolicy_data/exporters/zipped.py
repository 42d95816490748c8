"""A dataset as one file: what `Dataset` and stock zarr read as it is, from a disk or a server."""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from robopolicy_data.catalog import CATALOG, catalog_bytes
from robopolicy_data.exporters.destination import chosen, fresh
from robopolicy_data.layout import EPISODES
from robopolicy_data.reader import Dataset


def export_zip(
    dataset_path: Path | str,
    destination: Path | str,
    *,
    episodes: Sequence[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Pack committed episodes into a zip, with a catalog of them; return how many it holds.

    Nothing is compressed: pictures are already, and single frames must be found. Episodes keep their numbers, marks and
    all that is derived.

    Args:
        dataset_path: the dataset's folder.
        destination: the file to make.
        episodes: positions; None is all.
        progress: called with (files packed, files in all).

    Raises:
        DatasetError: if there is no dataset or only half an import, it is no folder, or the destination exists.
        UnknownName: if a position is not in the dataset.
        DiskFull: if there is no room; nothing is left.
    """
    dataset = Dataset(dataset_path)
    picked, folder = sorted(chosen(dataset, episodes), key=lambda episode: episode.number), dataset.path
    files = [folder / "zarr.json", folder / EPISODES / "zarr.json"]
    for episode in picked:
        inside = (path for path in episode.path.rglob("*") if path.is_file())
        files += sorted(path for path in inside if ".partial" not in str(path.relative_to(episode.path)))
    with fresh(destination) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:
        listed = {episode.number: episode.attributes for episode in picked}
        packed.writestr(CATALOG, catalog_bytes(dataset.attrs["version"], listed))
        for done, file in enumerate(files, 1):
            packed.write(file, file.relative_to(folder).as_posix())
            if progress is not None:
                progress(done, len(files))
    return len(picked)
