"""What all connections of a broker share: the catalog, the committer, the store, the sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import anyio

from flowstream.broker.catalog import Catalog
from flowstream.broker.committer import Committer
from flowstream.broker.reader import ChunkCache
from flowstream.broker.records import Contents, StoredChunk
from flowstream.broker.registrations import Subscription
from flowstream.broker.single_active import Coordinator, Notice
from flowstream.broker.store import Filter, Store
from flowstream.broker.stream import Stream
from flowstream.checks import MOST_SECONDS, check_number, check_whole
from flowstream.protocol import OffsetKind, OffsetSpec

if TYPE_CHECKING:
    from flowstream.broker.session import Session

T = TypeVar("T")

TICK = 0.5
"""Seconds between two looks at heartbeats and deadlines."""
_RETENTION_EVERY = 120
"""Retention by age is looked at once in so many ticks, besides at every new segment."""
READ_BYTES = 1 << 20
"""A delivery is read in pieces of about this size: what a slow consumer holds in memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a connection; the defaults are RabbitMQ's. Seconds, bytes, messages.

    Reading from a connection stops at `max_unconfirmed` unconfirmed entries until `resume_room`
    of them are free. `refusal_delay` holds back the answer to a wrong password.
    """

    frame_max: int = 1 << 20
    heartbeat: int = 60
    handshake_timeout: float = 10.0
    refusal_delay: float = 3.0
    close_timeout: float = 10.0
    consumer_update_timeout: float = 60.0
    max_unconfirmed: int = 50_000
    resume_room: int = 12_500
    max_unsent: int = 1 << 20
    cache_bytes: int = 64 << 20

    def __post_init__(self) -> None:
        for each in fields(self):
            value, option = getattr(self, each.name), f"Limits {each.name}"
            if isinstance(each.default, float):
                check_number(option, value, 0, MOST_SECONDS)
            else:
                check_whole(option, value, 0)


class Node:
    """One broker, without its sockets. `rates` are messages in and out a second."""

    def __init__(
        self, store: Store, contents: Contents, users: Mapping[str, str], limits: Limits
    ) -> None:
        self.store = store
        self.users = users
        self.limits = limits
        self.cache = ChunkCache(limits.cache_bytes)
        self.catalog = Catalog(contents)
        self.committer = Committer(store, self.cache)
        self.coordinator: Coordinator[Subscription] = Coordinator()
        self.sessions: set[Session] = set()
        self.messages_out = 0
        self.bytes_used = 0
        self.rates = (0.0, 0.0)
        self._readers = anyio.CapacityLimiter(2)

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
                for session in tuple(self.sessions):
                    session.tick(now)
            total = (self.committer.messages_in, self.messages_out)
            seconds = anyio.current_time() - before
            self.rates = ((total[0] - counted[0]) / seconds, (total[1] - counted[1]) / seconds)
            self.bytes_used = await self._read(self.store.bytes_used)
            ticks += 2
            if ticks % _RETENTION_EVERY == 0:
                self._retain()

    def _retain(self) -> None:
        """Retention by age, which has no append to wait for."""
        now = time.time_ns() // 1_000_000
        for stream in self.catalog.streams.values():
            stream.evaluate_age(now)
            if stream.dirty:
                self.committer.touch(stream)

    # --- reading ----------------------------------------------------------------------------

    async def _read(self, function: Callable[[], T]) -> T:
        if self.store.blocking:
            return await anyio.to_thread.run_sync(function, limiter=self._readers)
        return function()

    async def read(
        self, stream: Stream, position: int, filters: Filter | None, most: int
    ) -> tuple[list[StoredChunk], int]:
        """At most `most` durable chunks from `position`, and the position to read on from."""
        position = max(position, stream.first_offset)
        end = stream.end
        if position > stream.durable.user_chunk_id:
            return [], end
        chunks, after = self._read_cached(stream, position, filters, most)
        if after > position:
            return chunks, after
        found, after = await self._read(
            lambda: self.store.read(stream.key, position, end, filters, READ_BYTES)
        )
        if len(found) > most:
            return found[:most], found[most].chunk_id
        return found, after

    def _read_cached(
        self, stream: Stream, position: int, filters: Filter | None, most: int
    ) -> tuple[list[StoredChunk], int]:
        chunks: list[StoredChunk] = []
        room = READ_BYTES
        while room > 0 and len(chunks) < most:
            chunk = self.cache.get(stream.key, position)
            if chunk is None:
                break
            position = chunk.next_offset
            if filters is None or filters.matches(chunk.filters):
                chunks.append(chunk)
                room -= len(chunk.blob)
        return chunks, position

    async def locate(self, stream: Stream, spec: OffsetSpec) -> int:
        """The id of the chunk an offset specification means now; the end if there is none."""
        kind = spec.kind
        if kind is OffsetKind.OFFSET and stream.first_offset < spec.value < stream.end:
            found = await self._read(lambda: self.store.locate(stream.key, spec.value))
        elif kind is OffsetKind.TIMESTAMP:
            found = await self._read(lambda: self.store.locate_time(stream.key, spec.value))
        elif kind is OffsetKind.LAST and stream.durable.user_chunk_id >= 0:
            found = stream.durable.user_chunk_id
        elif kind is OffsetKind.FIRST or (kind is OffsetKind.OFFSET and spec.value < stream.end):
            found = stream.first_offset
        else:
            found = None
        return stream.end if found is None else max(found, stream.first_offset)

    # --- telling sessions -------------------------------------------------------------------

    def tell(self, notices: Iterable[Notice[Subscription]]) -> None:
        for notice in notices:
            notice.member.session.consumer_update(notice)

    def deleted(self, stream: Stream) -> None:
        """The stream is gone: clean up in every session that works with it, and tell it."""
        for session in tuple(self.sessions):
            session.stream_deleted(stream)
