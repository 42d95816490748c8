"""What tools add to a committed episode: arrays under derived/<tool>@<version>, put in place whole."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from robopolicy.errors import DatasetError
from robopolicy_data.blocks import write_array
from robopolicy_data.files import disk_full_as, replace_durable, sync, sync_tree, write_file
from robopolicy_data.layout import DERIVED, EPISODES, require_name
from robopolicy_data.metadata import group_json, read_root, writable_folder


def write_derived(
    dataset_path: Path | str,
    number: int,
    name: str,
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Put derived/``name`` into an episode, in place of an older one of that name; what was recorded is not touched.

    Args:
        dataset_path: the dataset's folder.
        number: of the episode.
        name: ``tool@version``, e.g. ``"quality@1"``.
        arrays: bool, integer, float32 or float64, of any shape.
        attributes: of the group; JSON.

    Raises:
        DatasetError: if there is no such dataset or episode, or an array's dtype cannot be stored.
        ContractError: if a name cannot be a folder's, or an attribute is not JSON.
        DiskFull: if there is no room; an older one of that name stays.
    """
    path = writable_folder(dataset_path)
    read_root(path)
    episode = path / EPISODES / f"{number:06d}"
    if not (episode / "zarr.json").is_file():
        raise DatasetError(f"{path}: there is no episode {number}")
    for what in (name, *arrays):
        require_name("derived", what)
    with disk_full_as(lambda: f"{path}: episode {number} has no new {DERIVED}/{name}; all else is untouched"):
        _place(episode / DERIVED, name, arrays, group_json(attributes))


def _place(folder: Path, name: str, arrays: Mapping[str, np.ndarray], group: bytes) -> None:
    folder.mkdir(exist_ok=True)
    if not (folder / "zarr.json").exists():
        replace_durable(folder / "zarr.json", group_json())
        sync(folder.parent)
    for left in folder.glob(".partial-*"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    partial = folder / f".partial-{uuid4().hex}"
    old = partial.with_name(f"{partial.name}-old")
    try:
        partial.mkdir()
        for key, values in arrays.items():
            write_array(partial / key, np.asarray(values))
        write_file(partial / "zarr.json", group)
        sync_tree(partial)
        if (folder / name).exists():
            os.rename(folder / name, old)
        os.rename(partial, folder / name)
        sync(folder)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
