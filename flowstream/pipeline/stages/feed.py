"""The producer's side of a run: admits messages into the window, decodes them, hands them on.

A body is given its place in the window before it becomes a message, so `send` returning is the
demand that a producer sees.
"""

from __future__ import annotations

import functools
import logging
import operator
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import anyio.lowlevel

from flowstream.errors import ConfigurationError, ConnectionFailed
from flowstream.pipeline.context import RunContext
from flowstream.pipeline.core import Core, Signal, log
from flowstream.pipeline.discards import REASON, Discards
from flowstream.pipeline.handlers import passes
from flowstream.pipeline.message import Codec, Failure, Message
from flowstream.pipeline.payload import Decoder, decode_slice
from flowstream.pipeline.producer import Acknowledger
from flowstream.pipeline.ratelimit import RateLimiter
from flowstream.pipeline.span import Ledger, Span, Watermark
from flowstream.pipeline.stages.acknowledger import Settlement
from flowstream.pipeline.times import StateTimes
from flowstream.pipeline.window import fitting
from flowstream.telemetry import Dropped, Received
from flowstream.texts import describe, interrupts, is_a, shown, text_of

SLICE = 1000
"""Messages admitted at once, at most; the loop gets a turn in between."""


class SourceLane:
    """A `Lane`: one stream's messages, in order, with a watermark of its own."""

    def __init__(
        self,
        feed: SourceFeed,
        stream: str,
        codec: Codec | None,
        acknowledger: Acknowledger | None,
        ledger: Ledger | None,
    ) -> None:
        self.stream = stream
        self.codec = codec
        self.acknowledger = acknowledger
        self.mark = Watermark() if ledger is None else ledger.open()
        self.ledger = ledger
        self.next = 0
        self.first = 0
        self.begin = 0
        self.taken = 0
        self.tail: int | None = None
        self.closed = False
        self.pushed = False
        self.discarding = False
        self._feed = feed

    @property
    def settled(self) -> int | None:
        return self.mark.value

    @property
    def reached(self) -> int:
        """The last offset that was taken in, or settled before; -1: none was."""
        return max(self.next, self.begin) - 1

    async def send(
        self,
        bodies: list[Any],
        *,
        offset: int | None = None,
        offsets: Sequence[int] | None = None,
        timestamp: int = 0,
        tail: int | None = None,
    ) -> None:
        self._check(bodies, offsets)
        first = max(self.next, self.begin) if offset is None else offset
        if offsets:
            first = offsets[0]
        if bodies and first < self.next:
            raise ConfigurationError(
                f"lane {self.stream!r}: offset {first} was delivered before; offsets must ascend"
            )
        if tail is not None:
            self.tail = tail if self.tail is None else max(self.tail, tail)
        await self._feed.deliver(self, bodies, first, offsets, timestamp)

    def _check(self, bodies: list[Any], offsets: Sequence[int] | None) -> None:
        if not isinstance(bodies, list | tuple):
            raise ConfigurationError(
                f"lane {self.stream!r}: send takes a list of bodies, got {shown(bodies)}"
            )
        if offsets is None:
            return
        if len(offsets) != len(bodies):
            raise ConfigurationError(
                f"lane {self.stream!r}: {len(bodies)} bodies were sent with {len(offsets)} offsets"
            )
        if not all(map(operator.lt, offsets, offsets[1:])):
            raise ConfigurationError(
                f"lane {self.stream!r}: offsets must ascend, got {shown(offsets)}"
            )

    def skip(self, offset: int) -> None:
        if offset >= self.next:
            self.mark.add(Span(self, offset + 1, 0))
            self.next = offset + 1
            self._feed.settlement.skipped()

    async def drain(self, timeout: float | None = None) -> bool:
        self.closed = True
        drained = False
        with anyio.move_on_after(timeout):
            while self.mark.open is not None and not self._given_up():
                self._feed.flush("drain")
                await self._feed.core.changed.wait(0.1)
            drained = self.mark.open is None
        if not drained:
            self._warn(timeout)
        await self._commit()
        self.close()
        return drained

    async def _commit(self) -> None:
        """Store what is settled, for the next owner. That it fails repeats messages there, and is
        no reason to end the run: it may be the broker that has gone."""
        why, level = f"not within {COMMIT_GRACE:g} s", logging.INFO
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(COMMIT_GRACE):
                await self._feed.commit(self.stream)
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
                "owner may get messages again", self._feed.core.name, self.settled, self.stream,
                why,
                extra={"pipeline": self._feed.core.name, "stream": self.stream},
            )  # fmt: skip

    def _warn(self, timeout: float | None) -> None:
        """Say what whoever owns the stream next gets again, and why."""
        core, mark = self._feed.core, self.mark
        why = "they were given up by a halt"
        if not self._given_up():
            busy = ", ".join(self._feed.busy_handlers()) or "none; they wait for their next attempt"
            why = f"after {timeout:g} s; in handlers: {busy}"
        log.warning(
            "pipeline %r: %s is handed over with %d messages that are not settled (%s). The next "
            "owner gets %d messages again: all from offset %s on, the first of those",
            core.name, self.stream, mark.unsettled, why, mark.repeated, mark.barrier,
            extra={"pipeline": core.name, "stream": self.stream, "unsettled": mark.unsettled,
                   "repeated": mark.repeated},
        )  # fmt: skip

    def close(self) -> None:
        self.closed = True
        if self.ledger is not None:
            self.ledger.forget(self.mark)
            if self.ledger.fenced:
                self._feed.settlement.ledgers.pop(self.stream, None)
        self._feed.forget(self)

    def settle_early(self, message: Message[Any]) -> None:
        self._feed.settlement.tell_early(message)

    @property
    def lost(self) -> int:
        """Messages that are not settled, and that no offset brings to the next run again."""
        if self.ledger is not None or self.acknowledger is not None:
            return 0
        return self.mark.unsettled

    def _given_up(self) -> bool:
        span = self.mark.open
        return span is not None and bool(span.held) and not span.remaining


COMMIT_GRACE = 5.0
_BYTES = {bytes}


class SourceFeed:
    """A `Feed`: opens lanes and delivers what they are sent."""

    def __init__(
        self,
        core: Core,
        context: RunContext,
        settlement: Settlement,
        limiter: RateLimiter,
        *,
        decoder: Decoder,
        discards: Discards,
        forward: Callable[[list[Message[Any]]], None],
        reject: Callable[[list[Failure]], None],
    ) -> None:
        self.core = core
        self.context = context
        self.settlement = settlement
        self.limiter = limiter
        self.lanes: list[SourceLane] = []
        self._taken_in: dict[str, int] = {}
        self.gate = Signal()
        self.paused = False
        self.blocked = 0
        self.times = StateTimes("idle", core.clock())
        self.flush: Callable[[str], None] = lambda trigger: None
        self.busy_handlers: Callable[[], list[str]] = list
        self.commit: Callable[[str], Any] = _nothing
        self.decoder = decoder
        self.discards = discards
        self._forward = forward
        self._reject = reject

    def open(
        self,
        stream: str,
        *,
        codec: Codec | None = None,
        acknowledger: Acknowledger | None = None,
        commits: bool = True,
        committed: int | None = None,
    ) -> SourceLane:
        ledger = None
        if commits:
            ledger = self.settlement.ledgers.setdefault(stream, Ledger())
            ledger.resume(committed)
        if acknowledger is not None:
            self.settlement.acknowledgers += 1
        lane = SourceLane(self, stream, codec, acknowledger, ledger)
        lane.next = lane.first = self._taken_in.get(stream, 0)
        lane.begin = 0 if committed is None else committed + 1
        lane.discarding = self.discards.opened(lane, committed)
        self.lanes.append(lane)
        return lane

    def begin_again(self) -> None:
        """The producer is run again: the lanes it opens go on behind those it has."""
        self._taken_in = {lane.stream: lane.next for lane in self.lanes if not lane.closed}

    def forget(self, lane: SourceLane) -> None:
        if lane in self.lanes and lane.mark.open is None:
            self.lanes.remove(lane)

    async def deliver(
        self,
        lane: SourceLane,
        bodies: list[Any],
        first: int,
        offsets: Sequence[int] | None,
        timestamp: int,
        *,
        at_once: bool = False,
    ) -> None:
        """Admit and hand on `bodies`, a slice at a time, as the window and the limits allow.

        `at_once`: beyond them. For a handler to wait for room would be to wait for itself.
        """
        self.times.enter("busy", self.core.clock())
        opaque = lane.codec is None and set(map(type, bodies)) != _BYTES
        sizes = [0] * len(bodies) if opaque else list(map(len, bodies))
        start, count = 0, len(bodies)
        while start < count:
            take = min(count - start, SLICE) if at_once else await self._admit(sizes, start)
            if lane.closed:
                break
            end = start + take
            if offsets is None:
                first = max(first, lane.next - start)  # others may have sent on the lane meanwhile
            part = bodies if take == count else bodies[start:end]
            some = None if offsets is None else offsets[start:end]
            base = first + start if some is None else some[0]
            self.core.arrival = now = self.core.clock()
            span = Span(lane, base, take, offsets=some, timestamp=timestamp, arrived=now)
            self.core.window.admit(take, size := sum(sizes[start:end]))
            self.limiter.take(now, take, size)
            lane.mark.add(span)
            if not lane.next:
                lane.first = base
            lane.next = span.last + 1
            lane.taken += take
            self.core.received += take
            if self.core.telemetry.active:
                self.core.emit(Received(self.core.name, lane.stream, take, size))
            unwanted = self.discards.indexes(span) if lane.discarding else []
            self._make(span, part, opaque, unwanted)
            if unwanted:
                await self._discard(span, part, unwanted)
            start = end
            self.times.enter("backpressured", self.core.clock())
            await anyio.lowlevel.checkpoint()
            self.times.enter("busy", self.core.clock())
        self.times.enter("idle", self.core.clock())

    def _make(self, span: Span, bodies: list[Any], opaque: bool, unwanted: list[int]) -> None:
        indexes: Sequence[int] = range(len(bodies))
        if unwanted:
            indexes = sorted({*indexes}.difference(unwanted))
            bodies = [bodies[index] for index in indexes]
        bad: list[tuple[int, Any]] = []
        raws: Any = bodies
        if opaque:
            data, raws = self._opaque(bodies, bad)
        else:
            data, bad = self._decoded(span.lane.codec, bodies)
        messages = list(map(Message, repeat(span), indexes, data, raws))
        if bad:
            self._reject([_undecodable(messages[index], error) for index, error in bad])
            wrong = {index for index, _ in bad}
            messages = [m for index, m in enumerate(messages) if index not in wrong]
        if messages:
            self._forward(messages)

    async def _discard(self, span: Span, bodies: list[Any], indexes: list[int]) -> None:
        """Settle what whoever started the run has named, before anything looks into it."""
        core, stream = self.core, span.lane.stream
        raws = [body if type(body) is bytes else b"" for body in bodies]
        messages = [Message(span, index, None, raws[index]) for index in indexes]
        with anyio.CancelScope(shield=True):
            await self.settlement.settle(messages, "discarded")
        core.emit(Dropped(core.name, stream, REASON, len(messages), True))
        for message in messages:
            log.warning(
                "pipeline %r: discarded %s@%d unhandled, as requested",
                core.name, stream, message.offset,
                extra={"pipeline": core.name, "stream": stream, "offset": message.offset},
            )  # fmt: skip

    def _decoded(
        self, codec: Codec | None, bodies: list[bytes]
    ) -> tuple[list[Any], list[tuple[int, Any]]]:
        decode = self.decoder.decode
        payloads = bodies
        if codec is not None:
            try:
                payloads = codec.bodies(bodies)
            except BaseException as error:
                if interrupts(error):
                    raise
                payloads = []
            if len(payloads) != len(bodies):  # one of them is malformed, or a value: one by one
                return decode_slice(functools.partial(self.decoder.of, codec), bodies)
        return (payloads, []) if decode is None else decode_slice(decode, payloads)

    def _opaque(
        self, bodies: list[Any], bad: list[tuple[int, Any]]
    ) -> tuple[list[Any], list[bytes]]:
        """Data and raw bodies of a run in which some items are not bytes."""
        data = list(bodies)
        raws = [body if type(body) is bytes else b"" for body in bodies]
        decode = self.decoder.decode
        if decode is not None:
            for index, body in enumerate(bodies):
                if type(body) is bytes:
                    (data[index],), wrong = decode_slice(decode, [body])
                    bad.extend((index, error) for _, error in wrong)
        return data, raws

    async def _admit(self, sizes: list[int], start: int) -> int:
        """Wait until at least one body may come in; how many may, from `start` on."""
        core, window = self.core, self.core.window
        while True:
            if self.paused:
                await self._wait("paused", self.gate)
                continue
            room, room_bytes = window.room()
            if not room:
                await self._wait_for_room()
                continue
            allowed, allowed_bytes, wait = self.limiter.room(core.clock())
            if not allowed:
                await self._wait("rate_limited", self.gate, wait)
                continue
            take = fitting(sizes, start, min(room, allowed, SLICE), room_bytes,
                           first=not window.messages)  # fmt: skip
            if not take:
                await self._wait_for_room()
                continue
            return fitting(sizes, start, take, allowed_bytes, first=True)

    async def _wait_for_room(self) -> None:
        self.blocked += 1
        try:
            self.core.relieve()
            await self._wait("backpressured", self.core.freed)
        finally:
            self.blocked -= 1

    async def _wait(self, state: str, signal: Signal, timeout: float | None = None) -> None:
        self.times.enter(state, self.core.clock())
        await signal.wait(timeout)
        self.times.enter("busy", self.core.clock())

    def reopen(self) -> None:
        """The pause or the limit changed: look again."""
        self.gate.notify()


async def _nothing(stream: str) -> None:
    return None


def _undecodable(message: Message[Any], error: Exception) -> Failure:
    failure = Failure(message, text_of(error), error=error, retry=False)
    failure.phase, failure.stage = "decode", "decode"
    return failure
