"""A batch: what a batcher hands to its handler."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

from flowstream.pipeline.message import Extra, Message
from flowstream.texts import shown

T = TypeVar("T")


class Batch(Generic[T]):
    """Messages handled together; they share one `key` and one `partition`.

    `trigger` tells why it was closed: "size", "bytes", "timeout", "flush", "window" (everything
    in flight was waiting in open batches), "drain" or "retry". `partition` is None without
    `partition_by`. `attempt` is 1 at the first try.
    """

    __slots__ = ("_own", "attempt", "batcher", "key", "messages", "opened", "partition", "trigger")

    def __init__(
        self,
        messages: list[Message[T]],
        *,
        batcher: str = "default",
        key: Hashable = None,
        partition: int | None = None,
        trigger: str = "size",
        opened: float = 0.0,
        attempt: int = 1,
    ) -> None:
        self.messages = messages
        self._own = messages
        self.batcher = batcher
        self.key = key
        self.partition = partition
        self.trigger = trigger
        self.opened = opened
        self.attempt = attempt

    @classmethod
    def new(cls, *data: T, key: Hashable = None, trigger: str = "size") -> Batch[T]:
        """A batch outside of any pipeline, to call a handler with."""
        messages = [Message.new(item, offset=offset) for offset, item in enumerate(data)]
        return cls(messages, key=key, trigger=trigger)

    @property
    def data(self) -> list[T]:
        """The messages' data, in order, as a new list."""
        return [message.data for message in self.messages]

    @property
    def size(self) -> int:
        return len(self.messages)

    @property
    def bytes(self) -> int:
        """The sum of the bodies' sizes as they were delivered."""
        return sum(len(message.raw) for message in self._own)

    def __len__(self) -> int:
        return len(self.messages)

    def __iter__(self) -> Iterator[Message[T]]:
        return iter(self.messages)

    def __repr__(self) -> str:
        return f"<Batch {self.batcher} size={self.size} key={shown(self.key)} {self.trigger}>"


def again(batch: Batch[Any], messages: list[Message[Any]]) -> Batch[Any]:
    """The batch of `messages` to try once more, in the place of `batch`.

    The messages are copies: a handler that hangs in a thread keeps the old ones.
    """
    return Batch(
        [_once_more(message, batch.attempt + 1) for message in messages],
        batcher=batch.batcher,
        key=batch.key,
        partition=batch.partition,
        trigger="retry",
        opened=batch.opened,
        attempt=batch.attempt + 1,
    )


def _once_more(message: Message[T], attempt: int) -> Message[T]:
    copy = Message(message._delivery, message._index, message.data, message.raw)
    if hasattr(message, "_hash"):
        copy._hash = message._hash
    copy._extra = extra = Extra()
    extra.attempt = attempt
    old = message._extra
    if old is not None:
        extra.key, extra.flush, extra.routes = old.key, old.flush, old.routes
        extra.joint, extra.early, extra.ack = old.joint, old.early, old.ack
    return copy
