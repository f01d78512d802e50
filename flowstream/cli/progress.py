"""Progress on standard error: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from flowstream.cli.output import drawn, note, plural, stderr

PLAIN_INTERVAL = 5.0
"""Seconds between lines where there is no terminal."""

REFRESH = 0.1
"""Seconds between updates of the bar."""


class Progress:
    """`update` with a position out of `size` (None: unknown) and a count of messages."""

    def __init__(self, title: str, size: int | None) -> None:
        self._title = title
        self._size = size
        self._start = self._shown = time.monotonic()
        self._live = drawn(sys.stderr)
        if self._live:
            self._make_bar()

    def _make_bar(self) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = [
            TextColumn("{task.description}"),
            *([BarColumn(), TimeRemainingColumn()] if self._size else []),
            TextColumn("{task.fields[messages]:,} messages, {task.fields[rate]:,.0f}/s"),
        ]
        self._bar = Bar(*columns, console=stderr(), transient=True)
        self._task = self._bar.add_task(self._title, total=self._size, messages=0, rate=0.0)

    def __enter__(self) -> Self:
        if self._live:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._bar.stop()

    def update(self, position: int, messages: int) -> None:
        """Show where we are; cheap enough to be called per slice."""
        now = time.monotonic()
        if now - self._shown < (REFRESH if self._live else PLAIN_INTERVAL):
            return
        self._shown = now
        rate = messages / (now - self._start)
        if self._live:
            self._bar.update(self._task, completed=position, messages=messages, rate=rate)
        else:
            done = f" ({position / self._size:.0%})" if self._size else ""
            note(f"{self._title}: {plural(messages, 'message')}{done}, {rate:,.0f}/s")
