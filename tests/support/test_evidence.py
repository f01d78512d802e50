"""What is kept for whoever has to find out why a test failed."""

from __future__ import annotations

import pytest

from flowstream import Environment
from tests.brokers.running import Broker
from tests.support.evidence import frames


@pytest.mark.anyio
async def test_the_frames_of_both_directions_are_remembered(embedded_broker: Broker) -> None:
    async with Environment(embedded_broker.url) as environment:
        await environment.stream_exists("s")
    for direction in ("sent", "received"):
        assert any(f" {direction} " in frame for frame in frames), frames
