"""What a client sees on the wire, the same on every broker: chunks, credits, offsets, filters.

Chunks are cut as a server likes, so publishing here waits for each confirm where the place of a
chunk matters.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.protocol import (
    Chunk,
    CreateStream,
    Credit,
    DeclarePublisher,
    Deliver,
    Metadata,
    MetadataUpdate,
    OffsetSpec,
    PublishConfirm,
    PublishFiltered,
    QueryOffset,
    QueryPublisherSequence,
    StoreOffset,
    StreamStats,
    Subscribe,
    encode_publish,
    encode_publish_ids,
    encode_sub_entries,
    sub_entry,
)
from flowstream.protocol import DeleteStream as Delete
from tests.broker.raw import Raw, logged_in
from tests.brokers.running import Broker

pytestmark = pytest.mark.anyio

SILENCE = 0.3
"""Seconds without a chunk after which none is taken to come."""


async def a_stream(raw: Raw, name: str, reference: str | None = None, **arguments: str) -> None:
    """A stream, and publisher 0 on it."""
    await raw.ok(CreateStream(7, name, arguments))
    await raw.ok(DeclarePublisher(8, 0, reference, name))


async def publish(raw: Raw, first_id: int, *bodies: bytes) -> None:
    """One frame, confirmed before this returns; a single message is a chunk of its own."""
    await raw.send(encode_publish(0, first_id, bodies))
    await confirmed(raw, len(bodies))


async def confirmed(raw: Raw, count: int) -> list[int]:
    ids: list[int] = []
    while len(ids) < count:
        ids += (await raw.expect(PublishConfirm)).publishing_ids
    return sorted(ids)


async def delivered(raw: Raw, count: int) -> list[Chunk]:
    return [Chunk((await raw.expect(Deliver)).chunk) for _ in range(count)]


async def nothing_comes(raw: Raw) -> bool:
    with anyio.move_on_after(SILENCE):
        command = await raw.next()
        raise AssertionError(f"{command!r} came")
    return True


async def consume(
    raw: Raw,
    stream: str,
    spec: OffsetSpec,
    credit: int = 100,
    properties: dict[str, str] | None = None,
) -> None:
    await raw.ok(Subscribe(9, 0, stream, spec, credit, properties or {}))


async def test_offsets_are_answered_with_the_chunk_that_contains_them(
    broker: Broker, stream_name: str
) -> None:
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        for first in (0, 3, 6):  # a sub-entry is never divided
            await raw.send(encode_sub_entries(0, [sub_entry(first, [b"a", b"b", b"c"])]))
            await confirmed(raw, 1)
        for spec, first in (
            (OffsetSpec.first(), 0),
            (OffsetSpec.last(), 6),
            (OffsetSpec.offset(0), 0),
            (OffsetSpec.offset(4), 3),
            (OffsetSpec.offset(8), 6),
            (OffsetSpec.timestamp(0), 0),
        ):
            async with logged_in(broker.url) as reader:
                await consume(reader, stream_name, spec)
                (chunk, *_) = await delivered(reader, 1)
                assert chunk.offset == first, spec


@pytest.mark.parametrize(
    "spec", [OffsetSpec.next(), OffsetSpec.offset(1000), OffsetSpec.timestamp(1 << 50)], ids=str
)
async def test_past_the_tail_is_next(broker: Broker, stream_name: str, spec: OffsetSpec) -> None:
    async with logged_in(broker.url) as raw, logged_in(broker.url) as reader:
        await a_stream(raw, stream_name)
        await publish(raw, 0, b"before")
        await consume(reader, stream_name, spec)
        assert await nothing_comes(reader)
        await publish(raw, 1, b"after")
        (chunk,) = await delivered(reader, 1)
        assert (chunk.offset, chunk.bodies()) == (1, [b"after"])


async def test_a_chunk_is_as_it_was_published(broker: Broker, stream_name: str) -> None:
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        bodies = [b"", b"x", b"y" * 70_000]
        await publish(raw, 0, *bodies)
        await raw.send(encode_sub_entries(0, [sub_entry(3, [b"one", b"two"])]))
        await confirmed(raw, 1)
        await publish(raw, 4, b"three")
        await consume(raw, stream_name, OffsetSpec.first())
        found: list[bytes] = []
        offset = 0
        while offset < 6:
            (chunk,) = await delivered(raw, 1)
            chunk.verify()
            assert (chunk.offset, chunk.type) == (offset, 0)
            found += chunk.bodies()
            offset += chunk.records
        assert found == [*bodies, b"one", b"two", b"three"]


async def test_nothing_is_sent_up_to_half_of_the_first_credit(
    broker: Broker, stream_name: str
) -> None:
    if broker.version < (3, 11, 8):
        pytest.skip("the send limit came with 3.11.8")
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        for each in range(12):
            await publish(raw, each, b"x")
        await consume(raw, stream_name, OffsetSpec.first(), credit=4)
        await delivered(raw, 4)
        await raw.send(Credit(0, 2))
        assert await nothing_comes(raw)
        await raw.send(Credit(0, 1))
        assert [chunk.offset for chunk in await delivered(raw, 3)] == [4, 5, 6]
        assert await nothing_comes(raw)


async def test_credit_left_at_the_tail_serves_only_above_the_limit(
    broker: Broker, stream_name: str
) -> None:
    if broker.version < (3, 11, 8):
        pytest.skip("the send limit came with 3.11.8")
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        await consume(raw, stream_name, OffsetSpec.first(), credit=4)
        got: list[int] = []
        for each in range(4):
            await raw.send(encode_publish(0, each, [b"x"]))
            with anyio.move_on_after(SILENCE):
                while (command := await raw.next()) is not None:
                    if isinstance(command, Deliver):
                        got.append(Chunk(command.chunk).offset)
        assert got == [0, 1]
        await raw.send(Credit(0, 1))
        assert [chunk.offset for chunk in await delivered(raw, 2)] == [2, 3]


async def test_deliver_2_tells_the_last_committed_chunk(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 11):
        pytest.skip("Deliver 2 came with 3.11")
    async with logged_in(broker.url) as raw, logged_in(broker.url) as old:
        await a_stream(raw, stream_name)
        for each in range(3):
            await publish(raw, each, b"x")
        await raw.exchange_versions(deliver=2)
        await consume(raw, stream_name, OffsetSpec.first())
        assert (await raw.expect(Deliver)).committed_chunk_id == 2
        await old.exchange_versions(deliver=1)
        await consume(old, stream_name, OffsetSpec.first())
        assert (await old.expect(Deliver)).committed_chunk_id is None


async def test_duplicates_are_confirmed_and_not_stored(broker: Broker, stream_name: str) -> None:
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name, "publisher")
        await raw.send(encode_publish_ids(0, [0, 1, 5], [b"0", b"1", b"5"]))
        assert await confirmed(raw, 3) == [0, 1, 5]
        await raw.send(encode_publish_ids(0, [3, 5, 6, 2, 7], [b"3", b"5", b"6", b"2", b"7"]))
        assert await confirmed(raw, 5) == [2, 3, 5, 6, 7]
        answer: Any = await raw.call(QueryPublisherSequence(9, "publisher", stream_name), object)
        assert answer.sequence == 7
        await consume(raw, stream_name, OffsetSpec.first())
        found: list[bytes] = []
        while len(found) < 5:
            found += (await delivered(raw, 1))[0].bodies()
        assert found == [b"0", b"1", b"5", b"6", b"7"]


async def test_filtering_leaves_out_chunks(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("filtering came with 3.13")
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        for each, value in enumerate(["a", "b", None, "a"]):
            await raw.send(PublishFiltered(0, [(each, value, b"%d" % each)]))
            await confirmed(raw, 1)
        for more, offsets in (
            ({"filter.0": "a"}, [0, 3]),
            ({"filter.0": "b", "match-unfiltered": "true"}, [1, 2]),
            ({"filter.0": "a", "filter.1": "b"}, [0, 1, 3]),
            ({"filter.0": "nothing"}, []),
        ):
            async with logged_in(broker.url) as reader:
                await consume(reader, stream_name, OffsetSpec.first(), properties=more)
                chunks = await delivered(reader, len(offsets))
                assert [chunk.offset for chunk in chunks] == offsets
                assert await nothing_comes(reader)


async def test_a_filter_chunk_says_the_size_of_its_filter(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 13):
        pytest.skip("filtering came with 3.13")
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name, **{"stream-filter-size-bytes": "32"})
        await raw.send(PublishFiltered(0, [(0, "a", b"x")]))
        await confirmed(raw, 1)
        await raw.send(PublishFiltered(0, [(1, None, b"x")]))
        await confirmed(raw, 1)
        await consume(raw, stream_name, OffsetSpec.first())
        assert [chunk.bloom_size for chunk in await delivered(raw, 2)] == [32, 0]


async def test_retention_removes_old_segments(broker: Broker, stream_name: str) -> None:
    arguments = {"max-length-bytes": "20000", "stream-max-segment-size-bytes": "5000"}
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name, **arguments)
        for each in range(20):
            await publish(raw, each, b"x" * 4000)
        offset = before = 0
        with anyio.fail_after(10):
            # RabbitMQ removes in the background. It must be at its end when the stream is deleted:
            # 3.10 restarts all streams of a node if retention does not find the files of one.
            while offset == 0 or offset != before:
                before = offset
                await anyio.sleep(0.1)
                async with logged_in(broker.url) as reader:
                    await consume(reader, stream_name, OffsetSpec.offset(0))
                    offset = (await delivered(reader, 1))[0].offset
        assert 8 <= offset <= 18


async def test_a_stored_offset_takes_a_place_in_the_stream(
    broker: Broker, stream_name: str
) -> None:
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        for each in range(3):
            await publish(raw, each, b"x")
            await raw.send(StoreOffset("r", stream_name, each))
            answer: Any = await raw.call(QueryOffset(9, "r", stream_name), object)
            assert answer.offset == each
        await consume(raw, stream_name, OffsetSpec.first())
        assert [chunk.offset for chunk in await delivered(raw, 3)] == [0, 2, 4]
        for spec, offsets in (
            (OffsetSpec.last(), [4]),
            (OffsetSpec.offset(3), [4]),
            (OffsetSpec.next(), []),
            (OffsetSpec.offset(5), []),
        ):
            async with logged_in(broker.url) as reader:
                await consume(reader, stream_name, spec)
                chunks = await delivered(reader, len(offsets))
                assert [chunk.offset for chunk in chunks] == offsets, spec
                assert await nothing_comes(reader)
        await publish(raw, 3, b"x")
        assert (await delivered(raw, 1))[0].offset == 6


async def test_statistics_count_what_is_tracked(broker: Broker, stream_name: str) -> None:
    if broker.version < (3, 11):
        pytest.skip("StreamStats came with 3.11")
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name)
        await raw.send(StoreOffset("r", stream_name, 9))
        await raw.call(QueryOffset(9, "r", stream_name), object)
        stats: Any = await raw.call(StreamStats(10, stream_name), object)
        known = ("first_chunk_id", "committed_chunk_id", "last_chunk_id")
        assert [stats.stats[key] for key in known] == [0, 0, 0]


async def test_others_are_told_of_a_deletion(broker: Broker, stream_name: str) -> None:
    async with (
        logged_in(broker.url) as raw,
        logged_in(broker.url) as reader,
        logged_in(broker.url) as stranger,
    ):
        await a_stream(raw, stream_name)
        await consume(reader, stream_name, OffsetSpec.first())
        await stranger.call(Metadata(1, (stream_name,)), object)
        await raw.ok(Delete(9, stream_name))
        for told in (raw, reader):
            assert await told.expect(MetadataUpdate) == MetadataUpdate(6, stream_name)
        assert await nothing_comes(stranger)


async def test_a_stream_made_again_is_empty(broker: Broker, stream_name: str) -> None:
    async with logged_in(broker.url) as raw:
        await a_stream(raw, stream_name, "p")
        await publish(raw, 5, b"old")
        await raw.send(StoreOffset("r", stream_name, 0))
        await raw.ok(Delete(9, stream_name))
        await raw.expect(MetadataUpdate)
        await a_stream(raw, stream_name, "p")
        offset: Any = await raw.call(QueryOffset(10, "r", stream_name), object)
        sequence: Any = await raw.call(QueryPublisherSequence(11, "p", stream_name), object)
        assert (offset.code, sequence.sequence) == (19, 0)
        await publish(raw, 1, b"new")
        await consume(raw, stream_name, OffsetSpec.first())
        (chunk,) = await delivered(raw, 1)
        assert chunk.bodies() == [b"new"]
