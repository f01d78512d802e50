"""Rolling: which messages of a sink share a batch that stays open for long, as for a file. Pure.

The batch is what is written as one, so a sink that writes something large asks for large batches.
Their messages are in flight until then, which the window of the pipeline bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from flowstream.pipeline.message import Message

AGE = 60.0
"""Seconds that a batch stays open for its bytes, unless `batch_timeout` says otherwise."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """When a batch is closed, by default: at `max_bytes`, or after the `window` of its messages.

    A window is so many seconds, aligned to the epoch. Messages of one window were written to their
    stream in it. Its batch is closed `batch_timeout` seconds after the end of the window, or after
    the last message of the window, if that comes later. Messages that `apart` gives another value
    for are in other batches.
    """

    max_bytes: int | None = None
    window: float | None = None
    apart: Callable[[Message[Any]], Hashable] | None = None

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The options of a batcher that differ from those of others."""
        if self.window is None:
            return {"size": None, "max_bytes": self.max_bytes, "batch_timeout": AGE}
        grace = min(AGE, max(1.0, self.window / 10))
        return {"size": None, "max_bytes": self.max_bytes, "batch_timeout": grace}

    @property
    def keyed(self) -> bool:
        """Whether messages have to be separated by key."""
        return self.window is not None or self.apart is not None

    def begin(self, timestamp: int, wall: float) -> float:
        """When the window of a message begins, in seconds since the epoch.

        `timestamp` is the message's, in milliseconds; one that is not known (0) counts as now.
        """
        if self.window is None:
            return 0.0
        seconds = timestamp / 1000 if timestamp else wall
        return seconds - seconds % self.window

    def remaining(self, begin: float, wall: float) -> float:
        """The seconds until a window ends; 0 when it is over."""
        return 0.0 if self.window is None else max(0.0, begin + self.window - wall)
