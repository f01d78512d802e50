"""Message bodies from lines of NDJSON, CSV and plain text; errors name the line.

Everything before an invalid line is yielded before the error is raised, so that "everything before
this line was sent" is true. Lines are counted from 1, as in editors. A CSV record has the number of
the line on which it begins.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from flowstream.cli.exit_codes import CommandError, ExitCode

BLOCK = 64 * 1024

Batch: TypeAlias = tuple[int, list[bytes]]
"""The number of the first line, and the complete lines of one read, without line feeds."""


class Readable(Protocol):
    """What this file needs of a binary file."""

    def read1(self, size: int, /) -> bytes: ...


class InputError(CommandError):
    """The input does not match its format. `line` is where the invalid record begins."""

    def __init__(self, name: str, line: int, problem: str, *, begins: int | None = None) -> None:
        super().__init__(f"{name} line {line} {problem}", ExitCode.INPUT)
        self.line: int = line if begins is None else begins


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How to read an input, which errors call `name`.

    `first` is the line to start with, `key` the field whose values become keys, and `longest` the
    size of the largest line or record in bytes.
    """

    name: str
    longest: int
    first: int = 1
    key: str | None = None

    def error(self, line: int, problem: str, *, begins: int | None = None) -> InputError:
        return InputError(self.name, line, problem, begins=begins)


@dataclass(slots=True)
class Slice:
    """Bodies, each with the line on which it begins, and its key if there is a key field."""

    bodies: list[bytes] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.bodies)

    def add(self, body: bytes, line: int, key: str | None) -> None:
        self.bodies.append(body)
        self.lines.append(line)
        if key is not None:
            self.keys.append(key)

    def cut(self, start: int, end: int | None = None) -> Slice:
        part = slice(start, end)
        return Slice(self.bodies[part], self.lines[part], self.keys[part])


# --- lines ----------------------------------------------------------------------------------------


def batches(file: Readable, options: InputOptions) -> Iterator[Batch]:
    """The lines of a file, without a byte order mark. UTF-16 is refused."""
    number, size = 1, 0
    parts: list[bytes] = []
    while block := file.read1(BLOCK):
        first, *others = block.split(b"\n")
        parts.append(first)
        size += len(first)
        if size > options.longest:
            problem = f"is longer than {options.longest:,} bytes, the largest size of a message"
            raise options.error(number, problem)
        if others:
            lines = [b"".join(parts), *others[:-1]]
            yield number, _beginning(lines, others[-1], options) if number == 1 else lines
            number += len(lines)
            parts, size = [others[-1]], len(others[-1])
    if size:
        lines = [b"".join(parts)]
        yield number, _beginning(lines, b"", options) if number == 1 else lines


def _beginning(lines: list[bytes], rest: bytes, options: InputOptions) -> list[bytes]:
    """The first lines of a file, without a byte order mark; `rest` is the beginning of the next."""
    first = lines[0]
    if _looks_like_utf16([*lines, rest]):
        raise CommandError(
            f"{options.name} looks like UTF-16, and UTF-8 is expected; convert it first, such as "
            "with: iconv -f UTF-16 -t UTF-8",
            ExitCode.INPUT,
        )
    return [first.removeprefix(b"\xef\xbb\xbf"), *lines[1:]]


def _looks_like_utf16(lines: list[bytes]) -> bool:
    """Whether there is a byte order mark (also of UTF-32), every other byte of the first line is 0,
    or a 0 comes behind, or before, every line feed."""
    first, *others = lines
    if first.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")):
        return True
    if len(first) >= 4 and not (any(first[::2]) and any(first[1::2])):
        return True
    return any(others) and (
        all(line.startswith(b"\0") for line in others)
        or all(line.endswith(b"\0") for line in lines[:-1])
    )


def _text(line: bytes, number: int, options: InputOptions) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise options.error(
            number,
            f"is not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1}); convert "
            "the input first, such as with: iconv -f LATIN1 -t UTF-8",
        ) from error


def _from(found: Iterator[Batch], first: int) -> Iterator[Batch]:
    """The lines from number `first` on."""
    for number, lines in found:
        before = first - number
        if before <= 0:
            yield number, lines
        elif before < len(lines):
            yield first, lines[before:]


# --- formats --------------------------------------------------------------------------------------


def read_lines(found: Iterator[Batch], options: InputOptions) -> Iterator[Slice]:
    """Each line that is not empty, unchanged."""
    for number, lines in _from(found, options.first):
        taken = Slice()
        for line_number, line in enumerate(lines, number):
            if body := line.rstrip(b"\r"):
                taken.add(body, line_number, None)
        yield taken


def read_ndjson(found: Iterator[Batch], options: InputOptions) -> Iterator[Slice]:
    """Each line that is not blank, unchanged. It must be JSON."""
    for number, lines in _from(found, options.first):
        taken = Slice()
        try:
            for line_number, line in enumerate(lines, number):
                if body := line.strip(b" \t\r"):
                    value = _json(line, line_number, options)
                    taken.add(body, line_number, _key(value, line_number, options))
        except InputError:
            yield taken
            raise
        yield taken


def _not_json(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant}")


_decode = json.JSONDecoder(parse_constant=_not_json, parse_int=str, parse_float=str).decode
"""Numbers are kept as text, so that every digit is kept."""


def _json(line: bytes, number: int, options: InputOptions) -> Any:
    text = _text(line, number, options)
    if text.startswith("\ufeff"):
        raise options.error(
            number,
            "begins with a byte order mark (U+FEFF), as concatenated files do; remove it",
        )
    try:
        return _decode(text)
    except RecursionError:
        raise options.error(number, "is nested too deeply") from None
    except json.JSONDecodeError as error:
        problem = f"is not JSON: {error.msg} at column {error.colno}"
        raise options.error(number, problem) from error
    except ValueError as error:
        raise options.error(number, f"is not JSON: {error}") from error


def key_in(line: bytes, number: int, options: InputOptions) -> str:
    """The key of a line of JSON. Raises InputError if it has none."""
    return _key(_json(line, number, options), number, options) or ""


def _key(value: Any, number: int, options: InputOptions) -> str | None:
    """The text of the key field: a string, or a number as written."""
    name = options.key
    if name is None:
        return None
    if not isinstance(value, dict):
        raise options.error(number, f"is not a JSON object, so it has no field {name!r} for --key")
    if name not in value:
        raise options.error(number, f"has no field {name!r} for --key")
    key = value[name]
    if not isinstance(key, str):
        kind = {bool: "a boolean", dict: "an object", list: "an array"}.get(type(key), "null")
        problem = f"has {kind} in the field {name!r}, and --key needs a string or a number"
        raise options.error(number, problem)
    if any("\ud800" <= character <= "\udfff" for character in key):
        raise options.error(number, f"has half a surrogate pair in the field {name!r}")
    return key


def read_csv(found: Iterator[Batch], options: InputOptions) -> Iterator[Slice]:
    """Records as JSON objects, keyed by the header, every value a string."""
    cutter, objects = _CsvCutter(options), _CsvObjects(options)
    for number, lines in found:
        taken = Slice()
        try:
            for begins, row in cutter.records(number, lines):
                objects.add(row, begins, taken)
        except InputError:
            yield taken
            raise
        yield taken
    cutter.end()
    objects.end()


class _Once:
    """An iterator that records whether more was requested than it has."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = iter(lines)
        self.exhausted = False

    def __iter__(self) -> _Once:
        return self

    def __next__(self) -> str:
        try:
            return next(self._lines)
        except StopIteration:
            self.exhausted = True
            raise


class _CsvCutter:
    """Divides lines into rows of cells. A quoted cell may span lines, up to `longest` bytes."""

    def __init__(self, options: InputOptions) -> None:
        self._options = options
        self._lines: list[str] = []
        self._size = 0
        self._begins = 1
        csv.field_size_limit(max(options.longest, csv.field_size_limit()))

    def records(self, number: int, lines: list[bytes]) -> Iterator[tuple[int, list[str]]]:
        """The records that these lines complete, each with the line on which it begins."""
        if not self._lines:
            self._begins = number
        undecodable: InputError | None = None
        more: list[str] = []
        for line_number, line in enumerate(lines, number):
            try:
                more.append(_text(line, line_number, self._options) + "\n")
            except InputError as error:
                undecodable = error
                break
        open_quote = bool(self._lines)
        self._lines += more
        self._size += sum(map(len, more))
        if not open_quote or any('"' in line for line in more):
            yield from self._parsed()
        if undecodable is not None:
            raise undecodable
        if self._size > self._options.longest:
            raise self._unclosed(f"within {self._options.longest:,} bytes")

    def _parsed(self) -> Iterator[tuple[int, list[str]]]:
        lines, begins, done = _Once(self._lines), self._begins, 0
        rows = csv.reader(lines, strict=True)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error as error:
                if lines.exhausted:  # the record goes on in the next lines
                    break
                first, last = begins + done, begins + rows.line_num - 1
                where = f" (its record begins on line {first})" if first < last else ""
                what = str(error)
                if what.startswith("new-line"):
                    what = "a carriage return outside of quotes does not end a record"
                problem = f"is not CSV: {what}{where}"
                raise self._options.error(last, problem, begins=first) from error
            yield begins + done, row
            done = rows.line_num
        self._lines = self._lines[done:]
        self._size = sum(map(len, self._lines))
        self._begins = begins + done

    def end(self) -> None:
        if self._lines:
            raise self._unclosed("before the end")

    def _unclosed(self, where: str) -> InputError:
        line = self._begins + _opened(self._lines)
        problem = f"has a quote that opens a cell and is not closed {where}"
        return self._options.error(line, problem, begins=self._begins)


def _opened(lines: list[str]) -> int:
    """The index of the line on which the last quoted cell begins."""
    opened, inside, before = 0, False, ","
    for index, line in enumerate(lines):
        for character in line:
            if character == '"' and inside:
                inside, before = False, '"'
                continue
            if character == '"' and before in ',\n"':
                opened = opened if before == '"' else index
                inside = True
            before = character
    return opened


class _CsvObjects:
    """Makes JSON objects of rows, by the header in the first row."""

    def __init__(self, options: InputOptions) -> None:
        self._options = options
        self._header: list[str] | None = None
        self._encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

    def add(self, row: list[str], line: int, taken: Slice) -> None:
        """Add a row. Raises InputError if it, or the header, is invalid."""
        header = self._header
        if not row:  # a blank line
            return
        if header is None:
            self._header = self._checked(row, line)
        elif line >= self._options.first:
            if len(row) != len(header):
                problem = f"has {len(row)} cells, and the header has {len(header)} columns"
                raise self._options.error(line, problem)
            cells = dict(zip(header, row, strict=True))
            key = None if self._options.key is None else cells[self._options.key]
            taken.add(self._encode(cells).encode(), line, key)

    def _checked(self, header: list[str], line: int) -> list[str]:
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise self._options.error(line, f"is the header and has the column {twice!r} twice")
        if self._options.key is not None and self._options.key not in header:
            problem = f"is the header and has no column {self._options.key!r} for --key"
            raise self._options.error(line, problem)
        return header

    def end(self) -> None:
        if self._header is None:
            raise CommandError(
                f"{self._options.name} is empty, and CSV needs a header", ExitCode.INPUT
            )


READERS: dict[str, Callable[[Iterator[Batch], InputOptions], Iterator[Slice]]] = {
    "lines": read_lines,
    "ndjson": read_ndjson,
    "csv": read_csv,
}
