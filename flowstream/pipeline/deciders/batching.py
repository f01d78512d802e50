"""Cuts slices into batches, and loses or repeats no message. Pure: `now` is given.

There is one open batch per (partition, key). A batch is closed by its size, by `max_bytes` (which
only a single larger message can exceed), by its age, by a message with `flush`, or when everything
is flushed. What a sink rolls (rolling.py) is kept apart by its key, and closed after its window.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterator
from datetime import date, datetime
from itertools import accumulate
from typing import Any
from uuid import UUID

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.deciders.rolling import Rolling
from flowstream.pipeline.handlers.return_checks import discard
from flowstream.pipeline.message import Message
from flowstream.pipeline.options import BatcherOptions, Full
from flowstream.pipeline.slice import Slice
from flowstream.texts import interrupts, shown

Where = tuple[int | None, Hashable]
"""The partition and the key of an open batch."""


class Batching:
    """The open batches of one batcher. `partition` maps a message to its partition.

    If not `keyed`, messages with different keys share a batch. `wall` gives the seconds since the
    epoch, which windows are aligned to.
    """

    __slots__ = ("_bytes", "_due", "_initial", "_keyed", "_open", "_rolling", "_split", "_states",
                 "_wall", "max_bytes", "messages", "name", "partition", "size",
                 "timeout")  # fmt: skip

    def __init__(
        self,
        options: BatcherOptions,
        *,
        partition: Callable[[Message[Any]], int] | None = None,
        keyed: bool = True,
        rolling: Rolling | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._rolling = rolling if rolling is not None and rolling.keyed else None
        self._wall = wall
        self._due: dict[Where, float] = {}
        """When the batches of windows are closed by their age."""
        self.name: str = options.name
        self.timeout: float = options.batch_timeout
        self.max_bytes: int | None = options.max_bytes
        self.partition: Callable[[Message[Any]], int] | None = partition
        self.messages: int = 0
        self._keyed = keyed
        self._open: dict[Where, Batch[Any]] = {}
        self._bytes: dict[Where, int] = {}
        self._states: dict[Where, Any] = {}
        self._split: Full | None = None
        self._initial: Any = None
        if isinstance(options.size, tuple):
            self.size: int = 1 << 62
            self._initial, self._split = options.size
        else:
            self.size = 1 << 62 if options.size is None else options.size

    def put(self, part: Slice[Any], now: float) -> list[Batch[Any]]:
        """Add messages without batch key or flush. Returns the batches that are full."""
        rolling = self._rolling
        if self._split is not None or (rolling is not None and rolling.apart is not None):
            return self.put_each(part.messages, now)
        closed: list[Batch[Any]] = []
        if rolling is None:
            self._put_all(None, part, now, closed)
        else:
            for key, piece in self._by_window(part, rolling):
                self._put_all(key, piece, now, closed)
        return closed

    def _put_all(
        self, key: Hashable, part: Slice[Any], now: float, closed: list[Batch[Any]]
    ) -> None:
        if self.partition is None:
            self._fill(_PLAIN if key is None else (None, key), part, now, closed)
        else:
            parts: dict[int, list[Message[Any]]] = {}
            for message in part.messages:
                parts.setdefault(self.partition(message), []).append(message)
            for number, messages in parts.items():
                self._fill((number, key), Slice.of(messages), now, closed)

    def put_each(self, messages: list[Message[Any]], now: float) -> list[Batch[Any]]:
        """Add messages by their partition, key, bytes, flush and the splitter.

        Raises `Rejected` if the splitter raises, or a key that cannot be compared: the messages
        before it are added, and that message is not.
        """
        closed: list[Batch[Any]] = []
        together = self._together(messages)
        if together is None:
            self._put_one_by_one(messages, now, closed)
            return closed
        for where, some, flush in together:
            self._fill(where, Slice.of(some), now, closed)
            if flush and where in self._open:
                closed.append(self._pop(where, "flush"))
        return closed

    def _together(
        self, messages: list[Message[Any]]
    ) -> list[tuple[Where, list[Message[Any]], bool]] | None:
        """The messages that belong into one batch, and whether the last of them closes it.

        None if each has to be looked at alone: for a window, a splitter, or a key whose comparison
        may raise.
        """
        if self._split is not None or self._rolling is not None:
            return None
        partition_of, keyed = self.partition, self._keyed
        found: list[tuple[Where, list[Message[Any]], bool]] = []
        some: dict[Where, list[Message[Any]]] = {}
        for message in messages:
            extra = message._extra
            key = None if extra is None or not keyed else extra.key
            if key is not None and not _is_safe(key):
                return None
            where = (None if partition_of is None else partition_of(message), key)
            if where in some:
                some[where].append(message)
            else:
                some[where] = [message]
            if extra is not None and extra.flush:
                found.append((where, some.pop(where), True))
        found += [(where, rest, False) for where, rest in some.items()]
        return found

    def _put_one_by_one(
        self, messages: list[Message[Any]], now: float, closed: list[Batch[Any]]
    ) -> None:
        for index, message in enumerate(messages):
            extra = message._extra
            partition = None if self.partition is None else self.partition(message)
            key = None if extra is None or not self._keyed else extra.key
            try:
                where = (partition, key if self._rolling is None else self._rolled(message, key))
                full = self._split is not None and self._ask(where, message)
                self._add(where, message, now, closed)
            except BaseException as error:
                if interrupts(error):
                    raise
                raise Rejected(index, closed) from error
            if where in self._open:
                self._close_full(where, full, extra is not None and extra.flush, closed)

    def expire(self, now: float) -> list[Batch[Any]]:
        """Close the batches that are older than their timeout."""
        if self._due:
            due = [where for where, when in self._due.items() if when <= now]
            return [self._pop(where, "timeout") for where in due]
        closed = []
        while self._open:
            where, batch = next(iter(self._open.items()))
            if batch.opened + self.timeout > now:
                break
            closed.append(self._pop(where, "timeout"))
        return closed

    def flush(self, trigger: str) -> list[Batch[Any]]:
        """Close every open batch."""
        return [self._pop(where, trigger) for where in list(self._open)]

    @property
    def deadline(self) -> float | None:
        """When the next open batch is closed by its age."""
        if self._due:
            return min(self._due.values())
        for batch in self._open.values():
            return batch.opened + self.timeout
        return None

    @property
    def longest(self) -> float:
        """The seconds that a batch stays open, at most, while messages come for it."""
        window = None if self._rolling is None else self._rolling.window
        return self.timeout + (window or 0.0)

    @property
    def open(self) -> int:
        """How many batches are open."""
        return len(self._open)

    # -- windows

    def _rolled(self, message: Message[Any], key: Hashable) -> Hashable:
        """The key of a message whose batch is rolled: its own, its window, and what else counts."""
        assert self._rolling is not None
        apart = None if self._rolling.apart is None else self._rolling.apart(message)
        return key, self._rolling.begin(message.timestamp, self._wall()), apart

    def _by_window(
        self, part: Slice[Any], rolling: Rolling
    ) -> Iterator[tuple[Hashable, Slice[Any]]]:
        """The parts of a slice that are of one window each."""
        wall = self._wall()
        while len(part):
            count, window = 0, 0.0
            for delivery, indexes in part.runs:
                begin = rolling.begin(delivery.timestamp, wall)
                if count and begin != window:
                    break
                window, count = begin, count + len(indexes)
            whole = count == len(part)
            yield (None, window, None), part if whole else part.take(count)
            if whole:
                return

    def _wait_for_window(self, where: Where, now: float) -> None:
        """A message was added to a batch: it stays open until no more come, and its window ends."""
        if self._rolling is not None and self._rolling.window is not None:
            key: Any = where[1]  # as `_rolled` makes it
            left = self._rolling.remaining(key[1], self._wall())
            self._due[where] = now + left + self.timeout

    # -- slices

    def _fill(self, where: Where, part: Slice[Any], now: float, closed: list[Batch[Any]]) -> None:
        """Add a slice to the open batch, and to as many new ones as it fills."""
        while count := len(part):
            batch = self._open.get(where)
            room = self.size - (0 if batch is None else len(batch._slice))
            if self.max_bytes is not None:
                room = min(room, self._fitting(where, part))
                if not room:
                    closed.append(self._pop(where, "bytes"))
                    continue
            head = part.take(room) if room < count else part
            if self.max_bytes is not None:
                self._bytes[where] = self._bytes.get(where, 0) + head.size
            self.messages += len(head)
            if batch is None:
                self._begin(where, now, head)
            else:
                batch._slice.extend(head)
            self._wait_for_window(where, now)
            self._close_full(where, False, False, closed)
            if head is part:
                break

    def _fitting(self, where: Where, part: Slice[Any]) -> int:
        """How many messages of the slice fit into the open batch by their sizes, at least one
        into a new one."""
        assert self.max_bytes is not None
        room = self.max_bytes - self._bytes.get(where, 0)
        if part.size <= room:
            return len(part)
        fitting = bisect_right(list(accumulate(map(len, part.raw))), room)
        return fitting if where in self._open else max(fitting, 1)

    # -- single messages

    def _ask(self, where: Where, message: Message[Any]) -> bool:
        assert self._split is not None
        answer: Any = self._split(message, self._states.get(where, self._initial))
        if not isinstance(answer, tuple) or len(answer) != 2:
            discard(answer)
            raise TypeError(
                f"the batch size function returned {shown(answer)}, not (full, accumulator)"
            )
        full, state = answer
        self._states[where] = state
        return bool(full)

    def _add(
        self, where: Where, message: Message[Any], now: float, closed: list[Batch[Any]]
    ) -> None:
        if self.max_bytes is not None:
            size = len(message.raw)
            if where in self._open and self._bytes[where] + size > self.max_bytes:
                closed.append(self._pop(where, "bytes"))
            self._bytes[where] = self._bytes.get(where, 0) + size
        batch = self._open.get(where)
        if batch is None:
            self._begin(where, now, Slice.of([message]))
        else:
            batch._slice.append(message)
        self._wait_for_window(where, now)
        self.messages += 1

    def _close_full(self, where: Where, full: bool, flush: bool, closed: list[Batch[Any]]) -> None:
        """Close the batch that was just added to, if it is full or a message asks for it."""
        if full or len(self._open[where]._slice) >= self.size:
            closed.append(self._pop(where, "size"))
        elif self.max_bytes is not None and self._bytes[where] >= self.max_bytes:
            closed.append(self._pop(where, "bytes"))
        elif flush:
            closed.append(self._pop(where, "flush"))

    # -- batches

    def _begin(self, where: Where, now: float, part: Slice[Any]) -> None:
        partition, key = where
        self._open[where] = Batch(part, batcher=self.name, key=key, partition=partition, opened=now)

    def _pop(self, where: Where, trigger: str) -> Batch[Any]:
        batch = self._open.pop(where)
        batch.trigger = trigger
        self._bytes.pop(where, None)
        self._due.pop(where, None)
        self._states.pop(where, None)
        self.messages -= len(batch._slice)
        return batch


class Rejected(Exception):
    """The splitter or key of the message at `index` raised; `closed` were full before it."""

    def __init__(self, index: int, closed: list[Batch[Any]]) -> None:
        super().__init__(index)
        self.index = index
        self.closed = closed


_PLAIN: Where = (None, None)
_SAFE_KEYS = frozenset({str, int, bytes, float, bool, date, datetime, UUID})


def _is_safe(key: Hashable) -> bool:
    """Whether comparing the key raises nothing, and runs no code of a user."""
    if type(key) is tuple:
        return all(type(part) in _SAFE_KEYS for part in key)
    return type(key) in _SAFE_KEYS
