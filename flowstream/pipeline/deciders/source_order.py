"""Restores the order of the source for a destination that needs it. Pure.

RabbitMQ drops a publishing id that is not above the last one of its reference. So a destination
that deduplicates by it must never get a message after a later one of the same source partition. A
message is released when every message before it is decided for this destination: released before,
or settled. One that is elsewhere is not decided: until it is settled, it may still come here, in
this run or, after a crash, in the next one.

What is held waits only for messages with lower offsets, so orders cannot wait for each other in a
circle. Held messages count as in flight, so the window bounds them.

A slice that comes in order costs a comparison for each of its runs. One that is early is kept
whole, by its first offset; only a gap in which something is undecided splits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from operator import lt
from typing import Any, NamedTuple

from flowstream.pipeline.delivery import SETTLED, Delivery, Watermark
from flowstream.pipeline.message import Message
from flowstream.pipeline.slice import Run, Slice

Split = Callable[[list[Message[Any]]], tuple[list[Message[Any]], list[Message[Any]]]]
"""Splits messages into those to keep, and those to take out."""


class Passed(NamedTuple):
    """What may go on, in order, and what is late: later messages have gone on before.

    Only a message that a handler settled early can be late, because it counts as decided.
    """

    released: Slice[Any] | None
    late: list[Message[Any]]


class SourceOrder:
    """The order of all source partitions for one destination."""

    __slots__ = ("_lines",)

    def __init__(self) -> None:
        self._lines: dict[Any, _Line] = {}

    @property
    def held(self) -> int:
        """How many messages wait for messages before them."""
        return sum(line.messages for line in self._lines.values())

    @property
    def waits_for(self) -> list[tuple[str, int]]:
        """The undecided messages that others wait for, by stream and offset."""
        return [line.waits_for for line in self._lines.values() if line.held]

    def put(self, part: Slice[Any]) -> Passed:
        """Add messages. Returns those that may go on now: the slice itself, if all may."""
        done = 0
        for run in part.runs:
            if not (_ascends(run) and self._line(run).passes(run)):
                break
            done += len(run[1])
        if done == len(part):
            return Passed(part, [])
        head = part.take(done) if done else None
        late: list[Message[Any]] = []
        lines: dict[_Line, None] = {}
        for piece in _pieces(part):
            line = self._line(piece.runs[0])
            lines[line] = None
            late += line.hold(piece)
        return Passed(_joined(head, lines), late)

    def settled(self) -> Slice[Any] | None:
        """Messages were settled somewhere. Returns those that may go on now."""
        waiting = [line for line in self._lines.values() if line.held]
        return _joined(None, waiting) if waiting else None

    def withdraw(self, split: Split) -> list[Message[Any]]:
        """Take messages out that are held, and shall not be released in this run."""
        return [message for line in self._lines.values() for message in line.withdraw(split)]

    def _line(self, run: Run) -> _Line:
        partition = run[0].partition
        line = self._lines.get(partition)
        if line is None:
            others = [each for each in self._lines if each.stream == partition.stream]
            for each in others:
                if self._lines[each].ended:
                    del self._lines[each]
            older = [each.mark for each in others]
            if partition.tracker is not None:
                older += partition.tracker.marks
            older = [mark for mark in older if mark.number < partition.mark.number]
            line = self._lines[partition] = _Line(run[0], older)
        return line


class _Line:
    """The order of one source partition.

    Everything before the message at `index` of `delivery` is decided, and `released` is the last
    offset that was released. `older` are the watermarks of partitions that the same stream had
    before, such as those of a producer that was started again: their messages are decided first.
    """

    __slots__ = ("_numbers", "_older", "delivery", "held", "index", "messages", "released")

    def __init__(self, delivery: Delivery, older: list[Watermark]) -> None:
        self.delivery: Delivery = delivery.partition.mark.open or delivery
        self.index: int = 0
        self.released: int = -1
        self.held: list[tuple[int, int, Slice[Any]]] = []
        """Pieces of one delivery each, as a heap by their first offset; `messages` in all."""
        self.messages: int = 0
        self._older = older
        self._numbers = count()

    @property
    def waits_for(self) -> tuple[str, int]:
        delivery, index = self.delivery, self.delivery.first_unsettled(self.index)
        if index == delivery.count:
            return delivery.partition.stream, delivery.last + 1
        return delivery.partition.stream, delivery.offset(index)

    @property
    def ended(self) -> bool:
        """Whether no message is held, or can still come."""
        return not (self.held or self.delivery.partition.mark.live)

    def passes(self, run: Run) -> bool:
        """Whether all messages of a run may go on now. They count as released then."""
        delivery, indexes = run
        if (
            self.held
            or delivery.offset(indexes[0]) <= self.released
            or not self._reaches(delivery, indexes[0])
            or _unbroken(delivery, indexes) < len(indexes)
        ):
            return False
        self._release(delivery, indexes[-1])
        return True

    def hold(self, piece: Slice[Any]) -> list[Message[Any]]:
        """Hold messages until they may go on. Returns those that are late."""
        delivery, indexes = piece.runs[0]
        late: list[Message[Any]] = []
        if delivery.offset(indexes[0]) <= self.released:
            late = [message for message in piece.messages if message.offset <= self.released]
            piece = Slice.of(piece.messages[len(late) :])
        self._push(piece)
        return late

    def release(self) -> Iterator[Slice[Any]]:
        """The held messages that may go on now, in order."""
        while self.held:
            piece = self.held[0][2]
            delivery, indexes = piece.runs[0]
            if not self._reaches(delivery, indexes[0]):
                return
            heappop(self.held)
            self.messages -= len(piece)
            unbroken = _unbroken(delivery, indexes)
            last = indexes[unbroken - 1]
            if unbroken < len(indexes):
                head = piece.take(unbroken)
                self._push(piece)
                piece = head
            self._release(delivery, last)
            yield piece

    def withdraw(self, split: Split) -> list[Message[Any]]:
        out: list[Message[Any]] = []
        kept: list[tuple[int, int, Slice[Any]]] = []
        for first, number, piece in self.held:
            keep, taken = split(piece.messages)
            out += taken
            if keep:
                kept.append((first if keep[0].offset == first else keep[0].offset, number,
                             Slice.of(keep) if taken else piece))  # fmt: skip
        self.held = kept
        self.messages -= len(out)
        heapify(self.held)
        return out

    def _push(self, piece: Slice[Any]) -> None:
        if len(piece):
            delivery, indexes = piece.runs[0]
            self.messages += len(piece)
            heappush(self.held, (delivery.offset(indexes[0]), next(self._numbers), piece))

    def _reaches(self, delivery: Delivery, index: int) -> bool:
        """Whether everything before a message is decided. Remembers how far that is known."""
        if self._older:
            if any(mark.live for mark in self._older):
                return False
            self._older = []
        while self.delivery is not delivery:
            here = self.delivery
            if delivery.last < here.base:
                return True  # the message is settled itself, early
            self.index = here.first_unsettled(self.index)
            if self.index < here.count or here.following is None:
                return False
            self.delivery, self.index = here.following, 0
        if self.index < index:
            self.index = delivery.first_unsettled(self.index)
        return self.index >= index

    def _release(self, delivery: Delivery, last: int) -> None:
        self.released = delivery.offset(last)
        if delivery is self.delivery:
            self.index = max(self.index, last + 1)


def _ascends(run: Run) -> bool:
    indexes = run[1]
    return isinstance(indexes, range) or all(map(lt, indexes, indexes[1:]))


def _unbroken(delivery: Delivery, indexes: Any) -> int:
    """How many messages of a run, from its first one, have only settled messages in between."""
    first, last = indexes[0], indexes[-1]
    missing = last - first + 1 - len(indexes)
    if not missing:
        return len(indexes)
    flags = delivery.flags
    settled = flags.count(SETTLED, first, last + 1)
    if settled and delivery.touched:
        settled -= sum(flags[index] == SETTLED for index in indexes)  # settled early
    if settled == missing:
        return len(indexes)
    for number, index in enumerate(indexes):
        if any(flag != SETTLED for flag in flags[first:index]):
            return number
        first = index + 1
    return len(indexes)


def _pieces(part: Slice[Any]) -> Iterator[Slice[Any]]:
    """The messages in order, as slices of one delivery each."""
    if not part.rows:
        while len(part.runs) > 1:
            yield part.take(len(part.runs[0][1]))
        yield part
        return
    groups: dict[Delivery, list[Message[Any]]] = {}
    for message in sorted(part.messages, key=_place):
        groups.setdefault(message._delivery, []).append(message)
    yield from map(Slice.of, groups.values())


def _place(message: Message[Any]) -> tuple[int, int]:
    return message._delivery.base, message._index


def _joined(head: Slice[Any] | None, lines: Iterable[_Line]) -> Slice[Any] | None:
    for line in lines:
        for piece in line.release():
            if head is None:
                head = piece
            else:
                head.extend(piece)
    return head
