"""The worker's end of the socket to its parent.

Before the event loop runs, the worker blocks on it: it has nothing else to do. Afterwards it
answers requests, and drains when its parent says so. When the parent ends, however that happens,
the socket closes, and the worker drains: there is nobody who watches it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import anyio
from anyio.abc import TaskStatus

from flowstream.cli.workers.messages import (
    HEADER,
    BadFrame,
    Message,
    decoded,
    encoded,
    size_of,
)
from flowstream.cli.workers.parent_watch import ParentWatch
from flowstream.monitor import Request, Response

PARENT_ENDED = "the end of the process that started the run"


class ParentEnded(Exception):
    """The parent has ended before the worker ran."""


async def receive(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None after the last one, or if what comes is none."""
    try:
        size = size_of(await reader.readexactly(HEADER))
        return decoded(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, OSError, BadFrame):
        return None


class Link:
    """The messages between a worker and its parent.

    `number` is that of the worker; with `several`, others run beside it. With `auto`, the number of
    partitions decides how many.
    """

    def __init__(self, handle: int) -> None:
        self._socket = socket.socket(fileno=handle)
        self._socket.set_inheritable(False)
        self._writer: asyncio.StreamWriter | None = None
        self._watch = ParentWatch(self._socket)
        hello = self.receive_now("hello")
        self.number: int = hello["worker"]
        self.several: bool = hello["several"]
        self.auto: bool = hello["auto"]
        self.drained_by: str = ""

    # -- before the event loop, and after it

    def send_now(self, message: Message) -> None:
        """Send a message, and wait until it is sent."""
        self._socket.setblocking(True)
        self._socket.sendall(encoded(message))

    def receive_now(self, kind: str) -> Message:
        """Wait for the message of this kind. Raises ParentEnded."""
        message = decoded(self._exactly(size_of(self._exactly(HEADER))))
        if message["kind"] != kind:
            raise ParentEnded
        return message

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                raise ParentEnded
            data += more
        return data

    def finish(self, message: Message) -> None:
        """Report the end of this worker. The parent may be gone."""
        with suppress(OSError):
            try:
                self.send_now(message)
            except BadFrame:
                self.send_now(message | {"results": {}, "figures": None})

    # -- on the event loop

    async def serve(
        self,
        answer: Callable[[Request], Awaitable[Response]],
        commanded: Callable[[str, str], None],
        its_turn: Callable[[str], None],
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer the parent's requests, and pass on what it says, until cancelled.

        `commanded` gets drain and abort, and who said so; `its_turn` gets the pipeline that is to
        subscribe.
        """
        self._watch.follow(asyncio.get_running_loop())
        reader, self._writer = await asyncio.open_connection(sock=self._socket.dup())
        task_status.started()
        async with anyio.create_task_group() as group:
            while (message := await receive(reader)) is not None:
                if message["kind"] == "ask":
                    group.start_soon(self._answer, answer, message)
                elif message["kind"] == "subscribe":
                    its_turn(str(message["pipeline"]))
                else:
                    commanded(message["kind"], str(message.get("by", "")))
        _leave_output()
        commanded("drain", PARENT_ENDED)

    async def send(self, message: Message) -> None:
        """Send a message from the event loop."""
        assert self._writer is not None
        with suppress(OSError):
            self._writer.write(encoded(message))
            await self._writer.drain()

    async def _answer(
        self, answer: Callable[[Request], Awaitable[Response]], message: dict[str, Any]
    ) -> None:
        try:
            asked = message["request"]
            response = await answer(Request(**asked | {"body": asked["body"].encode("latin-1")}))
            body = response.body.decode(errors="replace")
            said = {"status": response.status, "type": response.content_type, "body": body}
            await self.send({"kind": "answer", "id": message["id"], **said})
        except (BadFrame, TypeError, KeyError) as error:
            said = {"status": HTTPStatus.INTERNAL_SERVER_ERROR, "type": "text/plain"}
            said["body"] = f"{type(error).__name__}\n"
            await self.send({"kind": "answer", "id": message["id"], **said})


def _leave_output() -> None:
    """Write to nowhere: standard error was a pipe to the parent, and writing to it would fail."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)
