"""What listens at an address: a stream broker, or something else, by its answer."""

from __future__ import annotations

import re

import anyio

from flowstream.cli.output.safe_text import shortened, visible
from flowstream.protocol import PeerProperties, encode

PATIENCE = 1.0
"""Seconds that a listener gets for each answer."""

_QUESTION = encode(PeerProperties(1, {"product": "flowstream"}))
_HTTP = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER = b"\x80\x11"
"""The key of a broker's answer, after the frame's size."""
_SERVER = re.compile(rb"^server:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_KNOWN = (
    (b"AMQP", "an AMQP port (RabbitMQ's stream port is another one, usually 5552)"),
    (b"SSH-", "an SSH server"),
    (b"\x15\x03", "a TLS port (a broker's address there begins with rabbitmq-stream+tls://)"),
)
_MOST = 4096
_SHOWN = 40


async def what_listens(host: str, port: int) -> str | None:
    """What listens there, in words; None if it is a stream broker.

    HTTP is tried first, on a connection of its own: a server that waits for the end of a line would
    not answer a frame, and some servers handle one connection at a time.
    """
    silent = True
    for question in (_HTTP, _QUESTION):
        answer = None
        with anyio.move_on_after(PATIENCE):
            answer = await _answer(host, port, question)
        if answer:
            return recognised(answer)
        silent = silent and answer is None
    if silent:
        return "something that accepts connections and does not answer"
    return "something that closes the connection without an answer"


def recognised(answer: bytes) -> str | None:
    """What sends this answer, in words; None for a stream broker. Pure."""
    if answer[4:6] == _ANSWER:
        return None
    if answer.startswith(b"HTTP/"):
        server = _SERVER.search(answer)
        return f"an HTTP server ({_text(server[1])})" if server else "an HTTP server"
    for start, what in _KNOWN:
        if answer.startswith(start):
            return what
    return f"something that answers {_text(answer)!r}"


def _text(data: bytes) -> str:
    return shortened(visible(data.decode("ascii", "replace").strip()), _SHOWN)


async def _answer(host: str, port: int, question: bytes) -> bytes:
    """The first bytes of the answer; empty if the connection is closed without one."""
    try:
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(question)
            return await stream.receive(_MOST)
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return b""
