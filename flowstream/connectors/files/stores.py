"""Where files are written: a local directory, or a file system of fsspec.

Two operations write a whole file at once: `put`, and `create`, which fails if the name exists. If
several processes create the same name, exactly one succeeds. That decides who commits, so a file
system without it is refused. Both return when the file is durable. All calls block, so they are
made in threads.
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
from flowstream.errors import ConfigurationError, FlowstreamError, SinkUnavailable
from flowstream.texts import describe, text_of

PROBE = f"{MANIFEST}/_probe/probe"
"""A file that is not deleted, so that later checks need only one attempt to create it."""
_LOCAL = {"", "file", "local"}
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}


class Store(Protocol):
    """Files by their path below the directory, such as `day=2026-11-29/orders-0-9.ndjson`.

    `atomic`: the file system itself implements `create`, so only one of several succeeds.
    `late`: a `create` that raised may still happen, because a server has the request.
    """

    directory: str
    atomic: bool
    late: bool

    def put(self, path: str, data: bytes, temporary: str) -> None:
        """Write a whole file at once. `temporary` is a path for its content until then."""

    def create(self, path: str, data: bytes, temporary: str) -> None:
        """The same, but raises FileExistsError if the file exists."""

    def read(self, path: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""

    def names(self, folder: str) -> Sequence[str]:
        """The names in a folder, in any order; empty if there is no such folder."""

    def delete(self, path: str) -> None:
        """Remove a file, if it exists."""

    def url(self, path: str) -> str:
        """The path or URL that other programs open."""


def open_store(directory: str) -> Store:
    """The store of a path or URL."""
    path = _local_path(directory)
    return FsspecStore(directory) if path is None else LocalStore(path)


def _local_path(directory: str) -> str | None:
    """The path of a local directory; None for a URL of another file system."""
    scheme = urlsplit(directory).scheme if "://" in directory else ""
    return directory.removeprefix(f"{scheme}://") if scheme in _LOCAL else None


def check_store(store: Store) -> None:
    """Raise ConfigurationError if `create` is not atomic, SinkUnavailable if it takes no file."""
    try:
        if store.atomic:
            for _ in range(2):
                store.create(PROBE, b"", f"{PROBE}-{uuid.uuid4().hex}.tmp")
    except FileExistsError:
        return
    except TypeError:  # a version of the file system without `mode`
        pass
    except FlowstreamError:
        raise
    except Exception as error:
        raise SinkUnavailable(
            f'FileSink > directory="{store.directory}": no file can be written there: '
            f"{describe(error)}"
        ) from error
    raise ConfigurationError(
        f'FileSink > directory="{store.directory}": exactly once needs a file system that '
        "can create a file only if it does not exist, and this one cannot. Use a local directory, "
        "s3, gs or abfs, with a current version of the package that fsspec uses for it"
    )


class LocalStore:
    """A local directory, or one of a network file system with hard links."""

    atomic = True
    late = False

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
            os.link(hidden, target)  # unlike a rename, it fails if the name exists
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise ConfigurationError(
                    f'FileSink > directory="{self.directory}": its file system has no hard links, '
                    "which are needed to create a file only once. Use another directory"
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
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self, path: str) -> None:
        (self.root / path).unlink(missing_ok=True)

    def url(self, path: str) -> str:
        return str(self.root / path)

    def _written(self, path: str, data: bytes) -> Path:
        target = self._in_folder(path)
        try:
            with target.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.filename is None:  # that a disk is full does not say which one
                error.filename = self.directory
            raise
        return target

    def _in_folder(self, path: str) -> Path:
        """The full path. Creates its folder, durably."""
        target = self.root / path
        missing: list[Path] = []
        folder = target.parent
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            try:
                each.mkdir()
            except FileExistsError:
                if not each.is_dir():  # another process may have created it; or it is a file
                    raise NotADirectoryError(
                        errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each)
                    ) from None
            _sync(each.parent)
        return target


def _sync(folder: Path) -> None:
    """Make the names in a folder durable. Syncing a file does not make its name durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FsspecStore:
    """A file system of fsspec. Object stores write a whole file at once by themselves."""

    late = True

    def __init__(self, url: str) -> None:
        try:
            fsspec = import_module("fsspec")
            asynchronous = import_module("fsspec.asyn").AsyncFileSystem
        except ImportError:
            raise ConfigurationError(
                f'FileSink > directory="{shown_directory(url)}": a URL needs fsspec: '
                "pip install 'flowstream[files]'"
            ) from None
        self.directory: str = shown_directory(url)
        try:
            self._system, root = fsspec.core.url_to_fs(url)
        except Exception as error:  # an unknown scheme, or a package that is not installed
            raise ConfigurationError(
                f'FileSink > directory="{self.directory}": its file system cannot be used: '
                f"{text_of(error)}"
            ) from error
        self._root: str = root.rstrip("/")
        kind = type(self._system)
        # Those of object stores are asynchronous: they implement `_pipe_file`, and each object of
        # them gets a `pipe_file` that calls it.
        self._asynchronous: bool = issubclass(kind, asynchronous)
        # fsspec's default checks that the file does not exist, and then writes: two may succeed.
        self.atomic: bool = (
            kind._pipe_file is not asynchronous._pipe_file
            if self._asynchronous
            else kind.pipe_file is not fsspec.AbstractFileSystem.pipe_file
        )

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
        if not self._asynchronous:
            # Object stores need no folders, and `makedirs` would create a bucket with a wrong name.
            self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(target, data, **options)


def shown_directory(directory: str) -> str:
    """The path made absolute, or the URL without user, password and query."""
    if "://" not in directory:
        return str(Path(directory).expanduser().absolute())
    parts = urlsplit(directory)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def same_directory(directory: str) -> str:
    """One text for all spellings of a directory. It asks no disk, so links are not followed."""
    path = _local_path(directory)
    if path is None:
        return shown_directory(directory).rstrip("/")
    return os.path.normpath(shown_directory(path))
