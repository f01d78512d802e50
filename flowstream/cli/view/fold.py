"""Lines that fit a window: the most important first, and a count of what has no room. Pure.

A picture is a list of blocks in the order in which they are shown. If the window is too low, blocks
get room by their rank, and the last line counts what is not shown. No line is wider than the
window: figures continue on the next line, and long words are broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich.cells import cell_len, chop_cells
from rich.text import Text

from flowstream.cli.output.safe_text import visible
from flowstream.texts import plural

Span: TypeAlias = tuple[str, str]
"""A text and its style; "" is the default style."""

GAP = 2
"""Spaces between figures, and between columns."""


@dataclass(frozen=True, slots=True)
class Block:
    """Items of one or more lines. An item is shown completely or not at all.

    Rank 0 gets room first. `what` is the word for an item when missing ones are counted, and "" if
    they are not. `heading` is shown above the first item.
    """

    rank: int
    what: str
    items: Sequence[Sequence[Text]]
    heading: Sequence[Text] = ()


def fitted(blocks: Sequence[Block], width: int, height: int) -> list[Text]:
    """The blocks in at most `height` lines."""
    counts = _counts(blocks, height)
    if missed := _missed(blocks, counts):
        counts = _counts(blocks, height - 1)
        missed = _missed(blocks, counts)
    lines = [
        line
        for block, count in zip(blocks, counts, strict=True)
        if count
        for part in (block.heading, *block.items[:count])
        for line in part
    ]
    return [*lines, _named_missing(missed, width)] if missed else lines


def _missed(blocks: Sequence[Block], counts: Sequence[int]) -> Counter[str]:
    """The number of items without room, by the word for them."""
    missed: Counter[str] = Counter()
    for block, count in zip(blocks, counts, strict=True):
        if block.what:
            missed[block.what] += len(block.items) - count
    return +missed


def _height(block: Block, count: int) -> int:
    if not count:
        return 0
    return len(block.heading) + sum(map(len, block.items[:count]))


def _counts(blocks: Sequence[Block], room: int) -> list[int]:
    """The number of items of each block that have room."""
    counts = [0] * len(blocks)
    for index in sorted(range(len(blocks)), key=lambda index: blocks[index].rank):
        block = blocks[index]
        while counts[index] < len(block.items):
            more = _height(block, counts[index] + 1) - _height(block, counts[index])
            if more > room:
                break
            room -= more
            counts[index] += 1
    return counts


def _named_missing(missed: Counter[str], width: int) -> Text:
    things = ", ".join(plural(count, what) for what, count in missed.items())
    for text in (f"no room for {things}: make the window larger", f"no room for {things}"):
        if cell_len(text) <= width:
            return Text(text, "dim")
    return Text(chop_cells(text, width)[0], "dim")


def flow(spans: Iterable[Span], width: int, indent: int = 0) -> list[Text]:
    """Figures beside each other, continued on indented lines."""
    lines = [Text()]
    for text, style in spans:
        room = width - indent
        for number, part in enumerate(wrapped(text, room)):
            line = lines[-1]
            used = line.cell_len
            begun = used > (indent if len(lines) > 1 else 0)
            if number or (begun and used + GAP + cell_len(part) > width):
                line = Text(" " * indent)
                lines.append(line)
            elif begun:
                line.append(" " * GAP)
            line.append(part, style)
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """A text as lines, broken between words if possible."""
    text = visible(text)
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    line = ""
    width = max(2, width)  # the largest width of a character
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        *full, line = chop_cells(word, width) or [""]
        lines += full
    return [*lines, line]


def table(
    headings: Sequence[str], rows: Sequence[Sequence[Span]], width: int
) -> tuple[list[Text], list[list[Text]]]:
    """The lines of the heading and of each row. The first column is a name, the others numbers.

    If the columns do not fit, each row is a flow of figures, each after its heading.
    """
    columns = list(zip(headings, *([text for text, _ in row] for row in rows), strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    if sum(widths) + GAP * (len(widths) - 1) <= width:
        heading = Text(_aligned(headings, widths), "dim")
        return [heading], [[_row(row, widths)] for row in rows]
    return [], [flow([row[0], *_named(headings[1:], row[1:])], width, indent=GAP) for row in rows]


def _named(headings: Sequence[str], cells: Sequence[Span]) -> list[Span]:
    pairs = zip(headings, cells, strict=True)
    return [(f"{heading} {text}", style) for heading, (text, style) in pairs if text]


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
    first = cells[0] + padded[0]
    return (" " * GAP).join([first, *map("".join, zip(padded[1:], cells[1:], strict=True))])


def _row(cells: Sequence[Span], widths: Sequence[int]) -> Text:
    line = Text()
    for number, ((text, style), width) in enumerate(zip(cells, widths, strict=True)):
        padding = " " * (width - cell_len(text))
        line.append(" " * GAP if number else "")
        line.append("" if number == 0 else padding)
        line.append(text, style)
        line.append(padding if number == 0 else "")
    return line
