"""The one writer: makes groups of changes durable, one group after the other.

While a group is on its way to the disk the next one gathers, so the busier the broker the larger
its groups. Only when a group is durable are its messages confirmed and shown to consumers, and its
requests answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import anyio

from flowstream.broker.reader import ChunkCache
from flowstream.broker.records import AddChunk, Change, StoredChunk, Truncate
from flowstream.broker.store import Store
from flowstream.broker.stream import Stream, Tail
from flowstream.errors import StoreFailed

if TYPE_CHECKING:
    from flowstream.broker.registrations import Publisher

T = TypeVar("T")

_COLLECT_EVERY = 8
"""Garbage of dropped streams is collected when idle, and after so many groups when busy."""


@dataclass(slots=True)
class Group:
    """Changes that become durable together, and what then follows."""

    changes: list[Change] = field(default_factory=list)
    chunks: list[tuple[Stream, StoredChunk]] = field(default_factory=list)
    tails: dict[Stream, Tail] = field(default_factory=dict)
    confirms: dict[Publisher, list[int]] = field(default_factory=dict)
    done: anyio.Event = field(default_factory=anyio.Event)


class Committer:
    """Gathers changes from the sessions; `run` commits them until it is cancelled."""

    def __init__(self, store: Store, cache: ChunkCache) -> None:
        self.store = store
        self.cache = cache
        self.messages_in = 0
        self.groups = 0
        self._wake = anyio.Event()
        self._limiter = anyio.CapacityLimiter(1)
        self._group = Group()
        self._dirty: dict[Stream, None] = {}
        self._committing: frozenset[Stream] = frozenset()
        self._waited = False
        self._garbage = True

    # --- gathering --------------------------------------------------------------------------

    def touch(self, stream: Stream) -> None:
        """The stream has accepted something that is not durable yet."""
        self._dirty[stream] = None
        self._wake.set()

    def confirm(self, publisher: Publisher, publishing_ids: list[int]) -> None:
        """Confirm these once what was accepted up to now is durable."""
        self._group.confirms.setdefault(publisher, []).extend(publishing_ids)
        self.touch(publisher.stream)

    async def change(self, changes: Iterable[Change]) -> None:
        """Make definitions durable; returns when they are."""
        self._group.changes += changes
        self._garbage = True
        await self._durable()

    async def settle(self, stream: Stream) -> None:
        """Return once all that the stream has accepted is durable."""
        if stream in self._dirty or stream in self._committing:
            await self._durable()

    async def _durable(self) -> None:
        done = self._group.done
        self._waited = True
        self._wake.set()
        await done.wait()

    # --- committing -------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises StoreFailed when the store cannot be written to; nothing is confirmed then."""
        while True:
            if self._pending:
                await self._commit()
            elif not self._garbage:
                await self._wake.wait()
                continue
            if self._garbage and (not self._pending or self.groups % _COLLECT_EVERY == 0):
                self._garbage = await self._call(self.store.collect)

    @property
    def _pending(self) -> bool:
        return bool(self._dirty or self._group.changes or self._waited)

    async def _commit(self) -> None:
        self._wake = anyio.Event()
        group = self._seal()
        self._committing = frozenset(self._dirty)
        self._dirty = {}
        self.groups += 1
        if group.changes:
            await self._call(lambda: self.store.commit(group.changes))
        else:
            await anyio.lowlevel.checkpoint()
        self._committing = frozenset()
        self._finish(group)

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            if self.store.blocking:
                return await anyio.to_thread.run_sync(function, limiter=self._limiter)
            await anyio.lowlevel.checkpoint()
            return function()
        except Exception as error:
            raise StoreFailed(f"the store cannot be written to: {error}") from error

    def _seal(self) -> Group:
        group, self._group = self._group, Group()
        self._waited = False
        now = time.time_ns() // 1_000_000
        for stream in self._dirty:
            if stream.deleted:
                continue
            for change in stream.seal(now):
                group.changes.append(change)
                if isinstance(change, AddChunk):
                    group.chunks.append((stream, change.chunk))
                elif isinstance(change, Truncate):
                    self._garbage = True
            group.tails[stream] = stream.sealed
        return group

    def _finish(self, group: Group) -> None:
        for stream, chunk in group.chunks:
            self.cache.add(stream.key, chunk)
            self.messages_in += chunk.records
        grown = [stream for stream, tail in group.tails.items() if tail.end > stream.end]
        for stream, tail in group.tails.items():
            stream.durable = tail
        for publisher, publishing_ids in group.confirms.items():
            publisher.session.confirm(publisher, publishing_ids)
        for stream in grown:
            for listener in tuple(stream.listeners):
                listener()
        group.done.set()
