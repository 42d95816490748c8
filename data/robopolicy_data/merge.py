"""Several datasets as one: hard links, so nothing is encoded or copied again."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from robopolicy.errors import DatasetError
from robopolicy_data.episode import Episode
from robopolicy_data.files import disk_full_as, replace_durable, sync, write_file
from robopolicy_data.layout import EPISODES
from robopolicy_data.metadata import KEY, dataset_attributes, group_json
from robopolicy_data.reader import Dataset


@dataclass(frozen=True)
class Made:
    """A dataset made of others' episodes."""

    path: Path
    episodes: int
    linked: bool  # no bytes were copied
    skipped: int = 0  # episodes that were there already


def merge(sources: Sequence[Path | str], dest: Path | str, *, duplicates: Literal["refuse", "skip"] = "refuse") -> Made:
    """Make a new dataset of all episodes of others, in their order; these stay as they are.

    Args:
        sources: datasets of one spec.
        dest: the new one; it appears all at once.
        duplicates: what to do with an episode that is the same recording as another (their uuids say so).

    Raises:
        SpecMismatch: if the robots, cameras, states or rates differ; both sides are printed.
        DatasetError: if ``dest`` exists, a source is no dataset, or a recording would be in it twice.
        DiskFull: if there is no room; then ``dest`` is not there.
    """
    datasets = [Dataset(source) for source in sources]
    for other in datasets[1:]:
        here, there = f"dataset {datasets[0].path}", f"dataset {other.path}"
        datasets[0].spec.require_from(other.spec, needs=here, offers=there)
        other.spec.require_from(datasets[0].spec, needs=there, offers=here)
    chosen: list[Episode] = []
    first_of: dict[str, str] = {}
    skipped = 0
    for dataset in datasets:
        for episode in dataset:
            uuid, name = episode.attributes.get("uuid"), f"episode {episode.number} of {dataset.path}"
            if uuid in first_of and duplicates == "refuse":
                raise DatasetError(f"{name} is the same recording as {first_of[uuid]}; --skip-duplicates leaves it out")
            if uuid in first_of:
                skipped += 1
                continue
            chosen.append(episode)
            if uuid:
                first_of[uuid] = name
    origin = {"edit": "merge", "words": f"merged from {', '.join(str(d.path) for d in datasets)}"}
    linked = assemble(Path(dest), datasets[0], chosen, origin)
    return Made(Path(dest), len(chosen), linked, skipped)


def assemble(dest: Path, like: Dataset, episodes: Sequence[Episode], origin: dict[str, Any]) -> bool:
    """Make a dataset of episodes of others: built beside its place, then renamed to it.

    Args:
        dest: must not exist.
        like: whose spec it takes.
        episodes: numbered anew, from 0.
        origin: what it was made of, for its attributes.

    Returns:
        Whether every file is a link; across file systems they are copies.

    Raises:
        DatasetError: if ``dest`` exists.
        DiskFull: if there is no room; nothing is left behind.
    """
    require_absent(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    building = dest.with_name(f".{dest.name}.{uuid4().hex}.partial")
    linked = True
    try:
        with disk_full_as(lambda: f"cannot make {dest}; it is not there, and its sources are untouched"):
            (building / EPISODES).mkdir(parents=True)
            write_file(building / EPISODES / "zarr.json", group_json())
            for number, episode in enumerate(episodes):
                linked &= copy_episode(episode.path, building / EPISODES / f"{number:06d}")
            own = {**dataset_attributes(like.spec)[KEY], "origin": origin}
            replace_durable(building / "zarr.json", group_json({KEY: own}))
            for folder in (building / EPISODES, building):
                sync(folder)
            os.rename(building, dest)
            sync(dest.parent)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return linked


def require_absent(dest: Path) -> None:
    """Refuse a place that is taken; DatasetError."""
    if dest.exists():
        raise DatasetError(f"{dest} exists; name a new dataset")
    for left in dest.parent.glob(f".{dest.name}.*.partial"):  # of a process that was killed
        shutil.rmtree(left, ignore_errors=True)


def copy_episode(source: Path, target: Path) -> bool:
    """Link, or where that is impossible copy, every file of an episode, durably; return whether all are links."""
    linked = True
    for where, _, files in os.walk(source):
        folder = target / Path(where).relative_to(source)
        folder.mkdir()
        for name in files:
            if name.endswith(".partial"):
                continue
            linked &= _link(Path(where) / name, folder / name)
        sync(folder)
    return linked


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
        sync(target)
        return False
    return True
