"""What a person sees: the screen of a terminal after what was written to it.

Knows the sequences that flowstream and Rich write. One that it does not know is an error, and so is
text where the screen would scroll sideways: nothing is ignored in silence.
"""

from __future__ import annotations

import re

from rich.cells import cell_len

_SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Screen:
    """`width` x `height` characters; what scrolls out at the top is kept in `scrolled`."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.scrolled: list[str] = []
        self.cursor_hidden = False
        self.alternate = False
        self._rows = [[" "] * width for _ in range(height)]
        self._kept = self._rows
        self._row = self._column = 0

    def __str__(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        """The rows that have something on them, without the spaces at their ends."""
        rows = ["".join(row).rstrip() for row in self._rows]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def everything(self) -> str:
        """What is on the screen, below what has scrolled out of it."""
        return "\n".join([*self.scrolled, *self.lines])

    def feed(self, text: str) -> None:
        """Write `text`, whose escape sequences must be whole."""
        position = 0
        while position < len(text):
            if text[position] == "\x1b":
                found = _SEQUENCE.match(text, position)
                assert found, f"not known: {text[position : position + 20]!r}"
                self._act(found[1], found[2])
                position = found.end()
            else:
                self._write(text[position])
                position += 1

    def _write(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\n":
            self._down()
        elif character == "\b":
            self._column = max(0, self._column - 1)
        elif character == "\x07":
            pass
        else:
            width = cell_len(character)
            if self._column + width > self.width:
                self._column = 0
                self._down()
            cells = [character, *[""] * (width - 1)]
            self._rows[self._row][self._column : self._column + width] = cells
            self._column += width

    def _down(self) -> None:
        if self._row < self.height - 1:
            self._row += 1
            return
        self.scrolled.append("".join(self._rows.pop(0)).rstrip())
        self._rows.append([" "] * self.width)

    def _act(self, given: str, action: str) -> None:
        numbers = [int(number) for number in re.findall(r"\d+", given)]
        number = numbers[0] if numbers else 0
        if action == "m":
            return
        if action == "A":
            self._row = max(0, self._row - max(1, number))
        elif action == "B":
            self._row = min(self.height - 1, self._row + max(1, number))
        elif action == "H":
            self._row, self._column = (max(0, n - 1) for n in (*numbers, 1, 1)[:2])
        elif action == "K":
            first = 0 if number == 2 else self._column
            self._rows[self._row][first:] = [" "] * (self.width - first)
        elif action == "J":
            self._erase(number)
        elif action in "hl":
            self._mode(number, on=action == "h")
        else:
            raise AssertionError(f"not known: CSI {given}{action}")

    def _erase(self, what: int) -> None:
        first = self._row + 1
        if what == 2:
            first = 0
        else:
            self._rows[self._row][self._column :] = [" "] * (self.width - self._column)
        for row in range(first, self.height):
            self._rows[row] = [" "] * self.width

    def _mode(self, number: int, *, on: bool) -> None:
        if number == 25:
            self.cursor_hidden = not on
        elif number == 1049 and on != self.alternate:
            self.alternate = on
            if on:
                self._kept = self._rows
                self._rows = [[" "] * self.width for _ in range(self.height)]
            else:
                self._rows = self._kept
