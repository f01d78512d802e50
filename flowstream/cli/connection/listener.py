"""What listens at an address: a stream broker, or what else it is by what it answers."""

from __future__ import annotations

import re

import anyio

from flowstream.cli.output.safe_text import shortened, visible
from flowstream.protocol import PeerProperties, encode

PATIENCE = 1.0
"""Seconds that a listener gets for each answer: one that did not show that it is a broker."""

_QUESTION = encode(PeerProperties(1, {"product": "flowstream"}))
_HTTP = b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER = b"\x80\x11"
"""The key of an answer to the question, behind the frame's size."""
_SERVER = re.compile(rb"^server:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_KNOWN = (
    (b"AMQP", "an AMQP port (RabbitMQ's stream port is another one, usually 5552)"),
    (b"SSH-", "an SSH server"),
    (b"\x15\x03", "a TLS port (a broker's address there begins with rabbitmq-stream+tls://)"),
)
_MOST = 4096
_SHOWN = 40


async def what_listens(host: str, port: int) -> str | None:
    """None where a broker's stream port answers, else what is there, in words.

    It is asked in HTTP first, on a connection of its own: a server that waits for the end of a line
    would say nothing to a frame, and some serve one connection at a time.
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
    """What gives this answer. Pure."""
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
    """The first bytes of the answer; none where the connection is closed without."""
    try:
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(question)
            return await stream.receive(_MOST)
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
        return b""
