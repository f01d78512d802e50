"""A partition that is added to a super stream which is read: where it begins is known at once."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import Environment, Message, Pipeline, SuperStreamProducer
from flowstream.client import Offset
from flowstream.testing import virtual_time
from tests.client.conftest import URL
from tests.client.scripted import Cluster

pytestmark = pytest.mark.anyio

REFRESH = 61.0
"""Seconds in which a consumer notices new partitions."""


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time("trio")


@pytest.mark.parametrize("first", ["first", "next"])
async def test_a_run_that_is_killed_before_it_commits_one_is_continued_from_its_beginning(
    first: Offset,
) -> None:
    """Nothing was stored for it, so that with another `offset` the next run began later."""
    cluster = Cluster()
    cluster.super_streams["orders"] = ["orders-0"]
    cluster.add("orders-0")
    begun = anyio.Event()

    async def run(offset: Offset, seconds: float, *, hanging: bool) -> set[bytes]:
        seen: set[bytes] = set()
        pipeline = Pipeline("shop", SuperStreamProducer("orders", offset=offset))

        @pipeline.processor
        async def handle(message: Message[bytes]) -> None:
            seen.add(message.data)
            begun.set()
            if hanging:
                await anyio.sleep_forever()

        environment = Environment(URL)
        environment._manager.dial = cluster.dial
        async with environment, pipeline.start(environment=environment) as running:
            await anyio.sleep(seconds)
            running.abort()
        return seen

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: run(first, 2 * REFRESH, hanging=True))
        await anyio.sleep(1)
        cluster.add("orders-1", [b"0", b"1"], [b"2"])
        cluster.super_streams["orders"].append("orders-1")
        await begun.wait()
    assert "shop" not in cluster.streams["orders-0"].offsets or first == "next"
    assert await run("next", 5, hanging=False) == {b"0", b"1", b"2"}
