"""Has retention overtaken a reader, and is it about to? Pure.

A gap between what a reader expects and the chunk that comes has three reasons: offsets that the
broker's own records take, chunks that a filter left out, and retention. Only the last one is a
loss, and it is recognized by the first retained offset.
"""

from __future__ import annotations

from enum import Enum

from flowstream.errors import OffsetTruncated
from flowstream.texts import plural


def removed(expected: int, arrived: int, first: int | None) -> int:
    """How many offsets of the gap from `expected` to `arrived` retention has removed.

    `first` is the first retained offset, looked up after `arrived` came; None for an empty stream.
    """
    return 0 if first is None else max(0, min(first, arrived) - expected)


def overtaken(stream: str, expected: int, lost: int) -> OffsetTruncated:
    """The error of a reader that was overtaken."""
    first = expected + lost
    return OffsetTruncated(
        f"retention overtook this reader of {stream!r}: offset {expected} was next, and the "
        f"stream begins at {first} now: {plural(lost, 'offset')} "
        f"{'was' if lost == 1 else 'were'} removed before being read. Give "
        'the stream a longer retention or make the reader faster; on_truncated="skip" accepts '
        "the loss and goes on behind it",
        stream=stream,
        stored=expected - 1,
        first=first,
    )


class Distance(Enum):
    """FAR: nothing to tell. CLOSE: the next removal can overtake it. BEHIND: one has."""

    FAR = "far"
    CLOSE = "close"
    BEHIND = "behind"


class Headroom:
    """Compares a reader's distance from the beginning of its stream with what was removed last.

    Retention removes whole segments, so the beginning moves in jumps of about the same length.
    """

    __slots__ = ("_distance", "_first", "step")

    def __init__(self) -> None:
        self._first: int | None = None
        self._distance = Distance.FAR
        self.step = 0

    def looked(self, first: int, settled: int, newest: int) -> Distance | None:
        """A look at the stream: what to tell of the reader, None where that was told before.

        `settled` is the last offset that the reader is done with, `newest` where the newest chunk
        begins: what holds it is never removed, so a reader that has got there is safe.
        """
        if self._first is not None and first > self._first:
            self.step = first - self._first
        self._first = first
        before, self._distance = self._distance, self._judge(first, settled + 1, newest)
        return None if self._distance is before else self._distance

    def _judge(self, first: int, reader: int, newest: int) -> Distance:
        if reader >= newest:
            return Distance.FAR
        if reader < first:
            return Distance.BEHIND
        return Distance.CLOSE if self.step and reader - first <= self.step else Distance.FAR
