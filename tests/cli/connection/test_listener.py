"""What listens at an address is named by its answer."""

from __future__ import annotations

import pytest

from flowstream.cli.connection.listener import recognised


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"\x00\x00\x00\x10\x80\x11\x00\x01", None),
        (b"HTTP/1.1 400 Bad Request\r\nServer: nginx/1.27\r\n\r\n", "an HTTP server (nginx/1.27)"),
        (b"HTTP/1.0 200 OK\r\n\r\n", "an HTTP server"),
        (b"AMQP\x00\x00\x09\x01", "an AMQP port"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "an SSH server"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "a TLS port"),
        (b"-ERR unknown command\r\n", "something that answers '-ERR unknown command'"),
        (b"\x1b]0;x\x07" * 99, r"something that answers '\\x1b]0;x\\x07"),
    ],
)
def test_what_gives_an_answer(answer: bytes, what: str | None) -> None:
    found = recognised(answer)
    assert found is None if what is None else (found or "").startswith(what)
    assert found is None or len(found) < 100
