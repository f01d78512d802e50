"""The source: admits what a producer sends to the window, decodes it, and passes on slices.

A body is admitted to the window before it is decoded. So `send` returns when there is room, which
is the only demand that a producer needs to see.
"""

from __future__ import annotations

import functools
import logging
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import anyio.lowlevel

from flowstream.checks import check_name, is_number
from flowstream.errors import ConfigurationError, ConnectionFailed, PayloadError
from flowstream.pipeline.context import RunContext
from flowstream.pipeline.deciders.discards import REASON, Discards
from flowstream.pipeline.deciders.rate_limit import RateLimiter
from flowstream.pipeline.deciders.state_timer import StateTimer
from flowstream.pipeline.deciders.window import fitting
from flowstream.pipeline.delivery import Delivery, OffsetTracker, Watermark
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.message import Codec, Failure, Message
from flowstream.pipeline.payload import Decoder, decode_slice
from flowstream.pipeline.producer import Acknowledger, Producer
from flowstream.pipeline.slice import Slice
from flowstream.pipeline.stages.acknowledger import AckTracker
from flowstream.pipeline.stages.committer import Committer
from flowstream.pipeline.stages.failure_handler import FailureHandler
from flowstream.pipeline.state.run_state import RunState, log
from flowstream.signals import Signal
from flowstream.telemetry import Dropped, Received
from flowstream.texts import describe, interrupts, is_a, shown, text_of

SLICE = 1000
"""Messages admitted at once, at most. In between, other tasks get a turn."""
SEND_COST = 50
"""As how many messages a call of `send` counts there. A message that comes alone needs no turn: its
producer waits for the next one anyway."""
SEND_BYTES = 64
"""As how many bytes a message counts there: what is large is handled before more is held."""


class Partition:
    """A `SourcePartition`: one stream's messages, in order, with a watermark of its own."""

    def __init__(
        self,
        source: Source,
        stream: str,
        codec: Codec | None,
        acknowledger: Acknowledger | None,
        tracker: OffsetTracker | None,
    ) -> None:
        self.stream = stream
        self.codec = codec
        self.acknowledger = acknowledger
        self.mark: Watermark = Watermark() if tracker is None else tracker.open()
        self.tracker = tracker
        # A producer that stores no offset gives other messages the same offsets in the next run.
        self.resumes: bool = tracker is not None and source.stores_offsets
        self.end: int = 0
        self.first = 0
        self.begin = 0
        self.taken = 0
        self.tail: int | None = None
        self.closed: bool = False
        self.pushed = False
        self.discarding = False
        self._source = source

    @property
    def settled(self) -> int | None:
        return self.mark.value

    @property
    def next(self) -> int:
        return max(self.end, self.begin)

    @property
    def reached(self) -> int:
        """The last offset that was taken in, or settled before this run; -1 if there is none."""
        return self.next - 1

    async def send(
        self,
        bodies: list[Any],
        *,
        offset: int | None = None,
        offsets: Sequence[int] | None = None,
        timestamp: int = 0,
        tail: int | None = None,
    ) -> None:
        self._check(bodies, offsets, timestamp)
        first = self.next if offset is None else offset
        if offsets:
            first = offsets[0]
        if bodies and first < self.end:
            raise ConfigurationError(
                f"partition {self.stream!r}: offset {first} was delivered before; "
                "offsets must ascend"
            )
        if tail is not None:
            self.tail = tail if self.tail is None else max(self.tail, tail)
        await self._source.deliver(self, bodies, first, offsets, timestamp)

    def _check(self, bodies: list[Any], offsets: Sequence[int] | None, timestamp: object) -> None:
        check_bodies(bodies, f"partition {self.stream!r}: send")
        if not is_number(timestamp, 0, MOST_MILLISECONDS):
            raise ConfigurationError(
                f"partition {self.stream!r}: timestamp={shown(timestamp)}: expected the number of "
                "milliseconds since 1970, such as int(datetime.timestamp() * 1000), or 0"
            )
        if offsets is None:
            return
        if len(offsets) != len(bodies):
            raise ConfigurationError(
                f"partition {self.stream!r}: {len(bodies)} bodies were sent with "
                f"{len(offsets)} offsets"
            )
        if not all(map(operator.lt, offsets, offsets[1:])):
            raise ConfigurationError(
                f"partition {self.stream!r}: offsets must ascend, got {shown(offsets)}"
            )

    def skip(self, offset: int) -> None:
        if offset >= self.end:
            self.mark.add(Delivery(self, offset + 1, 0))
            self.end = offset + 1
            self._source.ack_tracker.skipped()

    async def drain(self, timeout: float | None = None, *, lost: bool = False) -> bool:
        self.closed = True
        drained = False
        with anyio.move_on_after(timeout):
            while self.mark.open is not None and not self._given_up():
                self._source.state.flush("drain")
                await self._source.state.changed.wait(0.1)
            drained = self.mark.open is None
        if not drained:
            self._warn(timeout)
        await self._commit(LOST_GRACE if lost else COMMIT_GRACE)
        if drained and not lost and self.tracker is not None:
            settled: Mapping[str, range] = {self.stream: self.tracker.settled}
            async with anyio.create_task_group() as group:
                for finish in self._source.context.hand_overs:
                    group.start_soon(finish, settled)
        self.close()
        return drained

    async def _commit(self, grace: float) -> None:
        """Store what is settled, for the next owner. A failure only repeats messages there. It does
        not end the run, since the reason may be a lost broker."""
        why, level = f"not within {grace:g} s", logging.INFO
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(grace):
                await self._source.committer.commit_now(self.stream)
                return
        except Exception as error:
            if passes(error):
                raise
            why = describe(error)
            level = logging.INFO if is_a(error, ConnectionFailed) else logging.WARNING
        if self.settled is not None:
            log.log(
                level,
                "pipeline %r: it is not certain that offset %d of %s is stored (%s); the next "
                "owner may get messages again", self._source.state.name, self.settled, self.stream,
                why,
                extra={"pipeline": self._source.state.name, "stream": self.stream},
            )  # fmt: skip

    def _warn(self, timeout: float | None) -> None:
        """Log which messages the next owner of the stream gets again, and why."""
        state, mark = self._source.state, self.mark
        why = "a halt gave them up"
        if not self._given_up():
            busy = (
                ", ".join(self._source.state.busy_handlers())
                or "none; they are waiting for a retry"
            )
            why = f"after {timeout:g} s; in handlers: {busy}"
        log.warning(
            "pipeline %r: %s is handed over with %d unsettled messages (%s). The next "
            "owner gets %d messages again: all from offset %s on, the first unsettled one",
            state.name, self.stream, mark.unsettled, why, mark.repeated, mark.barrier,
            extra={"pipeline": state.name, "stream": self.stream, "unsettled": mark.unsettled,
                   "repeated": mark.repeated},
        )  # fmt: skip

    def close(self) -> None:
        self.closed = True
        if self.tracker is not None:
            self.tracker.forget(self.mark)
            if self.tracker.fenced:
                self._source.ack_tracker.trackers.pop(self.stream, None)
        self._source.forget(self)

    def settle_early(self, message: Message[Any]) -> None:
        self._source.ack_tracker.report_early(message)

    @property
    def lost(self) -> int:
        """Unsettled messages that the next run does not get again, because there are no offsets."""
        if self.tracker is not None or self.acknowledger is not None:
            return 0
        return self.mark.unsettled

    def _given_up(self) -> bool:
        delivery = self.mark.open
        return delivery is not None and bool(delivery.abandoned) and not delivery.remaining


COMMIT_GRACE = 5.0
LOST_GRACE = 0.5
"""Seconds for the commit of a partition whose connection is lost: it may come back to this process,
which takes it only when this one is over."""
MOST_MILLISECONDS = 1 << 53
"""About 285,000 years."""
_BYTES = {bytes}


class Entrance(Protocol):
    """The first stage behind the source."""

    @property
    def waiting(self) -> int:
        """How many messages no worker has taken yet."""

    def put(self, part: Slice[Any]) -> None:
        """Take over a slice."""


class Source:
    """An `Intake`: opens partitions and delivers what they are sent."""

    def __init__(
        self,
        state: RunState,
        context: RunContext,
        *,
        ack_tracker: AckTracker,
        committer: Committer,
        failure_handler: FailureHandler,
        entrance: Entrance,
        limiter: RateLimiter,
        decoder: Decoder,
        discards: Discards,
    ) -> None:
        self.state = state
        self.context = context
        self.ack_tracker = ack_tracker
        self.committer = committer
        self.failure_handler = failure_handler
        self.limiter = limiter
        self.partitions: list[Partition] = []
        self.gate: Final = Signal()
        self.paused = False
        self.times: Final = StateTimer("idle", state.clock())
        self.discards = discards
        self._decoder = decoder
        self._entrance = entrance
        self._taken_in: dict[str, int] = {}
        self._unyielded = 0

    @property
    def stores_offsets(self) -> bool:
        return type(self.committer.producer).commit is not Producer.commit

    def open(
        self,
        stream: str,
        *,
        codec: Codec | None = None,
        acknowledger: Acknowledger | None = None,
        commits: bool = True,
        committed: int | None = None,
    ) -> Partition:
        check_name("stream", stream)
        tracker = None
        if commits:
            tracker = self.ack_tracker.trackers.setdefault(stream, OffsetTracker())
            tracker.resume(committed)
        if committed is not None and self.state.hooks is not None:
            self.state.hooks.resumed(stream, committed)
        if acknowledger is not None:
            self.ack_tracker.acknowledgers += 1
        partition = Partition(self, stream, codec, acknowledger, tracker)
        partition.end = partition.first = self._taken_in.get(stream, 0)
        partition.begin = 0 if committed is None else committed + 1
        partition.discarding = self.discards.opened(partition, committed)
        self.partitions.append(partition)
        self.state.arrival = self.state.clock()  # a run is not idle before its messages can come
        return partition

    def begin_again(self) -> None:
        """The producer is run again: its new partitions continue behind the open ones."""
        self._taken_in = {each.stream: each.end for each in self.partitions if not each.closed}

    def forget(self, partition: Partition) -> None:
        if partition in self.partitions and partition.mark.open is None:
            self.partitions.remove(partition)

    async def deliver(
        self,
        partition: Partition,
        bodies: list[Any],
        first: int,
        offsets: Sequence[int] | None,
        timestamp: int,
        *,
        at_once: bool = False,
    ) -> None:
        """Admit `bodies` and pass them on, a slice at a time, as the window and the limits allow.

        `at_once` ignores both: a handler that waited for room would wait for itself.
        """
        state = self.state
        self.times.enter("busy", state.clock())
        bodies = bodies if type(bodies) is list else list(bodies)  # slices of it are extended
        opaque = partition.codec is None and set(map(type, bodies)) != _BYTES
        start, count = 0, len(bodies)
        while start < count:
            if at_once:
                part = bodies[start : start + SLICE]
                size = 0 if opaque else sum(map(len, part))
            else:
                part, size = await self._admit(bodies, start, opaque)
            if partition.closed:
                break
            end = start + len(part)
            if offsets is None:
                first = max(first, partition.end - start)  # others may have sent meanwhile
            some = None if offsets is None else offsets[start:end]
            base = first + start if some is None else some[0]
            state.arrival = now = state.clock()
            delivery = Delivery(
                partition, base, len(part), offsets=some, timestamp=timestamp, arrived=now
            )
            delivery.objects = part if opaque else None
            self._take_in(delivery, size, now)
            await self._pass_on(delivery, part, size, opaque)
            start = end
            self._unyielded += len(part) + SEND_COST + size // SEND_BYTES
            if self._unyielded > SLICE:
                self._unyielded = 0
                self.times.enter("backpressured", state.clock())
                await self._yield()
                self.times.enter("busy", state.clock())
        self.times.enter("idle", state.clock())

    async def _yield(self) -> None:
        """Give other tasks a turn, and more turns while the first stage gets through what waits.

        With one turn each, slices that waited once would always wait: workers that never pause
        take as many as come. Decoded data that waits is out of the processor's cache when the
        handler gets it. Workers that pause in their handlers find the next messages waiting.

        On trio, the tasks of a turn run in any order: only in two turns has each had one for sure.
        """
        await anyio.lowlevel.checkpoint()
        before, left = math.inf, self._entrance.waiting
        while 0 < left < before:
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            before, left = left, self._entrance.waiting

    def _take_in(self, delivery: Delivery, size: int, now: float) -> None:
        """Count the messages of a delivery in the window and in the watermark."""
        state, partition, count = self.state, delivery.partition, delivery.count
        state.window.admit(count, size)
        self.limiter.take(now, count, size)
        partition.mark.add(delivery)
        if not partition.end:
            partition.first = delivery.base
        partition.end = delivery.last + 1
        partition.taken += count
        state.received += count
        if state.telemetry.active:
            state.telemetry.emit(Received(state.name, partition.stream, count, size))

    async def _pass_on(
        self, delivery: Delivery, bodies: list[Any], size: int, opaque: bool
    ) -> None:
        """Decode a delivery and pass it on, without messages that fail or are discarded."""
        unwanted = self.discards.indexes(delivery) if delivery.partition.discarding else []
        indexes: Sequence[int] = range(len(bodies))
        if unwanted:
            await self._discard(delivery, bodies, unwanted)
            indexes = sorted({*indexes}.difference(unwanted))
            bodies = [bodies[index] for index in indexes]
        data, raw, bad = self._decoded(delivery.partition.codec, bodies, opaque)
        if bad:
            wrong = {index for index, _ in bad}
            self.failure_handler.put(
                [
                    _undecodable(Message(delivery, indexes[index], None, raw[index]), error)
                    for index, error in bad
                ]
            )
            left = [index for index in range(len(bodies)) if index not in wrong]
            indexes = [indexes[index] for index in left]
            data, raw = [data[index] for index in left], [raw[index] for index in left]
        if indexes:
            whole = size if len(indexes) == delivery.count else None
            self._entrance.put(Slice([(delivery, indexes)], raw=raw, data=data, size=whole))

    async def _discard(self, delivery: Delivery, bodies: list[Any], indexes: list[int]) -> None:
        """Settle the messages that the run was started to discard, without decoding them."""
        state, stream = self.state, delivery.partition.stream
        raws = [body if type(body) is bytes else b"" for body in bodies]
        messages = [Message(delivery, index, None, raws[index]) for index in indexes]
        with anyio.CancelScope(shield=True):
            await self.ack_tracker.settle(Slice.of(list(messages)), "discarded")
        state.emit(Dropped(state.name, stream, REASON, len(messages), True))
        for message in messages:
            log.warning(
                "pipeline %r: discarded %s@%d unhandled, as requested",
                state.name, stream, message.offset,
                extra={"pipeline": state.name, "stream": stream, "offset": message.offset},
            )  # fmt: skip

    def _decoded(
        self, codec: Codec | None, bodies: list[Any], opaque: bool
    ) -> tuple[list[Any], list[bytes], list[tuple[int, PayloadError]]]:
        """The data, the raw bodies, and (index, error) of each body that does not decode."""
        if opaque:
            return self._opaque(bodies)
        payloads: list[Any] = bodies
        if codec is not None:
            try:
                payloads = codec.bodies(bodies)
            except BaseException as error:
                if interrupts(error):
                    raise
                payloads = []
            if len(payloads) != len(bodies):  # one of them is malformed, or a value: one by one
                data, bad = decode_slice(functools.partial(self._decoder.of, codec), bodies)
                return data, bodies, bad
        data, bad = self._decoder.slice(payloads)
        return data, bodies, bad

    def _opaque(
        self, bodies: list[Any]
    ) -> tuple[list[Any], list[bytes], list[tuple[int, PayloadError]]]:
        """The same if some items are not bytes: those are decoded data already."""
        data = list(bodies)
        raws = [body if type(body) is bytes else b"" for body in bodies]
        bad: list[tuple[int, PayloadError]] = []
        decode = self._decoder.decode
        if decode is not None:
            for index, body in enumerate(bodies):
                if type(body) is bytes:
                    (data[index],), wrong = decode_slice(decode, [body])
                    bad.extend((index, error) for _, error in wrong)
        return data, raws, bad

    async def _admit(self, bodies: list[Any], start: int, opaque: bool) -> tuple[list[Any], int]:
        """Wait until at least one body may come in; those from `start` on that may, and their size.

        What cannot be measured (`opaque`) has the size 0.
        """
        state, window = self.state, self.state.window
        while True:
            if self.paused:
                await self._wait("paused", self.gate)
                continue
            room, room_bytes = window.room()
            if not room:
                await self._wait_for_room()
                continue
            allowed, allowed_bytes, wait = self.limiter.room(state.clock())
            if not allowed:
                await self._wait("rate_limited", self.gate, wait)
                continue
            part = bodies[start : start + min(room, allowed, SLICE)]
            size = 0 if opaque else sum(map(len, part))
            if size <= room_bytes and size <= allowed_bytes:
                return part, size
            sizes = list(map(len, part))
            take = fitting(sizes, room_bytes, first=not window.messages)
            if not take:
                await self._wait_for_room()
                continue
            take = fitting(sizes[:take], allowed_bytes, first=True)
            return part[:take], sum(sizes[:take])

    async def _wait_for_room(self) -> None:
        state = self.state
        state.blocked += 1
        try:
            state.flush_on_pressure()
            await self._wait("backpressured", state.freed)
        finally:
            state.blocked -= 1

    async def _wait(self, timed_as: str, signal: Signal, timeout: float | None = None) -> None:
        self.times.enter(timed_as, self.state.clock())
        await signal.wait(timeout)
        self.times.enter("busy", self.state.clock())

    def reopen(self) -> None:
        """The pause or the rate limit has changed: check them again."""
        self.gate.notify()


def _undecodable(message: Message[Any], error: Exception) -> Failure:
    failure = Failure(message, text_of(error), error=error, retry=False)
    failure.phase, failure.stage = "decode", "decode"
    return failure


def check_bodies(bodies: object, what: str) -> None:
    """Raise unless it is a list: each byte of a single body would be a message."""
    if not isinstance(bodies, list | tuple):
        raise ConfigurationError(f"{what} takes a list of bodies, got {shown(bodies)}")
