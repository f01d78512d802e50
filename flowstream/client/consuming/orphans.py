"""Gets a partition read again that the broker has left without a reader, although it has consumers.

RabbitMQ below 4.1 can forget a group: a consumer that was asked to step down dies before it has
answered, or a new leader of the coordinator does not send what the old one had decided. From then
on each consumer waits endlessly. The broker begins again with a group that has no member left, so
all members leave the partition, each by what it sees itself, and come back later. They leave when
the clocks of their machines begin a new turn, so that all are away at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import anyio

from flowstream.client.connecting.handshake import server_version
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.recovery import State
from flowstream.client.connecting.settings import log
from flowstream.errors import FlowstreamError
from flowstream.protocol import OffsetSpec

from .consumer import Consumer
from .probe import find_ends, probe
from .tracking import OffsetStore

FIXED = (4, 1)
"""The first version whose coordinator notices that it waits for a consumer that is gone."""
LOOK = 3.0
"""Seconds between two looks."""
MOST = 50
"""Partitions that are looked at each time; if there are more, they take turns."""
WATCHED = 120.0
"""Seconds after the start of a process, or the loss of one of its connections, in which a
standstill is probably an orphaned partition. At other times it is more likely that another member
is slow, or paused."""
STANDSTILL = 12.0
"""Seconds until this consumer leaves, in the next turn."""
TURN = 15.0
"""Seconds of a turn; twice, four times and eight times as long after each time that was in vain."""
MOST_DOUBLED = 3
AWAY = 9.0
"""Seconds until it comes back: longer than LOOK, so that the members are away at the same time."""
wall_clock: Callable[[], float] = time.time


@dataclass(slots=True)
class Standstill:
    """What was seen of one partition. Pure.

    `left` is the stored offset at which this member has left it, `tries` times: until it moves, the
    standstill is the same one, however long ago it began.
    """

    losses: int | None = None
    stored: int | None = None
    since: float = 0.0
    clock: float = 0.0
    left: int | None = None
    tries: int = 0
    away: bool = False

    def lost(self, losses: int) -> bool:
        """Whether the connection was lost since the last look, or this is the first one."""
        known, self.losses = self.losses, losses
        return known != losses

    def looked(self, stored: int | None, end: int | None, now: float, clock: float) -> bool:
        """Whether to leave: there are messages, the stored offset stays, and a turn begins."""
        period = TURN * 2 ** min(self.tries, MOST_DOUBLED)
        begins = clock // period > self.clock // period
        self.clock = clock
        if stored is None or end is None or stored >= end or stored != self.stored:
            if stored != self.left:
                self.left, self.tries = None, 0
            self.stored, self.since = stored, now
            return False
        return begins and now - self.since >= STANDSTILL

    def leave(self) -> None:
        """This member leaves the partition."""
        self.away, self.left, self.tries = True, self.stored, self.tries + 1

    def come_back(self, losses: int | None) -> None:
        """It is there again. The broker has some time to assign the partition."""
        self.away, self.losses, self.stored = False, losses, None


class OrphanWatch:
    """Looks at the partitions of a group that this process does not read."""

    def __init__(
        self,
        manager: ConnectionManager,
        reference: str,
        consumers: Callable[[], Iterable[Consumer]],
    ) -> None:
        self._manager = manager
        self._reference = reference
        self._consumers = consumers
        self._offsets = OffsetStore(manager)
        self._seen: dict[str, Standstill] = {}
        self._turn = 0
        self._lost_at = float("-inf")

    async def run(self) -> None:
        """Looks until cancelled; returns at once if the broker does not need it."""
        connection = self._manager.locator.connection
        if connection is None or server_version(connection.wire.peer_properties) >= FIXED:
            return
        async with anyio.create_task_group() as group:
            while True:
                await anyio.sleep(LOOK)
                for consumer in self._some():
                    try:
                        orphaned = await self._is_orphaned(consumer)
                    except FlowstreamError as error:
                        log.debug("%r: its group was not looked at: %s", consumer, error)
                        continue
                    if orphaned and _stands_by(consumer):
                        group.start_soon(self._leave, consumer)

    def _some(self) -> list[Consumer]:
        consumers, now = list(self._consumers()), anyio.current_time()
        for each in consumers:
            if (losses := each.losses) is not None and self._seen_of(each).lost(losses):
                self._lost_at = now
        recent = now - self._lost_at <= WATCHED
        waiting = [
            each
            for each in consumers
            if _stands_by(each)
            and not (seen := self._seen_of(each)).away
            and (recent or seen.left is not None)
        ]
        start = self._turn = (self._turn + MOST) % max(1, len(waiting))
        return (waiting[start:] + waiting[:start])[:MOST]

    def _seen_of(self, consumer: Consumer) -> Standstill:
        return self._seen.setdefault(consumer.stream, Standstill())

    async def _is_orphaned(self, consumer: Consumer) -> bool:
        stream, manager = consumer.stream, self._manager
        stored = await self._offsets.query(self._reference, stream)
        _, newest = await find_ends(manager, await manager.locator.get(), stream)
        seen = self._seen_of(consumer)
        if not seen.looked(stored, newest, anyio.current_time(), wall_clock()):
            return False
        last = await probe(manager, stream, OffsetSpec.last())  # the newest chunk may have none
        return last is not None and stored is not None and last.offset + last.records > stored + 1

    async def _leave(self, consumer: Consumer) -> None:
        log.warning(
            "nobody seems to read %r although it has messages, and this process waits for it with "
            "reference %r. RabbitMQ before 4.1 sometimes leaves a partition without a reader when "
            "a node or a consumer dies; the consumers leave it for %g s, so that it is assigned "
            "again", consumer.stream, self._reference, AWAY,
            extra={"stream": consumer.stream, "reference": self._reference},
        )  # fmt: skip
        seen = self._seen_of(consumer)
        seen.leave()
        try:
            await consumer.subscribe_again(away=AWAY)
        except FlowstreamError as error:  # it was closed meanwhile
            log.debug("%r did not leave its group: %s", consumer, error)
        finally:
            seen.come_back(consumer.losses)


def _stands_by(consumer: Consumer) -> bool:
    return consumer.state is State.OPEN and not consumer.active
