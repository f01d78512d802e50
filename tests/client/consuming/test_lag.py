"""What a stream holds behind an offset: counted exactly, and at a bounded cost."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.client import StreamBacklog
from flowstream.client.consuming.lag import BYTES, COUNTED, Tally
from flowstream.protocol import StreamStats, Subscribe, simple_entry
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, MemoryStream

pytestmark = pytest.mark.anyio


@st.composite
def logs(draw: Any) -> list[tuple[int, list[int], int]]:
    """Chunks as (end, offsets of the messages that count, time)."""
    chunks, at = [], 0
    for number in range(draw(st.integers(1, 8))):
        at += draw(st.integers(0, 3))  # the broker's own records
        records = draw(st.integers(1, 5))
        passing = draw(st.lists(st.booleans(), min_size=records, max_size=records))
        chunks.append((at + records, [at + n for n in range(records) if passing[n]], number))
        at += records
    return chunks


@given(logs(), st.lists(st.integers(-1, 60)))
def test_a_tally_is_what_was_read_behind_the_offset(
    chunks: list[tuple[int, list[int], int]], places: list[int]
) -> None:
    tally, read = Tally(), list(chunks)
    for behind in places:
        tally.begin(behind)
        read = [chunk for chunk in chunks if chunk[0] - 1 > tally.upto]
        for end, offsets, at in read[:2]:
            tally.add(offsets, end, at)
        seen = [
            (offset, at)
            for end, offsets, at in chunks
            for offset in offsets
            if behind < offset <= tally.upto
        ]
        assert tally.messages == len(seen)
        assert tally.written == (seen[0][1] if seen else None)
        assert tally.upto >= behind


def stream_of(cluster: Cluster, *chunks: int, size: int = 10) -> MemoryStream:
    """A stream "s" of chunks of so many messages; a negative number is so many records."""
    stream = cluster.nodes[0].streams.setdefault("s", MemoryStream())
    add(stream, *chunks, size=size)
    return stream


def add(stream: MemoryStream, *chunks: int, size: int = 10) -> None:
    for count in chunks:
        if count < 0:
            stream.next_offset -= count
        else:
            stream.append([simple_entry(b"x" * size)] * count, count, 1_000 + len(stream.chunks))


def asked(cluster: Cluster, kind: type) -> list[Any]:
    return [
        command
        for node in cluster.nodes
        for session in node.sessions
        for command in session.received
        if type(command) is kind
    ]


async def test_records_of_the_broker_are_not_messages(cluster: Cluster, connect: Connect) -> None:
    stream = stream_of(cluster, 5, -1, 1, -2, 1, -4)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        assert await probe.look(-1) == StreamBacklog(9, 7, 1_000)
        assert await probe.look(2) == StreamBacklog(9, 4, 1_000)
        assert await probe.look(4) == StreamBacklog(9, 2, 1_001)
        assert await probe.look(6) == StreamBacklog(9, 1, 1_002)
        assert await probe.look(9) == StreamBacklog(9, 0, None)
        add(stream, 3, -1, 2)
        assert await probe.look(9) == StreamBacklog(19, 5, 1_003)


async def test_an_empty_stream_holds_nothing(cluster: Cluster, connect: Connect) -> None:
    stream = stream_of(cluster)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        assert await probe.look(-1) == StreamBacklog(None, 0, None)
        add(stream, 2)
        assert await probe.look(-1) == StreamBacklog(1, 2, 1_000)
        cluster.nodes[0].streams["s"] = MemoryStream()  # deleted and created again
        assert await probe.look(1) == StreamBacklog(None, 0, None)


async def test_a_filter_counts_what_it_lets_pass(cluster: Cluster, connect: Connect) -> None:
    stream = stream_of(cluster, 10, 10)
    add(stream, 2, size=3)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s", match=lambda body: len(body) == 3)
        assert await probe.look(-1) == StreamBacklog(21, 2, 1_002)
        assert await probe.look(20) == StreamBacklog(21, 1, 1_002)


async def test_an_idle_stream_costs_one_question(cluster: Cluster, connect: Connect) -> None:
    stream_of(cluster, 5, -1, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        await probe.look(2)
        before = len(asked(cluster, Subscribe)), len(asked(cluster, StreamStats))
        for _ in range(10):
            assert (await probe.look(2)).messages == 7
        assert len(asked(cluster, Subscribe)) == before[0]
        assert len(asked(cluster, StreamStats)) == before[1] + 10


async def test_a_long_backlog_is_not_read(cluster: Cluster, connect: Connect) -> None:
    """The first chunk tells the age, and the last one the end."""
    stream_of(cluster, *[100] * (COUNTED // 100 + 50), -1)
    async with connect(cluster) as environment:
        found = await environment.lag_probe("s").look(-1)
    assert found == StreamBacklog(COUNTED + 4_999, COUNTED + 5_000, 1_000)
    assert sum(command.credit for command in asked(cluster, Subscribe)) == 2


async def test_large_messages_are_not_all_read(cluster: Cluster, connect: Connect) -> None:
    count, size = 60, BYTES // 10
    stream_of(cluster, *[1] * count, size=size)
    async with connect(cluster) as environment:
        found = await environment.lag_probe("s").look(-1)
    assert found == StreamBacklog(count - 1, count, 1_000)
    assert sum(command.credit for command in asked(cluster, Subscribe)) * size <= 1.5 * BYTES


async def test_what_was_counted_is_not_read_again(cluster: Cluster, connect: Connect) -> None:
    stream = stream_of(cluster, *[1, -1] * 30)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        assert (await probe.look(5)).messages == 27
        for number in range(3):
            add(stream, 1, -1)
            before = len(asked(cluster, Subscribe))
            assert (await probe.look(5 + 2 * number)).messages == 28
            assert sum(c.credit for c in asked(cluster, Subscribe)[before:]) == 2  # the end, and it


async def test_what_retention_removes_is_not_waiting(cluster: Cluster, connect: Connect) -> None:
    """A reader that is paused meanwhile stays where it is."""
    stream = stream_of(cluster, *[5, -1] * 20)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        assert await probe.look(5) == StreamBacklog(118, 95, 1_001)
        for left in (10, 2, 1):
            del stream.chunks[:-left]
            again = await environment.lag_probe("s").look(5)
            assert await probe.look(5) == again
            assert (again.messages, again.written) == (5 * left, 1_020 - left)
        add(stream, *[1] * 200)
        del stream.chunks[:100]
        assert (await probe.look(5)).messages == 101


async def test_who_keeps_up_is_not_counted_after(cluster: Cluster, connect: Connect) -> None:
    """What a reader has not taken in yet it will have before it is counted."""
    stream = stream_of(cluster, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        await probe.look(4)
        add(stream, *[1] * 500)
        before = len(asked(cluster, Subscribe))
        assert await probe.look(4) == StreamBacklog(504, 500, 1_500)
        assert len(asked(cluster, Subscribe)) == before + 1
        assert await probe.look(4) == StreamBacklog(504, 500, 1_001)  # it does not


async def test_a_replica_that_is_at_hand_is_asked(connect: Connect) -> None:
    """A look every few seconds opens no connection to the leader where the reader has another."""
    cluster = Cluster(3)
    stream_of(cluster, 5)
    async with connect(cluster) as environment, environment.consumer("s") as consumer:
        await anext(consumer)
        dialled = len(cluster.dialled)
        probe = environment.lag_probe("s")
        for behind in (-1, 2, 4):
            await probe.look(behind)
        assert len(cluster.dialled) == dialled


async def test_a_reader_at_the_end_is_not_disturbed(cluster: Cluster, connect: Connect) -> None:
    """Its connection would get a subscription, and send its messages later."""
    stream = stream_of(cluster, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        await probe.look(-1, lambda: 4)
        before = len(asked(cluster, Subscribe))
        for end in (7, 11, 15):
            add(stream, 3, -1)
            assert await probe.look(end - 4, partial(int, end)) == StreamBacklog(end, 0, None)
        assert len(asked(cluster, Subscribe)) == before


async def test_a_reader_may_get_the_newest_chunk_in_a_moment(
    cluster: Cluster, connect: Connect
) -> None:
    stream = stream_of(cluster, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        await probe.look(-1, lambda: 4)
        add(stream, 3, 2)
        places = iter([7, -1, 9])  # -1: it is taking something in
        assert await probe.look(4, lambda: next(places)) == StreamBacklog(9, 0, None)


async def test_a_stream_that_is_created_again_while_its_reader_was_at_the_end(
    cluster: Cluster, connect: Connect
) -> None:
    stream_of(cluster, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        assert await probe.look(4, lambda: 4) == StreamBacklog(4, 0, None)
        add(cluster.nodes[0].streams["s"], 15)
        assert await probe.look(19, lambda: 19) == StreamBacklog(19, 0, None)
        del cluster.nodes[0].streams["s"]
        stream_of(cluster, 3)
        assert await probe.look(-1, lambda: -1) == StreamBacklog(2, 3, 1_000)


@pytest.mark.parametrize("at", [7, -1, 4])
async def test_a_reader_that_is_behind_has_a_lag(
    cluster: Cluster, connect: Connect, at: int
) -> None:
    stream = stream_of(cluster, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        await probe.look(-1, lambda: 4)
        add(stream, 3, -1, 2)
        assert await probe.look(4, lambda: at) == StreamBacklog(10, 5, 1_001)


async def test_an_offset_that_nobody_has_read_up_to_is_not_the_end(
    cluster: Cluster, connect: Connect
) -> None:
    """Such as one stored for a stream that was deleted and created again."""
    stream = stream_of(cluster, 5)
    async with connect(cluster) as environment:
        probe = environment.lag_probe("s")
        for end in (4, 6):
            assert await probe.look(99, lambda: 99) == StreamBacklog(end, 0, None)
            add(stream, 2)
