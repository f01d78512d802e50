"""How fast the embedded broker is: client and broker as two processes, bodies of 100 bytes."""

from __future__ import annotations

import socket
import urllib.parse
from pathlib import Path
from time import perf_counter

import pytest

from flowstream.protocol import (
    Chunk,
    Command,
    CreateStream,
    Credit,
    DeclarePublisher,
    Deliver,
    FrameReader,
    OffsetSpec,
    Open,
    PeerProperties,
    PublishConfirm,
    SaslAuthenticate,
    SaslHandshake,
    Subscribe,
    Tune,
    decode,
    encode,
    encode_publish,
)
from tests.broker.raw import GUEST
from tests.broker.serving import served

MESSAGES = 2_000_000
BATCH = 1000
WINDOW = 40_000


class Client:
    """Does as little as possible, so that the broker is what is measured."""

    def __init__(self, url: str) -> None:
        address = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port))
        self.frames = FrameReader()
        for command in (
            PeerProperties(1, {}),
            SaslHandshake(2),
            SaslAuthenticate(3, "PLAIN", GUEST),
        ):
            self.call(command)
        self.socket.sendall(encode(Tune(1 << 20, 0)))
        self.call(Open(4, "/"))

    def call(self, command: Command) -> None:
        self.socket.sendall(encode(command))
        self.receive()

    def receive(self) -> list[Command]:
        while True:
            frames = self.frames.feed(self.socket.recv(1 << 20))
            if frames:
                return [decode(frame) for frame in frames]


def confirmed_in(client: Client) -> float:
    """Publish all with a window of unconfirmed ones; messages a second."""
    bodies = [b"x" * 100] * BATCH
    sent = confirmed = 0
    began = perf_counter()
    while confirmed < MESSAGES:
        while sent < MESSAGES and sent - confirmed < WINDOW:
            client.socket.sendall(encode_publish(0, sent, bodies))
            sent += BATCH
        for command in client.receive():
            if isinstance(command, PublishConfirm):
                confirmed += len(command.publishing_ids)
    return MESSAGES / (perf_counter() - began)


def delivered_out(client: Client) -> float:
    """Read all with a credit a chunk, headers only; messages a second."""
    began = perf_counter()
    client.socket.sendall(encode(Subscribe(9, 0, "s", OffsetSpec.first(), 10, {})))
    delivered = 0
    while delivered < MESSAGES:
        for command in client.receive():
            if isinstance(command, Deliver):
                delivered += Chunk(command.chunk).records
                client.socket.sendall(encode(Credit(0, 1)))
    return MESSAGES / (perf_counter() - began)


@pytest.mark.benchmark
def test_in_and_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served(tmp_path) as (_, url):
        client = Client(url)
        client.call(CreateStream(7, "s", {}))
        client.call(DeclarePublisher(8, 0, None, "s"))
        rate_in = confirmed_in(client)
        rate_out = delivered_out(client)
        client.socket.close()
    with capsys.disabled():
        print(f"\nembedded broker: {rate_in:,.0f}/s confirmed in, {rate_out:,.0f}/s out")
    assert rate_in >= 300_000
    assert rate_out >= 600_000
