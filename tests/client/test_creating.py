"""Creating streams and super streams while another process creates the same ones."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.errors import StreamAlreadyExists, StreamNotAvailable
from flowstream.protocol import (
    Code,
    CreateSuperStream,
    Key,
    Metadata,
    MetadataResponse,
    StreamMetadata,
)
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio

NOBODY = 65535


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


def answer(cluster: Cluster, *answers: tuple[int, int]) -> None:
    """Answer Metadata with these codes and leaders, one after the other; then as always."""
    left = [*answers]

    def script(session: Session, command: Metadata) -> bool:
        if not left:
            return False
        code, leader = left.pop(0)
        found = tuple(StreamMetadata(stream, code, leader, ()) for stream in command.streams)
        session.send(MetadataResponse(command.correlation_id, {0: cluster.node.address}, found))
        return True

    cluster.node.scripts[Metadata] = script


async def test_a_stream_that_another_process_creates_is_there_when_it_can_be_used(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env:
        answer(cluster, (Code.STREAM_NOT_AVAILABLE, NOBODY), (Code.OK, NOBODY), (Code.OK, 0))
        await env.create_stream("s", exist_ok=True)
        assert len(cluster.node.received(Metadata)) == 3
        answer(cluster, (Code.STREAM_NOT_AVAILABLE, NOBODY))
        assert await env.stream_exists("s")


async def test_a_stream_without_a_leader_exists_and_its_users_say_so(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster, request_timeout=2.0) as env:
        answer(cluster, *[(Code.STREAM_NOT_AVAILABLE, NOBODY)] * 10_000)
        began = anyio.current_time()
        await env.create_stream("s", exist_ok=True)
        assert anyio.current_time() - began == pytest.approx(2.0, abs=0.1)
        with pytest.raises(StreamNotAvailable):
            await env.metadata("s")


def create_slowly(cluster: Cluster, partitions: list[str], *, delay: float) -> None:
    """As RabbitMQ while another process creates it: it exists, and is bound bit by bit."""
    begun: list[float] = []

    def script(session: Session, command: CreateSuperStream) -> bool:
        begun.append(anyio.current_time())
        session.ok(Key.CREATE_SUPER_STREAM, command.correlation_id, Code.STREAM_ALREADY_EXISTS)
        return True

    class Slowly(dict[str, list[str]]):
        def get(self, name: str, default: Any = None) -> Any:
            ready = int((anyio.current_time() - begun[0]) / delay)
            return partitions[:ready] or default

    for partition in partitions:
        cluster.add(partition)
    cluster.super_streams = Slowly()
    cluster.node.scripts[CreateSuperStream] = script


async def test_a_super_stream_that_another_process_creates_has_all_its_partitions(
    cluster: Cluster, connect: Connect
) -> None:
    names = [f"s-{number}" for number in range(4)]
    create_slowly(cluster, names, delay=0.7)
    async with connect(cluster) as env:
        await env.create_super_stream("s", partitions=4, exist_ok=True)
        assert await env.partitions("s") == names


@pytest.mark.parametrize("there", [["s-0", "s-1"], ["s-eu", "s-us", "s-asia", "s-uk"], ["s-x"]])
async def test_a_super_stream_with_other_partitions_is_accepted(
    cluster: Cluster, connect: Connect, there: list[str]
) -> None:
    create_slowly(cluster, there, delay=0.000_001)
    async with connect(cluster) as env:
        began = anyio.current_time()
        await env.create_super_stream("s", exist_ok=True)
        assert await env.partitions("s") == there
        assert anyio.current_time() - began < 2.0


@pytest.mark.medium
async def test_a_super_stream_that_never_gets_partitions_is_an_error(
    cluster: Cluster, connect: Connect
) -> None:
    create_slowly(cluster, [], delay=1.0)
    async with connect(cluster) as env:
        began = anyio.current_time()
        with pytest.raises(StreamAlreadyExists, match=r"no partitions, .* s-0, s-1, s-2 exists"):
            await env.create_super_stream("s", exist_ok=True)
        assert anyio.current_time() - began == pytest.approx(10.0, abs=0.2)
