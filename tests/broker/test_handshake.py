"""SASL PLAIN: who may connect, and which response code the others get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstream.broker.handshake import check_plain, is_loopback
from flowstream.protocol import Code

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
    assert check_plain(data, {"ann": "secret"}, None)[1] in ("", "ann")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None])
def test_loopback(host: str | None) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "fe80::1", "1.127.0.0"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
