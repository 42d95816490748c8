"""A disk that can lose its power: notes what a program asks of the kernel, and rebuilds what was surely written.

`fsync` of a file makes its bytes durable, `fsync` of a folder its entries. At the cut, bytes written since may be
there, be torn, or be missing (and read as zeros when later ones are there); entries made since are there up to some
moment, as in a file system with a journal, and a rename is there whole or not at all.
"""

import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@dataclass
class Disk:
    """What happened below ``root``, in order; inodes are numbers, the root's is 0."""

    root: Path
    log: list[tuple] = field(default_factory=list)
    tree: dict[int, dict[str, int]] = field(default_factory=lambda: {0: {}})  # folder: its entries, as they are now
    open: dict[int, int] = field(default_factory=dict)  # file descriptor: inode
    lock: Any = field(default_factory=threading.RLock)
    made: int = 0

    def find(self, path: Any) -> tuple[int, str] | None:
        """Return the folder of a path and its name there; None outside of the root."""
        path = os.path.abspath(os.fspath(path))
        if not path.startswith(f"{self.root}{os.sep}") and path != str(self.root):
            return None
        inode, name, *rest = 0, "", *Path(path).relative_to(self.root).parts
        for part in rest:
            inode, name = (self.tree[inode][name] if name else inode), part
        return inode, name

    def inode(self, path: Any) -> int | None:
        found = self.find(path)
        return None if found is None else self.tree[found[0]].get(found[1]) if found[1] else 0

    def add(self, path: Any, kind: str) -> int:
        folder, name = self.find(path)
        self.made += 1
        self.tree[folder][name] = self.made
        if kind == "mkdir":
            self.tree[self.made] = {}
        self.log.append((kind, folder, name, self.made))
        return self.made

    @contextmanager
    def watch(self):
        """Note everything that is asked of the kernel in here."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "close", "pwrite", "ftruncate", "fsync", "fdatasync", "rename", "replace", "mkdir"):
                patch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
            patch.setattr(shutil, "rmtree", self._rmtree(shutil.rmtree))
            patch.setattr(os, "rmdir", self._rmdir(os.rmdir))
            yield self

    def _open(self, really):
        def opened(path, flags, mode=0o777, **rest):
            with self.lock:
                fd = really(path, flags, mode, **rest)
                if not rest and self.find(path) is not None:
                    inode = self.inode(path)
                    if inode is None:
                        inode = self.add(path, "create")
                    elif flags & os.O_TRUNC:
                        self.log.append(("cut", inode, 0))
                    self.open[fd] = inode
                return fd

        return opened

    def _close(self, really):
        def close(fd):
            with self.lock:
                self.open.pop(fd, None)
                really(fd)

        return close

    def _pwrite(self, really):
        def pwrite(fd, data, offset):
            with self.lock:
                count = really(fd, data, offset)
                if fd in self.open:
                    self.log.append(("write", self.open[fd], offset, bytes(data[:count])))
                return count

        return pwrite

    def _ftruncate(self, really):
        def ftruncate(fd, size):
            with self.lock:
                really(fd, size)
                if fd in self.open:
                    self.log.append(("cut", self.open[fd], size))

        return ftruncate

    def _fsync(self, really):
        def fsync(fd):
            with self.lock:
                if fd in self.open:
                    self.log.append(("sync", self.open[fd]))

        return fsync

    _fdatasync = _fsync

    def _rename(self, really):
        def rename(source, target):
            with self.lock:
                really(source, target)
                one, other = self.find(source), self.find(target)
                inode = self.tree[one[0]].pop(one[1])
                self.tree[other[0]][other[1]] = inode
                self.log.append(("rename", *one, *other, inode))

        return rename

    _replace = _rename

    def _mkdir(self, really):
        def mkdir(path, *mode, **rest):
            with self.lock:
                really(path, *mode, **rest)
                if self.find(path) is not None:
                    self.add(path, "mkdir")

        return mkdir

    def _rmtree(self, really):
        def rmtree(path, *args, **rest):
            with self.lock:
                there = self.inode(path)
                really(path, *args, **rest)
                if there is not None:
                    self._remove(path)

        return rmtree

    def _rmdir(self, really):
        def rmdir(path, **rest):
            with self.lock:
                really(path, **rest)
                if not rest and self.inode(path) is not None:
                    self._remove(path)

        return rmdir

    def _remove(self, path):
        folder, name = self.find(path)
        self.tree[folder].pop(name)
        self.log.append(("remove", folder, name))

    def after_cut(self, moment: int, target: Path, rng: np.random.Generator) -> None:
        """Write what a power cut after the first ``moment`` operations may leave into the new folder ``target``."""
        log = self.log[:moment]
        synced = {entry[1]: k for k, entry in enumerate(log) if entry[0] == "sync"}
        # the last change of a folder that nobody waited for and that made it to the disk all the same
        reached = int(rng.integers(0, moment + 1)) if rng.random() < 0.5 else 0
        tree: dict[int, dict[str, int]] = {}
        data: dict[int, bytearray] = {}
        for k, (kind, *entry) in enumerate(log):
            if kind in ("write", "cut"):
                _apply(data.setdefault(entry[0], bytearray()), kind, entry[1:], k < synced.get(entry[0], -1), rng)
            elif kind != "sync":
                folders = (entry[0], entry[2]) if kind == "rename" else (entry[0],)
                if k < reached or any(k < synced.get(folder, -1) for folder in folders):
                    _enter(tree, kind, entry)
        _build(target, 0, tree, data, {entry[3] for entry in self.log if entry[0] == "mkdir"} | {0})


def _apply(data: bytearray, kind: str, entry: list, durable: bool, rng: np.random.Generator) -> None:
    if kind == "cut":
        if durable or rng.random() < 0.5:
            del data[entry[0] :]
        return
    offset, new = entry
    if not durable:
        fate = rng.random()
        if fate < 0.3:
            return
        if fate < 0.5:
            new = new[: int(rng.integers(0, len(new) + 1))]
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(new)] = new


def _enter(tree: dict[int, dict[str, int]], kind: str, entry: list) -> None:
    if kind == "rename":
        source, name, target, other, inode = entry
        tree.setdefault(source, {}).pop(name, None)
        tree.setdefault(target, {})[other] = inode
    elif kind == "remove":
        tree.setdefault(entry[0], {}).pop(entry[1], None)
    else:
        tree.setdefault(entry[0], {})[entry[1]] = entry[2]


def _build(
    target: Path, inode: int, tree: dict[int, dict[str, int]], data: dict[int, bytearray], folders: set[int]
) -> None:
    if inode not in folders:
        target.write_bytes(data.get(inode, b""))
        return
    target.mkdir()
    for name, child in tree.get(inode, {}).items():
        _build(target / name, child, tree, data, folders)
