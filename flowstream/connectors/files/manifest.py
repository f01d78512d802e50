"""An entry of the manifest: the files that one commit added, and what is done after it. Pure.

The entries of a reference and a stream are numbered without gaps, and never change. The last one
alone says which offsets are done; all of them together say which files are complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowstream.connectors.done_ranges import DoneRanges, Range
from flowstream.connectors.files.names import log_folder
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
    """`token` is the attempt that wrote it; `newest` the time of the newest chunk that is done."""

    reference: str
    stream: str
    sequence: int
    token: str = field(repr=False)
    files: tuple[DataFile, ...] = ()
    done: tuple[Range, ...] = ()
    newest: int = 0

    def encoded(self) -> bytes:
        """The entry as it is stored: JSON, which other readers understand, too."""
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
        """The entry of a file; raises SinkFailed for what no version of FileSink wrote."""
        try:
            found = json.loads(content)
            if found["version"] != VERSION:
                raise ValueError(f"its version is {found['version']}, and this one reads {VERSION}")
            files = tuple(
                DataFile(it["path"], it["rows"], it["bytes"], _ranges(it["offsets"]))
                for it in found["files"]
            )
            return cls(
                found["reference"], found["stream"], found["sequence"], found["token"],
                files, _ranges(found["done"]), found["newest"],
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise SinkFailed(f"{path} is not an entry of a manifest: {error}") from error


def _ranges(pairs: Iterable[Iterable[int]]) -> tuple[Range, ...]:
    return tuple(DoneRanges((first, last) for first, last in pairs))


class Layout:
    """Where what is kept for a reference and a stream lies."""

    def __init__(self, reference: str, stream: str) -> None:
        self.folder: str = log_folder(reference, stream)
        self.segments: str = f"{self.folder}/log"
        self.pending: str = f"{self.folder}/pending"

    def entry(self, sequence: int) -> str:
        return f"{self.segments}/{sequence // SEGMENT:09d}/{sequence:09d}.json"

    def temporary(self, sequence: int, token: str, what: object) -> str:
        return f"{self.pending}/{sequence:09d}.{token}.{what}.tmp"

    def intent(self, sequence: int, token: str) -> str:
        """The list of the files of an attempt: who finds it after a crash knows what to remove."""
        return f"{self.pending}/{sequence:09d}.{token}.json"


def sequence_of(name: str) -> int | None:
    """The number that the name of an entry, an intent or a temporary file begins with."""
    number = name.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() else None
