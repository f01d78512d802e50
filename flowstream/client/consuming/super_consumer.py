"""Consumes a super stream: a consumer for each partition, served in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import TracebackType

import anyio

from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.partitions import Partitions
from flowstream.client.connecting.settings import log
from flowstream.errors import FlowstreamError, StreamDoesNotExist
from flowstream.protocol import OffsetSpec
from flowstream.signals import Signal

from .consumer import Consumer
from .delivery import Delivery, Messages, StreamMessage
from .options import ConsumerOptions


class SuperStreamConsumer:
    """`async for delivery in consumer`: `delivery.stream` is the partition.

    The order of messages is kept within a partition. With `single_active` the members of a group
    share the partitions, and the broker reassigns them when members join or leave. A partition that
    is added later is read from its beginning.
    """

    def __init__(
        self, manager: ConnectionManager, partitions: Partitions, options: ConsumerOptions
    ) -> None:
        self.super_stream: str = partitions.super_stream
        self._manager = manager
        self._partitions = partitions
        partitions.on_change = self._changed
        if options.single_active:
            options = replace(options, super_stream=partitions.super_stream)
        self._options = options
        self._consumers: dict[str, Consumer] = {}
        self._in_turn: list[Consumer] = []
        self._last: Consumer | None = None
        self._arrived = Signal()
        self._closed = False

    def __repr__(self) -> str:
        return f"<consumer of super stream {self.super_stream!r}>"

    @property
    def partitions(self) -> list[str]:
        """The partitions as last read, in the server's order."""
        return list(self._partitions.streams)

    @property
    def active(self) -> list[str]:
        """The partitions from which this consumer receives messages."""
        return [stream for stream, each in self._consumers.items() if each.active]

    @property
    def positions(self) -> dict[str, int | None]:
        """`Consumer.position` of each partition."""
        return {stream: each.position for stream, each in self._consumers.items()}

    @property
    def losses(self) -> dict[str, int | None]:
        """`Consumer.losses` of each partition."""
        return {stream: each.losses for stream, each in self._consumers.items()}

    def statistics(self) -> dict[str, dict[str, int]]:
        """`Consumer.statistics` of each partition."""
        return {stream: each.statistics() for stream, each in self._consumers.items()}

    async def store_offset(self, stream: str, offset: int) -> None:
        """Stores an offset of a partition under the consumer's name (tracking="manual")."""
        await self._consumers[stream].store_offset(offset)

    # --- iterating ------------------------------------------------------------------------------

    def __aiter__(self) -> SuperStreamConsumer:
        return self

    async def __anext__(self) -> Delivery:
        """The next delivery of any partition; the last one counts as processed."""
        self._manager.check_thread()
        last, self._last = self._last, None
        if last is not None:
            await last.done()
        while not self._closed:
            try:
                delivery = self._take()
            except StreamDoesNotExist as error:
                await self._without(error)
                continue
            if delivery is not None:
                return delivery
            await self._arrived.wait()
        raise StopAsyncIteration

    def messages(self) -> AsyncIterator[StreamMessage]:
        """Iterates message by message instead of delivery by delivery."""
        return Messages(self)

    def _take(self) -> Delivery | None:
        """From the first partition in turn that has a delivery; it becomes the last in turn."""
        for index, consumer in enumerate(self._in_turn):
            delivery = consumer.take()
            if delivery is not None:
                self._in_turn.append(self._in_turn.pop(index))
                self._last = consumer
                return delivery
        return None

    async def _without(self, error: StreamDoesNotExist) -> None:
        """Accepts that a stream is missing if it is no partition any more; else raises."""
        await self._partitions.read_again()
        if error.stream in self._consumers:
            raise error

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> SuperStreamConsumer:
        await self._partitions.start()
        try:
            for stream in self._partitions.streams:
                await self._open(stream, self._options)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes every partition's consumer; raises CommitNotVerified as `Consumer` does."""
        self._closed = True
        await self._partitions.stop()
        failure: FlowstreamError | None = None
        with anyio.CancelScope(shield=True):
            for stream in tuple(self._consumers):
                try:
                    await self._close(stream, kind, error, trace)
                except FlowstreamError as raised:
                    failure = failure or raised
        self._arrived.notify()
        if failure is not None:
            raise failure

    async def _open(self, stream: str, options: ConsumerOptions) -> None:
        consumer = Consumer(self._manager, stream, options, arrived=self._arrived)
        await consumer.__aenter__()
        self._consumers[stream] = consumer
        self._in_turn.append(consumer)

    async def _close(
        self,
        stream: str,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        consumer = self._consumers.pop(stream)
        self._in_turn.remove(consumer)
        await consumer.__aexit__(kind, error, trace)

    async def _changed(self, added: Sequence[str], removed: Sequence[str]) -> None:
        gone = StreamDoesNotExist(f'"{self.super_stream}" does not have this partition any more')
        for stream in removed:
            if stream in self._consumers:
                await self._close(stream, type(gone), gone, None)
        options = replace(self._options, offset=OffsetSpec.first())
        for stream in added:
            try:
                await self._open(stream, options)
            except FlowstreamError as error:
                log.warning(
                    "consuming partition %r failed and will be retried: %s",
                    stream,
                    error,
                    extra={"stream": stream},
                )
                self._partitions.streams.remove(stream)
        self._arrived.notify()
