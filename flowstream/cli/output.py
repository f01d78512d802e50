"""Standard output and error, the same way for every command.

On a terminal tables and colours come from Rich. In a pipe a table is plain text with two spaces
between columns and nothing cut off, and JSON is one document. `NO_COLOR` is honoured by Rich.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from flowstream.cli.exits import ExitCode, exit_code, root_cause

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]

_tracebacks: list[bool] = []
_notes: list[logging.Logger] = []

_UNITS = ("B", "kB", "MB", "GB", "TB")


@cache
def stdout() -> Console:
    """The console of results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


@cache
def stderr() -> Console:
    """The console of notes, progress and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str | None = None) -> None:
    """One line of result; markup in `text` is not interpreted."""
    stdout().print(text, style=style, markup=False)


def note(text: str, style: str | None = None) -> None:
    """One line beside the result: progress, hints, summaries of side effects."""
    if _notes:
        _notes[-1].info("%s", text)
    else:
        stderr().print(text, style=style, markup=False)


def notes_to(log: logging.Logger) -> None:
    """From now on notes and errors are records of this logger: standard error has one format."""
    _notes.append(log)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")


def print_rows(rows: Sequence[Row], columns: Sequence[str], *, empty: str) -> None:
    """Rows as a table; `columns` are the keys and, with spaces for underscores, the headings."""
    if not rows:
        note(empty)
        return
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    numeric = [all(_is_number(row.get(column)) for row in rows) for column in columns]
    if stdout().is_terminal:
        _print_rich(cells, columns, numeric)
    else:
        _print_plain([[_heading(c) for c in columns], *cells], numeric)


def _print_rich(
    cells: Sequence[Sequence[str]], columns: Sequence[str], numeric: Sequence[bool]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, right in zip(columns, numeric, strict=True):
        table.add_column(_heading(column), justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    stdout().print(table)


def _print_plain(lines: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        parts = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        sys.stdout.write("  ".join(parts).rstrip() + "\n")


def _heading(column: str) -> str:
    return column.replace("_", " ")


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def plural(count: int, word: str, words: str | None = None) -> str:
    """`1 message`, `69,659 messages`."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def short_duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`."""
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


def report(error: BaseException) -> ExitCode:
    """Say on standard error what went wrong, in one line; return the exit code to end with."""
    cause = root_cause(error)
    code = exit_code(cause)
    text = one_line(str(cause)) or type(cause).__name__
    if code is ExitCode.UNEXPECTED:
        text = f"{type(cause).__name__}: {text} (flowstream --debug ... shows the traceback)"
    if _notes:
        _notes[-1].error("%s", text, extra={"exit_code": int(code)}, exc_info=_traced(error))
        return code
    if _tracebacks:
        sys.stderr.write("".join(traceback.format_exception(error)))
    console = stderr()
    console.print("error: ", style="bold red", end="")
    console.print(text, markup=False)
    return code


def _traced(error: BaseException) -> BaseException | None:
    return error if _tracebacks else None
