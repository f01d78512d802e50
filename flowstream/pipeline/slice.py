"""A slice: messages that one worker gets together. Slices are what flows between the stages.

A slice has one of two shapes. As **columns** it is a list of bodies and one of decoded data, and
its messages are runs of indexes of a delivery: offsets follow by arithmetic, a range is settled at
once, and no message has an object. As **rows** it is a list of `Message`. It changes to rows when
its messages are first asked for (for a route, a key, a failure, a handler that keeps a message),
and never back, so that no decision about a message gets lost in a second copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, repeat
from operator import attrgetter
from typing import Any, Generic, TypeVar

from flowstream.pipeline.delivery import Delivery
from flowstream.pipeline.message import Message
from flowstream.texts import shown

T = TypeVar("T")
D = TypeVar("D")

Run = tuple[Delivery, Sequence[int]]
"""Some messages of a delivery, by their indexes: a range where they are consecutive."""


class Slice(Generic[T]):
    """Messages in the order of their stream, such as a handler with `slices=True` gets.

    `data` is what their bodies decode to, `raw` the bodies as they were delivered, and `offsets`
    where they are in their stream; all three have one entry for each message. `messages` are the
    same as objects, made when they are first asked for: use them, or `fail` and `drop`, where one
    message needs a decision of its own.
    """

    __slots__ = ("_bytes", "_data", "_messages", "_raw", "_runs")

    def __init__(
        self,
        runs: list[Run] | None,
        *,
        raw: list[bytes] | None = None,
        data: list[Any] | None = None,
        messages: list[Message[Any]] | None = None,
        size: int | None = None,
    ) -> None:
        self._runs = runs
        self._raw = raw
        self._data = data
        self._messages = messages
        self._bytes = size

    @classmethod
    def of(cls, messages: list[Message[T]]) -> Slice[T]:
        """A slice of these messages. It takes over the list."""
        return cls(None, messages=messages)

    @classmethod
    def new(
        cls, *data: D, raw: Sequence[bytes] = (), stream: str = "", offset: int = 0
    ) -> Slice[D]:
        """A slice without a pipeline, to call a handler with in a test."""
        bodies = [*raw] or [b""] * len(data)
        messages = [
            Message.new(item, raw=body, stream=stream, offset=offset + index)
            for index, (item, body) in enumerate(zip(data, bodies, strict=True))
        ]
        return Slice.of(messages)

    # -- what a handler sees

    @property
    def data(self) -> list[T]:
        """The messages' data, in order, as a new list."""
        if self._messages is not None:
            return [message.data for message in self._messages]
        return list(self.columns[1])

    @property
    def raw(self) -> list[bytes]:
        """The messages' bodies as they were delivered, in order, as a new list."""
        if self._messages is not None:
            return [message.raw for message in self._messages]
        return list(self.columns[0])

    @property
    def offsets(self) -> list[int]:
        """The messages' offsets, in order."""
        if self._messages is not None and self._runs is None:
            return [message.offset for message in self._messages]
        return [offset for delivery, indexes in self.runs for offset in delivery.offsets(indexes)]

    @property
    def messages(self) -> list[Message[T]]:
        """The messages as objects, made at the first call and the same ones ever after."""
        if self._messages is None:
            raw, data = self.columns
            messages: list[Message[Any]] = []
            at = 0
            for delivery, indexes in self.runs:
                end = at + len(indexes)
                if end - at == len(raw):
                    messages += map(Message, repeat(delivery), indexes, data, raw)
                else:
                    messages += map(Message, repeat(delivery), indexes, data[at:end], raw[at:end])
                at = end
            # The columns stay: a watchdog may count this slice while a thread makes its messages.
            self._messages = messages
        return self._messages

    def fail(self, index: int, reason: object = "failed", *, retry: bool = True) -> None:
        """Fail the message at `index`, as `Message.fail` does."""
        self._at(index).fail(reason, retry=retry)

    def drop(self, index: int, reason: object = "dropped") -> None:
        """Filter the message at `index` out, as `Message.drop` does."""
        self._at(index).drop(reason)

    def _at(self, index: int) -> Message[T]:
        """The message at `index`. -1 is none: it is what a search returns that finds nothing."""
        messages = self.messages
        # A number of NumPy has __index__, too.
        position = -1 if isinstance(index, bool) or not hasattr(index, "__index__") else int(index)
        if not 0 <= position < len(messages):
            raise IndexError(
                f"index={shown(index)}: expected the position of a message, from 0 to "
                f"{len(messages) - 1}"
            )
        return messages[position]

    def __len__(self) -> int:
        messages = self._messages
        if messages is not None:
            return len(messages)
        assert self._raw is not None
        return len(self._raw)

    def __iter__(self) -> Iterator[Message[T]]:
        return iter(self.messages)

    def __repr__(self) -> str:
        runs = self.runs
        where = f" from {runs[0][0].partition.stream}@{self.offsets[0]}" if len(self) else ""
        return f"<Slice of {len(self)}{where}>"

    # -- for the stages

    @property
    def runs(self) -> list[Run]:
        """Where the messages are: those of one delivery that follow each other are one run."""
        if self._runs is None:
            self._runs = _runs_of(self.messages)
        return self._runs

    @property
    def size(self) -> int:
        """The sum of the bodies' sizes as they were delivered."""
        if self._bytes is None:
            self._bytes = sum(map(len, self.raw))
        return self._bytes

    @property
    def rows(self) -> bool:
        """Are there objects for the messages?"""
        return self._messages is not None

    @property
    def columns(self) -> tuple[list[bytes], list[Any]]:
        """The bodies and the data of a slice that is not in rows: the lists themselves."""
        assert self._raw is not None
        assert self._data is not None
        return self._raw, self._data

    @property
    def settled(self) -> dict[str, range]:
        """What the run has settled of its streams without a gap, where their offsets are stored."""
        partitions = {id(it): it for it in (delivery.partition for delivery, _ in self.runs)}
        return {
            partition.stream: partition.tracker.settled
            for partition in partitions.values()
            if partition.tracker is not None
        }

    @property
    def touched(self) -> bool:
        """Whether a message may have a decision, an attempt or a failure of its own.

        Only a message object can: a slice in columns has none.
        """
        return self.rows and any(delivery.touched for delivery, _ in self.runs)

    @property
    def flagged(self) -> list[Message[T]]:
        """The messages with a decision, an attempt or a failure of their own."""
        if not self.touched:
            return []
        return [message for message in self.messages if message._extra is not None]

    def replace(self, data: list[Any]) -> None:
        """Give every message other data, in order."""
        if self._messages is None:
            self._data = list(data)
        else:
            for message, item in zip(self._messages, data, strict=True):
                message.data = item

    def take(self, count: int) -> Slice[T]:
        """The first `count` messages, which leave this slice."""
        if self._messages is not None:
            head = self._messages[:count]
            del self._messages[:count]
            self._only_rows()
            return Slice(None, messages=head)
        raw, data = self.columns
        first, left = [], count
        runs = self.runs
        while left:
            delivery, indexes = runs[0]
            first.append((delivery, indexes[:left]))
            if len(indexes) > left:
                runs[0] = (delivery, indexes[left:])
                break
            left -= len(indexes)
            del runs[0]
        taken: Slice[T] = Slice(first, raw=raw[:count], data=data[:count])
        taken._bytes = sum(map(len, raw[:count]))
        if self._bytes is not None:
            self._bytes -= taken._bytes
        del raw[:count], data[:count]  # in place: the rest would be copied for each single message
        return taken

    def extend(self, other: Slice[Any]) -> None:
        """Append the messages of another slice, which must not be used afterwards."""
        if self._messages is None and other._messages is None:
            raw, data = self.columns
            more = other.columns
            raw += more[0]
            data += more[1]
            self.runs.extend(other.runs)
        else:
            self.messages.extend(other.messages)
            self._raw = self._data = None
            known = self._runs is not None and other._runs is not None
            self._runs = [*self.runs, *other.runs] if known else None
        known_size = self._bytes is not None and other._bytes is not None
        self._bytes = self.size + other.size if known_size else None

    def append(self, message: Message[Any]) -> None:
        """Append one message."""
        self.messages.append(message)
        self._only_rows()

    def _only_rows(self) -> None:
        """Forget what was computed from the messages, because they have changed."""
        self._raw = self._data = self._runs = self._bytes = None


class LentSlice(Slice[T]):
    """A slice for a handler, with lists of its own: it may sort or shorten them, and the worker
    still has all messages. A decision about a message counts, because the objects are the same.
    """

    __slots__ = ("_ended", "_lender")

    def __init__(self, lender: Slice[T]) -> None:
        if lender.rows:
            super().__init__(None, messages=list(lender.messages))
        else:
            raw, data = lender.columns
            super().__init__(list(lender.runs), raw=list(raw), data=list(data))
        self._lender = lender
        self._ended = False

    def end(self) -> None:
        """The handler's call has ended, so decisions come too late."""
        self._ended = True

    def _at(self, index: int) -> Message[T]:
        if self._ended:
            raise RuntimeError(
                "the call of the handler has ended: fail and drop messages before it returns"
            )
        return super()._at(index)

    @property
    def messages(self) -> list[Message[T]]:
        if self._messages is None:
            self._messages = list(self._lender.messages)
        return self._messages

    # A change needs rows: the columns of a changed slice do not say which messages they belong to.

    def replace(self, data: list[Any]) -> None:
        self._change()
        super().replace(data)

    def take(self, count: int) -> Slice[T]:
        self._change()
        return super().take(count)

    def extend(self, other: Slice[Any]) -> None:
        self._change()
        super().extend(other)

    def _change(self) -> None:
        self._messages = self.messages


_delivery_of = attrgetter("_delivery")
_index_of = attrgetter("_index")


def _runs_of(messages: list[Message[Any]]) -> list[Run]:
    return [
        (delivery, _as_range(list(map(_index_of, some))))
        for delivery, some in groupby(messages, _delivery_of)
    ]


def _as_range(indexes: list[int]) -> Sequence[int]:
    """The range of the same indexes, where they are one."""
    whole = range(indexes[0], indexes[-1] + 1)
    return whole if len(whole) == len(indexes) and indexes == list(whole) else indexes
