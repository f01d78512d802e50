"""Cuts messages into batches; loses and repeats nothing. Pure: `now` is given.

There is one open batch per (partition, key). A batch ends by its size, by `max_bytes` (a ceiling
that only a single larger message can exceed), by its age, by a message that asks for it, or when
everything is flushed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from flowstream.pipeline.batch import Batch
from flowstream.pipeline.handlers.return_checks import discard
from flowstream.pipeline.message import Message
from flowstream.texts import interrupts, shown

Splitter = Callable[[Message[Any], Any], tuple[bool, Any]]
"""Called with a message and the accumulator: (is the batch full with it, the next accumulator)."""


class Batching:
    """The open batches of one batcher. `partition` maps a message to its partition."""

    __slots__ = ("_bytes", "_initial", "_open", "_split", "_states", "max_bytes", "messages",
                 "name", "partition", "size", "timeout")  # fmt: skip

    def __init__(
        self,
        name: str,
        size: int | tuple[Any, Splitter],
        timeout: float,
        *,
        max_bytes: int | None = None,
        partition: Callable[[Message[Any]], int] | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self.max_bytes = max_bytes
        self.partition = partition
        self.messages = 0
        self._open: dict[tuple[int | None, Hashable], Batch[Any]] = {}
        self._bytes: dict[tuple[int | None, Hashable], int] = {}
        self._states: dict[tuple[int | None, Hashable], Any] = {}
        self._split: Splitter | None = None
        self._initial: Any = None
        if isinstance(size, tuple):
            self.size = 1 << 62
            self._initial, self._split = size
        else:
            self.size = size

    def put(self, messages: list[Message[Any]], now: float) -> list[Batch[Any]]:
        """Add messages that have neither a key nor a wish; returns the batches that are full."""
        if self.partition is not None or self.max_bytes is not None or self._split is not None:
            return self.put_each(messages, now)
        closed: list[Batch[Any]] = []
        start, count = 0, len(messages)
        while start < count:
            batch = self._open.get(_PLAIN) or self._begin(_PLAIN, now)
            room = self.size - len(batch._own)
            batch._own.extend(messages if count - start <= room and not start
                              else messages[start : start + room])  # fmt: skip
            start += room
            if len(batch._own) >= self.size:
                closed.append(self._close(_PLAIN, "size"))
        self.messages += count - sum(len(batch._own) for batch in closed)
        return closed

    def put_each(self, messages: list[Message[Any]], now: float) -> list[Batch[Any]]:
        """Add messages one by one, minding partition, key, bytes, flush and the splitter.

        An exception of the splitter, or of a key that does not compare, propagates with the
        messages before it added and the one it came from not: `Rejected` tells which.
        """
        closed: list[Batch[Any]] = []
        for index, message in enumerate(messages):
            extra = message._extra
            where = (
                None if self.partition is None else self.partition(message),
                None if extra is None else extra.key,
            )
            try:
                full = self._split is not None and self._ask(where, message)
                self._add(where, message, now, closed)
            except BaseException as error:
                if interrupts(error):
                    raise
                raise Rejected(index, closed) from error
            if where in self._open:
                self._settle_size(where, full, extra is not None and extra.flush, closed)
        return closed

    def expire(self, now: float) -> list[Batch[Any]]:
        """Close the batches whose time is over."""
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
        """When the oldest open batch ends by its age."""
        for batch in self._open.values():
            return batch.opened + self.timeout
        return None

    @property
    def open(self) -> int:
        """How many batches are open."""
        return len(self._open)

    def _ask(self, where: tuple[int | None, Hashable], message: Message[Any]) -> bool:
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
        self,
        where: tuple[int | None, Hashable],
        message: Message[Any],
        now: float,
        closed: list[Batch[Any]],
    ) -> None:
        if self.max_bytes is not None:
            size = len(message.raw)
            if where in self._open and self._bytes[where] + size > self.max_bytes:
                closed.append(self._pop(where, "bytes"))
            self._bytes[where] = self._bytes.get(where, 0) + size
        batch = self._open.get(where) or self._begin(where, now)
        batch._own.append(message)
        self.messages += 1

    def _settle_size(
        self,
        where: tuple[int | None, Hashable],
        full: bool,
        flush: bool,
        closed: list[Batch[Any]],
    ) -> None:
        """Close the batch a message was just added to, where it is full or asked for."""
        if full or len(self._open[where]._own) >= self.size:
            closed.append(self._pop(where, "size"))
        elif self.max_bytes is not None and self._bytes[where] >= self.max_bytes:
            closed.append(self._pop(where, "bytes"))
        elif flush:
            closed.append(self._pop(where, "flush"))

    def _begin(self, where: tuple[int | None, Hashable], now: float) -> Batch[Any]:
        partition, key = where
        batch: Batch[Any] = Batch([], batcher=self.name, key=key, partition=partition, opened=now)
        self._open[where] = batch
        return batch

    def _close(self, where: tuple[int | None, Hashable], trigger: str) -> Batch[Any]:
        batch = self._open.pop(where)
        batch.trigger = trigger
        return batch

    def _pop(self, where: tuple[int | None, Hashable], trigger: str) -> Batch[Any]:
        batch = self._close(where, trigger)
        self._bytes.pop(where, None)
        self._states.pop(where, None)
        self.messages -= len(batch._own)
        return batch


class Rejected(Exception):
    """The splitter or key of the message at `index` raised; `closed` were full before it."""

    def __init__(self, index: int, closed: list[Batch[Any]]) -> None:
        super().__init__(index)
        self.index = index
        self.closed = closed


_PLAIN: tuple[None, None] = (None, None)
