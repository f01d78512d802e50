"""Retention: explains gaps between chunks, and warns before messages are removed unread.

`RetentionWatch` is the task of a consumer that looks where its stream begins. `Headroom` decides
when it warns; it is pure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from enum import Enum
from typing import TypeVar

import anyio

from flowstream.checks import is_whole
from flowstream.client.connecting.connection import ClientConnection
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.settings import log
from flowstream.errors import FlowstreamError
from flowstream.protocol import Key, OffsetSpec
from flowstream.telemetry import RetentionLooked
from flowstream.texts import describe, interrupts, shown

from .delivery import Arrival
from .options import ConsumerOptions, Settled
from .probe import find_ends, find_first, probe
from .subscription import Subscription

FIRST_LOOK = 1.0
LOOK_INTERVAL = 5.0
PROBE_INTERVAL = 30.0
"""Seconds between looks at where the stream begins; below RabbitMQ 3.11 a look reads a chunk."""

BESIDE = 0.2
"""Seconds for an answer on a connection beside the reader's. Messages wait for it, and a connection
that is half-open would hold them up until a request times out."""

T = TypeVar("T")

FILTER_INTERVAL = 3.0
"""The interval with a filter. Chunks that a filter leaves out count as lag until a look skips
them."""


class Distance(Enum):
    """FAR: no danger. CLOSE: the next removal can reach unread messages. BEHIND: one has."""

    FAR = "far"
    CLOSE = "close"
    BEHIND = "behind"


class Headroom:
    """Compares a reader's distance from the beginning of its stream with the last removal.

    Retention removes whole segments, so the beginning moves in steps of about the same length.
    """

    __slots__ = ("_distance", "_first", "step")

    def __init__(self) -> None:
        self._first: int | None = None
        self._distance = Distance.FAR
        self.step: int = 0

    def looked(self, first: int, settled: int, newest: int) -> Distance | None:
        """Takes the result of a look; returns the new distance, or None if it has not changed.

        `settled` is the last offset that the reader has settled, `newest` the beginning of the
        newest chunk. The newest segment is never removed, so a reader that has reached it is safe.
        """
        if self._first is not None and first > self._first:
            self.step = first - self._first
        self._first = first
        before, self._distance = self._distance, self._judge(first, settled + 1, newest)
        return None if self._distance is before else self._distance

    def _judge(self, first: int, reader: int, newest: int) -> Distance:
        if reader >= newest:
            return Distance.FAR
        if reader < first:
            return Distance.BEHIND
        return Distance.CLOSE if self.step and reader - first <= self.step else Distance.FAR


class RetentionWatch:
    """Looks where a consumer's stream begins: after every gap between chunks, and regularly."""

    def __init__(
        self, manager: ConnectionManager, options: ConsumerOptions, subscription: Subscription
    ) -> None:
        self._manager = manager
        self._options = options
        self._subscription = subscription
        self._stream = subscription.stream
        self._headroom = Headroom()
        self._complained = False
        self._seen: tuple[object, int] | None = None
        """The subscription's `progress` at the last look."""

    async def run(self) -> None:
        """Explains gaps as they arrive, and warns before retention overtakes the reader."""
        subscription = self._subscription
        due = anyio.current_time() + FIRST_LOOK
        while True:
            if not subscription.arrivals.unexplained():
                with anyio.CancelScope(deadline=due):
                    await subscription.gap.wait()
            look = anyio.current_time() >= due  # also if gaps arrive all the time, as by commits
            if look:
                due = anyio.current_time() + LOOK_INTERVAL
            connection = subscription.connection
            if connection is None:
                continue
            try:
                if gaps := subscription.arrivals.unexplained():
                    await self._explain(connection, gaps)
                if look and subscription.active:
                    due = anyio.current_time() + self._interval(connection)
                    await self._look(connection)
            except FlowstreamError as error:
                log.debug(
                    "consumer of %r: reading where the stream begins failed: %s",
                    self._stream, error,
                    extra={"stream": self._stream},
                )  # fmt: skip
                await anyio.sleep(self._manager.settings.pause(1))

    def _interval(self, connection: ClientConnection) -> float:
        if not connection.supports(Key.STREAM_STATS):
            return PROBE_INTERVAL
        return min(LOOK_INTERVAL, FILTER_INTERVAL) if self._options.filters() else LOOK_INTERVAL

    async def _explain(self, connection: ClientConnection, gaps: list[Arrival]) -> None:
        """Explains the gaps that arrived before the question was sent: the answer is newer.

        The question goes to the member that sent the chunks, since each has its own retention. The
        delivery behind a gap waits for the answer, and every commit makes one.
        """
        first = await self._find(find_first, connection)
        for arrival in gaps:
            arrival.explain(first)
        self._subscription.arrived.notify()

    async def _find(
        self,
        find: Callable[[ConnectionManager, ClientConnection, str], Awaitable[T]],
        connection: ClientConnection,
    ) -> T:
        """What is found beside the connection; if no answer comes soon, on the connection."""
        beside = self._manager.beside(connection)
        if beside is not connection and connection.supports(Key.STREAM_STATS):
            with suppress(FlowstreamError), anyio.move_on_after(BESIDE):
                return await find(self._manager, beside, self._stream)
        return await find(self._manager, connection, self._stream)

    async def _look(self, connection: ClientConnection) -> None:
        first, newest = await self._find(find_ends, connection)
        if first is None or newest is None:
            return
        await self._skip_what_does_not_come(connection, newest)
        settled = self._settled()
        if settled is None:
            return
        headroom, reference = settled + 1 - first, self._options.reference or ""
        self._manager.telemetry.emit(RetentionLooked(self._stream, headroom, reference))
        distance = self._headroom.looked(first, settled, newest)
        if distance is Distance.CLOSE:
            log.warning(
                "retention is about to overtake the consumer of %r: its next offset is %d, the "
                "stream begins at %d, and the last removal took %d offsets. Make the consumer "
                "faster or give the stream a longer retention",
                self._stream, settled + 1, first, self._headroom.step,
                extra={"stream": self._stream, "offset": settled},
            )  # fmt: skip
        elif distance is Distance.BEHIND:
            log.warning(
                "retention has overtaken the consumer of %r: its next offset is %d, and the "
                "stream begins at %d. The offsets between them are lost unless they were already "
                "received",
                self._stream, settled + 1, first,
                extra={"stream": self._stream, "offset": settled},
            )  # fmt: skip

    async def _skip_what_does_not_come(self, connection: ClientConnection, newest: int) -> None:
        """Moves the position behind chunks that the broker does not send because of a filter.

        The broker does not report them. Without this the position of a reader that waits would
        stay where it is until retention overtakes it. If nothing arrives, a probe shows that no
        message is left up to the last one: brokers send all that exists before they answer.

        Without a filter a message that is left must have been sent between the last look and this
        one, since its credit was there. RabbitMQ 4.0 and 4.3 sometimes stop sending if retention
        removes the segment that follows the one they read: they go on at the next publish only.
        """
        subscription = self._subscription
        progress = subscription.progress
        quiet, self._seen = self._seen == progress, progress
        position, filters = subscription.position, self._options.filters()
        if not (quiet or filters) or len(subscription.arrivals):
            return
        if position is None or newest <= position:
            return
        if not connection.supports(Key.STREAM_STATS):
            return
        last = await probe(self._manager, self._stream, OffsetSpec.last())
        end = 0 if last is None else last.offset + last.records
        messages = end > position
        asked = OffsetSpec.offset(position)
        if filters and await probe(self._manager, self._stream, asked, filters) is not None:
            return
        if subscription.progress != progress:
            return
        if messages and not filters:
            if subscription.credits > 0:
                subscription.ask_again()
            return
        # Records of the broker's own are skipped without moving the position: storing a position
        # behind them would make the broker write another record.
        subscription.skip(max(newest, end), end if messages else None)

    def _settled(self) -> int | None:
        """The last offset that the reader has settled, as far as it tells."""
        settled, position = self._options.settled, self._subscription.position
        if settled is not None and (offset := self._ask(settled)) is not None:
            return offset
        return None if position is None else position - 1

    def _ask(self, settled: Settled) -> int | None:
        """What the application says. It decides about a warning only, so if it is wrong that is
        logged, once."""
        try:
            offset = settled(self._stream)
            if offset is None or is_whole(offset, -1):
                return offset
            what = f"returned {shown(offset)}"
        except BaseException as error:
            if interrupts(error):
                raise
            what = f"raised {describe(error)}"
        if not self._complained:
            self._complained = True
            log.error(
                "settled= of the consumer of %r %s: expected an offset or None. Delivered messages "
                "count as settled instead",
                self._stream, what,
                extra={"stream": self._stream},
            )  # fmt: skip
        return None
