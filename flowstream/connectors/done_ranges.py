"""Which offsets of a stream are done: sorted ranges that neither overlap nor touch. Pure.

A sink that writes each message once stores the offsets of its messages together with their data.
After a restart it skips the messages whose offsets are stored. The pipeline's stored offset is not
enough for that: batches finish in any order, and after a crash the same messages arrive in other
batches.

A range is (first offset, last offset), both included. Memory and the time of a search grow with the
number of ranges, not of offsets. So call `close_gaps` with what is settled: no message of it
arrives again, and the gaps there (messages that were dropped, or went to other sinks) are closed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

CLOSE_WITHIN = 1.0
"""Seconds in which a run that ends, or hands a partition over, may close the gaps that it leaves
in a sink's record."""

Range = tuple[int, int]
"""The first and the last offset of an unbroken run of offsets."""


def ranges_of(offsets: Iterable[int]) -> list[Range]:
    """The fewest ranges with exactly these offsets, which may be in any order and repeated."""
    ranges: list[Range] = []
    ordered = sorted(offsets)
    if ordered and ordered == list(range(ordered[0], ordered[0] + len(ordered))):
        return [(ordered[0], ordered[-1])]  # nearly always
    first = last = -2
    for offset in ordered:
        if offset > last + 1:
            if last >= 0:
                ranges.append((first, last))
            first = offset
        last = offset
    if last >= 0:
        ranges.append((first, last))
    return ranges


class DoneRanges:
    """The offsets of one stream that are done."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.add(ranges)

    def add(self, ranges: Iterable[Range]) -> None:
        """Add ranges that are done. They may be in any order, and overlap others."""
        for first, last in ranges:
            if not 0 <= first <= last:
                raise ValueError(f"({first}, {last}): expected 0 <= first offset <= last offset")
            # Ranges from `start` to `end` overlap or touch the new one, and are merged with it.
            start = bisect_left(self._lasts, first - 1)
            end = bisect_right(self._firsts, last + 1)
            if start < end:
                first = min(first, self._firsts[start])  # noqa: PLW2901
                last = max(last, self._lasts[end - 1])  # noqa: PLW2901
            self._firsts[start:end] = [first]
            self._lasts[start:end] = [last]

    def close_gaps(self, run: range, last: int) -> None:
        """Add every offset of an unbroken run, up to `last`, which closes the gaps there."""
        end = min(run.stop - 1, last)
        if run.start <= end:
            self.add([(run.start, end)])

    @property
    def last(self) -> int:
        """The last offset that is done; -1: none is."""
        return self._lasts[-1] if self._lasts else -1

    def missing(self, offsets: Sequence[int]) -> list[int]:
        """The indexes of the offsets that are not done, in order."""
        if not self._lasts or not offsets or min(offsets) > self._lasts[-1]:
            return list(range(len(offsets)))  # the usual case: all are new
        return [index for index, offset in enumerate(offsets) if offset not in self]

    def __contains__(self, offset: int) -> bool:
        index = bisect_left(self._lasts, offset)
        return index < len(self._lasts) and self._firsts[index] <= offset

    def __iter__(self) -> Iterator[Range]:
        """The ranges, in order."""
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        """How many ranges there are."""
        return len(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DoneRanges) and list(self) == list(other)

    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"DoneRanges({list(self)})"
