"""Tokens are renewed on live connections before they expire."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream.client import State, Token, TokenCredentials
from flowstream.errors import (
    ConfigurationError,
    TokenUnavailable,
)
from flowstream.protocol import (
    Code,
    SaslAuthenticate,
    SaslAuthenticateResponse,
)
from tests.client.conftest import SECRET, Connect
from tests.client.scripted import Cluster, Session
from tests.client.timing import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return virtual_time()


class Tokens:
    """Makes tokens that are good for 100 s."""

    def __init__(self) -> None:
        self.made = 0
        self.broken = False

    async def __call__(self) -> Token:
        if self.broken:
            raise OSError("the identity provider is away")
        self.made += 1
        return Token(f"{SECRET}-{self.made}", expires_in=100)


def logins(cluster: Cluster) -> list[str]:
    return [command.data.decode()[1:] for command in cluster.node.received(SaslAuthenticate)]


async def test_tokens_are_renewed_on_live_connections_before_they_end(
    cluster: Cluster, connect: Connect
) -> None:
    cluster.node.heartbeat = 0
    tokens = Tokens()
    credentials = TokenCredentials(tokens, user="guest")
    cluster.add("s", [b"0"])
    options = {"credentials": credentials, "heartbeat": 0}
    async with connect(cluster, **options) as env, env.publisher("s") as publisher:
        await anyio.sleep(270)
        assert tokens.made == 4
        assert logins(cluster) == 2 * [f"guest\0{SECRET}-{n}" for n in (1, 2, 3, 4)]
        assert publisher.statistics()["recoveries"] == 0
        assert len(cluster.node.sessions) == 2
    assert SECRET not in repr(credentials)
    assert env.statistics()["tasks"] == 0


async def test_a_token_that_cannot_be_fetched_is_tried_again(
    cluster: Cluster, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens()
    cluster.node.heartbeat = 0
    async with connect(cluster, credentials=TokenCredentials(tokens), heartbeat=0):
        tokens.broken = True
        await anyio.sleep(90)
        tokens.broken = False
        await anyio.sleep(5)
        assert tokens.made == 2
    assert "renewing the credentials failed" in caplog.text
    assert SECRET not in caplog.text
    tokens.broken = True
    with pytest.raises(TokenUnavailable, match="the identity provider is away"):
        async with connect(cluster, credentials=TokenCredentials(tokens)):
            pass
    assert cluster.node.live() == []

    def plain() -> Any:
        return SECRET

    with pytest.raises(TokenUnavailable, match="expected an async function") as caught:
        async with connect(cluster, credentials=TokenCredentials(plain)):
            pass
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError, match="renew_at"):
        TokenCredentials(tokens, renew_at=1.0)


@pytest.mark.slow
async def test_an_identity_provider_that_is_away_is_waited_for(
    cluster: Cluster, connect: Connect
) -> None:
    """However long: it says nothing about this user's rights."""
    tokens = Tokens()
    cluster.node.heartbeat = 0
    cluster.add("s")
    options = {"credentials": TokenCredentials(tokens), "heartbeat": 0, "missing_timeout": 10}
    async with (
        connect(cluster, **options) as env,
        env.publisher("s", confirm_timeout=None) as publisher,
    ):
        await anyio.sleep(100)
        tokens.broken = True
        await anyio.sleep(100)
        for session in cluster.node.live():
            session.drop()
        await publisher.send(b"0")
        await anyio.sleep(1000)
        assert (publisher.state, env.state) == (State.RECOVERING, State.RECOVERING)
        tokens.broken = False
        await publisher.flush()
        await env.wait_for(State.OPEN)


async def test_a_token_that_is_refused_before_its_time_is_fetched_anew(
    cluster: Cluster, connect: Connect
) -> None:
    """It was revoked, or the clocks differ: trying it until it ends would be an outage."""
    tokens = Tokens()
    cluster.node.heartbeat = 0
    cluster.add("s")
    revoked: list[str] = []

    def authenticate(session: Session, command: SaslAuthenticate) -> bool:
        refused = (command.data or b"").decode()[1:] in revoked
        if refused:
            answer = SaslAuthenticateResponse(command.correlation_id, Code.AUTHENTICATION_FAILURE)
            session.send(answer)
        return refused

    cluster.node.scripts[SaslAuthenticate] = authenticate
    options = {"credentials": TokenCredentials(tokens), "heartbeat": 0}
    async with connect(cluster, **options) as env, env.publisher("s") as publisher:
        revoked += logins(cluster)
        for session in cluster.node.live():
            session.drop()
        start = anyio.current_time()
        await publisher.publish(b"0")
        await env.wait_for(State.OPEN)
        assert anyio.current_time() - start < 10
        assert tokens.made == 2


async def test_servers_that_cannot_be_told_are_not(connect: Connect) -> None:
    cluster = Cluster(version="3.12.1", heartbeat=0)
    tokens = Tokens()
    async with connect(cluster, credentials=TokenCredentials(tokens), heartbeat=0):
        await anyio.sleep(1000)
    assert len(logins(cluster)) == 1
