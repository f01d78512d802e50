"""A worker process as its parent sees it: the socket to it, its standard error, and its end."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import anyio
from anyio.abc import ByteReceiveStream, Process

from flowstream.cli.workers.decisions import End, Member
from flowstream.cli.workers.link import receive
from flowstream.cli.workers.messages import Message, encoded
from flowstream.monitor import Request, Response

LONGEST_LINE = 64 * 1024
"""Bytes of a line of standard error that are kept together."""
LAST_WORDS = 1.0
"""Seconds after the end of a process in which what it has written is still read."""
PATIENCE = 2.0
"""Seconds for a worker to answer a request."""


class WorkerProcess:
    """One process. `write` gets each line of its standard error (and output, if it is `shown`).

    `count` is the number of workers, None for `auto`.
    """

    def __init__(
        self,
        member: Member,
        command: Callable[[int], list[str]],
        *,
        count: int | None,
        shown: bool,
    ) -> None:
        self.member = member
        self._command = command
        self._hello: Message = {"kind": "hello", "worker": member.number}
        self._hello |= {"several": count is not None and count > 1, "auto": count is None}
        self._shown = shown
        self._process: Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, asyncio.Future[Response | None]] = {}
        self._ids = itertools.count()
        self._result: Message | None = None
        self._drained_by: str | None = None
        self._aborted = False
        self.loaded: bool = False
        self.serving: bool = False

    @property
    def pid(self) -> int | None:
        """The number of the process; None before it has started."""
        return None if self._process is None else self._process.pid

    @property
    def result(self) -> Message | None:
        """What the worker reported at its end."""
        return self._result

    async def run(self, heard: Callable[[Message], None], write: Callable[[str], None]) -> End:
        """Start the process and follow it to its end. `heard` gets what it tells of itself."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await anyio.open_process(
                    self._command(theirs.fileno()),
                    # A source that reads standard input has no other worker to share it with.
                    stdin=-3 if self._hello["several"] or self.member.number > 1 else None,
                    stdout=-1 if self._shown else None,
                    stderr=-1,
                    start_new_session=True,  # so that Ctrl-C reaches it only once, from here
                    pass_fds=(theirs.fileno(),),
                )
            reader, self._writer = await asyncio.open_connection(sock=ours)
        except OSError as error:
            ours.close()
            return End(1, f"the process cannot be started: {error.strerror}", reported=False)
        self.post(self._hello)
        process = self._process
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._listen, reader, heard)
                for stream in (process.stderr, process.stdout):
                    if stream is not None:
                        group.start_soon(_copy, stream, write)
                code = await process.wait()
                if code or self._aborted:  # its messages are handled again, and by new programs
                    self._end_group()
                group.cancel_scope.deadline = anyio.current_time() + LAST_WORDS
        finally:
            self._close()
        return self._end(code)

    async def _listen(self, reader: asyncio.StreamReader, heard: Callable[[Message], None]) -> None:
        while (message := await receive(reader)) is not None:
            if message["kind"] == "answer":
                self._answered(message)
            elif message["kind"] == "result":
                self._result = message
                heard(message)
            else:
                self.loaded = True
                if message["kind"] == "loaded" and self._drained_by is not None:
                    self.drain(self._drained_by)  # its module ignores SIGTERM
                    continue
                self.serving = self.serving or message["kind"] == "prepared"
                heard(message)

    def _answered(self, message: Message) -> None:
        asked = self._asked.pop(message.get("id", -1), None)
        if asked is not None and not asked.done():
            status, body = int(message["status"]), str(message["body"]).encode()
            asked.set_result(Response(status, body, str(message["type"])))

    def _end(self, code: int) -> End:
        result = self._result
        if result is None:
            return End(code, reported=False)
        error = result.get("error")
        if error is None:
            return End(code, by=str(result.get("by")), reported=code >= 0)
        return End(code, error["text"], reported=code >= 0, outage=error["outage"])

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_result(None)
        self._asked.clear()

    # -- to the worker

    def post(self, message: Message) -> None:
        """Send a message without waiting."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encoded(message))

    async def ask(self, request: Request, patience: float = PATIENCE) -> Response | None:
        """The worker's response to a request; None if it does not answer in time.

        Before it is prepared it answers nothing: it may still be importing its modules.
        """
        if self._writer is None or self._writer.is_closing() or not self.serving:
            return None
        number = next(self._ids)
        asked: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        fields = {name: getattr(request, name) for name in ("method", "path", "peer")}
        fields |= {"query": dict(request.query), "headers": dict(request.headers)}
        fields["body"] = request.body.decode("latin-1")
        try:
            with anyio.move_on_after(patience):
                self.post({"kind": "ask", "id": number, "request": fields})
                answer: Response | None = await asked
                return answer
        finally:
            self._asked.pop(number, None)
        return None

    def drain(self, by: str) -> None:
        """Tell the worker to drain. One that still imports its modules is ended."""
        self._drained_by = by
        if self.loaded:
            self.post({"kind": "drain", "by": by})
        else:
            self.signal(signal.SIGTERM)

    def abort(self, by: str) -> None:
        """Tell the worker to end without what is in flight."""
        self._aborted = True
        self.post({"kind": "abort", "by": by})

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill_group(self) -> None:
        """Kill the process and those that it has started."""
        if self._process is not None and self._process.returncode is None:
            self._end_group()

    def _end_group(self) -> None:
        """Kill what is left of the process and those that it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


async def _copy(stream: ByteReceiveStream, write: Callable[[str], None]) -> None:
    """Pass on whole lines; one that is too long is cut."""
    rest = b""
    while True:
        try:
            rest += await stream.receive()
        except (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError):
            break
        *lines, rest = rest.split(b"\n")
        while len(rest) > LONGEST_LINE:
            lines.append(rest[:LONGEST_LINE])
            rest = rest[LONGEST_LINE:]
        if lines:
            write("".join(f"{line.decode(errors='backslashreplace')}\n" for line in lines))
    if rest:
        write(f"{rest.decode(errors='backslashreplace')}\n")


def to_stderr(text: str) -> None:
    """Write lines of a worker. Standard error may be closed."""
    with suppress(OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()
