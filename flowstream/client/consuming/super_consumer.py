"""Consumes a super stream: a consumer for each partition, served in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

import anyio

from flowstream.client.connecting.block import Block
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.client.connecting.partitions import Partitions
from flowstream.client.connecting.settings import log
from flowstream.client.connecting.tasks import Task
from flowstream.errors import ConfigurationError, FlowstreamError, StreamDoesNotExist
from flowstream.protocol import OffsetSpec
from flowstream.signals import Signal
from flowstream.texts import listed, shown

from .consumer import Consumer
from .delivery import Delivery, Messages, StreamMessage
from .options import ConsumerOptions
from .orphans import OrphanWatch

AT_ONCE = 16
"""Partitions that are opened, or handed over, at the same time. Each has a list of consumers of its
own, so that only the order of the members of a group matters, and not that of the partitions."""


class SuperStreamConsumer:
    """`async for delivery in consumer`: `delivery.stream` is the partition.

    The order of messages is kept within a partition. With `single_active` the members of a group
    share the partitions, and the broker reassigns them when members join or leave. A member begins
    to read before all of its partitions are open: `positions` has those that are. A partition that
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
        self._opening: Task | None = None
        self._orphans: Task | None = None
        self._failure: FlowstreamError | None = None
        self._closed = False
        self._block = Block(f'the consumer of super stream "{partitions.super_stream}"')

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
    def moving(self) -> list[str]:
        """The partitions that are coming to this consumer, or leaving it, at the moment."""
        return [stream for stream, each in self._consumers.items() if each.moving]

    @property
    def positions(self) -> dict[str, int | None]:
        """`Consumer.position` of each partition."""
        return {stream: each.position for stream, each in self._consumers.items()}

    @property
    def losses(self) -> dict[str, int | None]:
        """`Consumer.losses` of each partition."""
        return {stream: each.losses for stream, each in self._consumers.items()}

    async def subscribe_again(self) -> None:
        """With `single_active`: takes the last place among the consumers of every partition.

        What it reads is handed over. Brokers assign partitions by these places, so the load is even
        after the members of a group have done this one after the other.
        """
        self._block.check()
        await side_by_side(Consumer.subscribe_again, tuple(self._consumers.values()))

    def statistics(self) -> dict[str, dict[str, int]]:
        """`Consumer.statistics` of each partition."""
        return {stream: each.statistics() for stream, each in self._consumers.items()}

    async def store_offset(self, stream: str, offset: int) -> None:
        """Stores an offset of a partition under the consumer's name (tracking="manual")."""
        consumer = self._consumers.get(stream)
        if consumer is None:
            raise ConfigurationError(
                f"stream={shown(stream)}: {self!r} has no such partition open; it has "
                f"{listed(list(self._consumers)) or 'none'}"
            )
        await consumer.store_offset(offset)

    # --- iterating ------------------------------------------------------------------------------

    def __aiter__(self) -> SuperStreamConsumer:
        return self

    async def __anext__(self) -> Delivery:
        """The next delivery of any partition; the last one counts as processed.

        If `messages` has read only some messages of the last one, it is the rest of that.
        """
        self._manager.check_thread()
        self._block.check()
        if (rest := self.partly_read) is not None:
            rest.shorten()
            return rest
        last, self._last = self._last, None
        if last is not None:
            await last.done()
        while not self._closed:
            if self._failure is not None:
                raise self._failure.with_traceback(None)  # it may be raised again and again
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
        """Iterates message by message, as `Consumer.messages` does."""
        return Messages(self)

    @property
    def partly_read(self) -> Delivery | None:
        """The last delivery, if `messages` has read only some of its messages."""
        return None if self._last is None else self._last.partly_read

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
        """Accepts that a stream is missing if it is no longer a partition; otherwise raises."""
        await self._partitions.read_again()
        if error.stream in self._consumers:
            raise error

    # --- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> SuperStreamConsumer:
        self._block.enter()
        await self._partitions.start()
        try:
            if self._options.single_active:
                await self._open_some(self._partitions.streams[:1])
                name = f"opening of {self.super_stream}"
                self._opening = self._manager.owner.spawn(self._open_others, name=name)
                self._watch_orphans()
            else:
                await self._open_some(self._partitions.streams)
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
        for task in filter(None, (self._opening, self._orphans)):
            task.cancel()
            with anyio.CancelScope(shield=True):
                await task.wait()
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

    async def _open_some(self, streams: Sequence[str]) -> None:
        """Opens those that are still partitions; raises the first error."""
        failures: list[Exception] = []

        async def open_one(stream: str) -> None:
            if not failures and stream in self._partitions.streams:
                try:
                    await self._open(stream, self._options)
                except Exception as error:  # raised below: a group of errors would hide it
                    failures.append(error)

        await side_by_side(open_one, [each for each in streams if each not in self._consumers])
        if failures:
            raise failures[0]
        self._sort()

    def _sort(self) -> None:
        """Restores the server's order: partitions are not opened in it."""
        places = {stream: place for place, stream in enumerate(self._partitions.streams)}
        self._in_turn.sort(key=lambda each: places.get(each.stream, len(places)))
        self._consumers = {each.stream: each for each in self._in_turn}

    async def _open_others(self) -> None:
        """Opens the other partitions of a member of a group, while the first ones are read.

        The broker may assign a partition as soon as it is opened. With many partitions, nobody
        would read the first ones until the last one is open.
        """
        try:
            await self._open_some(self._partitions.streams)
        except FlowstreamError as error:
            self._failure = error
            self._arrived.notify()

    def _watch_orphans(self) -> None:
        reference = self._options.reference
        if reference is not None:
            watch = OrphanWatch(self._manager, reference, lambda: tuple(self._consumers.values()))
            name = f"orphans of {self.super_stream}"
            self._orphans = self._manager.owner.spawn(watch.run, name=name)

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
        gone = StreamDoesNotExist(f'"{self.super_stream}" no longer has this partition')
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


T = TypeVar("T")


async def side_by_side(run: Callable[[T], Awaitable[None]], each: Iterable[T]) -> None:
    """Awaits `run` for each of them, for `AT_ONCE` at the same time, in their order."""
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def one(it: T) -> None:
        async with limit:
            await run(it)

    async with anyio.create_task_group() as group:
        for it in each:
            group.start_soon(one, it)
