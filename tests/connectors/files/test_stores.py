"""A local directory and the file systems of fsspec keep the same promises."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flowstream.connectors.files import stores
from flowstream.connectors.files.stores import (
    FsspecStore,
    LocalStore,
    Store,
    check_store,
    open_store,
    same_directory,
    shown_directory,
)
from flowstream.errors import ConfigurationError, SinkFailed, SinkUnavailable


@pytest.fixture(params=["local", "file", "memory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        pytest.importorskip("fsspec", reason="fsspec is not installed: the extra files")
        yield open_store(f"memory://{uuid.uuid4().hex}/sub")
    elif request.param == "bucket":
        yield object_store().directory("lake/sub")
    else:
        yield open_store(f"file://{tmp_path}/sub" if request.param == "file" else f"{tmp_path}/sub")


def object_store(*names: str) -> type[Any]:
    """A file system as s3fs and gcsfs have it: only its methods with an underscore exist, and
    they are coroutines."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: the extra files")
    asyn = pytest.importorskip("fsspec.asyn")

    class Objects(asyn.AsyncFileSystem):  # type: ignore[misc, name-defined] # fsspec has no types
        protocol = "objects"
        cachable = False
        buckets: ClassVar[set[str]] = set(names or ["lake"])
        content: ClassVar[dict[str, bytes]] = {}  # of all objects of the class

        @classmethod
        def directory(cls, path: str) -> Store:
            fsspec.register_implementation("objects", cls, clobber=True)
            return open_store(f"objects://{path}")

        async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None:
            if path.partition("/")[0] not in self.buckets:
                raise FileNotFoundError("The specified bucket does not exist")
            if mode == "create" and path in self.content:
                raise FileExistsError(path)
            self.content[path] = value

        async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
            self.buckets.add(path.partition("/")[0])

        async def _cat_file(self, path: str, **_: Any) -> bytes:
            try:
                return self.content[path]
            except KeyError:
                raise FileNotFoundError(path) from None

        async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[str]:
            below = [key for key in self.content if key.startswith(f"{path}/")]
            return sorted({f"{path}/" + key[len(path) + 1 :].split("/")[0] for key in below})

        async def _rm_file(self, path: str, **_: Any) -> None:
            self.content.pop(path, None)

    return Objects


def test_files_are_written_read_listed_and_deleted(store: Store) -> None:
    check_store(store)
    assert store.names("a") == []
    store.put("a/b=1/x.txt", b"one", "pending/1.tmp")
    store.put("a/y.txt", b"two", "pending/2.tmp")
    assert sorted(store.names("a")) == ["b=1", "y.txt"]
    assert store.read("a/b=1/x.txt") == b"one"
    assert store.url("a/y.txt").endswith("/sub/a/y.txt")
    assert list(store.names("pending")) == []
    store.delete("a/y.txt")
    store.delete("a/y.txt")
    assert list(store.names("a")) == ["b=1"]
    with pytest.raises(FileNotFoundError):
        store.read("a/y.txt")


def test_of_many_that_create_a_file_one_succeeds(store: Store) -> None:
    results: list[bool] = []

    def create(number: int) -> None:
        try:
            store.create("log/1.json", b"%d" % number, f"pending/{number}.tmp")
        except FileExistsError:
            results.append(False)
        else:
            results.append(True)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(results) == [False] * 7 + [True]
    assert list(store.names("pending")) == []


def test_local_files_and_their_names_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(f"{tmp_path}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store = LocalStore(str(tmp_path))
    store.put("data/x", b"1", "pending/x.tmp")
    assert synced == ["", "/pending/x.tmp", "", "/data"]  # a new folder is a name in its parent
    synced.clear()
    store.create("log/1", b"1", "pending/1.tmp")
    assert synced == ["/pending/1.tmp", "", "/log"]


@pytest.mark.parametrize("operation", [LocalStore.put, LocalStore.create])
def test_a_disk_that_is_full_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: Callable[..., None]
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        operation(LocalStore(str(tmp_path)), "data", b"1", "data.tmp")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP])
def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def link(*_: Any) -> None:
        raise OSError(number, "no links")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(ConfigurationError, match="has no hard links"):
        check_store(LocalStore(str(tmp_path)))


@pytest.mark.parametrize("where", ["taken", "taken/below", "taken/far/below"])
def test_a_directory_that_is_a_file_is_refused(tmp_path: Path, where: str) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SinkFailed, match=r"no file can be written there: NotADirectoryError: "):
        check_store(LocalStore(str(tmp_path / where)))


@pytest.mark.parametrize("url", ["nowhere://bucket/orders", "nowhere://user:secret@host/orders"])
def test_a_scheme_that_nobody_knows_is_refused(url: str) -> None:
    pytest.importorskip("fsspec", reason="fsspec is not installed: the extra files")
    with pytest.raises(ConfigurationError, match="cannot be used: Protocol not known") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_a_file_system_that_looks_and_then_writes_is_refused() -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: the extra files")
    memory = FsspecStore(f"memory://{uuid.uuid4().hex}")
    assert memory.atomic

    class General(type(memory._system)):  # type: ignore[misc]
        protocol = "general"
        pipe_file = fsspec.AbstractFileSystem.pipe_file

    fsspec.register_implementation("general", General, clobber=True)
    with pytest.raises(
        ConfigurationError, match="can create a file only if it does not exist, and this one cannot"
    ):
        check_store(FsspecStore("general://x"))

    class Old(type(memory._system)):  # type: ignore[misc]
        protocol = "old"

        def pipe_file(self, path: str, value: bytes) -> None: ...

    fsspec.register_implementation("old", Old, clobber=True)
    with pytest.raises(ConfigurationError, match="current version"):
        check_store(FsspecStore("old://x"))

    class Replacing(type(memory._system)):  # type: ignore[misc]
        protocol = "replacing"

        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite") -> None: ...

    fsspec.register_implementation("replacing", Replacing, clobber=True)
    with pytest.raises(ConfigurationError, match="current version"):
        check_store(FsspecStore("replacing://x"))


def test_an_object_store_that_looks_and_then_writes_is_refused() -> None:
    looking = object_store()
    del looking._pipe_file
    with pytest.raises(ConfigurationError, match="current version"):
        check_store(looking.directory("lake/orders"))


def test_a_bucket_with_a_wrong_name_is_not_created() -> None:
    objects = object_store("lake")
    with pytest.raises(SinkUnavailable, match="The specified bucket does not exist"):
        check_store(objects.directory("leak/orders"))
    assert objects.buckets == {"lake"}


def test_without_fsspec_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(stores, "import_module", missing)
    with pytest.raises(ConfigurationError, match=r"pip install 'flowstream\[files\]'") as caught:
        open_store("s3://key:secret@bucket/x?token=secret")
    assert "secret" not in str(caught.value)
    open_store("/tmp/x")  # a path needs nothing


def test_a_directory_is_shown_without_secrets() -> None:
    assert shown_directory("s3://key:secret@bucket/x?token=1") == "s3://bucket/x"
    assert shown_directory("x") == str(Path("x").absolute())


def test_a_directory_is_the_same_in_all_its_spellings(tmp_path: Path) -> None:
    for local in ("real", "real/", "x/../real", "./real"):
        assert same_directory(f"{tmp_path}/{local}") == f"{tmp_path}/real"
        assert same_directory(f"file://{tmp_path}/{local}") == f"{tmp_path}/real"
    assert same_directory("s3://me:secret@bucket/a/") == same_directory("s3://bucket/a")
    assert same_directory("s3://bucket/a") != same_directory("s3://bucket/b")
