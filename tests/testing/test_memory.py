"""An environment in memory: streams come and go, and super streams have their partitions."""

from __future__ import annotations

import pytest

from flowstream.errors import StreamDoesNotExist
from flowstream.testing import MemoryEnvironment

pytestmark = pytest.mark.anyio


async def test_streams_come_and_go():
    memory = MemoryEnvironment()
    await memory.create_stream("any", exist_ok=True)
    await memory.delete_stream("any")
    await memory.delete_stream("any", missing_ok=True)
    with pytest.raises(StreamDoesNotExist):
        await memory.delete_stream("any")
    assert await memory.last_offset("any") is None


async def test_the_partitions_of_super_streams():
    memory = MemoryEnvironment()
    assert memory.super_stream("invoices", 3) == ["invoices-0", "invoices-1", "invoices-2"]
    assert memory.super_stream("regions", ["eu", "us"]) == ["regions-eu", "regions-us"]
    keys = ["hello1", "hello2", "hello3", "hello4"]
    assert {memory.route("invoices", key) for key in keys} <= set(
        await memory.partitions("invoices")
    )
