"""Publishes to one stream: bounded, confirmed, in order, across reconnects.

A message is buffered at once and stays in the buffer until the broker has confirmed it. The
connection takes entries from the buffer when the socket accepts more. After a loss everything
unconfirmed is sent again, with the same publishing ids, before anything new.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from types import TracebackType
from typing import TypeVar

import anyio
import anyio.lowlevel

from flowstream.client.connecting.block import Block
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.recovery import State
from flowstream.client.connecting.tasks import Task
from flowstream.errors import ConnectionClosed, FlowstreamError
from flowstream.protocol import AmqpMessage

from .options import PublisherOptions
from .send_buffer import check_bodies, plain_body, size_of
from .session import PublisherSession
from .unconfirmed import Entry, Waiter

T = TypeVar("T")
_SHUT = (State.CLOSED, State.CONNECTING)
"""The states outside of the publisher's block: it takes no message."""


class Publisher:
    """`async with env.publisher("orders") as publisher: await publisher.publish(b"...")`.

    `send` and `send_many` return when the messages are buffered, `publish` and `publish_many` when
    they are confirmed. Leaving the block flushes. Several tasks may use one publisher.
    """

    def __init__(self, manager: ConnectionManager, stream: str, options: PublisherOptions) -> None:
        self.stream = stream
        self.options = options
        self._manager = manager
        self._state = manager.state_of("publisher", stream)
        self._session = PublisherSession(manager, stream, options, self._state)
        self._buffer = self._session.buffer
        self._tasks: list[Task] = []
        self._user: object = None
        self._block = Block(f'the publisher of "{stream}"')
        self._deduplicated = 0

    def __repr__(self) -> str:
        return f"<publisher of {self.stream!r} {self.state.value}>"

    # --- state ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state.value

    async def wait_for(self, *states: State) -> State:
        """Returns once the publisher is in one of these states."""
        return await self._state.wait(*states)

    @property
    def last_publishing_id(self) -> int | None:
        """The highest publishing id that the broker had for the reference at the start.

        None without a reference. 0 can also mean that the broker had none.
        """
        return self._session.sequence

    @property
    def deduplicated(self) -> int:
        """How many messages the broker drops as duplicates: it had their publishing ids before."""
        return self._deduplicated

    @property
    def max_body(self) -> int | None:
        """The most bytes of a body that fit into a frame of this connection; None: no limit."""
        return self._buffer.max_body

    @property
    def unconfirmed(self) -> int:
        """How many messages are buffered or sent, and not confirmed."""
        return self._buffer.messages

    def statistics(self) -> dict[str, int]:
        return {
            "unconfirmed": self._buffer.messages,
            "unconfirmed_bytes": self._buffer.size,
            "max_unconfirmed": self.options.max_unconfirmed,
            "max_unconfirmed_bytes": self.options.max_unconfirmed_bytes,
            "next_publishing_id": self._buffer.next_id,
            "recoveries": self._session.recovery.recoveries,
        }

    # --- sending --------------------------------------------------------------------------------

    async def send(
        self,
        body: bytes | AmqpMessage,
        *,
        publishing_id: int | None = None,
        filter_value: str | None = None,
    ) -> None:
        """Buffers one message; waits only while the window is full, and not for the confirm.

        Raises MessageTooLarge, or the last error if the publisher gave up. If the broker refuses
        the message, `on_error` is called, or the next `flush` raises.
        """
        self._manager.check_thread()
        if type(body) is not bytes:
            body = plain_body(body)
        if publishing_id is not None or filter_value is not None or self.options.filter_value:
            await self._accept([body], _listed(publishing_id), _listed(filter_value), None)
            return
        buffer = self._buffer
        size = size_of(body)
        buffer.check_size(size)
        if self._state.value in _SHUT or not buffer.has_room(1, size):
            await self._room(1, size)
        idle = buffer.idle
        full = buffer.add(body, size, self._session.clock())
        if idle:
            self._session.want_write()
        if full:
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async def publish(
        self,
        body: bytes | AmqpMessage,
        *,
        publishing_id: int | None = None,
        filter_value: str | None = None,
    ) -> None:
        """Publishes one message and waits until it is confirmed.

        Raises PublishFailed if the broker refuses it or does not confirm it in time.
        """
        waiter = Waiter()
        await self._accept([body], _listed(publishing_id), _listed(filter_value), waiter)
        await self._settled(waiter)

    async def send_many(
        self,
        bodies: Sequence[bytes],
        *,
        publishing_ids: Sequence[int] | None = None,
        filter_values: Sequence[str | None] | None = None,
    ) -> None:
        """Buffers many messages at once, which is much faster than `send` for each of them."""
        check_bodies(bodies)
        if bodies:
            await self._accept(bodies, publishing_ids, filter_values, None)
            await anyio.lowlevel.cancel_shielded_checkpoint()

    async def publish_many(
        self,
        bodies: Sequence[bytes],
        *,
        publishing_ids: Sequence[int] | None = None,
        filter_values: Sequence[str | None] | None = None,
    ) -> None:
        """Publishes many messages at once and waits until all are confirmed.

        Raises PublishFailed if one of them fails.
        """
        check_bodies(bodies)
        if bodies:
            waiter = Waiter()
            await self._accept(bodies, publishing_ids, filter_values, waiter)
            await self._settled(waiter)

    def check_fits(self, bodies: Sequence[bytes]) -> None:
        """Raises MessageTooLarge if one of the bodies does not fit into a frame."""
        value = self.options.filter_value
        values = [None if value is None else value(body) for body in bodies]
        self._buffer.check_size(max(map(size_of, bodies, values)))

    async def flush(self) -> None:
        """Waits until all messages buffered so far are confirmed or have failed.

        Raises PublishFailed if one of them failed, unless its failure was reported otherwise.
        """
        self._manager.check_thread()
        self._block.check()
        self._buffer.seal(self._session.clock())
        through = self._buffer.next_id - 1
        while not self._buffer.log.settled_through(through):
            await self._session.progress.wait()
        self._session.failures.raise_kept()

    async def _accept(
        self,
        bodies: Sequence[bytes | AmqpMessage],
        publishing_ids: Sequence[int] | None,
        filter_values: Sequence[str | None] | None,
        waiter: Waiter | None,
    ) -> None:
        self._manager.check_thread()
        await anyio.lowlevel.checkpoint_if_cancelled()
        if filter_values is None and self.options.filter_value is not None:
            filter_values = [self.options.filter_value(plain_body(body)) for body in bodies]
        if filter_values is not None:
            self._session.check_filters()
        entries = self._buffer.pieces(bodies, publishing_ids, filter_values)
        if waiter is not None:
            waiter.remaining = sum(len(entry.items) for entry in entries)
        for entry in entries:
            await self._append(entry, waiter)

    async def _append(self, entry: Entry, waiter: Waiter | None) -> None:
        messages = entry.messages
        if self._state.value in _SHUT or not self._buffer.has_room(messages, entry.size):
            await self._room(messages, entry.size)
        self._buffer.accept(entry, self._session.clock(), waiter)
        if entry.ids is not None and self.last_publishing_id:
            self._deduplicated += bisect_right(entry.ids, self.last_publishing_id)
        self._session.want_write()

    async def _room(self, messages: int, size: int) -> None:
        """Waits until the window has room; raises if the publisher is closed or not open."""
        self._manager.check_thread()
        self._block.check()
        while True:
            if self._state.value is State.CLOSED:
                raise self._closed_error()
            if self._buffer.has_room(messages, size):
                return
            await self._session.progress.wait()

    async def _settled(self, waiter: Waiter) -> None:
        await waiter.settled.wait()
        if waiter.failures:
            raise self._session.failures.error(waiter.failures) from (self._session.failures.cause)

    def _closed_error(self) -> FlowstreamError:
        error = self._session.recovery.error
        if error is None:
            return ConnectionClosed(f'the publisher of "{self.stream}" is closed')
        return error.with_traceback(None)  # each `raise` adds to the traceback of the one before

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Publisher:
        spawn = self._manager.owner.spawn
        session, timeout = self._session, self.options.confirm_timeout
        self._block.enter()
        who = f'the publisher of "{self.stream}"'
        self._user = self._manager.use(who, session.recovery.give_up)
        self._tasks.append(spawn(session.recovery.run, name=f"publisher of {self.stream}"))
        if timeout is not None:
            name = f"confirm timeout of {self.stream}"
            self._tasks.append(spawn(session.expire, timeout, name=name))
        try:
            await self._state.wait(State.OPEN, State.CLOSED)
            if session.recovery.error is not None:
                raise session.recovery.error
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flushes and closes; after an exception it flushes for at most `close_timeout`."""
        try:
            if kind is None:
                await self.flush()
            else:
                with anyio.move_on_after(self._manager.settings.close_timeout, shield=True):
                    while self._buffer.messages and self.state is not State.CLOSED:
                        await self._session.progress.wait()
        finally:
            await self._end()

    async def _end(self) -> None:
        self._manager.release(self._user)
        with anyio.CancelScope(shield=True):
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                await task.wait()
            self._state.set(State.CLOSED)
            self._session.fail_all()


def _listed(value: T | None) -> list[T] | None:
    return None if value is None else [value]
