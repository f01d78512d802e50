"""A byte stream without a socket, for tests in virtual time."""

from __future__ import annotations

import math

import anyio
from anyio.abc import ByteStream
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream


class Pipe(ByteStream):
    """One end of a connection in memory. `slow` ends hold at most so many pieces unread."""

    def __init__(
        self, sender: MemoryObjectSendStream[bytes], receiver: MemoryObjectReceiveStream[bytes]
    ) -> None:
        self._sender = sender
        self._receiver = receiver

    async def send(self, item: bytes) -> None:
        await self._sender.send(item)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        return await self._receiver.receive()

    async def send_eof(self) -> None:
        self._sender.close()

    async def aclose(self) -> None:
        self._sender.close()
        self._receiver.close()


def pipes(unread: float = math.inf) -> tuple[Pipe, Pipe]:
    """Both ends; a sender waits while `unread` pieces have not been received."""
    there_sender, there_receiver = anyio.create_memory_object_stream[bytes](unread)
    back_sender, back_receiver = anyio.create_memory_object_stream[bytes](unread)
    return Pipe(there_sender, back_receiver), Pipe(back_sender, there_receiver)
