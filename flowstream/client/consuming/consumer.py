"""Consumes one stream: exact offsets, back-pressure by credit, offset tracking, hand-over.

`async for delivery in consumer` delivers the messages of one chunk at a time. Asking for the next
delivery returns the credit of the last one. So an application that does not ask stops the broker,
and at most the initial credit's number of chunks is in memory. After a loss the consumer continues
behind the last message that it delivered.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import TracebackType

import anyio

from flowstream.client.connecting.block import Block
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.recovery import State, repeated
from flowstream.client.connecting.settings import log
from flowstream.client.connecting.tasks import Task
from flowstream.errors import ConfigurationError, ConnectionFailed, FlowstreamError
from flowstream.protocol import OffsetKind, OffsetSpec
from flowstream.schema import answer_of
from flowstream.signals import Signal
from flowstream.texts import shown

from .delivery import Delivery, Messages, StreamMessage
from .options import AutoTracking, ConsumerOptions
from .probe import resolve
from .retention import RetentionWatch
from .single_active import ActivationQueue
from .subscription import Subscription
from .tracking import OffsetStore, Tracker, check_offset


class Consumer:
    """`async with env.consumer("orders") as consumer: async for delivery in consumer: ...`.

    Iterate in one task only. Leaving the block stores and verifies the tracked offset, and
    unsubscribes.
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
            start=options.begin,
            arrived=arrived or Signal(),
            on_update=self._activations.add,
            on_begin_again=self._begin_again,
        )
        self._offsets = OffsetStore(manager)
        self._tracker = None if options.tracking is None else Tracker(options.tracking)
        self._current: Delivery | None = None
        self._tasks: list[Task] = []
        self._user: object = None
        self._block = Block(f'the consumer of "{stream}"')

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
        """Whether it receives messages; False for a single active consumer on standby."""
        return self._subscription.active

    @property
    def moving(self) -> bool:
        """Whether a single active consumer is becoming active, or hands over, at the moment."""
        return self._activations.busy

    @property
    def position(self) -> int | None:
        """The offset behind the last message that was delivered.

        Before the first delivery it is where the consumer begins, or None while that is unknown.
        """
        return self._subscription.position

    @property
    def losses(self) -> int | None:
        """How often it lost its stream; None while it has none."""
        away = self.state in (State.CONNECTING, State.RECOVERING)
        return None if away else self._subscription.recovery.recoveries

    @property
    def lost(self) -> int:
        """How many offsets retention removed before they were read (on_truncated="skip")."""
        return self._subscription.lost

    def statistics(self) -> dict[str, int]:
        subscription = self._subscription
        return {
            "credits": subscription.credits,
            "buffered_chunks": subscription.buffered,
            "buffered_bytes": subscription.buffered_bytes,
            "max_chunks": self.options.credit_strategy.initial,
            "recoveries": subscription.recovery.recoveries,
            "lost": subscription.lost,
        }

    # --- iterating ------------------------------------------------------------------------------

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> Delivery:
        """The next delivery; the last one counts as processed, and its credit is returned.

        If `messages` has read only some messages of the last one, it is the rest of that. Raises
        OffsetTruncated if retention removed messages before they were read (with
        `on_truncated="skip"` they are counted in `lost`), ChecksumMismatch or ProtocolError for a
        damaged chunk, what `match` raises (then the same chunk comes again), and the last error if
        the consumer gave up. Ends when it is closed.
        """
        self._manager.check_thread()
        self._block.check()
        if (rest := self.partly_read) is not None:
            rest.shorten()
            return rest
        await self.done()
        while True:
            delivery = self.take()
            if delivery is not None:
                return delivery
            if self._state.value is State.CLOSED:
                raise StopAsyncIteration
            await self._subscription.arrived.wait()

    def messages(self) -> AsyncIterator[StreamMessage]:
        """Iterates message by message instead of delivery by delivery.

        A message counts as processed when you ask for the next one, and when the block ends without
        an exception.
        """
        return Messages(self)

    @property
    def partly_read(self) -> Delivery | None:
        """The last delivery, if `messages` has read only some of its messages."""
        delivery = self._current
        return delivery if delivery is not None and delivery.left else None

    def take(self) -> Delivery | None:
        """The next delivery if there is one, without waiting; call `done` before."""
        self._current = delivery = self._subscription.take()
        return delivery

    async def done(self) -> None:
        """Marks the last delivery, as far as it was read, as processed: tracks its offset, and
        returns its credit."""
        delivery, self._current = self._current, None
        if delivery is None:
            return
        read = len(delivery) - delivery.left
        last = delivery.offsets[read - 1]
        if not delivery.left:
            self._subscription.done()
            last = max(last, (self.position or 0) - 1)
        if self._tracker is not None:
            offset = self._tracker.processed(last, read)
            if offset is not None:
                await self._store(offset)

    # --- offsets --------------------------------------------------------------------------------

    async def store_offset(self, offset: int) -> None:
        """Stores an offset under the reference (tracking="manual"), without a confirm."""
        if self._tracker is None or self.options.reference is None:
            raise ConfigurationError(
                'store_offset() needs a consumer with reference= and tracking="manual"'
            )
        check_offset(offset)
        self._tracker.stored = offset
        await self._offsets.store(
            self.options.reference, self.stream, offset, keep=self.options.keep_offset
        )

    async def stored_offset(self) -> int | None:
        """The offset stored under the consumer's reference; None if there is none."""
        if self.options.reference is None:
            raise ConfigurationError("stored_offset() needs a consumer with reference=")
        return await self._offsets.query(self.options.reference, self.stream)

    async def _store(self, offset: int) -> None:
        """Stores an offset for tracking. After a failure the next store makes up for it."""
        assert self.options.reference is not None
        try:
            await self._offsets.store(
                self.options.reference, self.stream, offset, keep=self.options.keep_offset
            )
        except FlowstreamError as error:
            away = isinstance(error, ConnectionFailed)  # already logged: see outages.py
            log.log(
                logging.DEBUG if away else logging.WARNING,
                "storing offset %d of %r failed: %s", offset, self.stream, error,
                extra={"stream": self.stream, "offset": offset},
            )  # fmt: skip

    async def _store_by_clock(self, tracker: Tracker, interval: float) -> None:
        while True:
            await anyio.sleep(interval)
            self._track_skipped(tracker)
            offset = tracker.due()
            if offset is not None:
                await self._store(offset)

    def _track_skipped(self, tracker: Tracker) -> None:
        """Tracks messages that `match` left out, while the application processes nothing."""
        subscription = self._subscription
        if subscription.active and not subscription.held and subscription.position is not None:
            tracker.passed(subscription.position - 1)

    async def _verify(self) -> None:
        """Makes sure that the tracked offset is stored; raises CommitNotVerified."""
        if self._tracker is not None:
            self._track_skipped(self._tracker)
        offset = None if self._tracker is None else self._tracker.unverified()
        if offset is not None:
            assert self.options.reference is not None
            await self._offsets.store_verified(
                self.options.reference, self.stream, offset, keep=self.options.keep_offset
            )

    async def _beginning(self) -> OffsetSpec:
        """Where to begin: as `on_active` says, behind the stored offset, or at the `offset` option.

        With automatic tracking the offset of that option is stored. Otherwise a crash before the
        first store would lose messages: "next" is a later offset after it, and so is "first" once
        retention has removed messages (which only a kept offset reveals).
        """
        if self.options.on_active is not None:
            begin = await answer_of("on_active", self.options.on_active, self.stream)
            if not isinstance(begin, OffsetSpec):
                raise ConfigurationError(
                    f"on_active returned {shown(begin)} for {self.stream!r}: expected an "
                    "OffsetSpec, such as OffsetSpec.offset(0)"
                )
            return begin
        if self._tracker is None:
            return self.options.begin
        begin = await self._tracked_beginning()
        self._tracker.begun = begin.value - 1 if begin.kind is OffsetKind.OFFSET else None
        return begin

    async def _tracked_beginning(self) -> OffsetSpec:
        stored = await self.stored_offset()
        if stored is not None:
            return OffsetSpec.offset(stored + 1)
        asked = self.options.begin
        if not isinstance(self.options.tracking, AutoTracking):
            return asked
        assert self.options.reference is not None
        if asked.kind is not OffsetKind.OFFSET:
            asked = OffsetSpec.offset(await resolve(self._manager, self.stream, asked))
        found_again = not asked.value and self.options.begin.kind is OffsetKind.FIRST
        if self.options.keep_offset or not found_again:
            await self._offsets.store_verified(
                self.options.reference, self.stream, asked.value - 1, keep=self.options.keep_offset
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
        """Hands over to the next consumer: pauses, waits for the application, stores the offset.

        Nothing is stored later, since that would overwrite the next consumer's offset.
        """
        subscription = self._subscription
        subscription.pause()
        if awaited:
            with anyio.move_on_after(self.options.hand_over_timeout):
                while subscription.held and self.state is not State.CLOSED:
                    await subscription.arrived.wait()
        if self.options.on_inactive is not None:
            await answer_of("on_inactive", self.options.on_inactive, self.stream)
        if awaited:
            await self._verify_quietly()
        self._current = None
        subscription.done()  # also what the application has not finished in time
        if self._tracker is not None:
            self._tracker.forget()

    async def subscribe_again(self, *, away: float = 0.0) -> None:
        """Takes the last place among the consumers of its group; what it reads is handed over.

        It subscribes `away` seconds after it has left.
        """
        self._block.check()
        if not self.options.single_active:
            raise ConfigurationError("subscribe_again() needs a consumer with single_active=True")

        async def hand_over() -> None:
            await self._activations.step_down(self._subscription.connection)

        await self._subscription.move_to_the_end(hand_over, away)

    def _begin_again(self) -> None:
        """The stream was created again: offsets of the old one must not be stored for it."""
        if self._tracker is not None:
            self._tracker.forget()

    def _fail(self, error: Exception) -> None:
        self._subscription.fail(error)

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Consumer:
        self._block.enter()
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
            begin = await repeated(self._beginning, self._manager.settings)
            self._subscription.begin_at(begin)
        recovery = self._subscription.recovery
        self._tasks.append(spawn(recovery.run, name=f"consumer of {self.stream}"))
        watch = RetentionWatch(self._manager, options, self._subscription)
        self._tasks.append(spawn(watch.run, name=f"retention watch of {self.stream}"))
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
        """Stores and verifies the offset of what was processed, then unsubscribes.

        If the block ended without an exception, the last delivery counts as processed too, and
        CommitNotVerified may be raised.
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
        self._current = None
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
