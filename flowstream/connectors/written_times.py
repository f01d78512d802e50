"""How new the messages are that a sink has written, to recognise a stream that was replaced. Pure.

A stream that is deleted and created again begins at offset 0, and all its messages are newer. So a
message whose offset is done, but which is newer than what was written there, belongs to another
stream of the same name. Leaving it out would lose it.

One time for the whole stream would not do: later messages of the new stream may be written before
its first ones arrive, by other workers, or while a run ends. So a sink keeps some marks: up to an
offset, no message that was written is newer than a time.

Times may go back, when the clock of a broker is set, or another node with another clock becomes the
leader of the stream. And batches of several workers overlap. So a mark is at least as new as the
marks of batches that reach over it: otherwise a message that comes again could look like a new one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

Mark = tuple[int, int]
"""An offset, and the time of the newest message that was written up to it, in milliseconds."""
MOST = 16
"""Marks that are kept. Beyond that, the two that are closest in time become one."""


class WrittenTimes:
    """The marks of one stream, in the order of their offsets."""

    __slots__ = ("_marks",)

    def __init__(self, marks: Iterable[Mark] = ()) -> None:
        self._marks: list[Mark] = sorted(marks)

    @property
    def newest(self) -> int:
        """The time of the newest message that was written; 0 if it is not known."""
        return max((time for _, time in self._marks), default=0)

    def is_replaced(self, offset: int, time: int) -> bool:
        """Whether a message at an offset that is done belongs to another stream."""
        at = bisect_left(self._marks, (offset, 0))
        return at < len(self._marks) and time > self._marks[at][1] > 0

    def add(self, first: int, last: int, time: int, settled: range = range(0)) -> None:
        """Add the first and last offset, and the newest time, of messages that are written.

        Messages in `settled` have arrived in this run, so one mark is enough for them.
        """
        start = bisect_left(self._marks, (first, 0))
        at = bisect_left(self._marks, (last, 0))
        self._marks[start:at] = [(offset, max(it, time)) for offset, it in self._marks[start:at]]
        if at < len(self._marks):  # its batch may have begun below
            time = max(time, self._marks[at][1])
            if self._marks[at][0] == last:
                self._marks.pop(at)
        self._marks.insert(at, (last, time))
        self._merge(
            bisect_left(self._marks, (settled.start, 0)),
            bisect_left(self._marks, (settled.stop, 0)),
        )
        while len(self._marks) > MOST:
            gaps = [abs(b[1] - a[1]) for a, b in zip(self._marks, self._marks[1:], strict=False)]
            closest = gaps.index(min(gaps))
            self._merge(closest, closest + 2)

    def _merge(self, first: int, end: int) -> None:
        """Keep the last of some marks, with the newest of their times."""
        if end - first > 1:
            marks = self._marks[first:end]
            self._marks[first:end] = [(marks[-1][0], max(time for _, time in marks))]

    def __iter__(self) -> Iterator[Mark]:
        return iter(self._marks)
