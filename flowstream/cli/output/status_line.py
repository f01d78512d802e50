"""A line at the end of a terminal that is written over and over; what is printed goes above it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ERASE = "\r\x1b[K"


class StatusLine:
    """At most one line on standard error. Every thread may use it, and hold `lock` for longer."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._shown = False

    def show(self, line: str) -> None:
        """Write the line, with escape sequences, no wider than the terminal, in place of the last
        one."""
        with self.lock:
            sys.stderr.write(f"{ERASE}{line}")
            sys.stderr.flush()
            self._shown = True

    @contextmanager
    def above(self) -> Iterator[None]:
        """Take the line away, and let nobody write one meanwhile."""
        with self.lock:
            if self._shown:
                sys.stderr.write(ERASE)
                sys.stderr.flush()
                self._shown = False
            yield

    def clear(self) -> None:
        """Take the line away."""
        with self.above():
            pass


status_line = StatusLine()
"""The line of this process."""
