"""A store of files in memory, in which a process can die, or another one act, at any effect."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from flowstream.connectors.files.manifest import Entry
from flowstream.connectors.files.names import MANIFEST


class Crash(BaseException):
    """The process ended here."""


class MemoryStore:
    """`on_effect(number, done)` is called before (`done` is False) and after each effect.

    Like a local directory, it writes under a temporary name first, which another process may
    remove.
    """

    atomic = True
    late: bool = False
    directory = "memory"

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = {} if files is None else files
        self.effects = 0
        self.on_effect: Callable[[int, bool], None] = lambda number, done: None
        self._lock = threading.Lock()

    def put(self, path: str, data: bytes, temporary: str) -> None:
        assert path not in self.files, f"{path} is replaced"
        self._effect(lambda: self.files.update({temporary: data}))
        self._effect(lambda: self._rename(temporary, path))

    def create(self, path: str, data: bytes, temporary: str) -> None:
        def create() -> None:
            content = self._content(temporary)
            if path in self.files:
                raise FileExistsError(path)
            self.files[path] = content

        self._effect(lambda: self.files.update({temporary: data}))
        try:
            self._effect(create)
        except OSError:
            self.delete(temporary)
            raise
        self.delete(temporary)

    def delete(self, path: str) -> None:
        self._effect(lambda: self.files.pop(path, None))

    def read(self, path: str) -> bytes:
        self._effect(lambda: None)  # others may act before and after a read, too
        return self._content(path)

    def names(self, folder: str) -> Sequence[str]:
        self._effect(lambda: None)
        head = f"{folder}/"
        found = [path for path in [*self.files] if path.startswith(head)]
        return sorted({path.removeprefix(head).split("/")[0] for path in found})

    def url(self, path: str) -> str:
        return path

    def _content(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def _rename(self, temporary: str, path: str) -> None:
        self.files[path] = self._content(temporary)
        del self.files[temporary]

    def _effect(self, act: Callable[[], object]) -> None:
        number, self.effects = self.effects, self.effects + 1
        self.on_effect(number, False)
        with self._lock:
            act()
        self.on_effect(number, True)


def complete(files: dict[str, bytes]) -> list[str]:
    """The data files that the manifest lists."""
    return [
        file.path
        for path, content in sorted(files.items())
        if "/log/" in path
        for file in Entry.decoded(path, content).files
    ]


def rows(files: dict[str, bytes]) -> list[int]:
    """The rows of all complete files."""
    return [int(line) for path in complete(files) for line in files[path].split()]


def litter(files: dict[str, bytes]) -> set[str]:
    """What is neither in the manifest nor listed by it."""
    kept = {path for path in files if path.startswith(f"{MANIFEST}/") and "/log/" in path}
    return {*files} - kept - {*complete(files)}
