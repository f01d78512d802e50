"""Rows as text: a table where it fits the width, else each row as a record of lines.

No name is cut off and no word is broken, since names and offsets are copied out of tables; only
prose of many lines is shortened on a terminal. Pure: what draws it is in output.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowstream.cli.output.safe_text import shortened, visible

Row = Mapping[str, Any]

GAP = 2
"""Spaces between columns."""

LONGEST = 400
"""Characters of a cell on a terminal; no name is longer."""

PROSE = 16
"""What a column of several words a cell is not made narrower than: it would be a tower of lines."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and cells as text; `numeric` says which columns hold numbers."""

    headings: Sequence[str]
    cells: Sequence[Sequence[str]]
    numeric: Sequence[bool]

    @classmethod
    def of(cls, rows: Sequence[Row], columns: Sequence[str]) -> Table:
        """`columns` are the keys and, with spaces for underscores, the headings."""
        return cls(
            [column.replace("_", " ") for column in columns],
            [[text_of(row.get(column)) for column in columns] for row in rows],
            [_is_numeric([row.get(column) for row in rows]) for column in columns],
        )

    def shortened(self) -> Table:
        """The same for a terminal."""
        cells = [[shortened(cell, LONGEST) for cell in row] for row in self.cells]
        return Table(self.headings, cells, self.numeric)

    def widths(self, room: int, measure: Callable[[str], int] = len) -> list[int] | None:
        """The width of each column in `room`, with whole words; None where that is too little."""
        columns = list(zip(self.headings, *self.cells, strict=True))
        natural = [max(map(measure, column)) for column in columns]
        least = [_least(column, measure) for column in columns]
        return fit(natural, least, room - GAP * (len(columns) - 1))

    def lines(self) -> list[str]:
        """A line for the headings and one for each row, as wide as they are."""
        rows = [self.headings, *self.cells]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [
            (" " * GAP)
            .join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, self.numeric, strict=True)
            )
            .rstrip()
            for row in rows
        ]


def fit(natural: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """`natural` widths where they fit into `room`, else the widest made narrower, down to `least`;
    None where even those do not fit."""
    widths = [*natural]
    if sum(least) > room:
        return None
    while sum(widths) > room:
        spare = [i for i, width in enumerate(widths) if width > least[i]]
        widths[max(spare, key=lambda i: widths[i])] -= 1
    return widths


def _least(column: Sequence[str], measure: Callable[[str], int]) -> int:
    """A heading may have a line for each of its words, a cell none that is very short."""
    words = [measure(word) for text in column for word in text.split()]
    return max([*words, *(min(measure(cell), PROSE) for cell in column[1:])], default=0)


def _is_numeric(values: Sequence[object]) -> bool:
    """Numbers only, some of them perhaps unknown."""
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in known
    )


def text_of(value: object) -> str:
    """A cell: `-` for nothing, and three digits of a fraction at most."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, int):
        return f"{value:,}"
    return visible(str(value))
