"""Nothing is confirmed, shown or answered before it is durable; a failing disk stops the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowstream.broker.committer import Committer
from flowstream.broker.reader import ChunkCache
from flowstream.broker.records import AddStream, Change, DropStream, SaveOffset, StreamRecord
from flowstream.broker.registrations import Publisher
from flowstream.broker.stream import Stream
from flowstream.errors import StoreFailed
from tests.broker.stores import GatedStore
from tests.broker.test_stream import entries_of

pytestmark = [pytest.mark.anyio, pytest.mark.both_backends]


class Confirms:
    """Stands in for a session."""

    def __init__(self) -> None:
        self.confirmed: list[int] = []
        self.arrived = anyio.Event()

    def confirm(self, publisher: Publisher, publishing_ids: list[int]) -> None:
        self.confirmed += publishing_ids
        self.arrived.set()
        self.arrived = anyio.Event()


@asynccontextmanager
async def running(store: GatedStore) -> AsyncIterator[tuple[Committer, Stream]]:
    committer = Committer(store, ChunkCache(1000))
    stream = Stream(StreamRecord(1, "s", {}))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(committer.run)
        await committer.commit([AddStream(1, "s", {})])
        yield committer, stream
        tasks.cancel_scope.cancel()


def publish(committer: Committer, publisher: Publisher, ids: list[int]) -> None:
    publisher.stream.append(entries_of(ids), publisher.reference)
    committer.confirm_when_durable(publisher, ids)


async def test_what_arrives_during_a_commit_makes_one_group() -> None:
    store = GatedStore()
    session: Any = Confirms()
    async with running(store) as (committer, stream):
        publisher = Publisher(session, 0, stream, None)
        woken: list[int] = []
        stream.on_growth.add(lambda: woken.append(stream.end))
        store.shut()
        publish(committer, publisher, [1])
        await store.entered.wait()
        publish(committer, publisher, [2, 3])
        publish(committer, publisher, [4])
        assert (session.confirmed, woken, stream.end) == ([], [], 0)
        store.gate.set()
        while session.confirmed != [1, 2, 3, 4]:
            await session.arrived.wait()
        assert woken == [1, 4]
        assert len(store.groups) == 3
        assert committer.messages_in == 4


async def test_flush_waits_for_what_the_stream_has_accepted() -> None:
    store = GatedStore()
    async with running(store) as (committer, stream):
        await committer.flush(stream)
        store.shut()
        stream.store_offset("r", 5)
        committer.mark_dirty(stream)
        settled = anyio.Event()

        async def settle() -> None:
            await committer.flush(stream)
            settled.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(settle)
            await store.entered.wait()
            assert not settled.is_set()
            store.gate.set()
            await settled.wait()
        saved = [change for change in store.groups[1] if isinstance(change, SaveOffset)]
        assert saved == [SaveOffset(1, "r", 5)]


async def test_duplicates_alone_are_confirmed_without_a_transaction() -> None:
    store = GatedStore()
    session: Any = Confirms()
    async with running(store) as (committer, stream):
        publisher = Publisher(session, 0, stream, "p")
        for _ in range(2):
            publish(committer, publisher, [7])
            await session.arrived.wait()
        assert session.confirmed == [7, 7]
        assert len(store.groups) == 2


async def test_a_store_that_cannot_be_written_to_stops_the_broker() -> None:
    store = GatedStore()
    session: Any = Confirms()

    async def use() -> None:
        async with running(store) as (committer, stream):
            store.failure = OSError("no space left on device")
            publish(committer, Publisher(session, 0, stream, None), [1])
            await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup) as raised:
        await use()
    (error,) = raised.value.exceptions
    assert isinstance(error, StoreFailed)
    assert "no space left" in str(error)
    assert session.confirmed == []


class CollectingStore(GatedStore):
    """A step of collection waits for `step`; `freed` is set when a dropped stream is collected."""

    def __init__(self) -> None:
        super().__init__()
        self.garbage = 0
        self.collecting, self.step, self.freed = anyio.Event(), anyio.Event(), anyio.Event()

    def commit(self, changes: Sequence[Change]) -> None:
        super().commit(changes)
        self.garbage += sum(isinstance(change, DropStream) for change in changes)

    def collect(self) -> bool:
        found = self.garbage > 0
        anyio.from_thread.run_sync(self.collecting.set)
        anyio.from_thread.run(self.step.wait)
        if found:
            self.garbage -= 1
            anyio.from_thread.run_sync(self.freed.set)
        return found


async def test_a_stream_that_is_deleted_during_a_collection_is_collected_too() -> None:
    store = CollectingStore()
    async with anyio.create_task_group() as tasks:
        committer = Committer(store, ChunkCache(1000))
        tasks.start_soon(committer.commit, [AddStream(1, "s", {})])
        tasks.start_soon(committer.run)
        await store.collecting.wait()
        tasks.start_soon(committer.commit, [DropStream(1)])
        await anyio.wait_all_tasks_blocked()
        store.step.set()
        with anyio.fail_after(5):
            await store.freed.wait()
        tasks.cancel_scope.cancel()
