"""The only writer: makes groups of changes durable, one group after the other.

This is group commit. One transaction, and so one fsync, is enough for everything that has gathered
since the last one; while a group is on its way to the disk the next one gathers. So the busier the
broker is, the larger its groups become, and the fsyncs do not grow with the messages.

The promise to clients is in the order of `_finish`: messages are confirmed and shown to consumers,
and requests are answered, only after the transaction with them is on the disk. If the store
fails, nothing of the group is confirmed and the broker stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

import anyio

from flowstream.broker.reader import ChunkCache
from flowstream.broker.records import AddChunk, Change, StoredChunk, Truncate
from flowstream.broker.registrations import Publisher
from flowstream.broker.store import Store
from flowstream.broker.stream import Stream, Tail
from flowstream.errors import StoreFailed

T = TypeVar("T")

_COLLECT_EVERY = 8
"""While the broker is busy, one step of garbage collection follows so many groups."""


@dataclass(slots=True)
class CommitGroup:
    """Changes that become durable together, and what follows from that."""

    changes: list[Change] = field(default_factory=list)
    chunks: list[tuple[Stream, StoredChunk]] = field(default_factory=list)
    tails: dict[Stream, Tail] = field(default_factory=dict)
    confirms: dict[Publisher, list[int]] = field(default_factory=dict)
    done: anyio.Event = field(default_factory=anyio.Event)


class Committer:
    """Gathers changes from the connections; `run` commits them until it is cancelled."""

    def __init__(self, store: Store, cache: ChunkCache) -> None:
        self.messages_in: int = 0
        self.groups: int = 0
        self._store = store
        self._cache = cache
        self._wake = anyio.Event()
        self._limiter = anyio.CapacityLimiter(1)
        self._group = CommitGroup()
        self._dirty: dict[Stream, None] = {}
        self._committing: frozenset[Stream] = frozenset()
        self._awaited = False
        self._garbage = True

    # --- gathering --------------------------------------------------------------------------

    def mark_dirty(self, stream: Stream) -> None:
        """The stream has accepted something that is not durable yet."""
        self._dirty[stream] = None
        self._wake.set()

    def confirm_when_durable(self, publisher: Publisher, publishing_ids: list[int]) -> None:
        """Confirm these entries after everything accepted up to now is durable.

        Duplicates too, and not earlier: the message that they repeat may still be on its way to the
        disk.
        """
        self._group.confirms.setdefault(publisher, []).extend(publishing_ids)
        self.mark_dirty(publisher.stream)

    async def commit(self, changes: Iterable[Change]) -> None:
        """Make changes of definitions durable; returns when they are."""
        self._group.changes += changes
        await self._next_group()

    async def flush(self, stream: Stream) -> None:
        """Return once everything that the stream has accepted is durable."""
        if stream in self._dirty or stream in self._committing:
            await self._next_group()

    async def _next_group(self) -> None:
        """Wait for the group that gathers now; the one on its way is durable before it."""
        done = self._group.done
        self._awaited = True
        self._wake.set()
        await done.wait()

    # --- committing -------------------------------------------------------------------------

    async def run(self) -> None:
        """Commit until cancelled. Raises StoreFailed when the store cannot be written to."""
        while True:
            if self._pending:
                await self._commit_group()
            elif not self._garbage:
                await self._wake.wait()
                continue
            if self._garbage and (not self._pending or self.groups % _COLLECT_EVERY == 0):
                self._garbage = await self._call(self._store.collect)

    @property
    def _pending(self) -> bool:
        return bool(self._dirty or self._group.changes or self._awaited)

    async def _commit_group(self) -> None:
        self._wake = anyio.Event()
        self._committing = frozenset(self._dirty)
        group = self._seal()
        self.groups += 1
        if group.changes:
            await self._call(lambda: self._store.commit(group.changes))
        else:  # only duplicates and waiting requests: what they need is durable already
            await anyio.lowlevel.checkpoint()
        self._committing = frozenset()
        self._finish(group)

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            if self._store.blocking:
                return await anyio.to_thread.run_sync(function, limiter=self._limiter)
            await anyio.lowlevel.checkpoint()
            return function()
        except Exception as error:
            raise StoreFailed(
                f"the embedded broker cannot write to its store, so it stops: {error}"
            ) from error

    def _seal(self) -> CommitGroup:
        """Close the group that has gathered, and start the next one."""
        group, self._group = self._group, CommitGroup()
        dirty, self._dirty = self._dirty, {}
        self._awaited = False
        # Set here and not in `commit`: a step of collection that runs just then must not reset it.
        self._garbage = self._garbage or bool(group.changes)
        now = time.time_ns() // 1_000_000
        for stream in dirty:
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

    def _finish(self, group: CommitGroup) -> None:
        """The group is on the disk: show its messages, confirm them, answer what waits for it.

        No await in here, so no other task sees half of it. The cache comes first, because a
        consumer that sees the new tail looks for its chunks there. The tail comes before the
        confirms, because a client that has its confirm may ask for the last offset right away.
        """
        for stream, chunk in group.chunks:
            self._cache.add(stream.key, chunk)
            self.messages_in += chunk.records
        grown = [stream for stream, tail in group.tails.items() if tail.end > stream.end]
        for stream, tail in group.tails.items():
            stream.durable = tail
        for publisher, publishing_ids in group.confirms.items():
            publisher.listener.confirm(publisher, publishing_ids)
        for stream in grown:
            for call in tuple(stream.on_growth):
                call()
        group.done.set()
