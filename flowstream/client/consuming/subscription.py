"""A consumer's subscription on a connection: it receives chunks, and is made again after a loss.

Chunks that were not delivered when a connection is lost are dropped and read again. `position`, the
offset behind the last delivery, is where a new subscription continues. It begins at the chunk
before that, which tells whether this is still the same stream (delivery.py: StreamIdentity).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from flowstream.client.connecting.connection import ClientConnection, raise_for_code
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.pool import Pool, Registration
from flowstream.client.connecting.recovery import Recovery, State, StateCell
from flowstream.client.connecting.settings import log
from flowstream.client.connecting.users import SubscriptionUser
from flowstream.errors import (
    ConfigurationError,
    ConnectionClosed,
    FlowstreamError,
    NotSupported,
    OffsetTruncated,
    ProtocolError,
)
from flowstream.protocol import (
    Address,
    Chunk,
    Credit,
    Deliver,
    Key,
    Metadata,
    MetadataResponse,
    OffsetKind,
    OffsetSpec,
    Response,
    Subscribe,
    Unsubscribe,
)
from flowstream.signals import Signal
from flowstream.telemetry import ChunkReceived, Overtaken
from flowstream.texts import plural, text_of

from .delivery import Arrival, Arrivals, Delivery, StreamIdentity, Verdict, make_delivery
from .options import ConsumerOptions, credit_from, credit_together
from .probe import probe

OnUpdate = Callable[[ClientConnection | None, int, bool], None]
"""Connection (None: it was lost), correlation id, active."""


class Subscription:
    """Keeps a consumer subscribed to a member of the stream, and holds the chunks it receives."""

    def __init__(
        self,
        manager: ConnectionManager,
        stream: str,
        options: ConsumerOptions,
        state: StateCell,
        *,
        start: OffsetSpec,
        arrived: Signal,
        on_update: OnUpdate,
        on_begin_again: Callable[[], None],
    ) -> None:
        self.stream = stream
        self.arrived = arrived
        self.arrivals: Final = Arrivals()
        self.gap: Final = Signal()
        self.position: int | None = start.value if start.kind is OffsetKind.OFFSET else None
        self.active: bool = not options.single_active
        self.failure: Exception | None = None
        self.credits: int = 0
        self.lost: int = 0
        self._leaving = False
        self.recovery: Final = Recovery(
            state, manager.settings, attach=self._attach, detach=self._detach, gave_up=self.fail
        )
        self._manager = manager
        self._options = options
        self._credit = options.credit_strategy
        self._together = credit_together(self._credit)
        self._due = 0
        self._state = state
        self._start = start
        self._on_update = on_update
        self._on_begin_again = on_begin_again
        self._registration: Registration[SubscriptionUser] | None = None
        self._accepting = False
        self._fresh = False
        self._received = 0
        self._untold = 0
        self._held = self._owed = False
        self._since = _since(start)
        self._identity = StreamIdentity()
        self._tries = 0

    @property
    def connection(self) -> ClientConnection | None:
        """The connection on which it is subscribed; None while it is not."""
        registration = self._registration
        return registration.connection if registration is not None and self._accepting else None

    @property
    def progress(self) -> tuple[object, int]:
        """Changes whenever a chunk arrives or the subscription is made again."""
        return self._registration, self._received

    @property
    def buffered(self) -> int:
        return len(self.arrivals)

    @property
    def buffered_bytes(self) -> int:
        return self.arrivals.bytes

    @property
    def held(self) -> bool:
        """Whether the application still processes the last delivery."""
        return self._held

    # --- reading --------------------------------------------------------------------------------

    def done(self) -> None:
        """The application has processed the last delivery: its credit is returned.

        Not earlier: with the credit the broker sends another chunk, and what is in memory is
        bounded only if the application's pace decides when.
        """
        if self._held:
            self._held = False
            self.arrived.notify()
        if self._owed:
            self._owed = False
            self._give_due(self._credit.done)

    def take(self) -> Delivery | None:
        """The next delivery, or None if there is none now.

        Raises for a damaged chunk, if retention has overtaken the reader, and after a failure.
        """
        while self.active and (arrival := self.arrivals.take()) is not None:
            if arrival.lost:
                self._overtaken(arrival)
                arrival.lost = 0
            chunk, start = arrival.chunk, self.position or 0
            try:
                delivery = make_delivery(
                    self.stream, chunk, start, arrival.committed_chunk_id, self._options.match,
                    lost=self._untold,
                )  # fmt: skip
            except FlowstreamError as error:
                self.fail(error)
                raise
            except BaseException:  # `match` raised: none of the messages is delivered yet
                self.arrivals.put_back(arrival)
                raise
            self.position = max(start, chunk.offset + chunk.records)
            self._identity.read(chunk)
            if chunk.timestamp < self._since:
                delivery = None
            else:
                self._since = 0
            if delivery is not None:
                self._held = self._owed = True
                self._untold = 0
                return delivery
            self._give_due(self._credit.done)  # nothing to process, so nobody calls `done` for it
        if self.failure is not None:
            raise self.failure.with_traceback(None)  # it may be raised again and again
        return None

    def _overtaken(self, arrival: Arrival) -> None:
        """Reports the messages that retention removed before this chunk; raises unless accepted.

        The position stays before the loss, so that no offset behind it is stored.
        """
        self.lost += arrival.lost
        self._manager.telemetry.emit(Overtaken(self.stream, arrival.lost))
        error = overtaken(self.stream, arrival.expected, arrival.lost)
        if self._options.on_truncated == "error":
            self.fail(error)
            raise error
        self._untold += arrival.lost
        log.warning(
            "retention overtook the consumer of %r: it skips %d removed offsets from %d on",
            self.stream, arrival.lost, arrival.expected,
            extra={"stream": self.stream, "offset": arrival.expected},
        )  # fmt: skip

    def begin_at(self, offset: OffsetSpec) -> None:
        """Sets where to begin: before subscribing, or after the promotion of a consumer."""
        self._start = offset
        self._since = _since(offset)
        self._identity.forget()
        self.position = offset.value if offset.kind is OffsetKind.OFFSET else None
        self._forget()

    def skip(self, expected: int, position: int | None) -> None:
        """Expects `expected` next, and moves the position: the broker sends nothing before them."""
        self.arrivals.next = expected
        if position is not None:
            self.position = position

    def ask_again(self) -> None:
        """Subscribes again, as the broker has stopped sending what the stream has."""
        log.warning(
            "the broker stopped sending %r at offset %s although there are messages: the consumer "
            "subscribes again", self.stream, self.position,
            extra={"stream": self.stream, "offset": self.position},
        )  # fmt: skip
        self._lose("the broker stopped sending")

    async def move_to_the_end(
        self, hand_over: Callable[[], Awaitable[None]], away: float = 0.0
    ) -> None:
        """Unsubscribes and subscribes again, as the last consumer of its group.

        `hand_over` is awaited before. From then on the broker cannot make this consumer active, so
        that nothing is read that nobody hands over.
        """
        self._leaving = True
        try:
            await hand_over()
            await self.recovery.renew(away)
        finally:
            self._leaving = False

    def pause(self) -> None:
        """Becomes inactive: another consumer reads what is buffered here.

        The broker keeps the credit of an inactive consumer. That of chunks which nobody takes is
        returned, since without it the broker would send nothing after the next promotion.
        """
        self.active = False
        forgotten = len(self.arrivals)
        self._forget()
        for _ in range(forgotten):
            self._give_due(self._credit.done)

    def fail(self, error: Exception) -> None:
        """Closes the consumer with an error, which `take` raises."""
        if self.failure is None:
            self.failure = error
            self._accepting = False
            self._forget()
            self._state.set(State.CLOSED, text_of(error))
            self.arrived.notify()

    def _give_due(self, ask: Callable[[], int]) -> None:
        """Gives the credit that the strategy returns; one that is wrong fails the consumer."""
        try:
            credit = credit_from(ask)
        except ConfigurationError as error:
            self.fail(error)
        else:
            if credit:
                self._give(credit)

    def _give(self, credit: int) -> None:
        self._due += credit
        registration = self._registration
        if (
            self._due >= self._together
            and self._accepting
            and registration is not None
            and registration.connection.usable
        ):
            credit, self._due = self._due, 0
            self.credits += credit
            registration.connection.send(Credit(registration.id, credit))

    def _forget(self) -> None:
        self.arrivals.clear(self.position)

    # --- called by the connection --------------------------------------------------------------

    def delivered(self, deliver: Deliver) -> None:
        if not self._accepting:
            return
        try:
            chunk = Chunk.parse(deliver.chunk)
        except ProtocolError as error:
            self.fail(error)
            return
        self.credits -= 1
        self._received += 1
        if self._fresh:
            self._fresh = False
            if self._is_not_to_be_read(chunk):
                return
        if self.position is None:  # after a loss it continues here: "first" may have moved
            self.position = chunk.offset
        arrival = self.arrivals.add(chunk, deliver.committed_chunk_id)
        (self.arrived if arrival.gap is None else self.gap).notify()
        self._give_due(self._credit.arrived)
        if self._manager.telemetry.active:
            self._manager.telemetry.emit(
                ChunkReceived(
                    self.stream,
                    chunk.records,
                    len(chunk.data),
                    self.credits,
                    deliver.committed_chunk_id,
                    self.buffered_bytes,
                    self._state.number,
                )
            )

    def credit_refused(self, code: int) -> None:
        """Normal after a demotion (17), and if the subscription has just ended (4)."""
        log.debug(
            "consumer of %r: the broker refused credit with code %d", self.stream, code,
            extra={"stream": self.stream},
        )  # fmt: skip

    def update(self, correlation_id: int, active: bool) -> None:
        if self._leaving and active:
            return  # it unsubscribes now, and so the broker chooses another consumer
        if self._registration is not None:
            self._on_update(self._registration.connection, correlation_id, active)

    def metadata_changed(self, code: int) -> None:
        self._lose(f"the stream moved or was deleted (code {code})")

    def connection_lost(self, error: ConnectionClosed) -> None:
        self._lose(str(error))

    def _lose(self, reason: str) -> None:
        self._accepting = False
        self.credits = 0
        self._forget()
        if self._options.single_active and self.active:
            self.active = False
            self._on_update(None, 0, False)
        self.recovery.lose(reason)

    def _is_not_to_be_read(self, first: Chunk) -> bool:
        """Whether the first chunk is the one that was read last, or is from another stream.

        The one that was read last has used a credit which nobody returns, as it is not delivered.
        """
        verdict = self._identity.judge(first)
        if verdict is Verdict.OTHER:
            self._begin_again()
            return True
        if verdict is Verdict.SAME and first.offset + first.records <= (self.position or 0):
            self._give(1)
            return True
        return False

    def _begin_again(self) -> None:
        log.warning(
            "stream %r was deleted and created again: it is read from its beginning", self.stream,
            extra={"stream": self.stream},
        )  # fmt: skip
        self.begin_at(OffsetSpec.first())
        self._on_begin_again()
        self._lose("the stream was created again")

    async def _look_at_the_beginning(self, connection: ClientConnection) -> None:
        """Finds out why the chunk that was read last does not come again.

        The stream may be a new one, the replica may be behind, or a new leader may not know yet
        what is committed. A stream never becomes empty, so an empty one is a new one.
        """
        await connection.request(lambda c: Metadata(c, (self.stream,)), MetadataResponse)
        if not self._fresh:  # brokers send all that exists before they read the next command
            return
        first = await probe(self._manager, self.stream, OffsetSpec.first())
        if first is None:
            if connection.supports(Key.STREAM_STATS):
                self._begin_again()
        elif self._identity.judge(first) is Verdict.OTHER:
            self._begin_again()

    # --- attaching ------------------------------------------------------------------------------

    async def _attach(self) -> None:
        options = self._options
        nodes = await self._manager.locate(self.stream)
        if not options.single_active:
            await self._settle_start()
        self._tries += 1
        pool = self._manager.consuming
        choose = partial(_any_sound, pool)
        node = nodes.for_reader(choose) if self._tries % 2 else nodes.for_writer()
        self._registration = registration = await pool.enter(node, self)
        self._check_supported(registration.connection)
        last_read = self._identity.start()
        start = last_read or self._asked()
        self._owed = False  # the credit of what the application holds was that of the connection
        self._forget()
        self.credits, self._due = self._credit.initial, 0
        self._accepting = self._fresh = True
        answer = await registration.connection.request(
            lambda c: Subscribe(
                c, registration.id, self.stream, start, self._credit.initial, options.properties()
            ),
            Response,
        )
        action = f'consume "{self.stream}"'
        raise_for_code(answer.code, action, stream=self.stream, reference=options.reference)
        self._tries = 0
        if last_read is not None and self._fresh and not options.single_active:
            await self._look_at_the_beginning(registration.connection)

    async def _settle_start(self) -> None:
        """Turns "next" and "last" into an offset, so that an early loss skips no message."""
        if self.position is not None or self._start.kind not in (OffsetKind.NEXT, OffsetKind.LAST):
            return
        chunk = await probe(self._manager, self.stream, OffsetSpec.last())
        if chunk is None:
            self._start = OffsetSpec.first()
            return
        self._identity.read(chunk)
        last = self._start.kind is OffsetKind.LAST
        self.position = chunk.offset if last else chunk.offset + chunk.records

    def _asked(self) -> OffsetSpec:
        return self._start if self.position is None else OffsetSpec.offset(self.position)

    def _check_supported(self, connection: ClientConnection) -> None:
        options = self._options
        if options.filter_values and not connection.supports(Key.PUBLISH, 2):
            raise NotSupported("filter_values needs RabbitMQ 3.13 or later")
        if options.single_active and not connection.wire.versions:  # known from 3.11 on
            raise NotSupported(
                "single_active needs RabbitMQ 3.11 or later. On this server one process must read "
                "the whole stream or super stream: without single_active=True, and without "
                "--workers"
            )

    async def _detach(self) -> None:
        registration, self._registration = self._registration, None
        self._accepting = self._leaving = False
        self._forget()
        if registration is not None:
            timeout = self._manager.settings.close_timeout
            await self._manager.consuming.retire(
                registration, lambda c: Unsubscribe(c, registration.id), timeout
            )


def _any_sound(pool: Pool[SubscriptionUser], nodes: tuple[Address, ...]) -> Address:
    """A random node, if possible one that has not failed lately: brokers may name dead nodes."""
    return random.choice(pool.without_doubtful(nodes))


def overtaken(stream: str, expected: int, lost: int) -> OffsetTruncated:
    """The error of a reader that retention has overtaken."""
    first = expected + lost
    return OffsetTruncated(
        f"retention overtook this reader of {stream!r}: its next offset was {expected}, but the "
        f"stream begins at {first} now. {plural(lost, 'offset')} "
        f"{'was' if lost == 1 else 'were'} removed before being read. Give the stream a longer "
        'retention or make the reader faster; on_truncated="skip" accepts the loss and continues '
        "behind it",
        stream=stream,
        stored=expected - 1,
        first=first,
    )


def _since(start: OffsetSpec) -> int:
    """The earliest timestamp to deliver: brokers treat a time in the future as the present."""
    return start.value if start.kind is OffsetKind.TIMESTAMP else 0
