"""From bodies to entries of the unconfirmed log: ids, sizes, windows, frames. Pure.

Ids are given and entries are queued in one synchronous step, so that they strictly increase
however many tasks send on one publisher.
"""

from __future__ import annotations

from collections.abc import Sequence

from flowstream.errors import ConfigurationError, MessageTooLarge
from flowstream.protocol import split_at

from .framing import FILTER_OVERHEAD, FRAME_OVERHEAD, OVERHEAD, encode_entry, weights
from .unconfirmed import Entry, Unconfirmed, Waiter

TAIL_MESSAGES = 512


class Outbox:
    """Bounded by `max_messages` and `max_bytes`; an empty one takes anything that fits a frame."""

    __slots__ = (
        "_last_id",
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

    def __init__(self, stream: str, max_messages: int, max_bytes: int, frame_max: int) -> None:
        self.stream = stream
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.frame_max = frame_max
        self.next_id = 1
        self._last_id = -1
        self.log = Unconfirmed()
        self.sent_messages = self.sent_bytes = 0
        self._tail: Entry | None = None

    def has_room(self, messages: int, size: int) -> bool:
        log = self.log
        if not log.messages:
            return True
        return log.messages + messages <= self.max_messages and log.bytes + size <= self.max_bytes

    def check_size(self, size: int) -> None:
        """Raises MessageTooLarge for a message that takes `size` bytes and can never be sent."""
        if self.frame_max and size + FRAME_OVERHEAD > self.frame_max:
            raise MessageTooLarge(
                f'a message for "{self.stream}" takes {size:,} bytes, and a frame of this '
                f"connection has {self.frame_max:,}; raise the broker's stream.frame_max and "
                "frame_max=, or send less",
                stream=self.stream,
            )

    def pieces(
        self,
        bodies: Sequence[bytes],
        ids: Sequence[int] | None,
        filters: Sequence[str | None] | None,
    ) -> list[Entry]:
        """The bodies as entries, each fitting a frame and half of the window.

        Raises before anything is accepted: MessageTooLarge, or ConfigurationError for ids or
        filter values that do not fit the bodies.
        """
        count = len(bodies)
        _check_pairs(count, "publishing_ids", ids)
        _check_pairs(count, "filter_values", filters)
        most = max(1, self.max_messages // 2)
        size = sum(map(len, bodies)) + OVERHEAD * count
        if (
            filters is None
            and count <= most
            and (not self.frame_max or size + FRAME_OVERHEAD <= self.frame_max)
        ):
            return [Entry(list(bodies), size, ids=None if ids is None else list(ids))]
        whole = Entry(
            list(bodies),
            0,
            ids=None if ids is None else list(ids),
            filters=None if filters is None else list(filters),
        )
        return self._cut(whole, most)

    def _cut(self, whole: Entry, most: int) -> list[Entry]:
        sizes = weights(whole, list(range(len(whole.items))))
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

    def accept(self, entry: Entry, now: float, waiter: Waiter | None = None) -> None:
        """Queues an entry of `pieces`; raises ConfigurationError for ids that do not increase."""
        if entry.ids is not None:
            self.check_ids(entry.ids)
        entry.accept(self.next_id, now, waiter)
        self._last_id = entry.last
        self.next_id = entry.last + 1
        self.log.append(entry)
        self._tail = None

    def add(self, body: bytes, size: int, now: float) -> bool:
        """Queues one message with the next id; true when it is time to let the writer run."""
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

    def check_ids(self, ids: Sequence[int]) -> None:
        previous = self._last_id
        for number in ids:
            if number <= previous:
                raise ConfigurationError(
                    f"publishing_id {number} follows {previous}: ids must strictly increase"
                )
            previous = number

    def fill(self, publisher_id: int, buffers: list[bytes], limit: int) -> bool:
        """Appends frames of about `limit` bytes; returns whether there are more."""
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


def size_of(body: bytes, filter_value: str | None) -> int:
    """The bytes that one message takes in a frame."""
    if filter_value is None:
        return len(body) + OVERHEAD
    return len(body) + FILTER_OVERHEAD + len(filter_value.encode())


def _check_pairs(count: int, name: str, values: Sequence[object] | None) -> None:
    if values is not None and len(values) != count:
        raise ConfigurationError(f"{name} has {len(values)} items for {count} bodies")
