"""Makes an iterable, finite or endless, the source of a pipeline."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from inspect import isasyncgen
from itertools import islice
from typing import Annotated, Any, TypeVar

import anyio.lowlevel
import anyio.to_thread

from flowstream.errors import ConfigurationError
from flowstream.pipeline.handlers.calls import passes
from flowstream.pipeline.producer import Intake, Producer, SourcePartition
from flowstream.schema import NAME, Rule, make, takes, whole
from flowstream.texts import describe, interrupts, is_a

T = TypeVar("T")


def _can_be_iterated(value: object) -> bool:
    kind = type(value)
    iterates = any(hasattr(kind, name) for name in ("__iter__", "__aiter__", "__getitem__"))
    return iterates and not isinstance(value, str | bytes)


CONTINUES = ("__next__", "__anext__", "fetchone", "readline")
"""What iterators, cursors and open files have. `iter` of some of them, such as SQLAlchemy's results
and temporary files, makes a new generator each time, which continues where the last one stopped."""
ITEMS = Rule("a list, a generator or another iterable of items", _can_be_iterated)


@dataclass(frozen=True)
class IterableProducerArguments:
    """What `IterableProducer(...)` takes."""

    iterable: Annotated[Iterable[Any] | AsyncIterable[Any], ITEMS, "gives the items"]
    _: KW_ONLY
    stream: Annotated[str, NAME, "names the source in logs and metrics"] = "iterable"
    slice_size: Annotated[int, whole(1, unit="items"), "items that are read at a time"] = 1000
    threaded: Annotated[bool, "read in a worker thread: for iterables that block"] = False


class IterableProducer(Producer):
    """Feeds the items of an iterable, or of an async one, and ends with it.

    `bytes` and `str` items are decoded to the handler's payload type, and other items are the
    payload. `slice_size` items are read at a time; `threaded=True` reads them in a worker thread,
    for iterables that block. An exception of the iterable ends the run with SourceFailed, once all
    items read before it are handled.

    Offsets count from 0 and are not stored. Each run reads an iterable such as a list from its
    beginning. It reads an iterator, such as a generator, an open file or a cursor, from where the
    last run stopped, items that were read ahead included; what that run took in and did not settle
    is lost, which is logged. A stop ends an async generator that is waiting for its next item, and
    the next run raises ConfigurationError.
    """

    @takes(IterableProducerArguments)
    def __init__(self, *arguments: Any, **values: Any) -> None:
        options = make(IterableProducerArguments, arguments, values, "IterableProducer")
        self.stream: str = options.stream
        self._iterable = options.iterable
        self._slice_size = options.slice_size
        self._threaded = options.threaded
        self._reading = _Reading()

    async def run(self, intake: Intake) -> None:
        partition = intake.open(self.stream, commits=False)
        if isinstance(self._iterable, AsyncIterable):
            items = aiter(self._iterable)
            reading = self._begin(items)
            while reading.unsent or reading.end is None:
                await self._send(partition, reading.unsent)
                if reading.end is None:
                    await reading.one(items)
        else:
            iterator = await self._call(iter, self._iterable)
            reading = self._begin(iterator)
            while reading.unsent or reading.end is None:
                await self._call(reading.slice, iterator, self._slice_size)
                await self._send(partition, reading.unsent)
        if is_a(reading.end, GeneratorExit):  # raised here, it would close the whole run
            raise RuntimeError(describe(reading.end)) from reading.end
        if not is_a(reading.end, StopIteration):
            raise reading.end

    def _begin(self, items: object) -> _Reading:
        """What was read in earlier runs, if the iterable continues there."""
        source = self._iterable
        if items is not source and not any(hasattr(source, name) for name in CONTINUES):
            self._reading = _Reading()
        return self._reading

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        if not self._threaded:
            return function(*args)
        return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True)

    async def _send(self, partition: SourcePartition, unsent: list[Any]) -> None:
        """Send what was read. What a stop prevents from being taken in is kept for the next run."""
        first = partition.next
        try:
            if unsent:
                await partition.send(_bodies(unsent))
        finally:
            del unsent[: partition.next - first]

    def describe(self) -> Mapping[str, Any]:
        return {"producer": "IterableProducer", "stream": self.stream}


class _Reading:
    """How far an iterable was read: the items that are not sent yet, and what ended it.

    A stop does not wait for a thread that is reading. What that thread still reads is kept.
    """

    def __init__(self) -> None:
        self.unsent: list[Any] = []
        self.end: BaseException | None = None
        self._lock = threading.Lock()

    def slice(self, items: Iterator[Any], size: int) -> None:
        """Read until `size` items are unsent, or the iterable ends."""
        with self._lock:
            if self.end is not None:
                return
            try:
                self.unsent.extend(islice(items, max(0, size - len(self.unsent))))
            except BaseException as error:
                if interrupts(error):
                    raise
                self.end = error
                return
            if len(self.unsent) < size:
                self.end = StopIteration()

    async def one(self, items: AsyncIterator[Any]) -> None:
        """Read the next item, or the end."""
        try:
            self.unsent.append(await anext(items))
        except StopAsyncIteration:
            self.end = StopIteration()
        except BaseException as error:
            if not passes(error):
                self.end = error
                return
            if isasyncgen(items) and items.ag_frame is None:
                self.end = ConfigurationError(
                    "IterableProducer: the run was stopped while its async generator waited for "
                    "the next item, which ended the generator: it cannot continue in another run. "
                    "Use an object whose __aiter__ starts again, or continues"
                )
            raise


def _bodies(items: list[Any]) -> list[Any]:
    """The items, strings in UTF-8. The decoder fails a string that UTF-8 cannot encode."""
    if not any(issubclass(kind, str) for kind in set(map(type, items))):
        return items.copy()
    return [
        str.encode(item, "utf-8", "surrogatepass") if issubclass(type(item), str) else item
        for item in items
    ]
