"""A finite (or endless) Python iterable as the source of a pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import anyio.lowlevel
import anyio.to_thread

from flowstream.errors import ConfigurationError
from flowstream.pipeline.handlers import passes
from flowstream.pipeline.producer import Feed, Lane, Producer
from flowstream.texts import interrupts, is_a, shown

T = TypeVar("T")


class IterableProducer(Producer):
    """Feeds the items of an iterable, or of an async one, and ends with it.

    `bytes` and `str` items are decoded to the handler's payload type, and other items are the
    payload. `slice_size` items are read at a time; `threaded=True` reads them in a worker thread,
    for iterables that block. An exception of the iterable ends the run with SourceFailed, once what
    was read before it is handled.

    Offsets count from 0 and are not stored. What can be iterated again, such as a list, is read
    from its beginning by each run. An iterator, such as a generator, an open file or a cursor, goes
    on where the last run left it, with what was read ahead; what that run took in and did not
    settle is lost, and logged.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | AsyncIterable[Any],
        *,
        stream: str = "iterable",
        slice_size: int = 1000,
        threaded: bool = False,
    ) -> None:
        if isinstance(iterable, (str, bytes)):
            raise ConfigurationError(
                f"IterableProducer: give a list of items, not {shown(iterable)}"
            )
        if slice_size < 1:
            raise ConfigurationError(f"IterableProducer > slice_size: at least 1, got {slice_size}")
        self.stream = stream
        self._iterable = iterable
        self._slice_size = slice_size
        self._threaded = threaded
        self._read: list[Any] = []
        self._end: BaseException | None = None

    async def run(self, feed: Feed) -> None:
        lane = feed.open(self.stream, commits=False)
        if isinstance(self._iterable, AsyncIterable):
            await self._run_async(lane, self._begin(aiter(self._iterable)))
        else:
            await self._run(lane, self._begin(await self._call(iter, self._iterable)))
        if self._end is not None and not is_a(self._end, StopIteration):
            raise self._end

    def _begin(self, items: T) -> T:
        """What was read ahead counts for an iterator only: others begin anew."""
        if items is not self._iterable:
            self._read, self._end = [], None
        return items

    async def _run(self, lane: Lane, items: Iterator[Any]) -> None:
        while self._read or self._end is None:
            if self._end is None:
                self._end = await self._call(self._read_ahead, items)
            await self._send(lane)

    async def _run_async(self, lane: Lane, items: AsyncIterator[Any]) -> None:
        while self._read or self._end is None:
            await self._send(lane)
            if self._end is None:
                await self._read_one(items)

    def _read_ahead(self, items: Iterator[Any]) -> BaseException | None:
        """Read a slice; what ended the iterable, or None where there may be more."""
        try:
            self._read.extend(islice(items, self._slice_size - len(self._read)))
        except BaseException as error:
            if interrupts(error):
                raise
            return error
        return None if len(self._read) >= self._slice_size else StopIteration()

    async def _read_one(self, items: AsyncIterator[Any]) -> None:
        try:
            self._read.append(await anext(items))
        except StopAsyncIteration:
            self._end = StopIteration()
        except BaseException as error:
            if passes(error):
                raise
            self._end = error

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        if not self._threaded:
            return function(*args)
        return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)

    async def _send(self, lane: Lane) -> None:
        """Send what was read; what is not taken in, because the run is stopped, is kept."""
        first = lane.next
        try:
            if self._read:
                await lane.send([_body(item) for item in self._read])
        finally:
            del self._read[: lane.next - first]

    def describe(self) -> Mapping[str, Any]:
        return {"producer": "IterableProducer", "stream": self.stream}


def _body(item: Any) -> Any:
    """Text is UTF-8; what UTF-8 has no bytes for is left to the decoder, which fails that item."""
    return str.encode(item, "utf-8", "surrogatepass") if issubclass(type(item), str) else item
