"""One connection: reads commands, calls their handlers, writes answers and chunks.

Each connection has two tasks. The reader handles one command after the other; it stops reading
while too much is unconfirmed or unsent. The writer sends what is in the send buffer, and reads the
next chunks of a subscription only when the buffer is empty. So a slow consumer holds one piece of
about `READ_BYTES` in memory, however much credit it gives.

Which commands there are is in the table of handlers that the session is given (`handlers`). A
handler works on the session's public attributes; the rest of the broker knows it as a `Listener`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import anyio
from anyio.abc import ByteStream

from flowstream.broker.node import Node
from flowstream.broker.registrations import Publisher, Subscription
from flowstream.broker.single_active import Notice
from flowstream.broker.stream import Stream
from flowstream.errors import LocalProtocolError, ProtocolError
from flowstream.protocol import (
    Address,
    Close,
    Code,
    Command,
    Connection,
    ConsumerUpdate,
    Deliver,
    FrameReader,
    Heartbeat,
    Key,
    MetadataUpdate,
    PublishConfirm,
    Role,
    State,
    encode,
)
from flowstream.texts import printable

_log = logging.getLogger("flowstream.broker")

RECEIVE_BYTES = 1 << 20
_CLOSE_ANSWER = (0x8000 | Key.CLOSE).to_bytes(2)


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A ConsumerUpdate that waits for its answer until `deadline`, in the event loop's time."""

    subscription: Subscription
    stepping_down: bool
    deadline: float


class Session:
    """A connection's state; `run` serves it until it ends."""

    def __init__(
        self,
        node: Node,
        transport: ByteStream,
        peer_host: str | None,
        advertised: Address,
        handlers: Mapping[type[Any], Handler],
    ) -> None:
        limits = node.limits
        self.node = node
        self.peer_host = peer_host
        self.advertised = advertised
        self.connection: Final = Connection(
            Role.SERVER, frame_max=limits.frame_max, heartbeat=limits.heartbeat
        )
        self.identified: bool = False
        self.user = ""
        self.heartbeat = 0
        self.deliver_2 = False
        self.publishers: dict[int, Publisher] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.watched: set[Stream] = set()
        self.updates: dict[int, PendingUpdate] = {}
        self.unconfirmed: int = 0
        self.unsent: int = 0
        self._handlers = handlers
        self._transport = transport
        self._state = self.connection.state
        self._last_received = self._last_sent = self._step_began = anyio.current_time()
        self._send_buffer: deque[bytes | Subscription] = deque()
        self._woken = False
        self._work = anyio.Event()
        self._room = anyio.Event()
        self._ending = False
        self._end_by = 0.0
        self._update_count = 0
        self._rotation = 0
        self._scope = anyio.CancelScope()

    # --- running ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection; returns when either side has ended it."""
        self.node.connections.add(self)
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    await self._read()
                    if not self._ending:
                        tasks.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
            _log.debug("connection from %s was lost", self.peer_host)
        except* Exception as error:
            _log.error(
                "connection from %s: closed after an error inside the broker", self.peer_host,
                exc_info=printable(error),
            )  # fmt: skip
        finally:
            self._clean_up()

    def abort(self, reason: str) -> None:
        """Close the connection at once; the client gets no Close command."""
        _log.info("connection from %s: closed, %s", self.peer_host, reason)
        self._scope.cancel()

    def end(self) -> None:
        """Read nothing more, and close the connection when the send buffer has been sent."""
        if not self._ending:
            self._ending = True
            self._end_by = anyio.current_time() + self.node.limits.close_timeout
        self.wake()

    def _clean_up(self) -> None:
        self.node.connections.discard(self)
        for subscription in tuple(self.subscriptions.values()):
            self.drop_subscription(subscription)
        self.publishers.clear()

    # --- reading ----------------------------------------------------------------------------

    async def _read(self) -> None:
        while not self._ending:
            try:
                data = await self._transport.receive(RECEIVE_BYTES)
            except anyio.EndOfStream:
                return
            self._last_received = anyio.current_time()
            try:
                await self._handle(self.connection.receive(data))
            except ProtocolError as error:
                await self._handle(error.preceding)
                await self._close_after(error)
                return
            await self._wait_for_room()

    async def _handle(self, commands: Sequence[Any]) -> None:
        for command in commands:
            if self._ending:
                return
            result = self._handlers[type(command)](self, command)
            if result is not None:
                await result
        if self.connection.failure is None and self.connection.state is not self._state:
            self._state = self.connection.state
            self._step_began = anyio.current_time()

    async def _wait_for_room(self) -> None:
        """Stop reading while too much is unconfirmed or unsent: TCP then slows the client down.

        Once stopped, reading goes on only when there is room for `resume_room` entries, so that it
        does not stop and go for every frame.
        """
        limits = self.node.limits
        most = limits.max_unconfirmed - 1
        if self.unconfirmed > most:
            most = limits.max_unconfirmed - limits.resume_room
        while self.unconfirmed > most or self.unsent > limits.max_unsent:
            self._room = anyio.Event()
            await self._room.wait()

    async def _close_after(self, error: ProtocolError) -> None:
        """End a connection whose client broke the protocol.

        A client that has opened its virtual host is sent a Close with the reason, and has a while
        to answer it; others are sent what is in the send buffer, as RabbitMQ does.
        """
        _log.info("connection from %s: closed after a protocol error, %s", self.peer_host, error)
        if self._state is not State.RUNNING or self._ending:
            self.end()
            return
        code = Code(error.code) if error.code else Code.UNKNOWN_FRAME
        reason = "frame too large" if code is Code.FRAME_TOO_LARGE else "unknown frame"
        self._put(encode(Close(1, code, reason)))
        frames = FrameReader(self.connection.frame_max)
        with anyio.move_on_after(self.node.limits.close_timeout):
            while True:
                try:
                    data = await self._transport.receive(RECEIVE_BYTES)
                except anyio.EndOfStream:
                    return
                if any(frame[:2] == _CLOSE_ANSWER for frame in frames.feed(data)):
                    return

    # --- writing ----------------------------------------------------------------------------

    def send(self, command: Command) -> None:
        """Put a command into the send buffer. A connection that is ending may discard it."""
        try:
            self._put(self.connection.send(command))
        except LocalProtocolError:
            if not self.connection.closed:
                raise

    def _put(self, data: bytes) -> None:
        self._send_buffer.append(data)
        self.unsent += len(data)
        self.wake()

    def wake(self) -> None:
        """There may be something to write."""
        self._woken = True
        self._work.set()

    async def _write(self) -> None:
        while True:
            # Reset before looking: what arrives while chunks are read in a thread sets it again,
            # and then the writer must look once more before it sleeps.
            self._woken = False
            if self._send_buffer:
                data = self._next_answers() or await self._first_chunks()
            elif self._ending:
                break
            else:
                data = await self._next_chunks()
            if data:
                await self._transport.send(data)
                self._last_sent = anyio.current_time()
                self.unsent = sum(len(it) for it in self._send_buffer if isinstance(it, bytes))
                self._room.set()
            elif self._woken:
                await anyio.lowlevel.checkpoint()
            else:
                self._work = anyio.Event()
                await self._work.wait()
        self._scope.cancel()

    def _next_answers(self) -> bytes:
        """The frames in the send buffer, up to a subscription that is served before the rest."""
        answers: list[bytes] = []
        while self._send_buffer and isinstance(answer := self._send_buffer[0], bytes):
            answers.append(answer)
            self._send_buffer.popleft()
        return b"".join(answers)

    async def _first_chunks(self) -> bytes:
        """Chunks of the subscription that the send buffer waits for; empty once it has them all."""
        subscription = self._send_buffer[0]
        assert isinstance(subscription, Subscription)
        self._woken = True
        if subscription.ready and not self._ending and not self.connection.closed:
            return await self._chunks_of(subscription)
        self._send_buffer.popleft()
        return b""

    async def _next_chunks(self) -> bytes:
        """Chunks of one subscription that is ready, each in turn; empty if none is ready."""
        ready = [it for it in self.subscriptions.values() if it.ready]
        if not ready or self.connection.closed:
            return b""
        self._rotation += 1
        return await self._chunks_of(ready[self._rotation % len(ready)])

    async def _chunks_of(self, subscription: Subscription) -> bytes:
        position = subscription.position
        assert position is not None
        chunks, after = await self.node.reader.read(
            subscription.stream, position, subscription.filter, subscription.credit
        )
        self._woken = True
        # While a thread was reading, the subscription may have been attached elsewhere or dropped,
        # and its stream deleted. Then these chunks are not sent.
        gone = subscription.stream.deleted or self.connection.closed
        if gone or subscription.position != position:
            return b""
        subscription.position = after
        subscription.credit -= len(chunks)
        stream = subscription.stream
        if subscription.credit == 0 or after >= stream.end or after == position:
            subscription.sending = False
        committed = stream.durable.chunk_id if self.deliver_2 else None
        frames: list[bytes] = []
        for chunk in chunks:
            deliver = Deliver(subscription.subscription_id, chunk.blob, committed)
            frames.append(self.connection.send(deliver))
            self.node.messages_out += chunk.records
        return b"".join(frames)

    # --- notifications (Listener) -----------------------------------------------------------

    def confirm(self, publisher: Publisher, publishing_ids: Sequence[int]) -> None:
        """Send a PublishConfirm, unless the publisher or its stream has been deleted meanwhile.

        The entries count as confirmed in any case: the reader waits for room.
        """
        self.unconfirmed -= len(publishing_ids)
        limits = self.node.limits
        if self.unconfirmed <= limits.max_unconfirmed - limits.resume_room:
            self._room.set()
        declared = self.publishers.get(publisher.publisher_id) is publisher
        if publishing_ids and declared and not publisher.stream.deleted:
            self.send(PublishConfirm(publisher.publisher_id, tuple(publishing_ids)))

    def consumer_update(self, notice: Notice[Subscription]) -> None:
        """Send a ConsumerUpdate; until the client answers it the subscription is not served."""
        subscription = notice.member
        subscription.active = notice.active
        subscription.generation += 1
        subscription.detach()
        deadline = anyio.current_time() + self.node.limits.consumer_update_timeout
        self.updates[self._update_count] = PendingUpdate(
            subscription, notice.stepping_down, deadline
        )
        self.send(ConsumerUpdate(self._update_count, subscription.subscription_id, notice.active))
        self._update_count += 1

    def stream_deleted(self, stream: Stream) -> None:
        """Drop everything registered on the stream; send a MetadataUpdate if the client used it."""
        if stream not in self.watched:
            return
        self.watched.discard(stream)
        for subscription in tuple(self.subscriptions.values()):
            if subscription.stream is stream:
                self.drop_subscription(subscription)
        for publisher in tuple(self.publishers.values()):
            if publisher.stream is stream:
                del self.publishers[publisher.publisher_id]
        self.send(MetadataUpdate(Code.STREAM_NOT_AVAILABLE, stream.name))

    def tick(self, now: float) -> None:
        """Send a heartbeat if one is due, and close the connection if a deadline has passed."""
        limits = self.node.limits
        if self._ending:
            if now > self._end_by:
                self.abort("the client did not read the last answers in time")
            return
        if self._state is not State.RUNNING:
            if now - self._step_began > limits.handshake_timeout:
                self.abort(f"the client took too long in the state {self._state.value!r}")
            return
        if any(update.deadline < now for update in self.updates.values()):
            self.abort("the client did not answer a ConsumerUpdate in time")
        elif self.heartbeat:
            self._check_heartbeats(now)

    def _check_heartbeats(self, now: float) -> None:
        # While reading is stopped the client's heartbeats wait in the socket: not its fault.
        blocked = self.unconfirmed >= self.node.limits.max_unconfirmed
        if now - self._last_received > 2 * self.heartbeat and not blocked:
            self.abort(f"the client sent nothing for two heartbeats of {self.heartbeat} s")
        elif now - self._last_sent > self.heartbeat / 2 and not self._send_buffer:
            self.send(Heartbeat())

    # --- for handlers -----------------------------------------------------------------------

    def identify(self) -> None:
        """The client has sent its properties: the first step of the handshake is done."""
        if not self.identified:
            self.identified = True
            self._step_began = anyio.current_time()

    def serve_first(self, subscription: Subscription, position: int) -> None:
        """Send a new subscription the chunks that exist before later commands are answered.

        As in RabbitMQ: from the answer to a later command a client knows that there was no more.
        """
        subscription.attach(position)
        self._send_buffer.append(subscription)

    def add_subscription(self, subscription: Subscription) -> None:
        self.subscriptions[subscription.subscription_id] = subscription
        self.watched.add(subscription.stream)
        subscription.stream.on_growth.add(subscription.wake)

    def drop_subscription(self, subscription: Subscription) -> None:
        """Stop serving it; if it belongs to a group, the group elects another active consumer."""
        del self.subscriptions[subscription.subscription_id]
        subscription.stream.on_growth.discard(subscription.wake)
        subscription.detach()
        if subscription.single_active:
            name = subscription.name
            stream = subscription.stream.name
            self.node.notify(self.node.coordinator.unregister(stream, name, subscription))

    def unwatch_if_unused(self, stream: Stream) -> None:
        """Stop notifying the client of the stream's deletion if nothing is registered on it."""
        published = any(it.stream is stream for it in self.publishers.values())
        if not published and not any(it.stream is stream for it in self.subscriptions.values()):
            self.watched.discard(stream)


Handler: TypeAlias = Callable[[Session, Any], Awaitable[None] | None]
"""Handles one kind of command. If it returns an awaitable, the next command waits for it."""
