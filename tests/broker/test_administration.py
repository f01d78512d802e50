"""Definitions of streams: when they are answered, and who is notified."""

from __future__ import annotations

import anyio
import pytest

from flowstream.protocol import (
    NO_LEADER,
    CreateStream,
    CreateSuperStream,
    DeclarePublisher,
    DeleteStream,
    DeleteSuperStream,
    Metadata,
    MetadataResponse,
    MetadataUpdate,
    Response,
    StreamMetadata,
)
from tests.broker.connections import a_client, a_node, silent
from tests.broker.stores import GatedStore

pytestmark = pytest.mark.anyio


async def test_a_new_stream_is_answered_when_it_is_durable() -> None:
    store = GatedStore()
    async with a_node(store=store) as node, a_client(node) as raw:
        store.shut()
        await raw.send(CreateStream(7, "s", {}))
        await store.entered.wait()
        assert await silent(raw)
        store.gate.set()
        assert (await raw.expect(Response)).code == 1


async def test_each_name_is_described_once() -> None:
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        answer = await raw.call(Metadata(8, ("s", "none", "s")), MetadataResponse)
        assert answer.brokers == {0: ("here", 1)}
        assert answer.streams == (
            StreamMetadata("s", 1, 0, ()),
            StreamMetadata("none", 2, NO_LEADER, ()),
        )
        answer = await raw.call(Metadata(9, ("none",)), MetadataResponse)
        assert answer.brokers == {}


async def test_only_clients_that_use_a_stream_are_notified_of_its_end() -> None:
    async with a_node() as node, a_client(node) as raw, a_client(node) as user:
        for name in ("s", "t"):
            await raw.ok(CreateStream(7, name, {}))
        await user.ok(DeclarePublisher(8, 0, None, "s"))
        await raw.ok(DeleteStream(9, "t"))
        await raw.ok(DeleteStream(10, "s"))
        update = await user.expect(MetadataUpdate)
        assert (update.code, update.stream) == (6, "s")
        assert (await raw.call(DeleteStream(11, "s"))).code == 2


async def test_other_clients_are_notified_when_the_deleting_one_is_gone() -> None:
    store = GatedStore()
    async with a_node(store=store) as node, a_client(node) as user:
        await user.ok(CreateSuperStream(7, "super", ("s", "t"), ("0", "1"), {}))
        await user.ok(DeclarePublisher(8, 0, None, "s"))
        async with a_client(node) as raw:
            store.shut()
            await raw.send(DeleteSuperStream(9, "super"))
            await store.entered.wait()
            await raw.stream.aclose()
            store.gate.set()
        with anyio.fail_after(5):
            assert (await user.expect(MetadataUpdate)).stream == "s"
        assert node.catalog.streams == {}
