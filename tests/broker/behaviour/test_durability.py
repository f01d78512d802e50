"""What was confirmed outlives the process and the machine: exactly once, in order, at its offset.

The publisher here keeps a journal of what it sent and what was confirmed. After each crash the
whole stream is read and compared with it: what was confirmed must be there, what was not confirmed
may be, as a piece of what was sent, and nothing else.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import anyio
import pytest

from flowstream.broker.data_dir import STORE_FILE, DataDirStore
from flowstream.broker.records import (
    AddChunk,
    AddStream,
    SaveSegment,
    Segment,
    StoredChunk,
)
from flowstream.protocol import (
    Chunk,
    CreateStream,
    Credit,
    DeclarePublisher,
    Deliver,
    OffsetSpec,
    PublishConfirm,
    QueryOffset,
    QueryOffsetResponse,
    QueryPublisherSequence,
    StoreOffset,
    StreamStats,
    Subscribe,
    build_chunk,
    encode_publish,
    simple_entry,
)
from tests.broker.raw import Raw, logged_in
from tests.broker.serving import served

pytestmark = pytest.mark.anyio

STREAM = "s"
BATCH = 50


@dataclass
class Journal:
    """Publishing ids run from 0; the body of a message is its id. All under one reference."""

    sent: int = 0
    confirmed: set[int] = field(default_factory=set)
    stored_offset: int = -1
    asked_offset: int = -1


async def publish(raw: Raw, journal: Journal) -> None:
    """Publish as fast as the window allows, storing offsets in between, until the broker dies."""

    window = anyio.Event()

    async def confirms() -> None:
        nonlocal window
        while True:
            command = await raw.next()
            if command is None:
                tasks.cancel_scope.cancel()
            if isinstance(command, PublishConfirm):
                journal.confirmed.update(command.publishing_ids)
                window.set()
                window = anyio.Event()
            elif isinstance(command, QueryOffsetResponse):
                journal.stored_offset = max(journal.stored_offset, command.offset)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(confirms)
        while True:
            while journal.sent - len(journal.confirmed) > 100 * BATCH:
                await window.wait()
            ids = range(journal.sent, journal.sent + BATCH)
            journal.sent += BATCH
            try:
                await raw.send(encode_publish(0, ids[0], [b"%d" % each for each in ids]))
                if journal.sent % (20 * BATCH) == 0:
                    journal.asked_offset = journal.sent
                    await raw.send(
                        StoreOffset("r", STREAM, journal.sent), QueryOffset(1, "r", STREAM)
                    )
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return


async def read_all(url: str) -> list[bytes]:
    """Every body, checked to be at rising offsets in sound chunks."""
    async with logged_in(url) as raw:
        sequence: Any = await raw.call(QueryPublisherSequence(1, "p", STREAM), object)
        await raw.ok(Subscribe(2, 0, STREAM, OffsetSpec.first(), 10, {}))
        bodies: list[bytes] = []
        offset = 0
        while len(bodies) <= sequence.sequence:
            chunk = Chunk((await raw.expect(Deliver)).chunk)
            chunk.verify()
            assert chunk.offset >= offset, "tracking takes offsets, messages share none"
            offset = chunk.offset + chunk.records
            bodies += chunk.bodies()
            await raw.send(Credit(0, 1))
    async with logged_in(url) as raw:
        stats: Any = await raw.call(StreamStats(3, STREAM), object)
        assert offset <= stats.stats["committed_offset"] + 1
    return bodies


async def check(url: str, journal: Journal) -> int:
    """Compare the stream with the journal; gives how many messages are there."""
    bodies = await read_all(url)
    assert bodies == [b"%d" % each for each in range(len(bodies))], "a loss, or a repetition"
    assert len(bodies) > max(journal.confirmed, default=-1), "a confirmed message is lost"
    assert len(bodies) <= journal.sent
    async with logged_in(url) as raw:
        offset: Any = await raw.call(QueryOffset(2, "r", STREAM), object)
        assert journal.stored_offset <= offset.offset <= journal.asked_offset
    return len(bodies)


@asynccontextmanager
async def a_publisher(url: str) -> AsyncIterator[Raw]:
    async with logged_in(url) as raw:
        await raw.call(CreateStream(7, STREAM, {}), object)
        await raw.ok(DeclarePublisher(8, 0, "p", STREAM))
        yield raw


@pytest.mark.chaos
@pytest.mark.slow
async def test_kill_9_during_heavy_publishing(tmp_path: Path) -> None:
    """Twenty times: publish, kill, start again, compare, go on where the sequence says."""
    journal = Journal()
    random = Random(20)
    for _ in range(20):
        with served(tmp_path) as (process, url):
            async with a_publisher(url) as raw, anyio.create_task_group() as tasks:
                tasks.start_soon(publish, raw, journal)
                await anyio.sleep(random.uniform(0.05, 0.3))
                process.kill()
        with served(tmp_path) as (_, url):
            journal.sent = await check(url, journal)
            journal.confirmed = set(range(journal.sent))
    assert journal.sent > 20 * BATCH


@pytest.mark.chaos
@pytest.mark.slow
async def test_files_copied_in_the_middle_of_writes(tmp_path: Path) -> None:
    """A power cut keeps what is on the disk at one instant: the process is frozen for the copy."""
    journal = Journal()
    copies: list[tuple[Path, Journal]] = []
    data = tmp_path / "data"
    with served(data) as (process, url):
        async with a_publisher(url) as raw, anyio.create_task_group() as tasks:
            tasks.start_soon(publish, raw, journal)
            for number in range(10):
                await anyio.sleep(0.05 + 0.01 * number)
                confirmed = Journal(0, set(journal.confirmed), journal.stored_offset)
                process.send_signal(signal.SIGSTOP)
                copy = tmp_path / f"copy{number}"
                shutil.copytree(data, copy)
                process.send_signal(signal.SIGCONT)
                copies.append((copy, confirmed))
            process.kill()
    for copy, confirmed in copies:
        confirmed.sent, confirmed.asked_offset = journal.sent, journal.asked_offset
        with served(copy) as (_, url):
            await check(url, confirmed)


def a_chunk(offset: int, count: int) -> StoredChunk:
    entries = [simple_entry(b"%d" % each) for each in range(offset, offset + count)]
    blob = build_chunk(entries, records=count, offset=offset, timestamp=offset)
    return StoredChunk(offset, count, offset, None, blob)


@pytest.mark.medium
def test_a_log_torn_anywhere_opens_with_whole_groups(tmp_path: Path) -> None:
    """The last write of a power cut may be on the disk in part: cut the log at any byte."""
    source = tmp_path / "source"
    store = DataDirStore(source)
    store.commit([AddStream(1, "s", {})])
    for group in range(20):
        offset = group * 30
        segment = Segment(0, offset + 30, 0, group + 1, offset)
        store.commit([AddChunk(1, a_chunk(offset, 30)), SaveSegment(1, segment)])
    log = Path(f"{source / STORE_FILE}-wal").read_bytes()
    database = (source / STORE_FILE).read_bytes()
    store.close()
    random = Random(3)
    ends: set[int] = set()
    for number, cut in enumerate([len(log), *(random.randrange(len(log)) for _ in range(40))]):
        data_dir = tmp_path / f"torn{number}"
        data_dir.mkdir()
        (data_dir / STORE_FILE).write_bytes(database)
        Path(f"{data_dir / STORE_FILE}-wal").write_bytes(log[:cut])
        with closing(DataDirStore(data_dir)) as torn:
            streams = torn.load().streams
            if not streams:
                continue
            end = streams[0].segments[-1].next_offset if streams[0].segments else 0
            chunks, after = torn.read(1, 0, end + 1000, None, 1 << 30)
            assert after == end
            bodies = itertools.chain.from_iterable(Chunk(it.blob).bodies() for it in chunks)
            assert list(bodies) == [b"%d" % each for each in range(end)]
            ends.add(end)
    assert max(ends) == 600
    assert len(ends) > 5


@pytest.mark.slow
def test_ten_million_messages_open_in_under_a_second(tmp_path: Path) -> None:
    """In chunks of 100, which is small: 100,000 rows."""
    store = DataDirStore(tmp_path)
    store.commit([AddStream(1, "s", {})])
    count, size = 100_000, 100
    blob = a_chunk(0, size).blob
    for first in range(0, count, 5000):
        changes = [
            AddChunk(1, StoredChunk(each * size, size, each, None, blob))
            for each in range(first, first + 5000)
        ]
        segment = Segment(0, (first + 5000) * size, 0, first + 5000, first + 4999)
        store.commit([*changes, SaveSegment(1, segment)])
    store.close()
    began = process_time()
    store = DataDirStore(tmp_path)
    (stream,) = store.load().streams
    assert stream.segments[0].next_offset == 10_000_000
    assert store.locate(1, 5_000_050) == 5_000_000
    assert store.locate_time(1, 70_000) == 7_000_000
    seconds = process_time() - began  # what else the machine does is not counted
    store.close()
    assert seconds < 1.0, f"it took {seconds:.2f} s"


def test_the_store_is_in_wal_mode_with_full_synchronisation(tmp_path: Path) -> None:
    store = DataDirStore(tmp_path)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()
    with closing(sqlite3.connect(tmp_path / STORE_FILE)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
