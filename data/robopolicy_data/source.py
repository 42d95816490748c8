"""Where a dataset's bytes come from: a folder, a stored zip, whatever fsspec reaches; read-only, whole or in ranges."""

import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from robopolicy.errors import DatasetError, MissingExtra

URL = re.compile(r"([a-z][a-z0-9+]+):/+(.*)", re.DOTALL)
_REMOTE = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs"}  # scheme: package of the extra


class Source(Protocol):
    """The files of one dataset; paths are relative to its root, with "/"."""

    @property
    def where(self) -> str:
        """How messages name it."""
        ...

    @property
    def folder(self) -> Path | None:
        """The local folder, None if it is a zip or behind a URL."""
        ...

    def read(self, path: str) -> bytes:
        """Return a whole file; FileNotFoundError if there is none, DatasetError if it cannot be read."""
        ...

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset`` on, counted from the end when negative; fewer at the file's end."""
        ...

    def size(self, path: str) -> int:
        """Return the bytes of a file; raises as `read`."""
        ...

    def list(self, path: str) -> list[str]:
        """Return the names directly below ``path``, in no order; raises as `read`."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""
        ...


def open_source(where: Path | str) -> Source:
    """Return the source that ``where`` names: a folder, a .zip file, or a URL of either.

    Raises:
        DatasetError: if it does not exist, is a file but no zip, a zip that cannot be read in ranges, or out of reach.
        MissingExtra: if the package that speaks the URL's protocol is not installed.
    """
    if url := URL.fullmatch(str(where)):  # a Path folds the slashes of a URL into one
        scheme, rest = url.groups()
        if scheme in ("file", "local"):
            return open_source(Path("/" + rest))
        remote = RemoteSource(f"{scheme}://{rest}".rstrip("/"))
        return ZipSource(remote, remote.where) if rest.rstrip("/").endswith(".zip") else remote
    path = Path(where)
    if path.is_file():
        return ZipSource(FolderSource(path.parent), str(path), path.name)
    if not path.exists():
        raise DatasetError(f"{path} is not a robopolicy dataset: it does not exist")
    return FolderSource(path)


class FolderSource:
    """A local folder."""

    def __init__(self, folder: Path) -> None:
        self.where, self.folder = str(folder), folder
        self._root = os.fspath(folder)

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        return self._pread(path, 0, None)

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset`` on."""
        return self._pread(path, offset, size)

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        return os.stat(f"{self._root}/{path}").st_size

    def list(self, path: str) -> list[str]:
        """Return the names below ``path``."""
        return os.listdir(f"{self._root}/{path}" if path else self._root)

    def exists(self, path: str) -> bool:
        """Whether it is there."""
        return os.path.exists(f"{self._root}/{path}")

    def _pread(self, path: str, offset: int, size: int | None) -> bytes:
        name = f"{self._root}/{path}"
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except NotADirectoryError as error:
            raise FileNotFoundError(error.errno, error.strerror, name) from error
        try:
            if size is None or offset < 0:
                length = os.fstat(fd).st_size
                offset = max(0, length + offset) if offset < 0 else offset
                size = length if size is None else size
            return _pread(fd, offset, size)
        except OSError as error:
            raise DatasetError(f"{name} cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)


class RemoteSource:
    """A folder (or one file) behind a URL, through fsspec.

    Raises:
        MissingExtra: if the package for the protocol is missing.
        DatasetError: if fsspec knows no such protocol.
    """

    folder: Path | None = None

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]

        self.where = url
        scheme = url.partition(":")[0]
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise MissingExtra(_REMOTE.get(scheme, scheme), "remote") from error
        except ValueError as error:
            raise DatasetError(f"{url}: {error}; want a folder, a .zip, or a URL such as https:// or s3://") from error

    def read(self, path: str) -> bytes:
        """Return a whole file."""
        with self._reached(path):
            data: bytes = self._fs.cat_file(self._join(path))
            return data

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset`` on, and fetch no more than those."""
        end = offset + size if offset >= 0 else (None if offset + size >= 0 else offset + size)
        with self._reached(path):
            data: bytes = self._fs.cat_file(self._join(path), start=offset, end=end)
        if len(data) > size:
            raise DatasetError(f"{self.where} serves whole files only; single frames need a server with byte ranges")
        return data

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        with self._reached(path):
            size = self._fs.size(self._join(path))
        if size is None:
            raise DatasetError(f"{self.where}/{path}: the server does not say how long the file is")
        return int(size)

    def list(self, path: str) -> list[str]:
        """Return the names below ``path``."""
        with self._reached(path):
            names = self._fs.ls(self._join(path), detail=False)
        return [str(name).rstrip("/").rpartition("/")[2] for name in names]

    def exists(self, path: str) -> bool:
        """Whether it is there; DatasetError if that cannot be told."""
        if not path.endswith("zarr.json"):
            with self._reached(path):
                return bool(self._fs.exists(self._join(path)))
        try:  # fsspec would say "no" of a server out of reach
            self.read(path)
        except FileNotFoundError:
            return False
        except DatasetError as error:
            if getattr(error.__cause__, "status", None) in (401, 403):  # what some servers say of what is not there
                return False
            raise
        return True

    def _join(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # every protocol has errors of its own
            text = str(error).partition("\n")[0] or type(error).__name__
            name = f"{self.where}/{path}" if path else self.where
            raise DatasetError(f"{name} cannot be read: {text}") from error


class ZipSource:
    """A zip file whose members are stored uncompressed, so that ranges of them can be read; local or remote.

    The dataset may lie at the top of the zip or in the one folder there.

    Args:
        holder: what the zip file is read through.
        where: how messages name it.
        name: of the zip file in ``holder``; "" if the holder's own root is the file.

    Raises:
        DatasetError: if it is no zip, holds compressed members, or no dataset.
    """

    folder: Path | None = None

    def __init__(self, holder: Source, where: str, name: str = "") -> None:
        self.where, self._holder, self._name = where, holder, name
        try:
            with zipfile.ZipFile(_Ranges(holder, name)) as file:
                members = [m for m in file.infolist() if not m.is_dir()]
        except FileNotFoundError as error:
            raise DatasetError(f"{where} does not exist") from error
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{where} is a file but no whole zip file ({error}); want a folder or a .zip") from error
        packed = next((m.filename for m in members if m.compress_type != zipfile.ZIP_STORED), None)
        if packed is not None:
            raise DatasetError(f"{where}: {packed} is compressed; single frames need a stored zip: zip -0 -r")
        top = _top({m.filename for m in members}, where)
        # {path: (offset of the member's header, bytes)}
        self._members = {
            m.filename[len(top) :]: (m.header_offset, m.file_size) for m in members if m.filename.startswith(top)
        }
        self._below: dict[str, set[str]] = {}
        for path in self._members:
            while path:
                parent, _, child = path.rpartition("/")
                if child in self._below.setdefault(parent, set()):
                    break
                self._below[parent].add(child)
                path = parent

    def read(self, path: str) -> bytes:
        """Return a whole member."""
        return self.read_range(path, 0, self._member(path)[1])

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of a member from ``offset`` on."""
        header, length = self._member(path)
        start = offset if offset >= 0 else max(0, length + offset)
        size = max(0, min(size, length - start))
        if not size:
            return b""
        if start + size <= _GULP:  # header and content in one read
            data = self._holder.read_range(self._name, header, _HEADER + _NAMES + start + size)
            begin = _content(data)
            if begin + start + size <= len(data):
                return data[begin + start : begin + start + size]
        begin = _content(self._holder.read_range(self._name, header, _HEADER))
        return self._holder.read_range(self._name, header + begin + start, size)

    def size(self, path: str) -> int:
        """Return the bytes of a member."""
        return self._member(path)[1]

    def list(self, path: str) -> list[str]:
        """Return the names below ``path``."""
        if path not in self._below:
            raise FileNotFoundError(f"{self.where} has no {path}")
        return list(self._below[path])

    def exists(self, path: str) -> bool:
        """Whether it is there."""
        return path in self._members or path in self._below

    def _member(self, path: str) -> tuple[int, int]:
        if path not in self._members:
            raise FileNotFoundError(f"{self.where} has no {path}")
        return self._members[path]


_HEADER = 30  # bytes of a local file header before the name, PKWARE APPNOTE 4.3.7
_NAMES = 256  # more than the name and extra field of a dataset's member take
_GULP = 65_536  # bytes; a small member costs one read, not two


def _content(header: bytes) -> int:
    """Return where a member's content begins, from its local header."""
    if header[:4] != b"PK\x03\x04":
        raise DatasetError("the zip file is damaged: a member's header is not where its directory says")
    return _HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _top(names: set[str], where: str) -> str:
    """Return the folder of the zip that holds the dataset, "" or with a slash at its end."""
    if "zarr.json" in names:
        return ""
    tops = {name.partition("/")[0] for name in names}
    found = [f"{top}/" for top in sorted(tops) if f"{top}/zarr.json" in names]
    if len(found) != 1:
        held = ", ".join(sorted(tops)[:5]) or "nothing"
        raise DatasetError(f"{where}: expected a zarr.json at the top of the zip or in its one folder; it has {held}")
    return found[0]


class _Ranges:
    """The zip file as the seekable file that `zipfile` wants; its directory, at the end, is fetched in one piece."""

    def __init__(self, holder: Source, name: str) -> None:
        self._holder, self._name, self._at = holder, name, 0
        self._size = holder.size(name)
        self._tail_from = max(0, self._size - 2**22)
        self._tail = holder.read_range(name, self._tail_from, self._size - self._tail_from)

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._size, self._at + size)
        begin, self._at = self._at, max(self._at, end)
        if begin >= self._tail_from:
            return self._tail[begin - self._tail_from : end - self._tail_from]
        return self._holder.read_range(self._name, begin, end - begin)

    def close(self) -> None:
        pass


def _pread(fd: int, offset: int, size: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    parts = [data]
    while size > sum(map(len, parts)) and parts[-1]:  # one pread gives at most 2 GiB
        done = sum(map(len, parts))
        parts.append(os.pread(fd, size - done, offset + done))
    return b"".join(parts)
