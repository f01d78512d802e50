"""TLS, client certificates, permissions and renewed credentials on real brokers."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator

import anyio
import pytest

from flowstream.client import Environment, ExternalCredentials, Tls, Token, TokenCredentials
from flowstream.errors import (
    AccessRefused,
    AuthenticationFailed,
    ConnectionFailed,
    StreamDoesNotExist,
)
from tests.brokers.running import Broker, Certificates
from tests.brokers.tokens import make_token
from tests.integration.test_client_basics import numbers, read

pytestmark = pytest.mark.anyio


@pytest.mark.both_backends
async def test_tls_is_verified(
    rabbitmq: Broker, certificates: Certificates, stream_name: str
) -> None:
    assert rabbitmq.tls_url is not None
    with pytest.raises(ConnectionFailed, match=r"not trusted.*Tls\(ca="):
        await Environment(rabbitmq.tls_url).__aenter__()
    wrong_name = rabbitmq.tls_url.replace("localhost", "127.0.0.2")
    with pytest.raises(ConnectionFailed, match="not trusted"):
        await Environment(wrong_name, tls=Tls(ca=certificates.ca)).__aenter__()
    async with Environment(rabbitmq.tls_url, tls=Tls(ca=certificates.ca)) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(20_000))
        async with env.consumer(stream_name) as consumer:
            assert await read(consumer, 20_000) == numbers(20_000)
    named = Tls(ca=certificates.ca, server_name="localhost")
    async with Environment(wrong_name, tls=named):
        pass
    async with Environment(wrong_name, tls=Tls(verify=False)):
        pass


async def test_a_certificate_says_who_it_is(
    rabbitmq: Broker, certificates: Certificates, stream_name: str
) -> None:
    """No password is sent. (3.10 ends connections that authenticate so; the error says it.)"""
    assert rabbitmq.tls_url is not None
    tls = Tls(
        ca=certificates.ca,
        certificate=certificates.client_certificate,
        key=certificates.client_key,
    )
    credentials = ExternalCredentials()
    if rabbitmq.version < (3, 11):
        with pytest.raises(AuthenticationFailed, match=r"RabbitMQ 3\.10"):
            await Environment(rabbitmq.tls_url, tls=tls, credentials=credentials).__aenter__()
        return
    async with Environment(rabbitmq.tls_url, tls=tls, credentials=credentials) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish(b"x")


async def test_without_a_certificate_nobody_is_known(
    rabbitmq: Broker, certificates: Certificates
) -> None:
    assert rabbitmq.tls_url is not None
    tls = Tls(ca=certificates.ca)
    with pytest.raises(AuthenticationFailed, match="EXTERNAL"):
        await Environment(rabbitmq.tls_url, tls=tls, credentials=ExternalCredentials()).__aenter__()


@pytest.fixture
def reader(rabbitmq: Broker, stream_name: str) -> Iterator[str]:
    """The URL of a user who may read, and nothing else."""
    name = urllib.parse.quote(f"reader-{stream_name[-8:]}")
    rabbitmq.api("PUT", f"users/{name}", {"password": "p@ss", "tags": ""})
    rights = {"configure": "", "write": "", "read": ".*"}
    rabbitmq.api("PUT", f"permissions/%2F/{name}", rights)
    yield f"rabbitmq-stream://{name}:p%40ss@{rabbitmq.host}:{rabbitmq.port}/%2f"
    rabbitmq.api("DELETE", f"users/{name}")


async def test_pitfall_7_missing_permissions_are_told(
    rabbitmq: Broker, reader: str, stream_name: str
) -> None:
    """And pitfall 7: a StoreOffset that cannot be is lost silently; verifying tells."""
    async with Environment(rabbitmq.url) as env:
        await env.create_stream(stream_name)
        async with env.publisher(stream_name) as publisher:
            await publisher.publish_many(numbers(10))
    async with Environment(reader, request_timeout=2.0) as env:
        async with env.consumer(stream_name) as consumer:
            assert await read(consumer, 10) == numbers(10)
        for attempt in (
            env.publisher(stream_name).__aenter__(),
            env.create_stream(f"{stream_name}.other"),
            env.delete_stream(stream_name),
        ):
            with pytest.raises(AccessRefused, match=stream_name) as caught:
                await attempt
            assert "p@ss" not in str(caught.value)
        await env.store_offset("me", f"{stream_name}.missing", 5)
        with pytest.raises(StreamDoesNotExist):
            await env.store_offset_verified("me", f"{stream_name}.missing", 5)


def without_password(broker: Broker) -> str:
    return broker.url.replace("guest:guest@", "")


async def test_tokens_are_renewed_on_live_connections(
    rabbitmq: Broker, certificates: Certificates, stream_name: str
) -> None:
    """OAuth 2.0: each is good for 4 s, and the connections live longer than the first of them."""
    fetched: list[float] = []

    async def fetch() -> Token:
        fetched.append(anyio.current_time())
        return Token(await make_token(certificates, 4), expires_in=4)

    credentials = TokenCredentials(fetch, renew_at=0.25)
    async with Environment(without_password(rabbitmq), credentials=credentials) as env:
        await env.create_stream(stream_name)
        sent = 0
        async with env.publisher(stream_name) as publisher:
            with anyio.fail_after(20):
                while anyio.current_time() < fetched[0] + 6:
                    await publisher.publish(b"%d" % sent)
                    sent += 1
                    await anyio.sleep(0.01)
            assert publisher.statistics()["recoveries"] == 0
        async with env.consumer(stream_name) as consumer:
            assert await read(consumer, sent) == numbers(sent)
    assert (len(fetched) > 4) == (rabbitmq.version >= (3, 13))  # 3.10 lets old tokens be


async def test_a_token_that_ends_too_early_costs_a_reconnect(
    rabbitmq: Broker, certificates: Certificates, stream_name: str
) -> None:
    """Its provider says an hour, the broker's clock another thing: nothing is lost."""
    fetched: list[float] = []

    async def fetch() -> Token:
        fetched.append(anyio.current_time())
        return Token(await make_token(certificates, 2), expires_in=3600)

    credentials = TokenCredentials(fetch)
    async with Environment(without_password(rabbitmq), credentials=credentials) as env:
        await env.create_stream(stream_name)
        sent = 0
        async with env.publisher(stream_name) as publisher:
            with anyio.fail_after(30):
                while len(fetched) < 2:
                    await publisher.publish(b"%d" % sent)
                    sent += 1
                    if rabbitmq.version < (3, 13):
                        break
        async with env.consumer(stream_name) as consumer:
            assert await read(consumer, sent) == numbers(sent)


async def test_a_token_that_is_no_good_is_refused(
    rabbitmq: Broker, certificates: Certificates
) -> None:
    ended = await make_token(certificates, -10)

    async def fetch() -> Token:
        return Token(ended, expires_in=3600)

    with pytest.raises(AuthenticationFailed, match="TokenCredentials") as caught:
        await Environment(
            without_password(rabbitmq), credentials=TokenCredentials(fetch)
        ).__aenter__()
    assert ended not in str(caught.value)
