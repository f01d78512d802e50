"""What a connection registers on streams: its publishers and its subscriptions.

`Listener` is a connection as the rest of the broker sees it. The committer, the coordinator and the
node notify connections through it, so none of them needs to know the session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flowstream.broker.single_active import Notice
from flowstream.broker.store import Filter
from flowstream.broker.stream import Stream
from flowstream.protocol import OffsetSpec

MAX_REFERENCE_BYTES = 255


def reference_too_long(reference: str | None) -> bool:
    """Whether the name of a publisher, of a consumer or of a stored offset is over the limit."""
    return reference is not None and len(reference.encode()) > MAX_REFERENCE_BYTES


class Listener(Protocol):
    """A connection that is notified of what happens elsewhere in the broker.

    The calls come from the middle of a commit, a deletion or an election. So every method decides
    on what is in memory and returns at once; what it sends goes into the connection's send buffer.
    """

    @property
    def unconfirmed(self) -> int:
        """How many of its published entries are not durable yet."""

    def wake(self) -> None:
        """One of its subscriptions may have chunks to send."""

    def confirm(self, publisher: Publisher, publishing_ids: Sequence[int]) -> None:
        """These entries of its publisher are durable."""

    def consumer_update(self, notice: Notice[Subscription]) -> None:
        """Its single active consumer becomes active or inactive."""

    def stream_deleted(self, stream: Stream) -> None:
        """The stream no longer exists."""

    def tick(self, now: float) -> None:
        """Time to look at heartbeats and deadlines; `now` is the event loop's time."""


@dataclass(slots=True, eq=False)
class Publisher:
    """A declared publisher; without a `reference` its messages are not deduplicated."""

    listener: Listener
    publisher_id: int
    stream: Stream
    reference: str | None


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription: how far it has been served, and how many chunks it may still be sent.

    `position` is the id of the next chunk to read; None while the subscription is detached, as it
    is for a single active consumer that is not active. `credit` counts chunks, and only a credit
    above `send_limit` starts sending: then all of it may be used, down to 0 or to the end of the
    stream. RabbitMQ does the same (rabbit_stream_reader:send_chunks), so that a client that returns
    its credits one by one is sent chunks in runs and not one per frame.

    For a single active consumer `active` is what the last ConsumerUpdate said, and `generation`
    counts these updates, so that an answer to an earlier one can be recognised.
    """

    listener: Listener
    subscription_id: int
    stream: Stream
    offset: OffsetSpec
    credit: int
    properties: Mapping[str, str]
    send_limit: int = field(init=False)
    position: int | None = field(init=False, default=None)
    sending: bool = field(init=False, default=False)
    filter: Filter | None = field(init=False)
    partition_index: int = field(init=False, default=-1)
    active: bool = field(init=False, default=True)
    generation: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.send_limit = self.credit // 2
        self.filter = filter_of(self.properties)

    @property
    def name(self) -> str:
        return self.properties.get("name", "")

    @property
    def single_active(self) -> bool:
        return self.properties.get("single-active-consumer") == "true"

    @property
    def ready(self) -> bool:
        """Whether there is something to read and credit to send it."""
        return (
            self.sending
            and self.credit > 0
            and self.position is not None
            and self.position < self.stream.end
            and not self.stream.deleted
        )

    def attach(self, position: int) -> None:
        """Serve it from the chunk at `position` on."""
        self.position = position
        self.wake()

    def detach(self) -> None:
        """Stop serving it, until it is attached again."""
        self.position = None
        self.sending = False

    def wake(self) -> None:
        """There is more credit or more data."""
        if self.position is not None and self.credit > self.send_limit:
            self.sending = True
            self.listener.wake()


def filter_of(properties: Mapping[str, str]) -> Filter | None:
    """The filter of the properties `filter.N` and `match-unfiltered`; None without a `filter.N`."""
    values = frozenset(value for key, value in properties.items() if key.startswith("filter."))
    if not values:
        return None
    return Filter(values, properties.get("match-unfiltered") == "true")
