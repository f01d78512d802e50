"""Consumers and lag probes of a broker in memory, with the interface of the client's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flowstream.client import Offset, StreamBacklog, offset_spec
from flowstream.errors import OffsetTruncated
from flowstream.testing.markers import Marker
from flowstream.testing.memory_broker import MemoryBroker, MemoryDelivery
from flowstream.testing.memory_stream import MemoryStream

Match = Callable[[bytes], bool]


class MemoryConsumer:
    """Like `flowstream.client.Consumer`: deliveries from an offset on, without end."""

    losses = 0

    def __init__(
        self,
        broker: MemoryBroker,
        stream: str,
        offset: Offset,
        match: Match | None,
        on_truncated: str,
    ) -> None:
        self.stream = stream
        spec = offset_spec(offset)
        number = spec.value if spec.kind.name == "OFFSET" else None
        self.position: int = broker.stream(stream).locate(offset) if number is None else number
        self.lost: int = 0
        self._on_truncated = on_truncated
        self._unreported = 0
        self._broker = broker
        self._match = match
        self._log.forget_markers(self.position)

    @property
    def at_end(self) -> bool:
        """Whether everything in the stream, markers included, has been delivered."""
        return self.position >= self._log.next_offset and not self._log.markers

    def __aiter__(self) -> MemoryConsumer:
        return self

    async def __anext__(self) -> MemoryDelivery:
        return await self._broker.next_of(self.take)

    def take(self) -> MemoryDelivery | Marker | None:
        """The next delivery or marker; None while there is nothing."""
        log = self._log
        while True:
            marker = log.take_marker(self.position)
            if marker is not None:
                return marker
            chunk = log.chunk_at(self.position)
            if chunk is None:
                return None
            start = max(self.position, chunk.offset)
            if start > self.position:
                self._skip_truncated(start)
            self.position = chunk.last + 1
            bodies = list(chunk.bodies[start - chunk.offset :])
            offsets: Sequence[int] = range(start, self.position)
            if self._match is not None:
                matching = [(o, b) for o, b in zip(offsets, bodies, strict=True) if self._match(b)]
                offsets, bodies = [o for o, _ in matching], [b for _, b in matching]
            if bodies:
                delivery = MemoryDelivery(
                    self.stream,
                    offsets,
                    bodies,
                    chunk.timestamp,
                    log.last_chunk_id,
                    self._unreported,
                )
                self._unreported = 0
                self._broker.deliveries.append(delivery)
                return delivery

    def _skip_truncated(self, first: int) -> None:
        """Count the messages that were truncated before they were read.

        Raises OffsetTruncated if `on_truncated` is "error".
        """
        lost = first - self.position
        self.lost += lost
        if self._on_truncated == "error":
            raise OffsetTruncated(
                f"{self.stream!r} was truncated up to offset {first}, but the consumer's next "
                f"offset is {self.position}",
                stream=self.stream,
                stored=self.position - 1,
                first=first,
            )
        self._unreported += lost

    @property
    def _log(self) -> MemoryStream:
        # Looked up each time: the stream may have been deleted and created again.
        return self._broker.stream(self.stream)


class MemorySuperStreamConsumer:
    """Like `flowstream.client.SuperStreamConsumer`; this consumer has all the partitions."""

    def __init__(self, broker: MemoryBroker, consumers: list[MemoryConsumer]) -> None:
        self._broker = broker
        self._queue = consumers
        self.partitions: list[str] = [consumer.stream for consumer in consumers]
        self.active: list[str] = self.partitions
        self.moving: list[str] = []

    @property
    def positions(self) -> dict[str, int | None]:
        return {consumer.stream: consumer.position for consumer in self._queue}

    @property
    def losses(self) -> dict[str, int | None]:
        return {consumer.stream: consumer.losses for consumer in self._queue}

    async def subscribe_again(self) -> None:
        """There are no other consumers whose order could change."""

    def __aiter__(self) -> MemorySuperStreamConsumer:
        return self

    async def __anext__(self) -> MemoryDelivery:
        return await self._broker.next_of(self._take)

    def _take(self) -> MemoryDelivery | Marker | None:
        """From the first partition in the queue that has something; it then goes to the end."""
        for place, consumer in enumerate(self._queue):
            found = consumer.take()
            if found is not None:
                self._queue = [*self._queue[:place], *self._queue[place + 1 :], consumer]
                return found
        return None


class MemoryLagProbe:
    """Like `flowstream.client.LagProbe`."""

    def __init__(self, broker: MemoryBroker, stream: str, match: Match | None) -> None:
        self.stream = stream
        self._broker = broker
        self._match = match

    async def look(self, behind: int, read: Callable[[], int] | None = None) -> StreamBacklog:
        """The messages that the stream has now after offset `behind`: counted, whatever is read."""
        await self._broker.until_connected()
        log = self._broker.stream(self.stream)
        messages, written = 0, None
        for chunk in log.chunks_behind(behind):
            bodies: Sequence[bytes] = chunk.bodies[max(behind + 1 - chunk.offset, 0) :]
            count = len(bodies) if self._match is None else sum(map(bool, map(self._match, bodies)))
            if count and written is None:
                written = chunk.timestamp
            messages += count
        return StreamBacklog(log.last_offset, messages, written)
