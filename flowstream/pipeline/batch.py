"""A batch: the messages that a batch handler gets together."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from flowstream.pipeline.arrow import table_of
from flowstream.pipeline.message import Message
from flowstream.pipeline.slice import Slice
from flowstream.texts import shown

T = TypeVar("T")
D = TypeVar("D")


class Origin(NamedTuple):
    """Where some messages of a batch come from, for sinks that write each message once.

    Of the messages of a batch from `start` on, as many as there are `offsets` were delivered
    together from `stream`, at `timestamp`. `resumes`: the producer stores offsets, so that the next
    run gets a message that is not settled under the same offset.
    """

    stream: str
    start: int
    offsets: Sequence[int]
    timestamp: int
    resumes: bool


class Batch(Generic[T]):
    """Messages handled together; they share one `key` and one `partition`.

    `data`, `raw` and `offsets` have one entry for each message, and `messages` are the same as
    objects, made when they are first asked for.

    `trigger` is the reason why it was closed: "size", "bytes", "timeout", "flush", "window" (all
    messages in flight were waiting in open batches), "order" (messages of another sink that writes
    exactly once wait for it), "drain", "resize" or "retry". `partition` is None without
    `partition_by`. `attempt` is 1 at the first attempt.
    """

    __slots__ = ("_given", "_messages", "_settled", "_slice", "attempt", "batcher", "key", "opened",
                 "partition", "trigger")  # fmt: skip

    def __init__(
        self,
        messages: Slice[T] | list[Message[T]],
        *,
        batcher: str = "default",
        key: Hashable = None,
        partition: int | None = None,
        trigger: str = "size",
        opened: float = 0.0,
        attempt: int = 1,
    ) -> None:
        self._slice: Slice[T] = messages if isinstance(messages, Slice) else Slice.of(messages)
        self._messages: list[Message[T]] | None = None
        self._settled: Mapping[str, range] | None = None
        self._given: Sequence[Any] | None = None
        self.batcher: str = batcher
        self.key: Hashable = key
        self.partition: int | None = partition
        self.trigger: str = trigger
        self.opened: float = opened
        self.attempt: int = attempt

    @classmethod
    def new(cls, *data: D, key: Hashable = None, trigger: str = "size") -> Batch[D]:
        """A batch outside of any pipeline, to call a handler with."""
        messages = [Message.new(item, offset=offset) for offset, item in enumerate(data)]
        return Batch(messages, key=key, trigger=trigger)

    @property
    def messages(self) -> list[Message[T]]:
        """The messages as objects. The handler may sort or shorten the list."""
        if self._messages is None:
            self._messages = list(self._slice.messages)
        return self._messages

    @property
    def data(self) -> list[T]:
        """The messages' data, in order, as a new list."""
        if self._messages is not None:
            return [message.data for message in self._messages]
        return self._slice.data

    @property
    def raw(self) -> list[bytes]:
        """The messages' bodies as they were delivered, in order, as a new list."""
        if self._messages is not None:
            return [message.raw for message in self._messages]
        return self._slice.raw

    @property
    def offsets(self) -> list[int]:
        """The messages' offsets, in order; they may be of several streams."""
        if self._messages is not None:
            return [message.offset for message in self._messages]
        return self._slice.offsets

    @property
    def settled(self) -> Mapping[str, range] | None:
        """The offsets that the run had settled without a gap before this batch, by stream.

        What is in a range is not handled again by a later run. Streams are missing whose source
        stores no offsets: theirs say nothing about another run. None outside of any pipeline.
        """
        return self._settled

    @property
    def origins(self) -> list[Origin]:
        """Where the messages come from: the streams and their offsets, in the order of `data`."""
        origins: list[Origin] = []
        start = 0
        part = self._slice if self._messages is None else Slice.of(self._messages)
        for delivery, indexes in part.runs:
            source = delivery.partition
            offsets = delivery.offsets(indexes)
            origin = Origin(source.stream, start, offsets, delivery.timestamp, source.resumes)
            origins.append(origin)
            start += len(indexes)
        return origins

    def to_arrow(self, schema: Any = None, *, origin: bool = False) -> Any:
        """The data as a `pyarrow.Table`, a row for each message, in order. Needs pyarrow.

        The columns are the fields of the model, dataclass or msgspec Struct that the data are
        objects of, with the types that it declares. Dicts, and bytes that hold JSON objects, have
        the columns that are in them, with the types of the values; `schema`, a `pyarrow.Schema` or
        a model, says both instead. `origin=True` adds the columns `_stream` and `_offset`.

        Raises TypeError or ValueError where the data are not rows, or a value does not have the
        type of its column.
        """
        places = [(it.stream, offset) for it in self.origins for offset in it.offsets]
        return table_of(self.data, schema, places if origin else None)

    @property
    def size(self) -> int:
        """The number of messages."""
        return len(self)

    @property
    def bytes(self) -> int:
        """The sum of the bodies' sizes as they were delivered."""
        return self._slice.size

    def __len__(self) -> int:
        return len(self._slice if self._messages is None else self._messages)

    def __iter__(self) -> Iterator[Message[T]]:
        return iter(self.messages)

    def __reduce__(self) -> Any:
        """A batch is pickled without its pipeline."""
        options = (self.batcher, self.key, self.partition, self.trigger, self.opened, self.attempt)
        return _arrived, (self.messages, options, self._settled)

    def __repr__(self) -> str:
        return f"<Batch {self.batcher} size={self.size} key={shown(self.key)} {self.trigger}>"

    # -- for the stages

    def _remember(self) -> None:
        """The handler may be called again: with the data that the messages have now."""
        part = self._slice
        self._given = part.data if part.rows else part.columns[1]

    def _again(self, messages: list[Message[Any]]) -> Batch[Any]:
        """The batch with which `messages` are tried again, in place of this one.

        The messages are clones, because a handler that hangs in a thread still holds the old ones.
        They have the data that was remembered, whatever the handler has assigned to it since.
        """
        assert self._given is not None
        attempt = self.attempt + 1
        given = dict(zip(map(id, self._slice.messages), self._given, strict=True))
        clones = [
            message._clone(
                data=given[id(message)],
                attempt=attempt,
                decided=True,
                joint=None if message._extra is None else message._extra.joint,
            )
            for message in messages
        ]
        return Batch(
            clones, batcher=self.batcher, key=self.key, partition=self.partition, trigger="retry",
            opened=self.opened, attempt=attempt,
        )  # fmt: skip


def _arrived(
    messages: list[Message[Any]], options: Any, settled: Mapping[str, range] | None
) -> Batch[Any]:
    """A batch that was unpickled in a worker process."""
    batcher, key, partition, trigger, opened, attempt = options
    batch: Batch[Any] = Batch(
        messages, batcher=batcher, key=key, partition=partition, trigger=trigger, opened=opened,
        attempt=attempt,
    )  # fmt: skip
    batch._settled = settled
    return batch
