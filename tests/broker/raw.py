"""A client that sends exactly what a test wants, valid or not: frames in, frames out."""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import ByteStream

from flowstream.protocol import (
    Close,
    Command,
    CommandVersion,
    ExchangeCommandVersions,
    ExchangeCommandVersionsResponse,
    FrameReader,
    Heartbeat,
    Key,
    Open,
    OpenResponse,
    PeerProperties,
    PeerPropertiesResponse,
    Response,
    SaslAuthenticate,
    SaslAuthenticateResponse,
    SaslHandshake,
    SaslHandshakeResponse,
    Tune,
    decode,
    encode,
)

C = TypeVar("C")

GUEST = b"\0guest\0guest"


class Raw:
    """A connection without rules. `next` gives commands in the order they came."""

    def __init__(self, stream: ByteStream) -> None:
        self.stream = stream
        self.heartbeats = 0
        self._frames = FrameReader()
        self._arrived: list[Command] = []

    @classmethod
    async def connect(cls, url: str) -> Self:
        address = urllib.parse.urlsplit(url)
        assert address.port is not None
        return cls(await anyio.connect_tcp(address.hostname or "localhost", address.port))

    async def send(self, *commands: Command | bytes) -> None:
        frames = (each if isinstance(each, bytes) else encode(each) for each in commands)
        await self.stream.send(b"".join(frames))

    async def next(self) -> Command | None:
        """The next command, heartbeats left out; None when the server has closed."""
        while not self._arrived:
            try:
                data = await self.stream.receive(1 << 20)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return None
            for command in map(decode, self._frames.feed(data)):
                if isinstance(command, Heartbeat):
                    self.heartbeats += 1
                else:
                    self._arrived.append(command)
        return self._arrived.pop(0)

    async def expect(self, kind: type[C]) -> C:
        """The next command, which must be of this kind."""
        command = await self.next()
        assert isinstance(command, kind), f"{command!r} instead of {kind.__name__}"
        return command

    async def call(self, command: Command, kind: type[C] = Response) -> C:  # type: ignore[assignment]
        """Send a request and wait for its answer."""
        await self.send(command)
        return await self.expect(kind)

    async def ok(self, command: Command) -> None:
        """Send a request that must be answered with code 1 and nothing else."""
        answer: Any = await self.call(command)
        assert answer.code == 1, f"{command!r} was answered with code {answer.code}"

    async def log_in(
        self, *, frame_max: int = 1 << 20, heartbeat: int = 0, data: bytes = GUEST
    ) -> None:
        await self.call(PeerProperties(1, {}), PeerPropertiesResponse)
        await self.call(SaslHandshake(2), SaslHandshakeResponse)
        await self.call(SaslAuthenticate(3, "PLAIN", data), SaslAuthenticateResponse)
        await self.expect(Tune)
        await self.send(Tune(frame_max, heartbeat))
        await self.call(Open(4, "/"), OpenResponse)

    async def exchange_versions(self, deliver: int = 2) -> ExchangeCommandVersionsResponse:
        versions = (CommandVersion(Key.DELIVER, 1, deliver),)
        return await self.call(
            ExchangeCommandVersions(5, versions), ExchangeCommandVersionsResponse
        )

    async def close(self) -> None:
        await self.send(Close(6, 1, "done"))
        while await self.next() is not None:
            pass


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Raw]:
    """A connection before its first command."""
    raw = await Raw.connect(url)
    async with raw.stream:
        yield raw


@asynccontextmanager
async def logged_in(
    url: str, *, frame_max: int = 1 << 20, heartbeat: int = 0
) -> AsyncIterator[Raw]:
    """A connection that is open on the virtual host "/"."""
    async with connected(url) as raw:
        await raw.log_in(frame_max=frame_max, heartbeat=heartbeat)
        yield raw
