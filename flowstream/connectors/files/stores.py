"""Where files are: a local directory, or a file system of fsspec. Two operations write.

`put` makes a file appear whole, and `create` does so only where there is none of that name: of
several processes that create one name, exactly one succeeds. That alone decides who commits, so a
file system that cannot do it is refused. Both return when the file is durable. All calls block, so
they are made in threads.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from flowstream.connectors.files.names import MANIFEST
from flowstream.errors import ConfigurationError

PROBE = f"{MANIFEST}/_probe/probe"
"""A file that is left there: whoever starts later sees at once that it cannot be created again."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class Store(Protocol):
    """Files by their path below the directory, such as `day=2026-11-29/orders-0-9.ndjson`.

    `atomic`: `create` is done by the file system itself, so that one of several succeeds.
    """

    directory: str
    atomic: bool

    def put(self, path: str, data: bytes, temporary: str) -> None:
        """Write a file; it appears whole. `temporary` is a path that may be used before that."""

    def create(self, path: str, data: bytes, temporary: str) -> None:
        """The same, but raises FileExistsError where the file exists."""

    def read(self, path: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""

    def names(self, folder: str) -> Sequence[str]:
        """The names in a folder, in any order; empty where there is no such folder."""

    def delete(self, path: str) -> None:
        """Remove a file; nothing happens where it does not exist."""

    def url(self, path: str) -> str:
        """What others open the file by."""


def open_store(directory: str) -> Store:
    """The store of a path or URL."""
    scheme = urlsplit(directory).scheme if "://" in directory else ""
    if scheme in {"", "file", "local"}:
        return LocalStore(directory.removeprefix(f"{scheme}://"))
    return FsspecStore(directory)


def check_store(store: Store) -> None:
    """Raise ConfigurationError where a file cannot be created only where there is none."""
    try:
        if store.atomic:
            for _ in range(2):
                store.create(PROBE, b"", f"{PROBE}-{uuid.uuid4().hex}.tmp")
    except FileExistsError:
        return
    except TypeError:  # a version of the file system without `mode`
        pass
    raise ConfigurationError(
        f'FileSink > directory="{store.directory}": its file system cannot create a file only '
        "where there is none, which exactly once needs. Use a local directory, s3, gs or abfs, "
        "with a current version of what fsspec uses for it"
    )


class LocalStore:
    """A directory of this machine, or of a network file system that has hard links."""

    atomic = True

    def __init__(self, directory: str) -> None:
        self.directory: str = shown_directory(directory)
        self.root: Path = Path(directory).expanduser().absolute()

    def put(self, path: str, data: bytes, temporary: str) -> None:
        hidden, target = self._written(temporary, data), self._in_folder(path)
        hidden.replace(target)
        _sync(target.parent)

    def create(self, path: str, data: bytes, temporary: str) -> None:
        hidden, target = self._written(temporary, data), self._in_folder(path)
        try:
            os.link(hidden, target)  # unlike a rename it fails where the name is taken
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise ConfigurationError(
                    f'FileSink > directory="{self.directory}": its file system has no hard links, '
                    "which create a file for one of several processes only. Use another directory"
                ) from error
            raise
        finally:
            hidden.unlink(missing_ok=True)
        _sync(target.parent)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def names(self, folder: str) -> Sequence[str]:
        try:
            return os.listdir(self.root / folder)
        except FileNotFoundError:
            return []

    def delete(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def url(self, path: str) -> str:
        return str(self.root / path)

    def _written(self, path: str, data: bytes) -> Path:
        target = self._in_folder(path)
        with target.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return target

    def _in_folder(self, path: str) -> Path:
        """The path, whose folder exists now, also after a power failure."""
        target = self.root / path
        missing: list[Path] = []
        folder = target.parent
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            _sync(each.parent)
        return target


def _sync(folder: Path) -> None:
    """Make the names in a folder durable: a synced file may still have none after a failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FsspecStore:
    """A file system of fsspec: an object store makes a file appear whole by itself."""

    def __init__(self, url: str) -> None:
        try:
            fsspec = import_module("fsspec")
        except ImportError:
            raise ConfigurationError(
                f'FileSink > directory="{shown_directory(url)}": a URL needs fsspec: '
                "pip install 'flowstream[files]'"
            ) from None
        self.directory: str = shown_directory(url)
        self._system, root = fsspec.core.url_to_fs(url)
        self._root: str = root.rstrip("/")
        kind, general = type(self._system), fsspec.AbstractFileSystem
        # fsspec's general way to create a file is to look for it and then write: two may succeed.
        self.atomic: bool = kind.pipe_file is not general.pipe_file
        if self.atomic and hasattr(kind, "_pipe_file"):
            self.atomic = kind._pipe_file is not fsspec.asyn.AsyncFileSystem._pipe_file

    def put(self, path: str, data: bytes, temporary: str) -> None:
        self._write(path, data)

    def create(self, path: str, data: bytes, temporary: str) -> None:
        self._write(path, data, mode="create")

    def read(self, path: str) -> bytes:
        content: bytes = self._system.cat_file(self._path(path))
        return content

    def names(self, folder: str) -> Sequence[str]:
        path = self._path(folder)
        self._system.invalidate_cache(path)
        try:
            found = self._system.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return [each.rstrip("/").rpartition("/")[2] for each in found if each.rstrip("/") != path]

    def delete(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self._system.rm_file(self._path(path))

    def url(self, path: str) -> str:
        return str(self._system.unstrip_protocol(self._path(path)))

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}"

    def _write(self, path: str, data: bytes, **options: Any) -> None:
        target = self._path(path)
        # Object stores have no folders; others need them.
        self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(target, data, **options)


def shown_directory(directory: str) -> str:
    """The path made absolute, or the URL without user, password and query."""
    if "://" not in directory:
        return str(Path(directory).expanduser().absolute())
    parts = urlsplit(directory)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
