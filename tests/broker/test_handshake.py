"""SASL PLAIN: who may connect, and which response code the others get; what Open answers."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.handshake import check_plain, is_loopback
from flowstream.protocol import (
    Code,
    Open,
    OpenResponse,
    PeerProperties,
    PeerPropertiesResponse,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    Tune,
)
from flowstream.testing import virtual_time
from tests.broker.connections import a_node, a_stranger


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return virtual_time("trio")


USERS = {"guest": "guest", "ann": "pâss"}


@pytest.mark.parametrize(
    ("data", "host", "expected"),
    [
        (b"\0guest\0guest", "127.0.0.1", (Code.OK, "guest")),
        (b"\0guest\0guest", None, (Code.OK, "guest")),
        (b"\0guest\0guest", "10.1.2.3", (Code.SASL_AUTHENTICATION_FAILURE_LOOPBACK, "")),
        ("\0ann\0pâss".encode(), "10.1.2.3", (Code.OK, "ann")),
        (b"\0ann\0pass", "127.0.0.1", (Code.AUTHENTICATION_FAILURE, "")),
        (b"\0who\0guest", "127.0.0.1", (Code.AUTHENTICATION_FAILURE, "")),
        (b"\0guest\0", "127.0.0.1", (Code.AUTHENTICATION_FAILURE, "")),
        (b"ann\0guest\0guest", "127.0.0.1", (Code.SASL_ERROR, "")),
        (b"guest", "127.0.0.1", (Code.SASL_ERROR, "")),
        (b"", "127.0.0.1", (Code.SASL_ERROR, "")),
        (None, "127.0.0.1", (Code.SASL_ERROR, "")),
    ],
)
def test_plain(data: bytes | None, host: str | None, expected: tuple[Code, str]) -> None:
    assert check_plain(data, USERS, host) == expected


@given(st.binary())
def test_garbage_is_refused(data: bytes) -> None:
    code, user = check_plain(data, {"ann": "secret"}, None)
    assert (code is Code.OK) == (user == "ann") == (data == b"\0ann\0secret")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None])
def test_loopback(host: str | None) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "fe80::1", "1.127.0.0"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.anyio
async def test_a_wrong_password_is_answered_after_three_seconds() -> None:
    async with a_node() as node, a_stranger(node) as raw:
        await raw.call(PeerProperties(1, {}), PeerPropertiesResponse)
        await raw.call(SaslHandshake(2), SaslHandshakeResponse)
        began = anyio.current_time()
        command = SaslAuthenticate(3, "PLAIN", b"\0guest\0wrong")
        answer = await raw.call(command, SaslAuthenticateResponse)
        assert (answer.code, anyio.current_time() - began) == (8, 3)
        assert await raw.next() is None


@pytest.mark.anyio
async def test_open_tells_where_the_client_is_connected() -> None:
    async with a_node() as node, a_stranger(node) as raw:
        await raw.call(PeerProperties(1, {}), PeerPropertiesResponse)
        await raw.call(SaslHandshake(2), SaslHandshakeResponse)
        credentials = SaslAuthenticate(3, "PLAIN", b"\0guest\0guest")
        await raw.call(credentials, SaslAuthenticateResponse)
        await raw.expect(Tune)
        await raw.send(Tune(0, 0))
        answer = await raw.call(Open(4, "/"), OpenResponse)
        assert answer.properties == {"advertised_host": "here", "advertised_port": "1"}
