"""What a broker does at intervals: retention by age, and rates."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from flowstream.protocol import CreateStream, DeclarePublisher, PublishConfirm, encode_publish
from flowstream.testing import virtual_time
from tests.broker.connections import a_client, a_node

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_time("trio")


async def test_a_stream_that_nobody_writes_to_loses_its_old_segments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_node() as node, a_client(node) as raw:
        arguments = {"max-age": "1h", "stream-max-segment-size-bytes": "1"}
        await raw.ok(CreateStream(7, "s", arguments))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        for publishing_id in range(3):
            await raw.send(encode_publish(0, publishing_id, [b"x"]))
            await raw.expect(PublishConfirm)
        stream = node.catalog.streams["s"]
        await anyio.sleep(61)
        young = stream.first_offset
        later = time.time_ns() + 2 * 3600 * 10**9
        monkeypatch.setattr(time, "time_ns", lambda: later)
        await anyio.sleep(61)
        assert (young, stream.first_offset, stream.end) == (0, 2, 3)


async def test_rates_are_of_the_last_second() -> None:
    async with a_node() as node, a_client(node) as raw:
        await raw.ok(CreateStream(7, "s", {}))
        await raw.ok(DeclarePublisher(8, 0, None, "s"))
        await anyio.sleep(1.1)
        await raw.send(encode_publish(0, 0, [b"x"] * 10))
        await raw.expect(PublishConfirm)
        rates = []
        for _ in range(2):
            await anyio.sleep(1)
            rates.append(node.rates)
        assert rates == [(10, 0), (0, 0)]
        assert node.bytes_used > 10
