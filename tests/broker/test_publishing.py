"""Publishers: what is confirmed, when, and what is refused."""

from __future__ import annotations

import pytest

from flowstream.protocol import (
    CreateStream,
    DeclarePublisher,
    DeletePublisher,
    PublishConfirm,
    PublishError,
    QueryPublisherSequence,
    QueryPublisherSequenceResponse,
    SubEntry,
    encode_publish,
    encode_sub_entries,
    sub_entry,
)
from tests.broker.connections import a_client, a_node, silent
from tests.broker.raw import Raw
from tests.broker.stores import GatedStore

pytestmark = pytest.mark.anyio


async def a_publisher(raw: Raw) -> None:
    await raw.ok(CreateStream(7, "s", {}))
    await raw.ok(DeclarePublisher(8, 0, "p", "s"))


async def test_a_message_is_confirmed_when_it_is_durable() -> None:
    store = GatedStore()
    async with a_node(store=store) as node, a_client(node) as raw:
        await a_publisher(raw)
        store.shut()
        await raw.send(encode_publish(0, 1, [b"x", b"y"]))
        await store.entered.wait()
        assert await silent(raw)
        assert node.catalog.streams["s"].end == 0
        store.gate.set()
        assert (await raw.expect(PublishConfirm)).publishing_ids == (1, 2)
        assert node.catalog.streams["s"].end == 2


async def test_the_sequence_of_a_publisher_is_answered_when_it_is_durable() -> None:
    store = GatedStore()
    async with a_node(store=store) as node, a_client(node) as raw, a_client(node) as other:
        await a_publisher(raw)
        store.shut()
        await raw.send(encode_publish(0, 7, [b"x"]))
        await store.entered.wait()
        await other.send(QueryPublisherSequence(9, "p", "s"))
        assert await silent(other)
        store.gate.set()
        assert (await other.expect(QueryPublisherSequenceResponse)).sequence == 7


async def test_a_duplicate_is_confirmed_and_not_stored() -> None:
    async with a_node() as node, a_client(node) as raw:
        await a_publisher(raw)
        for _ in range(2):
            await raw.send(encode_publish(0, 5, [b"x", b"y"]))
            assert (await raw.expect(PublishConfirm)).publishing_ids == (5, 6)
        assert node.catalog.streams["s"].end == 2


async def test_nothing_after_an_unsound_sub_entry_is_accepted() -> None:
    """Sent again, the refused ones must not be taken for duplicates."""
    sound = [sub_entry(each, [b"x", b"y"]) for each in (1, 2, 3)]
    broken = SubEntry(2, sound[1].compression, 0, sound[1].uncompressed_size, sound[1].data)
    async with a_node() as node, a_client(node) as raw:
        await a_publisher(raw)
        await raw.send(encode_sub_entries(0, [sound[0], broken, sound[2]]))
        refused = await raw.expect(PublishError)
        assert refused.errors == ((2, 17), (3, 17))
        assert (await raw.expect(PublishConfirm)).publishing_ids == (1,)
        await raw.send(encode_sub_entries(0, sound[1:]))
        assert (await raw.expect(PublishConfirm)).publishing_ids == (2, 3)
        assert node.catalog.streams["s"].end == 6


async def test_messages_of_an_unknown_publisher_are_refused() -> None:
    async with a_node() as node, a_client(node) as raw:
        await a_publisher(raw)
        await raw.ok(DeletePublisher(9, 0))
        await raw.send(encode_publish(0, 1, [b"x", b"y"]))
        assert (await raw.expect(PublishError)).errors == ((1, 18), (2, 18))
        assert node.catalog.streams["s"].end == 0
