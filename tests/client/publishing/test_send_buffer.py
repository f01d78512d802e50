"""What a publisher accepts: its window, the sizes and types of bodies, filter values."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.errors import (
    ConfigurationError,
    MessageTooLarge,
    PublishFailed,
)
from flowstream.protocol import (
    AmqpMessage,
    Publish,
    PublishConfirm,
    encode_data,
)
from tests.client.bodies import numbers, stored
from tests.client.conftest import Connect
from tests.client.scripted import Cluster
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


async def test_a_full_window_makes_senders_wait(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env:
        publisher = env.publisher("s", max_unconfirmed=100, confirm_timeout=None)
        async with publisher:
            await publisher.send_many(numbers(100))
            with anyio.move_on_after(60) as waiting:
                await publisher.send(b"one more")
            assert waiting.cancelled_caught
            assert publisher.unconfirmed == 100
            [session] = cluster.node.live("publishing")
            session.send(PublishConfirm(0, tuple(range(1, 101))))
            await publisher.send(b"one more")
            await anyio.wait_all_tasks_blocked()
            session.send(PublishConfirm(0, (101,)))


async def test_the_window_is_bounded_in_bytes_too(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    cluster.node.unconfirming = True
    async with connect(cluster) as env:
        publisher = env.publisher("s", max_unconfirmed_bytes=1000, confirm_timeout=5.0)
        with pytest.raises(PublishFailed):  # noqa: PT012
            async with publisher:
                await publisher.send(bytes(900))
                with anyio.move_on_after(1) as waiting:
                    await publisher.send(bytes(900))
                assert waiting.cancelled_caught


async def test_an_empty_window_takes_what_is_larger_than_it(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s", max_unconfirmed=2) as publisher:
        await publisher.send_many(numbers(9))
    assert stored(cluster) == numbers(9)


async def test_a_message_that_never_fits_is_refused_before_it_is_sent(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    cluster.node.frame_max = 5000
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for send in (publisher.send, publisher.publish):
            with pytest.raises(MessageTooLarge, match=r"stream\.frame_max") as caught:
                await send(bytes(5000))
            assert caught.value.stream == "s"
        with pytest.raises(MessageTooLarge):
            await publisher.send_many([b"fits", bytes(5000)])
        await publisher.send_many([bytes(1000)] * 50)
    assert [len(body) for body in stored(cluster)] == [1000] * 50
    assert max(len(c.messages) for c in cluster.node.received(Publish)) == 4


async def test_wrong_bodies_are_refused_before_anything_is_sent(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        for wrong in ("text", 5, None):
            with pytest.raises(ConfigurationError, match="bytes or an AmqpMessage"):
                await publisher.send(wrong)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError, match="bytes or an AmqpMessage"):
                await publisher.send_many([b"ok", wrong])  # type: ignore[list-item]
        with pytest.raises(ConfigurationError, match="2 items for 1 bodies"):
            await publisher.send_many([b""], publishing_ids=[1, 2])
        await publisher.send_many([])
        await publisher.publish_many([])
    assert stored(cluster) == []


async def test_amqp_messages_and_buffers_are_sent_as_their_bytes(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s") as publisher:
        await publisher.send(AmqpMessage.of(b"a"))
        await publisher.publish(AmqpMessage.of(b"b"))
        await publisher.send(memoryview(b"c"))  # type: ignore[arg-type]
        await publisher.send_many([b"d", AmqpMessage.of(b"e")])  # type: ignore[list-item]
    assert stored(cluster) == [encode_data(b"a"), encode_data(b"b"), b"c", b"d", encode_data(b"e")]


async def test_filter_values_by_function_and_by_message(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    publisher_options: dict[str, Any] = {"filter_value": lambda body: body.decode()[:2] or None}
    async with connect(cluster) as env, env.publisher("s", **publisher_options) as publisher:
        await publisher.send(b"eu1")
        await publisher.send_many([b"us2", b""])
        await publisher.send(b"x", filter_value="as")
        with pytest.raises(ConfigurationError, match="32767"):
            await publisher.send(b"x", filter_value="x" * 40000)
    filters = [
        c.messages.filters for c in cluster.node.sessions[-1].received if hasattr(c, "messages")
    ]
    assert [value for frame in filters for value in frame] == ["eu", "us", None, "as"]


async def test_sub_entries_have_no_ids_of_ones_own(cluster: Cluster, connect: Connect) -> None:
    cluster.add("s")
    async with connect(cluster) as env, env.publisher("s", sub_entry_size=10) as publisher:
        with pytest.raises(ConfigurationError, match="sub_entry_size"):
            await publisher.send_many([b"x"], publishing_ids=[1])
        await publisher.publish_many(numbers(25))
        assert publisher.unconfirmed == 0
