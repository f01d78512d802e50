"""Consumers: where they begin, when their offsets are answered, and what ends them."""

from __future__ import annotations

import pytest

from flowstream.protocol import (
    Chunk,
    ConsumerUpdate,
    ConsumerUpdateResponse,
    CreateStream,
    Credit,
    CreditError,
    DeclarePublisher,
    DeleteStream,
    Deliver,
    MetadataUpdate,
    OffsetSpec,
    PublishConfirm,
    QueryOffset,
    QueryOffsetResponse,
    StoreOffset,
    Subscribe,
    Unsubscribe,
    encode_publish,
)
from tests.broker.connections import a_client, a_node, silent
from tests.broker.stores import GatedStore

pytestmark = pytest.mark.anyio


async def test_a_stored_offset_is_answered_when_it_is_durable() -> None:
    store = GatedStore()
    async with a_node(store=store) as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        store.shut()
        await raw.send(StoreOffset("r", "s", 5), QueryOffset(8, "r", "s"))
        await store.entered.wait()
        assert await silent(raw)
        store.gate.set()
        answer = await raw.expect(QueryOffsetResponse)
        assert (answer.code, answer.offset) == (1, 5)


async def test_a_consumer_sees_a_message_when_it_is_durable() -> None:
    store = GatedStore()
    async with a_node(store=store) as node, a_client(node) as raw, a_client(node) as reader:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        await reader.ok(Subscribe(9, 0, "s", OffsetSpec.first(), 1, {}))
        store.shut()
        await raw.send(encode_publish(0, 1, [b"x"]))
        await store.entered.wait()
        assert await silent(reader)
        store.gate.set()
        assert Chunk((await reader.expect(Deliver)).chunk).bodies() == [b"x"]


async def test_credit_is_used_up_and_given_again() -> None:
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        for each in range(3):
            await raw.send(encode_publish(0, each, [b"%d" % each]))
            await raw.expect(PublishConfirm)
        await raw.ok(Subscribe(9, 0, "s", OffsetSpec.first(), 2, {}))
        for each in range(2):
            assert Chunk((await raw.expect(Deliver)).chunk).bodies() == [b"%d" % each]
        assert await silent(raw)
        await raw.send(Credit(0, 2))
        assert Chunk((await raw.expect(Deliver)).chunk).bodies() == [b"2"]
        await raw.ok(Unsubscribe(10, 0))
        await raw.send(Credit(0, 1))
        assert (await raw.expect(CreditError)).code == 4


async def test_a_late_answer_of_a_promoted_consumer_begins_where_it_says() -> None:
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        for first in range(3):
            await raw.send(encode_publish(0, first, [b"x"]))
            await raw.expect(PublishConfirm)
        properties = {"single-active-consumer": "true", "name": "n"}
        await raw.ok(Subscribe(9, 0, "s", OffsetSpec.first(), 1, properties))
        update = await raw.expect(ConsumerUpdate)
        assert update.active
        await raw.send(Credit(0, 1))
        assert (await raw.expect(CreditError)).code == 17
        answer = ConsumerUpdateResponse(update.correlation_id, 1, OffsetSpec.offset(2))
        await raw.send(answer)
        delivered = await raw.expect(Deliver)
        assert Chunk(delivered.chunk).offset == 2


async def test_a_stream_deleted_while_it_is_consumed() -> None:
    """The definition is gone at once, the subscription only when that is durable."""
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        await raw.send(encode_publish(0, 0, [b"x"]))
        await raw.expect(PublishConfirm)
        await raw.send(Subscribe(9, 0, "s", OffsetSpec.first(), 10, {}), DeleteStream(10, "s"))
        kinds = [type(await raw.next()) for _ in range(3)]
        assert kinds[-1] is MetadataUpdate
