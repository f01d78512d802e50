"""Consumes one stream: exact offsets, back-pressure by credit, offset tracking, hand-over.

`async for delivery in consumer` hands over a chunk's messages at a time. The next chunk's credit is
given back when the next delivery is asked for, so an application that does not ask stops the
broker, and at most the initial credit's chunks are in memory. After a loss the consumer goes on
behind the last message it handed over.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType

import anyio

from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.recovery import State
from flowstream.client.connecting.settings import log
from flowstream.client.connecting.tasks import Signal, Task
from flowstream.errors import ConfigurationError, ConnectionFailed, FlowstreamError
from flowstream.protocol import OffsetKind, OffsetSpec

from .delivery import Delivery
from .options import AutoTracking, ConsumerOptions
from .probe import resolve
from .single_active import ActivationQueue
from .subscription import Subscription
from .tracking import OffsetStore, Tracker


@dataclass(frozen=True, slots=True)
class StreamMessage:
    """One message: where it stands, when its chunk was written (ms since 1970), and its body."""

    stream: str
    offset: int
    timestamp: int
    body: bytes


class Messages:
    """Iterates over the messages of the deliveries of a consumer."""

    def __init__(self, deliveries: AsyncIterator[Delivery]) -> None:
        self._deliveries = deliveries
        self._delivery: Delivery | None = None
        self._next = 0

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> StreamMessage:
        if self._delivery is None or self._next >= len(self._delivery):
            self._delivery, self._next = await anext(self._deliveries), 0
        delivery, number = self._delivery, self._next
        self._next += 1
        return StreamMessage(
            delivery.stream, delivery.offsets[number], delivery.timestamp, delivery.bodies[number]
        )


class Consumer:
    """`async with env.consumer("orders") as consumer: async for delivery in consumer: ...`.

    One task iterates. Leaving the block stores and verifies the tracked offset, and unsubscribes.
    """

    def __init__(
        self,
        manager: ConnectionManager,
        stream: str,
        options: ConsumerOptions,
        *,
        arrived: Signal | None = None,
    ) -> None:
        self.stream = stream
        self.options = options
        self._manager = manager
        self._state = manager.state_of("consumer", stream)
        self._activations = ActivationQueue(
            stream,
            manager.settings.backoff,
            promoted=self._promoted,
            demoted=self._demoted,
            failed=self._fail,
        )
        self._subscription = Subscription(
            manager,
            stream,
            options,
            self._state,
            start=options.offset,
            arrived=arrived or Signal(),
            on_update=self._activations.add,
            on_begin_again=self._begin_again,
        )
        self._offsets = OffsetStore(manager)
        self._tracker = None if options.tracking is None else Tracker(options.tracking)
        self._current: Delivery | None = None
        self._tasks: list[Task] = []
        self._user: object = None

    def __repr__(self) -> str:
        return f"<consumer of {self.stream!r} {self.state.value}>"

    # --- state ----------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state.value

    async def wait_for(self, *states: State) -> State:
        """Returns once the consumer is in one of these states."""
        return await self._state.wait(*states)

    @property
    def active(self) -> bool:
        """Whether messages come here; false for a single active consumer that stands by."""
        return self._subscription.active

    @property
    def position(self) -> int | None:
        """The offset after the last message that was handed over; None before the first.

        Where the consumer began by a number, or a chunk has come, it is known before that.
        """
        return self._subscription.position

    @property
    def losses(self) -> int | None:
        """How often it was cut off from its stream; None while it is."""
        away = self.state in (State.CONNECTING, State.RECOVERING)
        return None if away else self._subscription.recovery.recoveries

    @property
    def lost(self) -> int:
        """How many offsets retention removed before they were read."""
        return self._subscription.lost

    def statistics(self) -> dict[str, int]:
        subscription = self._subscription
        return {
            "credits": subscription.credits,
            "buffered_chunks": subscription.buffered,
            "buffered_bytes": subscription.buffered_bytes,
            "max_chunks": self.options.credit.initial,
            "recoveries": subscription.recovery.recoveries,
            "lost": subscription.lost,
        }

    # --- iterating ------------------------------------------------------------------------------

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Delivery:
        """The next messages; the ones before count as processed, and their credit goes back.

        Raises OffsetTruncated where retention removed messages before they were read (with
        `on_truncated="skip"` they are counted in `lost`), ChecksumMismatch or ProtocolError for a
        damaged chunk, and why the consumer was given up; ends when it was closed.
        """
        self._manager.check_thread()
        await self.done()
        while True:
            delivery = self.take()
            if delivery is not None:
                return delivery
            if self._state.value is State.CLOSED:
                raise StopAsyncIteration
            await self._subscription.arrived.wait()

    def messages(self) -> Messages:
        """The same, message by message."""
        return Messages(self)

    def take(self) -> Delivery | None:
        """The next messages if they are here, without waiting; call `done` before."""
        self._current = delivery = self._subscription.take()
        return delivery

    async def done(self) -> None:
        """What was handed over last is processed: its credit goes back, its offset is tracked."""
        delivery, self._current = self._current, None
        if delivery is None:
            return
        self._subscription.done()
        if self._tracker is not None:
            last = max(delivery.offsets[-1], (self.position or 0) - 1)
            offset = self._tracker.processed(last, len(delivery.bodies))
            if offset is not None:
                await self._store(offset)

    # --- offsets --------------------------------------------------------------------------------

    async def store_offset(self, offset: int) -> None:
        """Stores an offset under the consumer's name (tracking="manual"); not answered."""
        if self._tracker is None or self.options.name is None:
            raise ConfigurationError('store_offset needs name= and tracking="manual"')
        self._tracker.stored = offset
        await self._offsets.store(
            self.options.name, self.stream, offset, keep=self.options.keep_offset
        )

    async def stored_offset(self) -> int | None:
        """The offset stored under the consumer's name; None where there is none."""
        if self.options.name is None:
            raise ConfigurationError("stored_offset needs name=")
        return await self._offsets.query(self.options.name, self.stream)

    async def _store(self, offset: int) -> None:
        """Stores what tracking wants stored; a failure is made good by the next time."""
        assert self.options.name is not None
        try:
            await self._offsets.store(
                self.options.name, self.stream, offset, keep=self.options.keep_offset
            )
        except FlowstreamError as error:
            away = isinstance(error, ConnectionFailed)  # logged once for all: outages.py
            log.log(
                logging.DEBUG if away else logging.WARNING,
                "offset %d of %r was not stored: %s", offset, self.stream, error,
                extra={"stream": self.stream, "offset": offset},
            )  # fmt: skip

    async def _store_by_clock(self, tracker: Tracker, interval: float) -> None:
        while True:
            await anyio.sleep(interval)
            self._pass(tracker)
            offset = tracker.due()
            if offset is not None:
                await self._store(offset)

    def _pass(self, tracker: Tracker) -> None:
        """Tracks what came and was left out by `match`, while nothing is held."""
        subscription = self._subscription
        if subscription.active and not subscription.held and subscription.position is not None:
            tracker.passed(subscription.position - 1)

    async def _verify(self) -> None:
        """The tracked offset is in the store; raises CommitNotVerified."""
        if self._tracker is not None:
            self._pass(self._tracker)
        offset = None if self._tracker is None else self._tracker.unverified()
        if offset is not None:
            assert self.options.name is not None
            await self._offsets.store_verified(
                self.options.name, self.stream, offset, keep=self.options.keep_offset
            )

    async def _beginning(self) -> OffsetSpec:
        """Where `on_active` says; behind the stored offset; else where the `offset` option says.

        With automatic tracking the place of that option is stored: what is consumed before the
        first store would be skipped after a crash, where "next" is elsewhere then, and "first" once
        retention has come (which only a kept offset tells of).
        """
        if self.options.on_active is not None:
            return await self.options.on_active(self.stream)
        if self._tracker is None:
            return self.options.offset
        begin = await self._tracked_beginning()
        self._tracker.begun = begin.value - 1 if begin.kind is OffsetKind.OFFSET else None
        return begin

    async def _tracked_beginning(self) -> OffsetSpec:
        stored = await self.stored_offset()
        if stored is not None:
            return OffsetSpec.offset(stored + 1)
        asked = self.options.offset
        if not isinstance(self.options.tracking, AutoTracking):
            return asked
        assert self.options.name is not None
        if asked.kind is not OffsetKind.OFFSET:
            asked = OffsetSpec.offset(await resolve(self._manager, self.stream, asked))
        found_again = not asked.value and self.options.offset.kind is OffsetKind.FIRST
        if self.options.keep_offset or not found_again:
            await self._offsets.store_verified(
                self.options.name, self.stream, asked.value - 1, keep=self.options.keep_offset
            )
        return asked

    # --- single active consumer -----------------------------------------------------------------

    async def _promoted(self) -> OffsetSpec:
        if self._tracker is not None:
            self._tracker.forget()
        offset = await self._beginning()
        self._subscription.begin_at(offset)
        self._subscription.active = True
        return offset

    async def _demoted(self, awaited: bool) -> None:
        """Hands over. What is stored later than that would overwrite the successor's offset."""
        subscription = self._subscription
        subscription.pause()
        if awaited:
            with anyio.move_on_after(self.options.hand_over_timeout):
                while subscription.held and self.state is not State.CLOSED:
                    await subscription.arrived.wait()
        if self.options.on_inactive is not None:
            await self.options.on_inactive(self.stream)
        if awaited:
            await self._verify_quietly()
        self._current = None
        if self._tracker is not None:
            self._tracker.forget()

    def _begin_again(self) -> None:
        """The stream was created again: what was read of the old one is not to be stored there."""
        if self._tracker is not None:
            self._tracker.forget()

    def _fail(self, error: Exception) -> None:
        self._subscription.fail(error)

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Consumer:
        self._user = self._manager.use(f'the consumer of "{self.stream}"', self._fail)
        try:
            await self._begin()
            await self._state.wait(State.OPEN, State.CLOSED)
            if self._subscription.failure is not None:
                raise self._subscription.failure
        except BaseException:
            await self._end()
            raise
        return self

    async def _begin(self) -> None:
        options, spawn = self.options, self._manager.owner.spawn
        if self._tracker is not None and not options.single_active:
            self._subscription.begin_at(await self._beginning())
        recovery = self._subscription.recovery
        self._tasks.append(spawn(recovery.run, name=f"consumer of {self.stream}"))
        watch = self._subscription.watch
        self._tasks.append(spawn(watch, name=f"retention watch of {self.stream}"))
        if options.single_active:
            name = f"single active consumer of {self.stream}"
            self._tasks.append(spawn(self._activations.run, name=name))
        if self._tracker is not None and isinstance(options.tracking, AutoTracking):
            interval = options.tracking.interval
            name = f"offset tracking of {self.stream}"
            self._tasks.append(spawn(self._store_by_clock, self._tracker, interval, name=name))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stores and verifies what was processed, then unsubscribes.

        After a clean end the delivery handed over last counts as processed too. Raises
        CommitNotVerified, unless the block ended with an exception of its own.
        """
        try:
            if kind is None:
                await self.done()
                await self._verify()
            else:
                with anyio.move_on_after(self._manager.settings.close_timeout, shield=True):
                    await self._verify_quietly()
        finally:
            await self._end()

    async def _verify_quietly(self) -> None:
        try:
            await self._verify()
        except FlowstreamError as error:
            log.warning(
                "closing the consumer of %r: %s", self.stream, error, extra={"stream": self.stream}
            )

    async def _end(self) -> None:
        self._manager.release(self._user)
        with anyio.CancelScope(shield=True):
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                await task.wait()
            self._state.set(State.CLOSED)
            self._subscription.pause()
            if self._tracker is not None:
                self._tracker.forget()
            self._subscription.arrived.notify()
