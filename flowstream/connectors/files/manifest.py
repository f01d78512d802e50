"""An entry of the manifest: the files that a commit added, and the offsets done after it. Pure.

The entries of a reference and a stream have consecutive numbers and never change. The last entry
says which offsets are done. All entries together say which files are complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowstream.connectors.done_ranges import DoneRanges, Range
from flowstream.connectors.files.names import log_folder
from flowstream.connectors.written_times import Mark
from flowstream.errors import SinkFailed

VERSION = 1
SEGMENT = 1000
"""Entries in a folder: to find the last one, only the folders and the last of them are listed."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """A complete file: its path below the directory, its size, and the offsets in it."""

    path: str
    rows: int
    bytes: int
    offsets: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit. `token` identifies its attempt; `newest` has the times of the newest done chunks,
    up to some offsets (written_times.py)."""

    reference: str
    stream: str
    sequence: int
    token: str = field(repr=False)
    files: tuple[DataFile, ...] = ()
    done: tuple[Range, ...] = ()
    newest: tuple[Mark, ...] = ()

    def encoded(self) -> bytes:
        """The entry as JSON, so that other programs can read it."""
        files = [
            {"path": it.path, "rows": it.rows, "bytes": it.bytes, "offsets": it.offsets}
            for it in self.files
        ]
        return json.dumps(
            {
                "version": VERSION, "reference": self.reference, "stream": self.stream,
                "sequence": self.sequence, "token": self.token, "files": files,
                "done": self.done, "newest": self.newest,
            }
        ).encode()  # fmt: skip

    @classmethod
    def decoded(cls, path: str, content: bytes) -> Entry:
        """The entry in a file. Raises SinkFailed for anything but an entry of this version."""
        try:
            found = json.loads(content)
            if found["version"] != VERSION:
                raise ValueError(f"its version is {found['version']}, expected {VERSION}")
            files = tuple(
                DataFile(it["path"], it["rows"], it["bytes"], _ranges(it["offsets"]))
                for it in found["files"]
            )
            return cls(
                found["reference"], found["stream"], found["sequence"], found["token"],
                files, _ranges(found["done"]), tuple(_mark(*it) for it in found["newest"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise SinkFailed(f"{path} is not an entry of a manifest: {error}") from error


def _ranges(pairs: Iterable[Iterable[int]]) -> tuple[Range, ...]:
    return tuple(DoneRanges((first, last) for first, last in pairs))


def _mark(offset: int, time: int) -> Mark:
    return offset, time


class Layout:
    """The paths of the manifest for a reference and a stream."""

    def __init__(self, reference: str, stream: str) -> None:
        self.folder: str = log_folder(reference, stream)
        self.segments: str = f"{self.folder}/log"
        self.pending: str = f"{self.folder}/pending"

    def entry(self, sequence: int) -> str:
        return entry_path(self.segments, sequence)

    def temporary(self, sequence: int, token: str, what: object) -> str:
        return f"{self.pending}/{sequence:09d}.{token}.{what}.tmp"

    def intent(self, sequence: int, token: str) -> str:
        """The list of the files of an attempt, which says what to remove after a crash."""
        return f"{self.pending}/{sequence:09d}.{token}.json"


def entry_path(segments: str, sequence: int) -> str:
    """Where an entry lies in the folder of its log."""
    return f"{segments}/{sequence // SEGMENT:09d}/{sequence:09d}.json"


def entry_number(name: str) -> int | None:
    """The number of an entry by the name of its file; None if the file is not an entry."""
    number = sequence_of(name)
    return number if number is not None and name == f"{number:09d}.json" else None


def segment_number(name: str) -> int | None:
    """The number of a folder of entries; None if it is not such a folder."""
    number = sequence_of(name)
    return number if number is not None and name == f"{number:09d}" else None


def attempt_number(name: str) -> int | None:
    """The number of an attempt by the name of its intent or temporary file; None for others."""
    parts = name.split(".")
    return sequence_of(name) if len(parts) > 2 and parts[-1] in {"json", "tmp"} else None


def sequence_of(name: str) -> int | None:
    """The number that a name begins with."""
    number = name.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() else None
