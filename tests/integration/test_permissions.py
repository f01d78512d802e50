"""The permissions in docs/security.md are enough, on every broker, for what the page says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flowstream import (
    DeadLetter,
    Environment,
    IterableProducer,
    Message,
    Pipeline,
    RunResult,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.errors import AccessRefused
from tests.brokers.running import Broker
from tests.cli.command import flowstream
from tests.documents import ROOT

COMMAND = re.compile(r"^rabbitmqctl set_permissions --vhost shop (.*)$", re.MULTILINE)
PAGE = (ROOT / "docs" / "security.md").read_text()
GRANTED = {
    user: patterns for user, *patterns in (shlex.split(words) for words in COMMAND.findall(PAGE))
}
"""User of the page: the patterns for configure, write and read."""


@contextmanager
def login(rabbitmq: Broker, role: str, prefix: str) -> Iterator[str]:
    """The URL of a user as on the page, whose streams have a prefix here."""
    user = f"{role}-{prefix[-8:]}"
    begin = "^" + prefix.replace(".", "[.]")
    patterns = [it if it == "^$" else it.replace("^", begin) for it in GRANTED[role]]
    configure, write, read = patterns
    rabbitmq.api("PUT", f"users/{user}", {"password": "pw", "tags": ""})
    try:
        permissions = {"configure": configure, "write": write, "read": read}
        rabbitmq.api("PUT", f"permissions/%2f/{user}", permissions)
        yield rabbitmq.url.replace("guest:guest", f"{user}:pw")
    finally:
        rabbitmq.api("DELETE", f"users/{user}")


async def settled(pipeline: Pipeline, url: str, count: int) -> RunResult:
    async with pipeline.start(url=url) as running:
        await running.wait_idle(0.5)
        running.stop()
        result = await running.wait()
    assert result.error is None
    assert sum(result.settled.values()) == count
    return result


async def test_a_loader_and_an_operator(rabbitmq: Broker, stream_name: str) -> None:
    prefix = stream_name + "."
    orders, priced, dead = f"{prefix}orders", f"{prefix}orders.priced", f"{prefix}orders.dead"
    async with Environment(rabbitmq.url) as environment:
        for stream in (orders, priced, dead):
            await environment.create_stream(stream)
        async with environment.publisher(orders) as publisher:
            await publisher.publish_many([b'{"amount": 1}', b'{"amount": -1}'])

        pipeline = Pipeline("loader", StreamProducer(orders), on_failure=DeadLetter(dead))

        @pipeline.processor
        async def check(message: Message[dict]) -> None:
            if message.data["amount"] < 0:
                message.fail("negative")

        pipeline.sink("priced", StreamSink(priced), batch_timeout=0.1)
        with login(rabbitmq, "loader", prefix) as url:
            result = await settled(pipeline, url, 2)
            assert result.settled == {"ok": 1, "dead_lettered": 1}
            async with Environment(url) as limited:
                with pytest.raises(AccessRefused):
                    await limited.create_stream(f"{prefix}new")
                with pytest.raises(AccessRefused):
                    async with limited.consumer(priced, offset="first") as consumer:
                        await anext(consumer)
        assert await environment.query_offset("loader", orders) == 1

        with login(rabbitmq, "operator", prefix) as url:
            for command in (
                ("dead-letters", "list", dead, "--json"),
                ("dead-letters", "replay", dead),
                ("lag", orders, "loader"),
            ):
                answer = flowstream(*command, url=url)
                assert answer.code == 0, answer.err


async def test_a_super_stream(rabbitmq: Broker, stream_name: str) -> None:
    if rabbitmq.version < (3, 13):
        pytest.skip("super streams are created by rabbitmq-streams before 3.13")
    prefix = stream_name + "."
    name = f"{prefix}payments"
    with login(rabbitmq, "deployer", prefix) as url:
        async with Environment(url) as environment:
            await environment.create_super_stream(name, partitions=2)

    feed = Pipeline("feed", IterableProducer([{"account": f"a{n}"} for n in range(8)]))

    @feed.processor
    async def keep(message: Message[dict]) -> None: ...

    feed.sink("payments", StreamSink(name, key="account"), batch_timeout=0.1)
    with login(rabbitmq, "till", prefix) as url:
        assert (await feed.run(url=url)).settled == {"ok": 8}

    reading = Pipeline("accounts", SuperStreamProducer(name, single_active=True))

    @reading.processor
    async def read(message: Message[dict]) -> None: ...

    with login(rabbitmq, "accounts", prefix) as url:
        await settled(reading, url, 8)

    with login(rabbitmq, "deployer", prefix) as url:
        async with Environment(url) as environment:
            await environment.delete_super_stream(name)


def test_the_page_names_these_users() -> None:
    assert {*GRANTED} == {"loader", "accounts", "till", "operator", "deployer"}
