"""Files -> message bodies, a slice at a time.

NDJSON lines are sent as they stand (each is checked to be JSON), CSV records become JSON objects
keyed by the header with every value a string, and lines are sent without their line end. `.gz` is
read transparently; `-` is standard input. Blank lines are skipped. A slice is what one read gave,
so lines that trickle in on standard input are handed on at once.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Protocol, cast

from flowstream.cli.exits import CommandError, ExitCode

STDIN = "-"
BLOCK = 64 * 1024
MAX_LINE = 64 * 1024 * 1024


class Format(StrEnum):
    """How a file is cut into messages."""

    NDJSON = "ndjson"
    CSV = "csv"
    LINES = "lines"


_EXTENSIONS = {
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".csv": Format.CSV,
    ".txt": Format.LINES,
    ".log": Format.LINES,
}


def guess_format(file: str) -> Format:
    """The format by extension (under `.gz`); lines for standard input."""
    if file == STDIN:
        return Format.LINES
    path = Path(file.removesuffix(".gz"))
    try:
        return _EXTENSIONS[path.suffix.lower()]
    except KeyError:
        raise CommandError(
            f"the extension of {file} does not tell its format; add --format "
            f"{'|'.join(f.value for f in Format)}",
            ExitCode.INPUT,
        ) from None


class Readable(Protocol):
    """What readers need of a binary file."""

    def read1(self, size: int, /) -> bytes: ...


class _Stopped(Exception):
    """`Source.stop` was called: the slice under way is given up."""


class _Stoppable:
    """A file whose next read can be called off from another thread.

    With `waits` (pipes and terminals) a read waits for data or the stop, whichever comes first.
    """

    def __init__(self, file: Readable, waits: int | None) -> None:
        self._file = file
        self._waits = waits
        self._stopped = False
        self._wake, self._bell = os.pipe()

    def read1(self, size: int) -> bytes:
        if self._waits is not None:
            select.select([self._waits, self._wake], [], [])
        if self._stopped:
            raise _Stopped
        return self._file.read1(size)

    def stop(self) -> None:
        self._stopped = True
        os.write(self._bell, b"!")

    def close(self) -> None:
        os.close(self._wake)
        os.close(self._bell)


class Source:
    """An open file of messages: iterate over `slices()`, ask `position` of `size` for progress.

    `size` is in bytes on disk, None for standard input. Use it as a context manager. `stop` may be
    called from any thread and ends the iteration at once.
    """

    def __init__(self, file: str, format: Format | None = None) -> None:
        self.file = file
        self.format = format or guess_format(file)
        self.size: int | None = None
        self._raw = self._open()
        unpacked: Readable = self._raw
        if file.endswith(".gz"):
            unpacked = gzip.GzipFile(fileobj=self._raw)
        self._input = _Stoppable(unpacked, self._raw.fileno() if file == STDIN else None)

    def _open(self) -> io.BufferedReader:
        if self.file == STDIN:
            return cast(io.BufferedReader, sys.stdin.buffer)
        try:
            self.size = Path(self.file).stat().st_size
            return Path(self.file).open("rb")
        except OSError as error:
            raise CommandError(
                f"cannot read {self.file}: {error.strerror}", ExitCode.INPUT
            ) from error

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._input.close()
        if self.file != STDIN:
            self._raw.close()

    def stop(self) -> None:
        """End the iteration; a read that waits for input is called off."""
        self._input.stop()

    @property
    def position(self) -> int:
        """Bytes read from disk so far (compressed ones for `.gz`)."""
        return self._raw.tell() if self.size is not None else 0

    def slices(self) -> Iterator[list[bytes]]:
        """Message bodies in slices; raises `CommandError` naming the line that does not fit."""
        try:
            yield from _READERS[self.format](self._input, self.file)
        except _Stopped:
            return
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CommandError(
                f"{self.file} is damaged or not gzip: {error}", ExitCode.INPUT
            ) from error
        except UnicodeDecodeError as error:
            raise CommandError(f"{self.file} is not UTF-8: {error}", ExitCode.INPUT) from error


def _line_slices(file: Readable) -> Iterator[list[bytes]]:
    """Lines without their line feeds, as many as each read completes."""
    rest = b""
    while block := file.read1(BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > MAX_LINE:
            raise CommandError(f"a line is longer than {MAX_LINE:,} bytes", ExitCode.INPUT)
        if lines:
            yield lines
    if rest:
        yield [rest]


def _lines(file: Readable, _: str) -> Iterator[list[bytes]]:
    for lines in _line_slices(file):
        yield [body for line in lines if (body := line.rstrip(b"\r"))]


def _ndjson(file: Readable, name: str) -> Iterator[list[bytes]]:
    number = 0
    for lines in _line_slices(file):
        bodies: list[bytes] = []
        for line in lines:
            number += 1
            body = line.strip()
            if not body:
                continue
            try:
                json.loads(body)
            except ValueError as error:
                raise CommandError(
                    f"{name} line {number} is not JSON: {error}", ExitCode.INPUT
                ) from error
            bodies.append(body)
        yield bodies


def _csv(file: Readable, name: str) -> Iterator[list[bytes]]:
    """Records of each read; an odd number of quotes means that one goes on in the next."""
    records = _CsvRecords(name)
    pending: list[str] = []
    quotes = 0
    encoding = "utf-8-sig"
    for lines in _line_slices(file):
        for line in lines:
            pending.append(line.decode(encoding) + "\n")
            encoding = "utf-8"
            quotes += line.count(b'"')
        if quotes % 2 == 0:
            yield records.parse(pending)
            pending = []
    if pending:
        yield records.parse(pending)


class _CsvRecords:
    """CSV lines -> JSON objects, keyed by the header in the first record."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._header: list[str] | None = None
        self._number = 0
        self._dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def parse(self, lines: list[str]) -> list[bytes]:
        bodies: list[bytes] = []
        try:
            for row in csv.reader(lines, strict=True):
                self._number += 1
                if self._header is None:
                    self._header = self._check_header(row)
                elif row:
                    bodies.append(self._body(self._header, row))
        except csv.Error as error:
            raise CommandError(
                f"{self._name} record {self._number + 1} is not CSV: {error}", ExitCode.INPUT
            ) from error
        return bodies

    def _check_header(self, header: list[str]) -> list[str]:
        if not header or len(set(header)) != len(header):
            raise CommandError(
                f"the header of {self._name} is empty or names a column twice", ExitCode.INPUT
            )
        return header

    def _body(self, header: list[str], row: list[str]) -> bytes:
        if len(row) != len(header):
            raise CommandError(
                f"{self._name} record {self._number} has {len(row)} values, "
                f"and the header names {len(header)}",
                ExitCode.INPUT,
            )
        return self._dumps(dict(zip(header, row, strict=True))).encode()


_READERS: dict[Format, Callable[[Readable, str], Iterator[list[bytes]]]] = {
    Format.NDJSON: _ndjson,
    Format.CSV: _csv,
    Format.LINES: _lines,
}
