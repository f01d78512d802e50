"""The arguments of a new stream."""

from __future__ import annotations

from typing import Any

import pytest

from flowstream.client import Address
from flowstream.errors import (
    SERVER_ERRORS,
    ConfigurationError,
    NotSupported,
    PreconditionFailed,
    ServerError,
    StreamAlreadyExists,
    StreamDoesNotExist,
)
from flowstream.protocol import (
    CreateStream,
    CreateSuperStream,
    DeleteStream,
    Key,
    StreamStats,
)
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_admin_requests(cluster: Cluster, connect: Connect) -> None:
    async with connect(cluster) as env:
        await env.create_stream("s", max_length_bytes=10)
        assert cluster.node.received(CreateStream)[0].arguments == {"max-length-bytes": "10"}
        await env.create_stream("s", exist_ok=True)
        with pytest.raises(StreamAlreadyExists) as caught:
            await env.create_stream("s")
        assert (caught.value.code, caught.value.stream) == (5, "s")
        assert await env.stream_exists("s")
        stats = await env.stream_stats("s")
        assert (stats.first_offset, stats.committed_chunk_id) == (None, None)
        assert await env.last_offset("s") is None
        assert await env.resolve_offset("s", "next") == 0
        assert await env.resolve_offset("s", "first") == 0
        cluster.add("s", [b"0", b"1"], [b"2", b"3", b"4"])
        assert await env.last_offset("s") == 4
        cases: list[tuple[Any, int]] = [
            ("first", 0),
            ("last", 2),
            ("next", 5),
            (1, 1),
            (4, 4),
            (9, 5),
        ]
        for offset, expected in cases:
            assert await env.resolve_offset("s", offset) == expected
        assert (await env.metadata("s")).leader == Address("node0", 5552)
        await env.delete_stream("s")
        await env.delete_stream("s", missing_ok=True)
        with pytest.raises(StreamDoesNotExist):
            await env.delete_stream("s")
        with pytest.raises(StreamDoesNotExist):
            await env.metadata("s")


async def test_an_old_server_is_read_where_it_has_no_command(connect: Connect) -> None:
    cluster = Cluster(version="3.10.8")
    async with connect(cluster) as env:
        await env.create_stream("s")
        assert (await env.stream_stats("s")).first_offset is None
        cluster.add("s", [b"0", b"1"], [b"2"])
        stats = await env.stream_stats("s")
        assert (stats.first_offset, stats.committed_chunk_id) == (0, 2)
        assert cluster.node.received(StreamStats) == []
        with pytest.raises(NotSupported, match="rabbitmq-streams add_super_stream"):
            await env.create_super_stream("x")
        with pytest.raises(NotSupported, match="rabbitmq-streams delete_super_stream"):
            await env.delete_super_stream("x")


@pytest.mark.parametrize("code", [*SERVER_ERRORS, 99])
async def test_every_code_has_its_exception(cluster: Cluster, connect: Connect, code: int) -> None:
    def script(session: Session, command: DeleteStream) -> bool:
        session.ok(Key.DELETE_STREAM, command.correlation_id, code)
        return True

    cluster.node.scripts[DeleteStream] = script
    async with connect(cluster) as env:
        with pytest.raises(ServerError, match='cannot delete stream "s": ') as caught:
            await env.delete_stream("s")
    assert type(caught.value) is SERVER_ERRORS.get(code, ServerError)
    assert (caught.value.code, caught.value.stream) == (code, "s")


async def test_other_arguments_of_an_existing_stream(cluster: Cluster, connect: Connect) -> None:
    def script(session: Session, command: CreateStream) -> bool:
        session.ok(Key.CREATE_STREAM, command.correlation_id, 17)
        return True

    cluster.node.scripts[CreateStream] = script
    async with connect(cluster) as env:
        with pytest.raises(PreconditionFailed, match='cannot create stream "s"'):
            await env.create_stream("s", exist_ok=True)


async def test_super_streams_are_created_with_names_and_keys(
    cluster: Cluster, connect: Connect
) -> None:
    async with connect(cluster) as env:
        await env.create_super_stream("x", partitions=2)
        await env.create_super_stream("y", partitions=["eu", "us"], max_age="1h")
        first, second = cluster.node.received(CreateSuperStream)
        assert (first.partitions, first.binding_keys) == (("x-0", "x-1"), ("0", "1"))
        assert (second.partitions, second.binding_keys) == (("y-eu", "y-us"), ("eu", "us"))
        assert second.arguments == {"max-age": "1h"}
        assert await env.partitions("x") == ["x-0", "x-1"]
        assert await env.route("us", "y") == ["y-us"]
        assert await env.route("asia", "y") == []
        with pytest.raises(StreamDoesNotExist):
            await env.partitions("z")
        wrongs: Any = (0, "eu", ["a", "a"], [])
        for wrong in wrongs:
            with pytest.raises(ConfigurationError, match="partitions"):
                await env.create_super_stream("z", partitions=wrong)
