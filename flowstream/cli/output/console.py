"""Standard output and error, the same way for every command.

On a terminal tables and colours come from Rich, which honours `NO_COLOR`. In a pipe everything is
plain text, written without Rich (a tenth of a second to load), and JSON is one document. No name
is cut off (tables.py), no text is taken for markup or for an emoji's name, and nothing that others
wrote reaches a terminal as a control sequence (text.py).
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from flowstream.cli.exit_codes import ExitCode, exit_code, root_cause
from flowstream.cli.output.safe_text import json_text, visible
from flowstream.cli.output.status_line import status_line
from flowstream.cli.output.tables import GAP, Row, Table
from flowstream.texts import (
    LOG_LIMIT,
    printable,
    text_of,
    traceback_of,
    type_name,
    without_passwords,
)

if TYPE_CHECKING:
    from rich.console import Console

_tracebacks: list[bool] = []
_notes: list[logging.Logger] = []

REPORT_LIMIT = 16_384
"""Characters of an error; one about threads that hang shows where each of them is."""

_QUOTED = re.compile(r"""(['"])[\w+.-]+://.*?(?<!\\)\1""", re.DOTALL)
_ADDRESS = re.compile(r"://(?! or | \().*@", re.DOTALL)  # "http:// or https:// (such as" is none

_UNITS = ("B", "kB", "MB", "GB", "TB")


@cache
def stdout() -> Console:
    """The console of results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)


@cache
def stderr() -> Console:
    """The console of notes, progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def drawn(stream: TextIO) -> bool:
    """Whether `stream` is a terminal, or is taken for one by the variables that Rich knows."""
    if not stream.isatty() and not {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys():
        return False
    return _console(stream).is_terminal


def redrawn(stream: TextIO) -> bool:
    """Whether `stream` is a terminal on which what is there can be drawn over."""
    return stream.isatty() and drawn(stream) and _console(stream).is_interactive


def _console(stream: TextIO) -> Console:
    return stderr() if stream is sys.stderr else stdout()


def _print(stream: TextIO, text: str, style: str | None) -> None:
    text = visible(text, keep="\n\t")
    with status_line.above():
        if drawn(stream):
            _console(stream).print(text, style=style, markup=False)
        else:
            stream.write(text + "\n")


def say(text: str, style: str | None = None) -> None:
    """One line of result; markup in `text` is not interpreted."""
    _print(sys.stdout, text, style)


def note(text: str, style: str | None = None) -> None:
    """One line beside the result: progress, hints, summaries of side effects."""
    if _notes:
        _notes[-1].info("%s", text)
    else:
        _print(sys.stderr, text, style)


def warn(text: str) -> None:
    """One line about what may go wrong."""
    if _notes:
        _notes[-1].warning("%s", text)
    else:
        _marked("warning", "bold yellow", visible(text, keep="\n\t"))


def _marked(mark: str, style: str, text: str) -> None:
    """`error: text` on standard error, the mark in its colour."""
    with status_line.above():
        if drawn(sys.stderr):
            stderr().print(f"{mark}: ", style=style, end="")
            stderr().print(text, markup=False)
        else:
            sys.stderr.write(f"{mark}: {text}\n")


def notes_to(log: logging.Logger) -> None:
    """From now on notes and errors are records of this logger: standard error has one format."""
    _notes.append(log)


def write(text: str) -> None:
    """A result that is to be written as it is, whole lines."""
    with status_line.above():
        sys.stdout.write(text)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    write(json_text(value, indent=2, ascii_only=not _unicode()) + "\n")


def print_json_line(value: Any) -> None:
    """One of several JSON documents on standard output, in a line of its own."""
    write(json_text(value, ascii_only=not _unicode()) + "\n")


def _unicode() -> bool:
    return (sys.stdout.encoding or "utf-8").lower().replace("-", "") in {"utf8", "utf16", "utf32"}


def print_rows(
    rows: Sequence[Row],
    columns: Sequence[str],
    *,
    empty: str,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Rows as a table of `columns`; on a terminal cells that are a key of `styles` have its style.

    A terminal that is too narrow gets one record of lines for each row. `empty` is the note where
    there are no rows.
    """
    if not rows:
        note(empty)
        return
    table = Table.of(rows, columns)
    if drawn(sys.stdout):
        _draw(table.shortened(), styles or {})
    else:
        write("".join(f"{line}\n" for line in table.lines()))


def _draw(table: Table, styles: Mapping[str, str]) -> None:
    from rich.cells import cell_len

    widths = table.widths(stdout().width, cell_len)
    with status_line.above():
        if widths is None:
            _draw_records(table, styles)
        else:
            _draw_table(table, styles, widths)


def _draw_table(table: Table, styles: Mapping[str, str], widths: Sequence[int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Drawing
    from rich.text import Text

    drawing = Drawing(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading, right, width in zip(table.headings, table.numeric, widths, strict=True):
        drawing.add_column(heading, justify="right" if right else "left", width=width)
    for row in table.cells:
        drawing.add_row(*(Text(cell, styles.get(cell, "")) for cell in row))
    stdout().print(drawing)


def _draw_records(table: Table, styles: Mapping[str, str]) -> None:
    from rich.text import Text

    width = max(map(len, table.headings)) + GAP
    for number, row in enumerate(table.cells):
        if number:
            stdout().print()
        for heading, cell in zip(table.headings, row, strict=True):
            key = (heading.ljust(width), "bold")
            stdout().print(Text.assemble(key, (cell, styles.get(cell, ""))))


def short_duration(seconds: float) -> str:
    """`9 ms`, `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
    if 0 < seconds < 0.095:
        return f"{math.ceil(seconds * 1000)} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def short_size(size: float) -> str:
    """`812 B`, `1.5 MB`: powers of 1000."""
    power = 0
    while size >= 1000 and power < len(_UNITS) - 1:
        size /= 1000
        power += 1
    digits = 0 if power == 0 or size >= 100 else 1
    return f"{size:.{digits}f} {_UNITS[power]}"


def show_tracebacks() -> None:
    """From now on `report` writes the traceback before its line."""
    _tracebacks.append(True)


def one_line(text: str) -> str:
    """`text` with every run of white space as one space."""
    return " ".join(text.split())


def without_addresses(text: str) -> str:
    """The same for what quotes a command line, where a password may have spaces in it."""
    return _ADDRESS.sub("://***@", _QUOTED.sub(r"\1***\1", text))


def why(error: object) -> str:
    """Why the network failed, as every command says it: `connection refused`."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else text_of(error)
    return one_line(said[:1].lower() + said[1:])


def report(error: BaseException) -> ExitCode:
    """Say on standard error what went wrong, in one line; return the exit code to end with."""
    cause = root_cause(error)
    code = exit_code(cause)
    hide = without_addresses if code is ExitCode.USAGE else without_passwords
    text = hide(visible(text_of(cause, REPORT_LIMIT)))
    if code is ExitCode.UNEXPECTED:
        text = f"{type_name(cause)}: {text} (flowstream --debug ... shows the traceback)"
    if _notes:
        _notes[-1].error("%s", text, extra={"exit_code": int(code)}, exc_info=_traced(error))
        return code
    if _tracebacks:
        trace = without_passwords(traceback_of(error, LOG_LIMIT))
        sys.stderr.write(visible(trace, keep="\n"))
    _marked("error", "bold red", text)
    return code


def _traced(error: BaseException) -> BaseException | None:
    return printable(error) if _tracebacks else None
