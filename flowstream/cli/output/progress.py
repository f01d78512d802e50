"""What a command is doing, on standard error, once it takes longer than a second.

On a terminal it is a line that is rewritten, elsewhere a plain line every few seconds. A thread
writes it, so that it appears even while the event loop or an import is busy.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flowstream.cli.output.console import note, redrawn, short_duration, status_line, stderr
from flowstream.cli.output.safe_text import visible
from flowstream.texts import plural

PATIENCE = 1.0
"""Seconds before anything is shown."""

PLAIN_INTERVAL = 5.0
"""Seconds between lines where standard error is not a terminal."""

REFRESH = 0.1
"""Seconds between two updates of the line on a terminal."""

ECHO = 8
"""Columns left free for the ^C of a terminal: a line that wraps could not be erased."""

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
BAR_WIDTH = 20

_steps: list[Step] = []
"""The steps under way, the innermost last."""

_begun = threading.Event()
"""Set when a step begins."""


class Step:
    """Something that may take long: at `position` of `size` (None: unknown), with `done` `unit`s.

    A step that ends after `limit` seconds is measured by time. One without `in_place` is shown in
    plain lines on a terminal too, because other output is printed meanwhile.
    """

    def __init__(
        self,
        title: str | None,
        *,
        size: int | None = None,
        unit: str = "",
        limit: float | None = None,
        in_place: bool = True,
    ) -> None:
        self.title = title
        self.in_place = in_place
        self.size = size
        self.limit = limit
        self.unit = unit
        self.position: int = 0
        self.done: int = 0
        self.started: float = time.monotonic()

    def update(self, position: int, done: int | None = None) -> None:
        """Set how far the step is. Cheap enough for every slice."""
        self.position = position
        self.done = position if done is None else done

    def share(self, now: float) -> float | None:
        """The part that is done, from 0 to 1; None if unknown."""
        if self.limit is not None:
            return min(1.0, (now - self.started) / self.limit)
        return min(1.0, self.position / self.size) if self.size else None

    def facts(self, now: float) -> str:
        """How far the step is, in words."""
        seconds = now - self.started
        if self.limit is not None:
            return f"{seconds:.0f} of at most {self.limit:g} s"
        parts = []
        share = self.share(now)
        if self.unit:
            parts.append(plural(self.done, self.unit))
        if self.unit and self.done and seconds > 0:
            parts.append(f"{self.done / seconds:,.0f}/s")
        if share is not None:
            parts.append(f"{share:.0%}")
        if share:
            parts.append(f"{short_duration(seconds / share - seconds)} left")
        return ", ".join(parts) or short_duration(seconds)


@contextmanager
def doing(title: str | None, **options: Any) -> Iterator[Step]:
    """Show a step while the block runs, from a second after the outermost step began.

    A step without a title is not shown: results appear as they come. `options` are those of `Step`.
    """
    step = Step(title, **options)
    _steps.append(step)
    _begun.set()
    try:
        yield step
    finally:
        _steps.remove(step)
        if not _steps:
            status_line.clear()


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show the steps of a command until it ends."""
    ticker = Ticker()
    ticker.start()
    try:
        yield
    finally:
        ticker.end()


class Ticker(threading.Thread):
    """Shows the innermost step repeatedly until `end`. It sleeps while there is no step."""

    def __init__(self) -> None:
        super().__init__(name="progress", daemon=True)
        self._ended = threading.Event()
        self._next_line = 0.0

    def end(self) -> None:
        """Stop, and return once nothing more is shown."""
        self._ended.set()
        _begun.set()
        self.join(PATIENCE)  # a thread that blocks in writing ends with the process

    def run(self) -> None:
        with suppress(OSError, ValueError):  # standard error was closed
            while not self._ended.is_set():
                _begun.wait()
                _begun.clear()
                while _steps and not self._ended.wait(REFRESH):
                    self._show(time.monotonic())

    def _show(self, now: float) -> None:
        with status_line.lock:  # a step that ends meanwhile clears the line afterwards
            outermost, step = next(iter(_steps), None), next(reversed(_steps), None)
            if outermost is None or step is None or now - outermost.started < PATIENCE:
                return
            if step.title is None:
                status_line.clear()
            elif step.in_place and redrawn(sys.stderr):
                status_line.show(drawn_line(step, now, stderr().width - ECHO))
            elif now >= self._next_line:
                self._next_line = now + PLAIN_INTERVAL
                note(f"{step.title}: {step.facts(now)}")


def drawn_line(step: Step, now: float, width: int) -> str:
    """A step as one line of a terminal, with a bar if there is room."""
    from rich.cells import cell_len
    from rich.text import Text

    facts, share = step.facts(now), step.share(now)
    title = Text(visible(step.title or ""))
    title.truncate(max(1, width - 4 - cell_len(facts)), overflow="ellipsis")
    line = Text.assemble((f"{SPINNER[int(now / REFRESH) % len(SPINNER)]} ", "cyan"), title)
    room = width - line.cell_len - cell_len(facts) - 2
    if share is not None and room > BAR_WIDTH:
        full = round(share * BAR_WIDTH)
        line.append("  ")
        line.append("━" * full, "green").append("━" * (BAR_WIDTH - full), "dim")
    line.append(f"  {facts}")
    line.truncate(width)
    return _sequences(line)


def _sequences(line: object) -> str:
    """A text with the escape sequences of this terminal."""
    console = stderr()
    with console.capture() as captured:
        console.print(line, end="")
    return captured.get()
