"""One connection: reads commands, hands them to their handlers, writes answers and chunks.

Two tasks a connection. The reader handles one command after the other; it stops reading while too
much is unconfirmed or unsent. The writer sends what is in the outbox, and only when that is empty
asks for the next chunks of a subscription: a slow consumer holds one piece in memory, no more. A
new subscription is sent its first chunks before what is answered later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import ByteStream

from flowstream.broker.handlers import HANDLERS
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
class Update:
    """A ConsumerUpdate that waits for its answer until `deadline` on the loop's clock."""

    subscription: Subscription
    stepping_down: bool
    deadline: float


class Session:
    """A connection's state; `run` serves it until it ends."""

    def __init__(
        self, node: Node, transport: ByteStream, peer_host: str | None, advertised: Address
    ) -> None:
        limits = node.limits
        self.node = node
        self.peer_host = peer_host
        self.advertised = advertised
        self.connection = Connection(
            Role.SERVER, frame_max=limits.frame_max, heartbeat=limits.heartbeat
        )
        self.introduced = False
        self.user = ""
        self.heartbeat = 0
        self.deliver_2 = False
        self.publishers: dict[int, Publisher] = {}
        self.subscriptions: dict[int, Subscription] = {}
        self.watched: set[Stream] = set()
        self.updates: dict[int, Update] = {}
        self.unconfirmed = 0
        self.last_received = self.last_sent = self.step_began = anyio.current_time()
        self._transport = transport
        self._state = self.connection.state
        self._outbox: deque[bytes | Subscription] = deque()
        self._unsent = 0
        self._woken = False
        self._work = anyio.Event()
        self._room = anyio.Event()
        self._ending = False
        self._end_by = 0.0
        self._updates = 0
        self._turn = 0
        self._scope = anyio.CancelScope()

    # --- running ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the connection; returns when it has ended, whoever ended it."""
        self.node.sessions.add(self)
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    await self._read()
                    if not self._ending:
                        tasks.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
            _log.debug("connection from %s broke", self.peer_host)
        except* Exception as error:
            _log.error(
                "connection from %s failed and was closed", self.peer_host,
                exc_info=printable(error),
            )  # fmt: skip
        finally:
            self._leave()

    def abort(self, reason: str) -> None:
        """End it at once, without a word to the client."""
        _log.info("connection from %s is closed: %s", self.peer_host, reason)
        self._scope.cancel()

    def end(self) -> None:
        """End it once what is in the outbox has been sent; nothing more is read."""
        if not self._ending:
            self._ending = True
            self._end_by = anyio.current_time() + self.node.limits.close_timeout
        self.wake()

    def _leave(self) -> None:
        self.node.sessions.discard(self)
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
            self.last_received = anyio.current_time()
            try:
                await self._handle(self.connection.receive(data))
            except ProtocolError as error:
                await self._handle(error.preceding)
                await self._refuse(error)
                return
            await self._wait_for_room()

    async def _handle(self, commands: Sequence[Any]) -> None:
        for command in commands:
            if self._ending:
                return
            result = HANDLERS[type(command)](self, command)
            if result is not None:
                await result
        if self.connection.failure is None and self.connection.state is not self._state:
            self._state = self.connection.state
            self.step_began = anyio.current_time()

    async def _wait_for_room(self) -> None:
        limits = self.node.limits
        most = limits.max_unconfirmed - 1
        if self.unconfirmed > most:
            most = limits.max_unconfirmed - limits.resume_room
        while self.unconfirmed > most or self._unsent > limits.max_unsent:
            self._room = anyio.Event()
            await self._room.wait()

    async def _refuse(self, error: ProtocolError) -> None:
        """Tell a client that is past Open why, and wait a while for its answer; close others."""
        _log.info("connection from %s broke the protocol: %s", self.peer_host, error)
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
        """Put a command into the outbox; what is out of turn on an ending connection is lost."""
        try:
            self._put(self.connection.send(command))
        except LocalProtocolError:
            if not self.connection.closed:
                raise

    def _put(self, data: bytes) -> None:
        self._outbox.append(data)
        self._unsent += len(data)
        self.wake()

    def wake(self) -> None:
        """There may be something to write."""
        self._woken = True
        self._work.set()

    async def _write(self) -> None:
        while True:
            self._woken = False
            if self._outbox:
                data = self._next_answers() or await self._first_chunks()
            elif self._ending:
                break
            else:
                data = await self._next_chunks()
            if data:
                await self._transport.send(data)
                self.last_sent = anyio.current_time()
                self._unsent = sum(len(it) for it in self._outbox if isinstance(it, bytes))
                self._room.set()
            elif self._woken:
                await anyio.lowlevel.checkpoint()
            else:
                self._work = anyio.Event()
                await self._work.wait()
        self._scope.cancel()

    def _next_answers(self) -> bytes:
        """The outbox, up to a subscription that is to be served before the rest."""
        answers: list[bytes] = []
        while self._outbox and isinstance(answer := self._outbox[0], bytes):
            answers.append(answer)
            self._outbox.popleft()
        return b"".join(answers)

    async def _first_chunks(self) -> bytes:
        """Frames of the subscription that the outbox waits for; nothing once it has all."""
        subscription = self._outbox[0]
        assert isinstance(subscription, Subscription)
        self._woken = True
        if subscription.ready and not self._ending and not self.connection.closed:
            return await self._chunks_of(subscription)
        self._outbox.popleft()
        return b""

    async def _next_chunks(self) -> bytes:
        """Frames of the next subscription that is ready, taking turns; nothing if none is."""
        ready = [it for it in self.subscriptions.values() if it.ready]
        if not ready or self.connection.closed:
            return b""
        self._turn += 1
        return await self._chunks_of(ready[self._turn % len(ready)])

    async def _chunks_of(self, subscription: Subscription) -> bytes:
        position = subscription.position
        assert position is not None
        chunks, after = await self.node.read(
            subscription.stream, position, subscription.filter, subscription.credit
        )
        if not self._still_at(subscription, position):
            self._woken = True
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
        self._woken = True
        return b"".join(frames)

    def _still_at(self, subscription: Subscription, position: int) -> bool:
        """Nothing came between: neither another place to go on from, nor an end."""
        gone = subscription.stream.deleted or self.connection.closed
        return subscription.position == position and not gone

    # --- told by others ---------------------------------------------------------------------

    def confirm(self, publisher: Publisher, publishing_ids: list[int]) -> None:
        """These are durable; a publisher that is gone meanwhile, or its stream, is not told."""
        self.unconfirmed -= len(publishing_ids)
        limits = self.node.limits
        if self.unconfirmed <= limits.max_unconfirmed - limits.resume_room:
            self._room.set()
        declared = self.publishers.get(publisher.publisher_id) is publisher
        if publishing_ids and declared and not publisher.stream.deleted:
            self.send(PublishConfirm(publisher.publisher_id, tuple(publishing_ids)))

    def consumer_update(self, notice: Notice[Subscription]) -> None:
        """Ask the client to take note that its consumer is active now, or not any more."""
        subscription = notice.member
        subscription.active = notice.active
        subscription.turn += 1
        subscription.detach()
        deadline = anyio.current_time() + self.node.limits.consumer_update_timeout
        self.updates[self._updates] = Update(subscription, notice.stepping_down, deadline)
        self.send(ConsumerUpdate(self._updates, subscription.subscription_id, notice.active))
        self._updates += 1

    def stream_deleted(self, stream: Stream) -> None:
        """Forget what was on the stream, and tell the client if there was anything."""
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

    def introduce(self) -> None:
        """The client has told its properties: the first step of the handshake is done."""
        if not self.introduced:
            self.introduced = True
            self.step_began = anyio.current_time()

    # --- subscriptions ----------------------------------------------------------------------

    def serve_first(self, subscription: Subscription, position: int) -> None:
        """A new subscription is sent what there is before the next command is answered.

        As RabbitMQ does: by the answer to a later command a client knows that nothing more was
        there.
        """
        subscription.attach(position)
        self._outbox.append(subscription)

    def add_subscription(self, subscription: Subscription) -> None:
        self.subscriptions[subscription.subscription_id] = subscription
        self.watched.add(subscription.stream)
        subscription.stream.listeners.add(subscription.wake)

    def drop_subscription(self, subscription: Subscription) -> None:
        """It is served no more; its group, if it has one, elects another."""
        del self.subscriptions[subscription.subscription_id]
        subscription.stream.listeners.discard(subscription.wake)
        subscription.detach()
        if subscription.single_active:
            name = subscription.name
            stream = subscription.stream.name
            self.node.tell(self.node.coordinator.unregister(stream, name, subscription))

    def unwatch(self, stream: Stream) -> None:
        """The client has nothing on the stream any more, so it need not hear of its end."""
        published = any(it.stream is stream for it in self.publishers.values())
        if not published and not any(it.stream is stream for it in self.subscriptions.values()):
            self.watched.discard(stream)

    # --- time -------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Once in a while: heartbeats, and deadlines that have passed; `now` is the loop's."""
        limits = self.node.limits
        if self._ending:
            if now > self._end_by:
                self.abort("it did not take what was left to send")
            return
        if self._state is not State.RUNNING:
            if now - self.step_began > limits.handshake_timeout:
                self.abort(f"it took too long in the state {self._state.value!r}")
            return
        if any(update.deadline < now for update in self.updates.values()):
            self.abort("it did not answer a ConsumerUpdate")
        elif self.heartbeat:
            self._beat(now)

    def _beat(self, now: float) -> None:
        blocked = self.unconfirmed >= self.node.limits.max_unconfirmed
        if now - self.last_received > 2 * self.heartbeat and not blocked:
            self.abort("it missed its heartbeats")
        elif now - self.last_sent > self.heartbeat / 2 and not self._outbox:
            self.send(Heartbeat())
