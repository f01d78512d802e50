"""Readers that retention overtakes, on every broker: a loss is an error, or counted exactly."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from flowstream import Environment
from flowstream.client import AutoTracking, Consumer
from flowstream.client.consuming import retention
from flowstream.errors import OffsetTruncated
from flowstream.protocol import Code, QueryOffset
from flowstream.telemetry import Overtaken, RetentionLooked, Telemetry
from tests.broker.raw import logged_in
from tests.brokers.running import Broker
from tests.client.conftest import Recorder

PATIENCE = 30


async def overtake(broker: Broker, stream: str, behind: int) -> None:
    """Publish until retention has removed the message at offset `behind`."""
    async with Environment(broker.url) as environment, environment.publisher(stream) as publisher:
        with anyio.fail_after(PATIENCE):
            while (await environment.stream_stats(stream)).first_offset <= behind:  # type: ignore[operator]
                await publisher.publish_many([b"x" * 1000] * 100)


async def make_stream(environment: Environment, stream: str) -> None:
    await environment.create_stream(stream, max_length_bytes=200_000, max_segment_size_bytes=50_000)
    async with environment.publisher(stream) as publisher:
        for _ in range(10):
            await publisher.publish_many([b"y" * 1000] * 10)


async def read_a_little(consumer: Consumer) -> int:
    """Two deliveries; the offset behind them, while the broker has no credit to send on."""
    await anext(consumer)
    return (await anext(consumer)).offsets[-1] + 1


async def read_in_order(consumer: Consumer, expected: int) -> int:
    """Read without gaps until the consumer ends."""
    async for delivery in consumer:
        assert delivery.offset == expected
        expected = delivery.offsets[-1] + 1
    return expected


@pytest.mark.anyio
async def test_a_reader_that_is_overtaken_ends_with_an_error(
    broker: Broker, stream_name: str
) -> None:
    recorder = Recorder()
    async with Environment(broker.url, telemetry=Telemetry(recorder)) as environment:
        await make_stream(environment, stream_name)
        async with environment.consumer(stream_name, credit=2) as consumer:
            await read_a_little(consumer)
            await overtake(broker, stream_name, 2000)
            read = consumer.position
            assert read is not None
            with pytest.raises(OffsetTruncated) as caught, anyio.fail_after(PATIENCE):
                read = await read_in_order(consumer, read)
            read = consumer.position
            assert read is not None
            assert caught.value.stored == read - 1
            assert consumer.lost == caught.value.first - read > 0
            assert [event.messages for event in recorder.of(Overtaken)] == [consumer.lost]
            with pytest.raises(OffsetTruncated):
                await anext(consumer)


@pytest.mark.anyio
async def test_what_is_lost_can_be_accepted_and_is_counted(
    broker: Broker, stream_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Environment(broker.url) as environment:
        await make_stream(environment, stream_name)
        async with environment.consumer(stream_name, credit=2, on_truncated="skip") as consumer:
            expected = await read_a_little(consumer)
            await overtake(broker, stream_name, 2000)
            last = await environment.last_offset(stream_name)
            assert last is not None
            lost = 0
            with anyio.fail_after(PATIENCE), caplog.at_level(logging.WARNING, "flowstream"):
                while expected <= last:
                    delivery = await anext(consumer)
                    # a record of the broker's own can be behind what was removed
                    assert 0 <= delivery.offset - expected - delivery.lost <= 1
                    lost += delivery.lost
                    expected = delivery.offsets[-1] + 1
            assert consumer.lost == lost > 0
            assert "skips" in caplog.text


async def references(broker: Broker, stream: str, *names: str) -> list[str]:
    """Those that the broker has an offset of, as it tells any client."""
    found = []
    async with logged_in(broker.url) as raw:
        for number, name in enumerate(names, 1):
            answer: Any = await raw.call(QueryOffset(number, name, stream), object)
            if answer.code == Code.OK:
                found.append(name)
    return found


@pytest.mark.anyio
async def test_only_who_asks_for_it_is_remembered_when_retention_has_passed(
    broker: Broker, stream_name: str
) -> None:
    """And nobody for ever: a reference can be forgotten."""
    names = ("once", "once#kept", "kept", "kept#kept", "gone", "gone#kept", "own", "own#kept")
    async with Environment(broker.url) as environment:
        await make_stream(environment, stream_name)
        await environment.store_offset_verified("once", stream_name, 5)
        await environment.store_offset_verified("kept", stream_name, 5, keep=True)
        await environment.store_offset_verified("kept", stream_name, 3)  # the copy follows
        await environment.store_offset_verified("gone", stream_name, 50, keep=True)
        async with environment.consumer(
            stream_name, reference="own", tracking="manual", keep_offset=True
        ) as consumer:
            await consumer.store_offset(7)
        stored = await references(broker, stream_name, *names)
        assert stored == [name for name in names if name != "once#kept"]
        await environment.forget_offset("gone", stream_name)
        assert await environment.query_offset("gone", stream_name) is None

        with anyio.fail_after(PATIENCE):
            async with environment.publisher(stream_name) as publisher:
                while set(names[:1] + names[4:6]) & set(
                    await references(broker, stream_name, *names)
                ):
                    await publisher.publish_many([b"x" * 1000] * 50)
        assert await references(broker, stream_name, *names) == ["kept#kept", "own#kept"]
        offsets = [await environment.query_offset(name, stream_name) for name in names[::2]]
        assert offsets == [None, 3, None, 7]
        await environment.store_offset_verified("gone", stream_name, 9, keep=True)
        assert await environment.query_offset("gone", stream_name) == 9


@pytest.mark.anyio
async def test_a_reader_that_comes_back_after_retention_is_told(
    broker: Broker, stream_name: str
) -> None:
    """By its tracked offset, by a number of its own, and behind a lost connection."""
    async with Environment(broker.url) as environment:
        await make_stream(environment, stream_name)
        async with environment.consumer(
            stream_name, reference="reader", tracking=AutoTracking(messages=1)
        ) as consumer:
            stored = await read_a_little(consumer) - 1
        async with environment.consumer(stream_name, offset=stored + 1, credit=2) as other:
            behind = await read_a_little(other)
            await overtake(broker, stream_name, 2000)
            for connection in [c for c in environment._manager.connections if c.subscriptions]:
                connection.abort("the test cut it", "network")
            with pytest.raises(OffsetTruncated), anyio.fail_after(PATIENCE):
                await read_in_order(other, behind)
        async with environment.consumer(stream_name, offset=stored + 1) as late:
            with pytest.raises(OffsetTruncated) as caught, anyio.fail_after(PATIENCE):
                await anext(late)
        assert caught.value.stored == stored


@pytest.mark.anyio
async def test_the_beginning_is_looked_at_however_often_offsets_are_stored(
    broker: Broker, stream_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each stored offset leaves a gap to be explained; a reader is warned all the same."""
    for interval in ("FIRST_LOOK", "LOOK_INTERVAL", "PROBE_INTERVAL"):
        monkeypatch.setattr(retention, interval, 1.0)
    recorder = Recorder()
    async with Environment(broker.url, telemetry=Telemetry(recorder)) as environment:
        await environment.create_stream(stream_name)
        async with (
            environment.publisher(stream_name) as publisher,
            environment.consumer(
                stream_name, reference="me", tracking=AutoTracking(messages=1)
            ) as consumer,
        ):
            with anyio.fail_after(PATIENCE):
                while len(recorder.of(RetentionLooked)) < 3:
                    await publisher.publish(b"x")
                    await anext(consumer)
                    await anyio.sleep(0.02)
