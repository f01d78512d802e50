"""The buffer of a publisher: bodies become entries with publishing ids, and entries frames. Pure.

An entry gets its ids and is queued in one synchronous step. So the ids on the wire strictly
increase, no matter how many tasks use the publisher: brokers drop an id below the last one as a
duplicate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Final

from flowstream.errors import ConfigurationError, MessageTooLarge
from flowstream.protocol import AmqpMessage, Compression, split_at, sub_entry
from flowstream.schema import FILTER_VALUE
from flowstream.texts import shown

from .framing import (
    FILTER_OVERHEAD,
    FRAME_OVERHEAD,
    OVERHEAD,
    SUB_ENTRY_OVERHEAD,
    encode_entry,
    weights,
)
from .unconfirmed import Entry, Unconfirmed, Waiter

TAIL_MESSAGES = 512
"""The most messages sent one by one that share an entry; then the connection may write."""


class SendBuffer:
    """Holds at most `max_messages` and `max_bytes`; if empty, it accepts one entry of any size."""

    __slots__ = (
        "_compression",
        "_last_id",
        "_open",
        "_open_bytes",
        "_sub_entry_size",
        "_tail",
        "frame_max",
        "log",
        "max_bytes",
        "max_messages",
        "next_id",
        "sent_bytes",
        "sent_messages",
        "stream",
    )

    def __init__(
        self,
        stream: str,
        *,
        max_messages: int,
        max_bytes: int,
        frame_max: int,
        sub_entry_size: int = 0,
        compression: Compression = Compression.NONE,
    ) -> None:
        self.stream: str = stream
        self.max_messages: int = max_messages
        self.max_bytes: int = max_bytes
        self.frame_max: int = frame_max
        self.next_id: int = 1
        self.log: Final = Unconfirmed()
        self.sent_messages: int = 0
        self.sent_bytes: int = 0
        self._sub_entry_size = sub_entry_size
        self._compression = compression
        self._last_id = -1
        self._tail: Entry | None = None
        self._open: list[bytes] = []
        self._open_bytes = 0

    @property
    def messages(self) -> int:
        """The number of messages that are not confirmed."""
        return self.log.messages + len(self._open)

    @property
    def size(self) -> int:
        """The bytes that they take in frames."""
        return self.log.bytes + self._open_bytes

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self.log.queued and not self._open

    def has_room(self, messages: int, size: int) -> bool:
        if not self.messages:
            return True
        return self.messages + messages <= self.max_messages and self.size + size <= self.max_bytes

    @property
    def max_body(self) -> int | None:
        """The most bytes of a body without a filter value; None for no limit."""
        return self.frame_max - FRAME_OVERHEAD - OVERHEAD if self.frame_max else None

    def check_size(self, size: int) -> None:
        """Raises MessageTooLarge for a message whose `size` bytes do not fit into a frame."""
        if self.frame_max and size + FRAME_OVERHEAD > self.frame_max:
            raise MessageTooLarge(
                f'a message for "{self.stream}" takes {size:,} bytes, but a frame of this '
                f"connection has at most {self.frame_max:,}; raise the broker's stream.frame_max "
                "and frame_max=, or send a smaller message",
                stream=self.stream,
            )

    # --- many -----------------------------------------------------------------------------------

    def pieces(
        self,
        bodies: Sequence[bytes | AmqpMessage],
        ids: Sequence[int] | None,
        filters: Sequence[str | None] | None,
    ) -> list[Entry]:
        """Divides bodies into entries. Each fits into a frame and into half of the window.

        Raises MessageTooLarge, or ConfigurationError for invalid bodies, ids or filter values. It
        accepts nothing itself, so an error means that nothing was sent.
        """
        count = len(bodies)
        _check_pairs(count, "publishing_ids", ids)
        _check_pairs(count, "filter_values", filters)
        for value in filters or ():
            if value is not None:
                FILTER_VALUE.check("filter_value", value)
        items = plain_bodies(bodies)
        if self._sub_entry_size:
            return self._batches(items, ids, filters)
        most = max(1, self.max_messages // 2)
        size = sum(map(len, items)) + OVERHEAD * count
        own_ids = None if ids is None else list(ids)
        fits = not self.frame_max or size + FRAME_OVERHEAD <= self.frame_max
        if fits and filters is None and count <= most:
            return [Entry(items, size, ids=own_ids)]
        own_filters = None if filters is None else list(filters)
        return self._cut(Entry(items, 0, ids=own_ids, filters=own_filters), most)

    def _cut(self, whole: Entry, most: int) -> list[Entry]:
        sizes = weights(whole, range(len(whole.items)))
        self.check_size(max(sizes))
        entries: list[Entry] = []
        start = 0
        for frame_end in split_at(sizes, self.frame_max, 0):
            while start < frame_end:
                end = min(start + most, frame_end)
                entries.append(
                    Entry(
                        whole.items[start:end],
                        sum(sizes[start:end]),
                        ids=whole.ids and whole.ids[start:end],
                        filters=whole.filters and whole.filters[start:end],
                        batched=whole.batched,
                    )
                )
                start = end
        return entries

    def _batches(
        self,
        bodies: list[bytes],
        ids: Sequence[int] | None,
        filters: Sequence[str | None] | None,
    ) -> list[Entry]:
        """Divides bodies into sub-entries. Each fits into a frame even if it does not compress."""
        if ids is not None or filters is not None:
            raise ConfigurationError(
                "a publisher with sub_entry_size= does not accept publishing ids or filter values: "
                "the messages of a sub-entry share one id"
            )
        room = self.frame_max and self.frame_max - FRAME_OVERHEAD - SUB_ENTRY_OVERHEAD
        groups: list[list[bytes]] = []
        start = 0
        for frame_end in split_at(list(map(len, bodies)), room, 4):
            while start < frame_end:
                end = min(start + self._sub_entry_size, frame_end)
                groups.append(bodies[start:end])
                start = end
        batches = [sub_entry(0, group, self._compression) for group in groups]
        most = max(1, self.max_messages // 2 // self._sub_entry_size)
        return self._cut(Entry(batches, 0, batched=True), most)

    def accept(self, entry: Entry, now: float, waiter: Waiter | None = None) -> None:
        """Queues an entry of `pieces`; raises ConfigurationError if its ids do not increase."""
        if self._open:
            self.seal(now)
        if entry.ids is not None:
            self._check_ids(entry.ids)
        entry.accept(self.next_id, now, waiter)
        if entry.batched:
            ids = entry.publishing_ids
            entry.items = [
                replace(batch, publishing_id=number)
                for number, batch in zip(ids, entry.items, strict=True)
            ]
        self._last_id = entry.last
        self.next_id = entry.last + 1
        self.log.append(entry)
        self._tail = None

    def _check_ids(self, ids: Sequence[object]) -> None:
        previous = self._last_id
        for number in ids:
            if not isinstance(number, int) or number < 0:
                raise ConfigurationError(
                    f"publishing_id={number!r}: expected a whole number of at least 0"
                )
            if number <= previous:
                raise ConfigurationError(
                    f"publishing_id={number}: ids must strictly increase, and the last one was "
                    f"{previous}"
                )
            previous = number
        if previous >= 1 << 64:
            raise ConfigurationError(f"publishing_id={previous}: must fit into 64 bits")

    # --- one by one -----------------------------------------------------------------------------

    def add(self, body: bytes, size: int, now: float) -> bool:
        """Queues one message with the next id; returns True if the connection should write now."""
        if self._sub_entry_size:
            return self._add_open(body, size, now)
        tail = self._tail
        if tail is None or (self.frame_max and tail.size + size + FRAME_OVERHEAD > self.frame_max):
            entry = Entry([body], size)
            self.accept(entry, now)
            self._tail = entry
            return False
        tail.items.append(body)
        tail.size += size
        tail.last = self._last_id = self.next_id
        tail.left += 1
        self.next_id += 1
        self.log.messages += 1
        self.log.bytes += size
        if tail.left < TAIL_MESSAGES:
            return False
        self._tail = None
        return True

    def _add_open(self, body: bytes, size: int, now: float) -> bool:
        self._open.append(body)
        self._open_bytes += size
        if len(self._open) < self._sub_entry_size:
            return False
        self.seal(now)
        return True

    def seal(self, now: float) -> None:
        """Queues the messages that were added one by one as sub-entries."""
        bodies, self._open, self._open_bytes = self._open, [], 0
        if bodies:
            for entry in self._batches(bodies, None, None):
                self.accept(entry, now)

    def expire(self, accepted_before: float) -> list[int]:
        """As `Unconfirmed.expire`. The last entry may be dropped, so it takes no more messages."""
        self._tail = None
        return self.log.expire(accepted_before)

    # --- out ------------------------------------------------------------------------------------

    def fill(self, publisher_id: int, buffers: list[bytes], limit: int, now: float) -> bool:
        """Appends frames of about `limit` bytes to `buffers`; returns whether there are more."""
        self.seal(now)
        size = 0
        while size < limit:
            entry = self.log.take()
            if entry is None:
                return False
            if entry is self._tail:
                self._tail = None
            buffers += encode_entry(publisher_id, entry, self.frame_max)
            size += entry.size
            self.sent_messages += entry.messages
            self.sent_bytes += entry.size
        return self.log.queued


def size_of(body: bytes, filter_value: str | None = None) -> int:
    """The bytes that a message takes in a frame."""
    if filter_value is None:
        return len(body) + OVERHEAD
    return len(body) + FILTER_OVERHEAD + len(filter_value.encode())


_raw_of = attrgetter("raw")


def plain_body(body: object) -> bytes:
    """The bytes of a body or of an AMQP message; raises ConfigurationError for other types."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, AmqpMessage):
        return body.raw
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    raise ConfigurationError(
        f"a message body must be bytes or an AmqpMessage, not {type(body).__name__}; encode it"
    )


def check_bodies(bodies: object) -> None:
    """Raises ConfigurationError unless it is a list: an iterator could not be sent again."""
    if not isinstance(bodies, Sequence) or isinstance(bodies, str | bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"bodies={shown(bodies)}: expected a list of messages; `send` and `publish` take one"
        )


def plain_bodies(bodies: Sequence[object]) -> list[bytes]:
    """A new list of the bodies as bytes: one look at the types where all have the same."""
    types = set(map(type, bodies))
    if types == {bytes}:
        return list(bodies)  # type: ignore[arg-type]
    if types == {AmqpMessage}:
        return list(map(_raw_of, bodies))
    return list(map(plain_body, bodies))


def _check_pairs(count: int, name: str, values: Sequence[object] | None) -> None:
    if values is not None and len(values) != count:
        raise ConfigurationError(
            f"{name} has {len(values)} items for {count} bodies; pass one for each"
        )
