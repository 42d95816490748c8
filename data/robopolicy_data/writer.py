"""The append-only writer: an episode is committed whole or stays invisible, and nothing committed is opened again."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from uuid import uuid4

from robopolicy.errors import ContractError, DatasetError
from robopolicy.spec import PolicySpec
from robopolicy.types import EpisodeMeta
from robopolicy_data.episode_writer import EpisodeWriter, remove_folder
from robopolicy_data.files import copy_tree, disk_full_as, make_folder, replace_durable, sync, sync_tree
from robopolicy_data.frames import Coding
from robopolicy_data.layout import EPISODES, LOCK, TRASH, WIP, require_names
from robopolicy_data.leftovers import Interrupted, take_care
from robopolicy_data.lock import WriterLock
from robopolicy_data.metadata import (
    KEY,
    VERSION,
    dataset_attributes,
    group_json,
    read_root,
    require_imported,
    writable_folder,
)
from robopolicy_data.syncing import THREADS

__all__ = ["DatasetWriter", "Interrupted"]


class DatasetWriter:
    """Opens or creates a dataset for appending; the only one to do so until closed.

    Args:
        path: the dataset's folder; made if absent.
        spec: what every episode holds; horizons do not matter.
        quality: of the JPEG frames, 1 to 100.
        lossless: store frames bit for bit instead.
        importing: what a new dataset is being filled from; until `imported` it is marked as incomplete.
        recover: make episodes of the recordings that died before their commit; what cannot be is put aside.

    Attributes:
        interrupted: recordings that died before their commit, recovered or put aside into ``.trash`` just now.

    Raises:
        DatasetError: if the folder holds something else, or half an import.
        NewerFormat: if it was made by a newer major version.
        SpecMismatch: if it holds another spec; both are printed.
        DatasetBusy: if another writer has it open.
        DiskFull: if there is no room even to begin.
    """

    def __init__(
        self,
        path: Path | str,
        spec: PolicySpec,
        *,
        quality: int = 90,
        lossless: bool = False,
        importing: str | None = None,
        recover: bool = False,
    ) -> None:
        self.path = writable_folder(path)
        self.spec = replace(spec, n_obs=1, horizon=1, n_execute=1)
        require_names(self.spec)
        self._coding = Coding(quality, lossless)
        self._episode: EpisodeWriter | None = None
        self._pool = ThreadPoolExecutor(THREADS, "disk")  # starts none before they are needed
        _require_ours(self.path)
        with disk_full_as(lambda: f"cannot write to {self.path}; its committed episodes are untouched"):
            make_folder(self.path)
            self._lock = WriterLock(self.path / LOCK)
            try:
                self._open_or_create(importing)
                left = sorted((self.path / WIP).glob("*"))
                self.interrupted = tuple(one for folder in left for one in self.take_care(folder, recover=recover))
            except BaseException:
                self._lock.close()
                raise

    def require(self, spec: PolicySpec) -> None:
        """Compare ``spec`` with the dataset's, horizons aside; raises SpecMismatch, both sides printed."""
        here, there = f"dataset {self.path}", "this recording"
        self.spec.require_from(spec, needs=here, offers=there)
        spec.require_from(self.spec, needs=there, offers=here)

    def begin(self, meta: EpisodeMeta) -> EpisodeWriter:
        """Begin an episode.

        Raises:
            ContractError: if one is still open, the writer is closed, or ``meta`` is not JSON.
            DiskFull: if there is no room.
        """
        self._require_idle()
        self._episode = EpisodeWriter(
            self.path / WIP, self.spec, meta, self._coding, self._publish, self._forget, self._pool
        )
        return self._episode

    def adopt(self, folder: Path | str, *, link: bool = True, move: bool = False) -> int:
        """Take a complete episode folder, of this or another dataset of the same spec, as a new episode.

        Args:
            folder: the episode's; it stays as it is, unless it is moved.
            link: share its files by hard links where the disk allows; else copy them.
            move: rename it away from where it is, on the same file system: it must have been committed there.

        Raises:
            ContractError: if an episode is still open or the writer is closed.
            DatasetError: if ``folder`` is no episode.
            SpecMismatch: if its dataset has another spec.
            DiskFull: if there is no room; nothing is adopted.
        """
        self._require_idle()
        source = Path(folder)
        if not (source / "zarr.json").is_file() or not (source / "action").is_dir():
            raise DatasetError(f"{source} is not an episode's folder")
        root = source.parent.parent
        if (root / "zarr.json").is_file():
            self.require(PolicySpec.from_json(read_root(root)["spec"]))
        if move:
            with disk_full_as(lambda: f"{self.path}: {source} was not adopted; the committed episodes are untouched"):
                return self._publish(source)
        place = self.path / WIP / uuid4().hex
        try:
            with disk_full_as(lambda: f"{self.path}: {source} was not adopted; the committed episodes are untouched"):
                place.mkdir(parents=True)
                copy_tree(source, place / "adopted", link=link)
                sync_tree(place / "adopted")
                return self._publish(place / "adopted")
        finally:
            remove_folder(place)

    def take_care(self, folder: Path, *, recover: bool) -> list[Interrupted]:
        """Make an episode of an interrupted recording, or put it aside; return what it was, if it was one."""
        self._require_idle()
        found = take_care(folder, self.spec, recover=recover)
        if found is None:
            return []
        if found.folder.name == "episode":  # it was rebuilt
            number = self._publish(found.folder)
            remove_folder(folder)
            found = replace(found, folder=self.path / EPISODES / f"{number:06d}", number=number)
        return [found]

    def imported(self) -> None:
        """Say that all of an import is there: the dataset is no longer marked as incomplete.

        Raises:
            DiskFull: if there is no room; it stays marked.
        """
        attributes = read_root(self.path)
        attributes.pop("importing", None)
        with disk_full_as(lambda: f"cannot write to {self.path}; its committed episodes are untouched"):
            replace_durable(self.path / "zarr.json", group_json({KEY: attributes}))

    def close(self) -> None:
        """Let the dataset go; an episode still open is left unfinished; idempotent."""
        if self._episode is not None:
            self._episode.abandon()
        self._pool.shutdown()
        if not self._lock.closed:
            with suppress(OSError):
                (self.path / WIP).rmdir()  # unless something unfinished is in it
            self._lock.close()

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_or_create(self, importing: str | None) -> None:
        if (self.path / "zarr.json").exists():
            attributes = read_root(self.path)
            require_imported(attributes, self.path)
            wanted, self.spec = self.spec, PolicySpec.from_json(attributes["spec"])
            self.require(wanted)
            if attributes["version"].startswith("1."):  # its episodes stay as they are; what comes is of this format
                changed = group_json({KEY: {**attributes, "version": VERSION}})
                replace_durable(self.path / "zarr.json", changed)
        (self.path / EPISODES).mkdir(exist_ok=True)
        if not (self.path / EPISODES / "zarr.json").exists():
            replace_durable(self.path / EPISODES / "zarr.json", group_json())
        if not (self.path / "zarr.json").exists():  # last: with it the folder becomes a dataset
            replace_durable(self.path / "zarr.json", group_json(dataset_attributes(self.spec, importing)))

    def _publish(self, episode: Path) -> int:
        """Rename a finished episode to its number: the one instant at which it becomes visible."""
        episodes, trash = self.path / EPISODES, self.path / TRASH
        names = [
            *os.listdir(episodes),
            *(name.removeprefix("episode-") for name in _listed(trash)),
        ]  # deleted ones too:
        used = [int(name) for name in names if name.isdigit()]  # the lock's number may be lost with the power
        number = max([self._lock.next_number, *(one + 1 for one in used)])
        os.rename(episode, episodes / f"{number:06d}")
        sync(episodes)
        self._lock.remember(number + 1)  # last: killed before, a number would be skipped; after, it is listed above
        return number

    def _require_idle(self) -> None:
        if self._lock.closed:
            raise ContractError(f"the writer of {self.path} is closed")
        if self._episode is not None:
            raise ContractError("an episode is still open; commit or discard it first")

    def _forget(self, folder: Path | None) -> None:
        """Let an episode go; what is left of it is deleted in the background, for a long journal takes its time."""
        self._episode = None
        if folder is not None:
            self._pool.submit(remove_folder, folder)


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _require_ours(path: Path) -> None:
    """Refuse to turn a folder of other things into a dataset.

    Raises:
        DatasetError: naming what is in the way.
    """
    if not path.exists() or (path / "zarr.json").exists():
        return
    begun = {LOCK, EPISODES, "zarr.json.partial"}  # what a writer killed at its very start leaves
    episodes = path / EPISODES
    inside = set(os.listdir(episodes)) if episodes.is_dir() else set()
    other = sorted(set(os.listdir(path)) - begun)
    other += sorted(f"{EPISODES}/{name}" for name in inside - {"zarr.json", "zarr.json.partial"})
    if other:
        raise DatasetError(f"{path} is neither empty nor a robopolicy dataset: it holds {', '.join(other[:5])}")
