"""What ties a session to a stream: its publishers and its subscriptions, with the credit rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flowstream.broker.store import Filter
from flowstream.broker.stream import Stream
from flowstream.protocol import OffsetSpec

if TYPE_CHECKING:
    from flowstream.broker.session import Session


@dataclass(slots=True, eq=False)
class Publisher:
    """A declared publisher; `reference` None publishes without deduplication."""

    session: Session
    publisher_id: int
    stream: Stream
    reference: str | None


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription and how far it has been served.

    `position` is the id of the next chunk to read; None while it is not attached, as a single
    active consumer that is not active. `credit` is in chunks. Once credit is above `send_limit`
    all of it may be used, down to nothing or to the end of the stream; after that it must be above
    the limit again (rabbit_stream_reader:send_chunks). `active` is what a single active consumer
    was told last, `turn` how often it was told.
    """

    session: Session
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
    turn: int = field(init=False, default=0)

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
        self.position = position
        self.wake()

    def detach(self) -> None:
        self.position = None
        self.sending = False

    def wake(self) -> None:
        """There is more credit or more data."""
        if self.position is not None and self.credit > self.send_limit:
            self.sending = True
            self.session.wake()


def filter_of(properties: Mapping[str, str]) -> Filter | None:
    """The filter that `filter.N` and `match-unfiltered` ask for; None for none."""
    values = frozenset(value for key, value in properties.items() if key.startswith("filter."))
    if not values:
        return None
    return Filter(values, properties.get("match-unfiltered") == "true")
