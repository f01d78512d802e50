"""A finite (or endless) Python iterable as the source of a pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import anyio.lowlevel
import anyio.to_thread

from flowstream.errors import ConfigurationError
from flowstream.pipeline.producer import Feed, Lane, Producer


class IterableProducer(Producer):
    """Feeds the items of an iterable, or of an async one, and ends with it.

    `bytes` and `str` items are decoded to the handler's payload type, and other items are the
    payload. Offsets count from 0 and are not stored: each run starts at the beginning.
    `slice_size` items are read at a time; `threaded=True` reads them in a worker thread, for
    iterables that block. A stop does not wait for such a read; what it still gives is left.
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
                f"IterableProducer: give a list of items, not {iterable!r:.80}"
            )
        if slice_size < 1:
            raise ConfigurationError(f"IterableProducer > slice_size: at least 1, got {slice_size}")
        self.stream = stream
        self._iterable = iterable
        self._slice_size = slice_size
        self._threaded = threaded

    async def run(self, feed: Feed) -> None:
        lane = feed.open(self.stream, commits=False)
        if isinstance(self._iterable, AsyncIterable):
            async for item in self._iterable:
                await lane.send([_body(item)])
            return
        await self._slices(lane, iter(self._iterable))

    async def _slices(self, lane: Lane, items: Iterator[Any]) -> None:
        size = self._slice_size

        def read() -> list[Any]:
            return [_body(item) for item in islice(items, size)]

        async def read_elsewhere() -> list[Any]:
            return await anyio.to_thread.run_sync(read, abandon_on_cancel=True)

        while bodies := (await read_elsewhere() if self._threaded else read()):
            await lane.send(bodies)

    def reads(self) -> Sequence[str]:
        return [self.stream]

    def describe(self) -> Mapping[str, Any]:
        return {"producer": "IterableProducer", "stream": self.stream}


def _body(item: Any) -> Any:
    return item.encode() if isinstance(item, str) else item
