"""Hash routing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import hash_index, hash_route
from flowstream.errors import ConfigurationError, MessageTooLarge, PublishFailed, StreamDoesNotExist
from flowstream.protocol import (
    Code,
    simple_entry,
)
from tests.client.bodies import stored
from tests.client.conftest import Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time


def test_hash_routing_is_that_of_all_other_clients() -> None:
    """The vectors are those of the clients in other languages."""
    found = [hash_index(f"hello{n}", 3) + 1 for n in range(1, 11)]
    assert found == [2, 1, 2, 3, 1, 3, 1, 2, 1, 3]
    hashes = {
        "hello": 1321743225,
        "brave": 3825276426,
        "new": 2970740106,
        "world": 2453398188,
        "rabbit": 3591948756,
        "coders51": 1856831182,
        "": 3329588566,
        "é": 2922484690,
        "日本": 2230178032,
    }
    for key, value in hashes.items():
        for partitions in (1, 3, 7, 1000):
            assert hash_index(key, partitions) == value % partitions
    assert hash_route("hello1", ["a", "b", "c"]) == "b"


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_messages_go_where_their_keys_hash_to(invoices: Cluster, connect: Connect) -> None:
    bodies = [b"hello%d" % n for n in range(1, 11)]
    async with (
        connect(invoices) as env,
        env.super_stream_publisher("invoices", key=bytes.decode) as publisher,
    ):
        await publisher.send_many(bodies[:4])
        await publisher.publish_many(bodies[4:8])
        await publisher.send(bodies[8])
        await publisher.publish(b"by its key", key="hello10")
        await publisher.flush()
        assert publisher.unconfirmed == 0
        assert publisher.partitions == ["invoices-0", "invoices-1", "invoices-2"]
        assert sorted(publisher.statistics()) == publisher.partitions
    assert stored(invoices, "invoices-0") == [b"hello2", b"hello5", b"hello7", b"hello9"]
    assert stored(invoices, "invoices-1") == [b"hello1", b"hello3", b"hello8"]
    assert stored(invoices, "invoices-2") == [b"hello4", b"hello6", b"by its key"]
    assert invoices.node.live() == []


async def test_publishing_ids_are_kept_and_what_is_too_large_is_refused_before_anything_is_sent(
    invoices: Cluster, connect: Connect
) -> None:
    from flowstream.protocol import Publish

    async with (
        connect(invoices) as env,
        env.super_stream_publisher("invoices", reference="once") as publisher,
    ):
        keys = [f"hello{n}" for n in range(1, 11)]
        await publisher.publish_many([b"x"] * 10, keys=keys, publishing_ids=range(5, 15))
        with pytest.raises(MessageTooLarge):
            await publisher.publish_many([b"y", b"y" * (2 << 20)], keys=keys[:2])
        with pytest.raises(ConfigurationError, match="publishing_ids has 1 items for 2"):
            await publisher.send_many([b"x", b"y"], keys=keys[:2], publishing_ids=[1])
        assert await publisher.partitions_of("hello1") == ("invoices-1",)
        assert (publisher.unconfirmed, publisher.deduplicated) == (0, 0)
    sent = list(invoices.node.received(Publish))
    assert sorted(n for command in sent for n in command.messages.ids) == [*range(5, 15)]
    assert not any(b"y" in stored(invoices, name) for name in invoices.super_streams["invoices"])


async def test_routing_by_key_asks_the_broker_once(invoices: Cluster, connect: Connect) -> None:
    from flowstream.protocol import Route

    async with (
        connect(invoices) as env,
        env.super_stream_publisher("invoices", routing="key") as publisher,
    ):
        await publisher.send_many([b"a", b"b", b"c"], keys=["1", "2", "1"])
        with pytest.raises(PublishFailed, match="bound with the key '7'"):
            await publisher.send(b"x", key="7")
        with pytest.raises(ConfigurationError, match="key="):
            await publisher.send(b"x")
        with pytest.raises(ConfigurationError, match="1 items for 2"):
            await publisher.send_many([b"x", b"y"], keys=["1"])
    assert stored(invoices, "invoices-1") == [b"a", b"c"]
    assert stored(invoices, "invoices-2") == [b"b"]
    assert [command.routing_key for command in invoices.node.received(Route)] == ["1", "2", "7"]
    with pytest.raises(ConfigurationError, match="routing"):
        env.super_stream_publisher("invoices", routing="random")  # type: ignore[arg-type]


async def test_the_first_failure_of_any_partition_is_raised(
    invoices: Cluster, connect: Connect
) -> None:
    from flowstream.protocol import Publish, PublishError

    def refuse(session: Session, command: Any) -> bool:
        errors = tuple((n, Code.ACCESS_REFUSED) for n in command.messages.ids)
        session.send(PublishError(command.publisher_id, errors))
        return True

    invoices.node.scripts[Publish] = refuse
    async with connect(invoices) as env:
        with pytest.raises(PublishFailed, match="no permission"):
            async with env.super_stream_publisher("invoices", key=bytes.decode) as publisher:
                await publisher.send_many([b"hello1", b"hello2"])
        with pytest.raises(PublishFailed, match="closed"):
            await publisher.send(b"hello4")
        assert env.statistics()["publishers"] == 0


async def test_a_partition_that_comes_back_is_published_to_again(
    invoices: Cluster, connect: Connect
) -> None:
    async with (
        connect(invoices, missing_timeout=5) as env,
        env.super_stream_publisher("invoices", refresh=1000) as publisher,
    ):
        key = next(str(n) for n in range(100) if hash_index(str(n), 3) == 1)
        await publisher.publish(b"before", key=key)
        del invoices.streams["invoices-1"]
        invoices.node.forget("invoices-1")
        await publisher.send(b"lost", key=key)
        await anyio.sleep(20)
        with pytest.raises(PublishFailed, match=r"was not confirmed: .* does not exist"):
            await publisher.publish(b"told of the one before", key=key)
        with pytest.raises(StreamDoesNotExist):
            await publisher.publish(b"not there yet", key=key)
        log = invoices.add("invoices-1")
        await publisher.publish(b"after", key=key)
        assert [entries for _, _, entries, _ in log.chunks] == [[simple_entry(b"after")]]
