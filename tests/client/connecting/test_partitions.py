"""The partitions of a super stream that does not exist."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream.errors import ConfigurationError, StreamDoesNotExist
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_an_unknown_super_stream(cluster: Cluster, connect: Connect) -> None:
    async with connect(cluster) as env:
        for thing in (env.super_stream_publisher("x"), env.super_stream_consumer("x")):
            with pytest.raises(StreamDoesNotExist) as caught:
                await thing.__aenter__()
            assert caught.value.stream == "x"
        with pytest.raises(ConfigurationError, match="refresh"):
            env.super_stream_publisher("x", refresh=0)
