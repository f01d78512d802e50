"""A file as slices of message bodies.

`.gz` is decompressed; `-` is standard input. A slice is what one read returned, so that lines are
published as soon as they arrive on standard input. record_formats.py has the formats.
"""

from __future__ import annotations

import gzip
import io
import os
import select
import sys
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import cast

from flowstream.cli.exit_codes import CommandError, ExitCode
from flowstream.cli.output.console import why
from flowstream.cli.publishing.record_formats import READERS, InputOptions, Readable, Slice, batches

STDIN = "-"
LONGEST = 64 * 1024 * 1024
"""The largest line or record in bytes, if no frame limits it."""


class Format(StrEnum):
    """How a file is divided into messages."""

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
    """The format by the extension (before `.gz`); lines for standard input."""
    if file == STDIN:
        return Format.LINES
    try:
        return _EXTENSIONS[Path(file.lower().removesuffix(".gz")).suffix]
    except KeyError:
        raise CommandError(
            f"the format of {file} is not known from its extension; add --format "
            f"{'|'.join(f.value for f in Format)}",
            ExitCode.INPUT,
        ) from None


def is_pipe(file: str) -> bool:
    """Whether a file can be read only once, such as standard input, a pipe or a terminal."""
    return file == STDIN or Path(file).is_fifo() or Path(file).is_char_device()


class _Stopped(Exception):
    """`Source.stop` was called, so the current slice is abandoned."""


class _Stoppable:
    """A file whose next read can be cancelled from another thread.

    With `waits`, for pipes and terminals, a read waits for data or for `stop`.
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
    """An open file of messages: iterate over `slices()`; `position` of `size` is the progress.

    `size` is in bytes on disk, None for standard input and other pipes. Use it as a context
    manager. `stop` may be called from any thread and ends the iteration at once.
    """

    def __init__(
        self, file: str, format: Format | None = None, *, first: int = 1, key: str | None = None
    ) -> None:
        self.file = file
        self.name: str = "standard input" if file == STDIN else file
        self.format: Format = format or guess_format(file)
        if key is not None and self.format is Format.LINES:
            raise CommandError(
                f"--key {key}: lines have no fields; use --format ndjson or --format csv",
                ExitCode.USAGE,
            )
        self.size: int | None = None
        self._first = first
        self._key = key
        self._raw = self._open()
        unpacked: Readable = self._raw
        if file.lower().endswith(".gz"):
            unpacked = gzip.GzipFile(fileobj=self._raw)
        self._input = _Stoppable(unpacked, self._raw.fileno() if is_pipe(file) else None)

    def _open(self) -> io.BufferedReader:
        if self.file == STDIN:
            return cast(io.BufferedReader, sys.stdin.buffer)
        try:
            if not is_pipe(self.file):
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
        """End the iteration, and cancel a read that waits for input."""
        self._input.stop()

    @property
    def position(self) -> int:
        """Bytes read from disk so far, compressed ones for `.gz`."""
        return self._raw.tell() if self.size is not None else 0

    def slices(self, longest: int = LONGEST) -> Iterator[Slice]:
        """Slices of messages of at most `longest` bytes each.

        Raises InputError with the line that is invalid, after everything before it.
        """
        options = InputOptions(self.name, longest, self._first, self._key)
        try:
            yield from READERS[self.format](batches(self._input, options), options)
        except _Stopped:
            return
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise CommandError(
                f"{self.name} is damaged or not gzip: {error}", ExitCode.INPUT
            ) from error
        except OSError as error:
            raise CommandError(f"cannot read {self.name}: {why(error)}", ExitCode.INPUT) from error
