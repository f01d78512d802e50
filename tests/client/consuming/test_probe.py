"""The end of a stream, looked up while messages are published."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowstream.client import offset_spec
from flowstream.protocol import (
    StreamStats,
    Subscribe,
)
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


@pytest.mark.parametrize("offset", ["first", "last", timedelta(hours=1), 3])
async def test_what_is_published_while_an_offset_is_looked_up_is_not_left_out(
    cluster: Cluster, connect: Connect, offset: Any
) -> None:
    """A look at an empty stream finds nothing; the end behind what came since is no beginning."""
    cluster.add("s")

    def come() -> None:
        if not cluster.streams["s"].chunks:
            cluster.add("s", [b"0", b"1"])

    def looked(session: Session, command: Subscribe) -> bool:
        session.subscribe(command)
        if command.offset.kind is offset_spec(offset).kind and offset not in ("first", "last"):
            come()
        return True

    def told(session: Session, command: StreamStats) -> bool:
        session.stats(command)
        come()
        return True

    async with connect(cluster) as env:
        cluster.node.scripts |= {Subscribe: looked, StreamStats: told}
        assert await env.resolve_offset("s", offset) == 0
