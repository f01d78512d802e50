"""Exactly which messages are settled: deliveries, their watermark, and the offset to commit.

A delivery is what one `send` of a source brought, or the part of it that the window admitted at
once. Each of its messages has one byte: open, settled, or abandoned (it will not be settled in this
run, so nothing at or behind it may be committed). The watermark is the last offset of the unbroken
run of settled messages from the beginning: committing it can lose nothing. Pure: no clock, no I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

OPEN, SETTLED, ABANDONED = 0, 1, 2
BEFORE_FIRST = -1
"""Stored if not even offset 0 is settled, since a run resumes at the stored offset + 1."""
REMEMBERED = 1_000
"""How many of the offsets that a run has stored for a stream it remembers."""
_SETTLED = bytes([SETTLED])
_numbers = count()


class Delivery:
    """`count` messages delivered together; `remaining` of them are neither settled nor abandoned.

    The offset of the message at `index` is `base + index`, or `offsets[index]` where a filter left
    gaps. `partition` is the source partition that brought them in, and `following` the delivery
    that came after this one. `touched` is set once something is decided about one of the messages:
    only then are they examined one by one. `objects` are the messages as they came, unless all came
    as bytes.
    """

    __slots__ = ("_offsets", "abandoned", "arrived", "base", "count", "flags", "following", "last",
                 "objects", "partition", "remaining", "timestamp", "touched")  # fmt: skip

    def __init__(
        self,
        partition: Any,
        base: int,
        count: int,
        *,
        offsets: Sequence[int] | None = None,
        timestamp: int = 0,
        arrived: float = 0.0,
    ) -> None:
        self.partition: Any = partition
        self.base: int = base
        self.count: int = count
        self.flags: Final = bytearray(count)
        self.remaining: int = count
        self.abandoned: int = 0
        self.touched: bool = False
        self.objects: Sequence[Any] | None = None
        self.following: Delivery | None = None
        self.timestamp: int = timestamp
        self.arrived: float = arrived
        self._offsets = offsets
        self.last: int = offsets[-1] if offsets else base + count - 1

    def offset(self, index: int) -> int:
        return self.base + index if self._offsets is None else self._offsets[index]

    def index(self, offset: int) -> int | None:
        """The index of the message with this offset; None where the delivery has none."""
        if self._offsets is None:
            index = offset - self.base
            return index if 0 <= index < self.count else None
        index = bisect_left(self._offsets, offset)
        return index if index < self.count and self._offsets[index] == offset else None

    def offsets(self, indexes: Sequence[int]) -> Sequence[int]:
        """The offsets of the messages at `indexes`."""
        if self._offsets is not None:
            return [self._offsets[index] for index in indexes]
        base = self.base
        if isinstance(indexes, range):
            return range(base + indexes.start, base + indexes.stop)
        return [base + index for index in indexes]

    def settle(self, indexes: Sequence[int]) -> None:
        """Settle the messages at `indexes`; AssertionError where one is not open."""
        flags, count = self.flags, len(indexes)
        if isinstance(indexes, range):
            start, stop = indexes.start, indexes.stop
            if flags.count(OPEN, start, stop) != count:
                raise AssertionError(f"{self._first_closed(indexes)} was settled twice")
            flags[start:stop] = _SETTLED * count
        else:
            for index in indexes:
                if flags[index]:
                    raise AssertionError(f"{self._first_closed([index])} was settled twice")
                flags[index] = SETTLED
        self.remaining -= count

    def abandon(self, index: int) -> bool:
        """Leave the message to the next run; False if it is settled already."""
        if self.flags[index]:
            return False
        self.flags[index] = ABANDONED
        self.abandoned += 1
        self.remaining -= 1
        return True

    def _first_closed(self, indexes: Sequence[int]) -> str:
        index = next(index for index in indexes if self.flags[index])
        return f"{self.partition.stream}@{self.offset(index)}"

    def first_unsettled(self, start: int = 0) -> int:
        """The index of the first message from `start` on that is not settled; `count` if all are.

        An abandoned message is not settled.
        """
        first = self.flags.find(OPEN, start)
        if first < 0:
            first = self.count
        if self.abandoned and (abandoned := self.flags.find(ABANDONED, start)) >= 0:
            return min(first, abandoned)
        return first


class Watermark:
    """The highest offset at and below which every delivered message of one partition is settled."""

    __slots__ = ("_below", "_count", "_deliveries", "_last", "first", "number")

    def __init__(self) -> None:
        self.number: int = next(_numbers)
        """Partitions that were opened later have higher numbers."""
        self.first: int | None = None
        """The first offset that was delivered."""
        self._deliveries: deque[Delivery] = deque()
        self._last: Delivery | None = None
        self._count = 0
        self._below: int | None = None

    def add(self, delivery: Delivery) -> None:
        """Add a delivery. Deliveries are added in the order of their offsets."""
        if self.first is None:
            self.first = delivery.base
        if self._last is not None:
            self._last.following = delivery
        self._last = delivery
        self._deliveries.append(delivery)
        self._count += delivery.count

    @property
    def open(self) -> Delivery | None:
        """The first delivery with an unsettled message. Those before it are forgotten."""
        deliveries = self._deliveries
        while deliveries and not deliveries[0].remaining and not deliveries[0].abandoned:
            delivery = deliveries.popleft()
            self._below = delivery.last
            self._count -= delivery.count
        return deliveries[0] if deliveries else None

    @property
    def value(self) -> int | None:
        """The offset to commit; None when nothing is settled from the first message on."""
        delivery = self.open
        if delivery is None:
            return self._below
        first = delivery.first_unsettled()
        return delivery.offset(first - 1) if first else self._below

    @property
    def unsettled(self) -> int:
        """How many messages are not settled."""
        return sum(delivery.remaining + delivery.abandoned for delivery in self._deliveries)

    @property
    def live(self) -> bool:
        """Whether a message is neither settled nor abandoned: a stage still has it."""
        return any(delivery.remaining for delivery in self._deliveries)

    @property
    def repeated(self) -> int:
        """How many messages come again if the next run begins at the barrier."""
        delivery = self.open
        if delivery is None:
            return 0
        return self._count - delivery.first_unsettled()

    @property
    def barrier(self) -> int | None:
        """The first offset that must not be committed; None when nothing is unsettled."""
        delivery = self.open
        return None if delivery is None else delivery.offset(delivery.first_unsettled())

    def __len__(self) -> int:
        return len(self._deliveries)


class OffsetTracker:
    """The watermarks of one stream. A restarted producer may open a second partition for it."""

    __slots__ = ("_begin", "_marks", "_own", "advanced", "committed")

    def __init__(self) -> None:
        self._begin: int | None = None
        self._marks: list[Watermark] = []
        self._own: deque[int] = deque(maxlen=REMEMBERED)
        self.committed: int | None = None
        self.advanced: bool = False
        """Whether this run has stored `committed`; otherwise there is nothing of it to verify."""

    def open(self) -> Watermark:
        mark = Watermark()
        self._marks.append(mark)
        return mark

    @property
    def marks(self) -> list[Watermark]:
        """The watermarks of the partitions that are open."""
        return list(self._marks)

    def value(self) -> int | None:
        """The offset that may be committed for the stream, over all of its partitions."""
        values = [mark.value for mark in self._marks]
        best = max((v for v in values if v is not None), default=None)
        if best is None:
            return None
        barriers = [b for mark in self._marks if (b := mark.barrier) is not None]
        if not barriers or best < min(barriers):
            return best
        below = [v for v in values if v is not None and v < min(barriers)]
        return max(below, default=None)

    @property
    def settled(self) -> range:
        """The offsets that this run has settled without a gap, from where it began.

        What is before them is of other runs: this one knows nothing about it, since the offset may
        have moved the stored offset.
        """
        begin, value = self._begin, self.value()
        if begin is None:
            begin = min((m.first for m in self._marks if m.first is not None), default=None)
        return range(0) if begin is None or value is None else range(begin, value + 1)

    def due(self) -> int | None:
        """The offset to store now: the watermark where it has advanced, otherwise None."""
        value = self.value()
        if value is None or (self.committed is not None and value <= self.committed):
            return None
        return value

    def resume(self, stored: int | None) -> None:
        """Begin behind the offset `stored`; -1 means that not even offset 0 is settled.

        A restarted producer may give an older offset than the one committed meanwhile.
        """
        self._own.append(BEFORE_FIRST if stored is None else stored)
        if stored is not None and self._begin is None and not self._marks:
            self._begin = stored + 1
        if stored is not None and (self.committed is None or stored > self.committed):
            self.committed = stored

    def storing(self, offset: int) -> None:
        """`offset` is about to be committed, so it may be found as the stored one from now on."""
        self._own.append(offset)

    def store(self, offset: int) -> None:
        """`offset` was committed."""
        self.committed = offset
        self.advanced = True

    def is_own(self, found: int | None) -> bool:
        """Whether this run explains the offset that was `found` stored.

        It does if it is the offset that the run found at its start, or one of the last that it
        stored: a broker may still have an older one, or have it again after its leader moved. If
        nothing is stored, no other run has stored an offset.
        """
        return found is None or found in self._own

    def forget(self, mark: Watermark) -> None:
        """Fence a partition: what it settles from now on is no longer committed."""
        if mark in self._marks:
            self._marks.remove(mark)

    @property
    def fenced(self) -> bool:
        """No partition is left: another run may commit for the stream now."""
        return not self._marks
