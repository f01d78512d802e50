"""One broker without its sockets: what all connections share, and its clock."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import anyio

from flowstream.broker.catalog import Catalog
from flowstream.broker.committer import Committer
from flowstream.broker.reader import ChunkCache, ChunkReader
from flowstream.broker.records import Contents
from flowstream.broker.registrations import Listener, Subscription
from flowstream.broker.single_active import Coordinator, Notice
from flowstream.broker.store import Store
from flowstream.broker.stream import Stream
from flowstream.schema import check, listing, seconds, whole

DURATION = seconds(above=False)

TICK = 0.5
"""Seconds between two looks at heartbeats and deadlines."""
_RETENTION_TICKS = 120
"""Retention by age is applied once in so many ticks, and at every new segment."""


@listing
@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a connection; the defaults are RabbitMQ's. Seconds, bytes, messages.

    Reading from a connection stops at `max_unconfirmed` unconfirmed entries, and goes on once there
    is room for `resume_room` of them. `refusal_delay` is how long the answer to a wrong password
    is held back.
    """

    frame_max: Annotated[int, whole(0, unit="bytes"), "the largest frame"] = 1 << 20
    heartbeat: Annotated[int, whole(0, unit="seconds"), "seconds between heartbeats"] = 60
    handshake_timeout: Annotated[float, DURATION, "seconds that a client may take to log in"] = 10.0
    refusal_delay: Annotated[float, DURATION, "seconds before a wrong password is refused"] = 3.0
    close_timeout: Annotated[float, DURATION, "seconds that a client may take to close"] = 10.0
    consumer_update_timeout: Annotated[
        float, DURATION, "seconds that a single active consumer may take to hand over"
    ] = 60.0
    max_unconfirmed: Annotated[
        int, whole(0, unit="entries"), "unconfirmed entries at which reading stops"
    ] = 50_000
    resume_room: Annotated[
        int, whole(0, unit="entries"), "room for entries at which reading goes on"
    ] = 12_500
    max_unsent: Annotated[int, whole(0, unit="bytes"), "unsent bytes of a connection"] = 1 << 20
    cache_bytes: Annotated[int, whole(0, unit="bytes"), "bytes of chunks in memory"] = 64 << 20

    def __post_init__(self) -> None:
        check(self, "Limits")


class Node:
    """The catalog, the committer, the reader and the connections of one broker.

    `rates` are the messages in and out per second, measured over the last second.
    """

    def __init__(
        self, store: Store, contents: Contents, users: Mapping[str, str], limits: Limits
    ) -> None:
        cache = ChunkCache(limits.cache_bytes)
        self.users = users
        self.limits = limits
        self.catalog: Final = Catalog(contents)
        self.committer: Final = Committer(store, cache)
        self.reader: Final = ChunkReader(store, cache)
        self.coordinator: Coordinator[Subscription] = Coordinator()
        self.connections: set[Listener] = set()
        self.messages_out = 0
        self.bytes_used: int = 0
        self.rates: tuple[float, float] = (0.0, 0.0)

    # --- running ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit and keep the time until cancelled. Raises StoreFailed."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.committer.run)
            tasks.start_soon(self._keep_time)

    async def _keep_time(self) -> None:
        ticks = 0
        while True:
            before, counted = anyio.current_time(), (self.committer.messages_in, self.messages_out)
            for _ in range(2):
                await anyio.sleep(TICK)
                now = anyio.current_time()
                for connection in tuple(self.connections):
                    connection.tick(now)
            total = (self.committer.messages_in, self.messages_out)
            seconds = anyio.current_time() - before
            self.rates = ((total[0] - counted[0]) / seconds, (total[1] - counted[1]) / seconds)
            self.bytes_used = await self.reader.bytes_used()
            ticks += 2
            if ticks % _RETENTION_TICKS == 0:
                self._apply_retention()

    def _apply_retention(self) -> None:
        """Apply retention by age to all streams: messages expire even if nothing is published."""
        now = time.time_ns() // 1_000_000
        for stream in self.catalog.streams.values():
            stream.evaluate_age(now)
            if stream.dirty:
                self.committer.mark_dirty(stream)

    # --- notifying connections --------------------------------------------------------------

    def notify(self, notices: Iterable[Notice[Subscription]]) -> None:
        """Tell the members of a group of single active consumers who is active."""
        for notice in notices:
            notice.member.listener.consumer_update(notice)

    def stream_deleted(self, stream: Stream) -> None:
        """Notify every connection; those that use the stream clean up and inform their client."""
        for connection in tuple(self.connections):
            connection.stream_deleted(stream)
