"""Which offsets of a stream are done: sorted ranges that neither overlap nor touch. Pure.

A sink that writes a message once stores the offsets of what it wrote together with it, and leaves
out after a restart what is stored as done. A stored offset of the pipeline alone cannot say that:
batches finish in any order, and after a crash the same messages come in other batches.

A range is (first offset, last offset), both included. Memory and searches cost what the ranges
cost, not what the offsets do, so call `settle_below` with the watermark: no message below it comes
again, and the gaps there (of what was dropped, or went to other sinks) need no memory.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

Range = tuple[int, int]
"""The first and the last offset of an unbroken run of offsets."""


def ranges_of(offsets: Iterable[int]) -> list[Range]:
    """The fewest ranges that hold these offsets and no other; any order, repeats included."""
    ranges: list[Range] = []
    first = last = -2
    for offset in sorted(offsets):
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
        """Count these as done, too; they may overlap others, and be in any order."""
        for first, last in ranges:
            if not 0 <= first <= last:
                raise ValueError(f"({first}, {last}) is no range of offsets")
            # Those from `start` to `end` overlap or touch the new one: they become one with it.
            start = bisect_left(self._lasts, first - 1)
            end = bisect_right(self._firsts, last + 1)
            if start < end:
                first = min(first, self._firsts[start])  # noqa: PLW2901
                last = max(last, self._lasts[end - 1])  # noqa: PLW2901
            self._firsts[start:end] = [first]
            self._lasts[start:end] = [last]

    def settle_below(self, offset: int) -> None:
        """Count every offset below `offset` as done: the gaps there become part of one range."""
        if offset > 0:
            self.add([(0, offset - 1)])

    def missing(self, offsets: Sequence[int]) -> list[int]:
        """The indexes of those offsets that are not done, in order."""
        if not self._lasts or not offsets or min(offsets) > self._lasts[-1]:
            return list(range(len(offsets)))  # nearly always: what comes is new
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
