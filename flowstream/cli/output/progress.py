"""What a command does now, on standard error, where that takes longer than a second.

A line in place on a terminal, a plain line now and then otherwise. A thread writes it, so that it
is also seen while the loop, or the import of a module, is busy.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flowstream.cli.output.console import note, redrawn, short_duration, stderr
from flowstream.cli.output.safe_text import visible
from flowstream.cli.output.status_line import status_line
from flowstream.texts import plural

PATIENCE = 1.0
"""Seconds that are waited for in silence."""

PLAIN_INTERVAL = 5.0
"""Seconds between lines where there is no terminal."""

REFRESH = 0.1
"""Seconds between two looks of the line on a terminal."""

ECHO = 8
"""Columns left for the ^C that a terminal shows: a line that it breaks would not be erased."""

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
BAR_WIDTH = 20

_steps: list[Step] = []
"""What goes on, the innermost last."""

_begun = threading.Event()
"""Set where something has begun to go on."""


class Step:
    """Something that takes a while: `position` out of `size` (None: unknown), `done` in `unit`s.

    One that is to end after `limit` seconds has these for its size. Without `in_place` it is shown
    in lines on a terminal too: others print there meanwhile.
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
        self.position = 0
        self.done = 0
        self.started = time.monotonic()

    def update(self, position: int, done: int | None = None) -> None:
        """Where it is; cheap enough to be called per slice."""
        self.position = position
        self.done = position if done is None else done

    def share(self, now: float) -> float | None:
        """How much of it is done, from 0 to 1; None where that is unknown."""
        if self.limit is not None:
            return min(1.0, (now - self.started) / self.limit)
        return min(1.0, self.position / self.size) if self.size else None

    def facts(self, now: float) -> str:
        """How far it is, in words."""
        seconds = now - self.started
        if self.limit is not None:
            return f"{seconds:.0f} of at most {self.limit:g} s"
        told = []
        share = self.share(now)
        if self.unit:
            told.append(plural(self.done, self.unit))
        if self.unit and self.done and seconds > 0:
            told.append(f"{self.done / seconds:,.0f}/s")
        if share is not None:
            told.append(f"{share:.0%}")
        if share:
            told.append(f"{short_duration(seconds / share - seconds)} left")
        return ", ".join(told) or short_duration(seconds)


@contextmanager
def doing(title: str | None, **options: Any) -> Iterator[Step]:
    """Show this as long as it goes on, from a second after the outermost step began; without a
    title show nothing, because results are shown as they come. `options` are those of `Step`."""
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
def telling() -> Iterator[None]:
    """Show what goes on until the end of a command."""
    ticker = Ticker()
    ticker.start()
    try:
        yield
    finally:
        ticker.end()


class Ticker(threading.Thread):
    """Tells of the innermost step now and then, until `end`; asleep while nothing goes on."""

    def __init__(self) -> None:
        super().__init__(name="progress", daemon=True)
        self._ended = threading.Event()
        self._next_line = 0.0

    def end(self) -> None:
        """Return once nothing more is shown."""
        self._ended.set()
        _begun.set()
        self.join(PATIENCE)  # it may hang in writing, and ends with the process then

    def run(self) -> None:
        with suppress(OSError, ValueError):  # nobody reads standard error any more
            while not self._ended.is_set():
                _begun.wait()
                _begun.clear()
                while _steps and not self._ended.wait(REFRESH):
                    self._tell(time.monotonic())

    def _tell(self, now: float) -> None:
        with status_line.lock:  # a step that ends meanwhile clears the line after us
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
    """A step in one line of a terminal, with a bar where there is room for it."""
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
    """A text with the escape sequences of this terminal, which Rich knows."""
    console = stderr()
    with console.capture() as captured:
        console.print(line, end="")
    return captured.get()
