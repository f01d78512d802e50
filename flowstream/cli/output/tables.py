"""Rows as a table, or as records of lines where a terminal is too narrow for the table.

No name is cut off and no word is broken, because names and offsets are copied out of tables. Only
long prose is shortened on a terminal. Rich draws on a terminal. It has no layout that keeps words
whole, so the widths of columns are decided here. A pipe gets plain lines, without Rich, which takes
a tenth of a second to load and seconds for thousands of rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len

from flowstream.cli.output.console import drawn, note, status_line, stdout, write
from flowstream.cli.output.safe_text import shortened, visible

Row = Mapping[str, Any]

GAP = 2
"""Spaces between columns."""

LONGEST = 400
"""Characters of a cell on a terminal. No name is longer."""

PROSE = 16
"""The smallest width of a column whose cells have several words."""


def print_rows(
    rows: Sequence[Row],
    columns: Sequence[str],
    *,
    empty: str,
    styles: Mapping[str, str] | None = None,
) -> None:
    """Print rows as a table of `columns`, or the note `empty` if there are none.

    On a terminal, cells that are a key of `styles` have its style.
    """
    if not rows:
        note(empty)
        return
    found = Rows.of(rows, columns)
    if drawn(sys.stdout):
        _draw(found.shortened(), styles or {})
    else:
        write("".join(f"{line}\n" for line in found.lines()))


def _draw(rows: Rows, styles: Mapping[str, str]) -> None:
    widths = rows.widths(stdout().width)
    with status_line.above():
        if widths is None:
            _draw_records(rows, styles)
        else:
            _draw_table(rows, styles, widths)


def _draw_table(rows: Rows, styles: Mapping[str, str], widths: Sequence[int]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for heading, right, width in zip(rows.headings, rows.numeric, widths, strict=True):
        table.add_column(heading, justify="right" if right else "left", width=width)
    for row in rows.cells:
        table.add_row(*(Text(cell, styles.get(cell, "")) for cell in row))
    stdout().print(table)


def _draw_records(rows: Rows, styles: Mapping[str, str]) -> None:
    from rich.text import Text

    width = max(map(len, rows.headings)) + GAP
    for number, row in enumerate(rows.cells):
        if number:
            stdout().print()
        for heading, cell in zip(rows.headings, row, strict=True):
            key = (heading.ljust(width), "bold")
            stdout().print(Text.assemble(key, (cell, styles.get(cell, ""))))


@dataclass(frozen=True, slots=True)
class Rows:
    """Headings and cells as text. `numeric` says which columns have numbers."""

    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    numeric: Sequence[bool]

    @classmethod
    def of(cls, rows: Sequence[Row], columns: Sequence[str]) -> Rows:
        """Rows of a table. `columns` are the keys, and the headings with spaces for underscores."""
        return cls(
            [column.replace("_", " ") for column in columns],
            [[text_of(row.get(column)) for column in columns] for row in rows],
            [_is_numeric([row.get(column) for row in rows]) for column in columns],
        )

    def shortened(self) -> Rows:
        """The rows with long cells shortened, for a terminal."""
        cells = [[shortened(cell, LONGEST) for cell in row] for row in self.cells]
        return Rows(self.headings, cells, self.numeric)

    def widths(self, room: int) -> list[int] | None:
        """The width of each column in `room`, with whole words; None if the room is too small."""
        columns = list(zip(self.headings, *self.cells, strict=True))
        natural = [max(map(cell_len, column)) for column in columns]
        least = [_least(column) for column in columns]
        return fit(natural, least, room - GAP * (len(columns) - 1))

    def lines(self) -> list[str]:
        """A line for the headings and one for each row, as wide as needed."""
        rows = [self.headings, *self.cells]
        widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        gap = " " * GAP
        return [gap.join(map(_padded, row, widths, self.numeric)).rstrip() for row in rows]


def _padded(cell: str, width: int, right: bool) -> str:
    padding = " " * (width - cell_len(cell))
    return padding + cell if right else cell + padding


def fit(natural: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """`natural` widths, with the widest reduced, down to `least`, until they fit into `room`.

    None if that is impossible.
    """
    widths = [*natural]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        spare = [i for i, width in enumerate(widths) if width > least[i]]
        widths[max(spare, key=lambda i: widths[i])] -= 1
    return widths


def _least(column: Sequence[str]) -> int:
    """The smallest width of a column: no word is broken, and prose is not too narrow."""
    words = [cell_len(word) for text in column for word in text.split()]
    return max([*words, *(min(cell_len(cell), PROSE) for cell in column[1:])], default=0)


def _is_numeric(values: Sequence[object]) -> bool:
    """Whether all known values are numbers."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )


def text_of(value: object) -> str:
    """A cell: `-` for None, and at most three significant digits of a fraction."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return visible(str(value))
