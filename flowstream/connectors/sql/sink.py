"""What the SQL sinks share: options, a pool of connections, threads, and what is tried again.

A batch is written in a worker thread, as one transaction (transaction.py). Each worker of the sink
uses a connection of its own; they are opened when they are first needed. A worker that is given up
(by a timeout, or at the end of a drain) leaves its thread behind, and closes the connection under
it. If that thread still commits, no message is written twice: the next attempt finds it done.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any, Final, TypeVar

import anyio
import anyio.to_thread

from flowstream.backoff import Backoff
from flowstream.connectors.sql.columns import Column, Convert, Kind, RowMaker, columns_of
from flowstream.connectors.sql.offsets_table import Place
from flowstream.connectors.sql.transaction import Row, write_batch
from flowstream.errors import ConfigurationError, SinkFailed, StreamReplaced
from flowstream.pipeline import Batch, Message, RunContext, Sink
from flowstream.schema import Rule, checked, whole
from flowstream.texts import describe, interrupts, shown, type_name, without_passwords

_log = logging.getLogger("flowstream.connectors")
T = TypeVar("T")

MakeRow = Callable[[Message[Any]], Any]
COLUMNS = checked(
    lambda option, value: columns_of(value, option),
    "a model whose fields are the columns, or a dict of names and types",
)
KEY = Rule(
    "the name of a column, or a tuple of names",
    lambda value: (
        bool(value)
        and (isinstance(value, str) or (isinstance(value, tuple) and all(map(_is_text, value))))
    ),
)
TABLE_NAME = Rule(
    "the name of a table, such as orders or shop.orders",
    lambda value: isinstance(value, str) and all(value.split(".")) and "\0" not in value,
)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


@dataclass(frozen=True, kw_only=True)
class TableArguments:
    """What all SQL sinks take."""

    columns: Annotated[Any, COLUMNS, "the columns that are written"]
    key: Annotated[
        str | tuple[str, ...] | None, KEY, "columns by which a row replaces one that exists"
    ] = None
    row: Annotated[
        MakeRow | None, "gives an object or dict with the columns; None: the message's data"
    ] = None
    create: Annotated[bool, "create the tables where they do not exist"] = False
    exactly_once: Annotated[bool, "store offsets with the rows; False: rows may come twice"] = True
    attempts: Annotated[
        int, whole(1, unit="attempts"), "tries of a batch while the database cannot be reached"
    ] = 10
    backoff: Annotated[Backoff, "the delays between them"] = Backoff(maximum=5.0)  # noqa: RUF009


class SqlSink(Sink):
    """A table that batches are written to."""

    def __init__(self, options: Any, convert: Mapping[Kind, Convert]) -> None:
        self.table: str = options.table
        self.columns: tuple[Column, ...] = columns_of(options.columns)
        key = (options.key,) if isinstance(options.key, str) else options.key or ()
        self.key: tuple[str, ...] = key
        self.row: MakeRow | None = options.row
        self.create: bool = options.create
        self.exactly_once: bool = options.exactly_once
        self.attempts: int = options.attempts
        self.backoff: Backoff = options.backoff
        self.make_row: Final = RowMaker(self.columns, convert)
        names = [column.name for column in self.columns]
        for name in key:
            if name not in names:
                raise ConfigurationError(
                    f"{type_name(self)} > key={shown(options.key)}: {name!r} is no column; there "
                    f"are {', '.join(names)}"
                )

    @property
    @abstractmethod
    def place(self) -> str:
        """The database, without secrets."""

    @abstractmethod
    def connect(self) -> Any:
        """A new connection (see transaction.py) that can also create and check its tables."""

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        pool = Pool(self)
        try:
            writer = BatchWriter(self, pool, context)
            await writer.reach(self._prepare, at_once=True)
            yield writer.write
        finally:
            pool.close()

    def _prepare(self, database: Any) -> None:
        if self.create:
            database.create_tables()
        try:
            database.check_tables(offsets=self.exactly_once)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{self!r}: {error} (create=True creates tables that do not exist)"
            ) from error


class Pool:
    """Connections that are open and not in use, and the threads that use them."""

    def __init__(self, sink: SqlSink) -> None:
        self._sink = sink
        self._idle: list[Any] = []
        self._closed = False
        self._threads = anyio.CapacityLimiter(math.inf)  # workers, and those that were given up

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(database, *args)` in a thread. A cancellation ends its connection."""
        use = _Use(self, self._idle.pop() if self._idle else None)
        try:
            return await self.in_thread(use.run, function, args)
        except anyio.get_cancelled_exc_class():
            use.abandon()
            raise

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread, without a connection."""
        return await anyio.to_thread.run_sync(
            function, *args, abandon_on_cancel=True, limiter=self._threads
        )

    def connect(self) -> Any:
        """A new connection; raises SinkFailed."""
        try:
            return self._sink.connect()
        except ConfigurationError:
            raise
        except Exception as error:
            raise CannotConnect(
                f"cannot open {self._sink.place}: {without_passwords(describe(error))}"
            ) from None

    def put(self, database: Any) -> None:
        """Keep a connection for the next call."""
        if self._closed:
            database.close()
        else:
            self._idle.append(database)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            with suppress(Exception):
                self._idle.pop().close()


class _Use:
    """One call in a thread, with its connection."""

    def __init__(self, pool: Pool, database: Any) -> None:
        self._pool = pool
        self._database = database
        self._abandoned = threading.Event()
        self._done = False
        self._lock = threading.Lock()

    def run(self, function: Callable[..., T], args: Sequence[Any]) -> T:
        """In the thread."""
        database = self._database
        if database is None:
            database = self._database = self._pool.connect()
        try:
            if self._abandoned.is_set():
                raise Lost("given up")
            result = function(database, *args)
        except BaseException as error:
            lost = self._abandoned.is_set() or database.lost(error)
            with self._lock:
                self._done = True
                with suppress(Exception):  # its transaction may be in any state
                    database.close()
            if lost:
                raise Lost(without_passwords(describe(error))) from error
            raise
        with self._lock:
            self._done = True
            if self._abandoned.is_set():
                database.close()
            else:
                self._pool.put(database)
        return result

    def abandon(self) -> None:
        """On the event loop: nobody waits for the thread any more."""
        with self._lock:
            self._abandoned.set()
            if self._database is not None and not self._done:
                with suppress(Exception):
                    self._database.interrupt()


class Lost(Exception):
    """The connection is lost, or the transaction ended without a fault of its own."""


class CannotConnect(SinkFailed, Lost):
    """No connection could be made."""


class BatchWriter:
    """Writes the batches of one run."""

    def __init__(self, sink: SqlSink, pool: Pool, context: RunContext) -> None:
        self._sink = sink
        self._pool = pool
        self._context = context
        self._said: set[tuple[str, str]] = set()

    async def write(self, batch: Batch[Any]) -> None:
        """Write a batch; returns once it is committed."""
        reference = f"{self._context.pipeline}/{batch.batcher}"
        messages = batch.messages
        settled = batch.settled or {}
        if self._sink.exactly_once:
            for stream in {message.stream for message in messages}.difference(settled):
                self._say_uncounted(reference, stream)
        well, rows, places = await self._pool.in_thread(self._rows, messages, settled)
        if not rows:
            return
        try:
            result = await self.reach(write_batch, reference, rows, places, settled)
        except StreamReplaced as error:
            for message in well:
                message.fail(error, retry=False)
            return
        for index, refusal in result.refused:
            well[index].fail(refusal)
        if result.done:
            self._say_done(reference, [well[index] for index in result.done])

    def _rows(
        self, messages: Sequence[Message[Any]], settled: Mapping[str, range]
    ) -> tuple[list[Message[Any]], list[Row], list[Place | None]]:
        """The messages that have a row, their rows and places; the others fail. In a thread."""
        sink = self._sink
        well: list[Message[Any]] = []
        rows: list[Row] = []
        places: list[Place | None] = []
        for message in messages:
            try:
                row = sink.make_row(message.data if sink.row is None else sink.row(message))
            except BaseException as error:
                if interrupts(error):
                    raise
                message.fail(error, retry=False)
                continue
            well.append(message)
            rows.append(row)
            stream = message.stream
            # What a handler settled early may be below the watermark before it is written.
            counted = sink.exactly_once and stream in settled and not message.settled_early
            places.append((stream, message.offset, message.timestamp) if counted else None)
        return well, rows, places

    async def reach(self, function: Callable[..., T], *args: Any, at_once: bool = False) -> T:
        """Call a function with a connection, again and again while the database is away.

        `at_once`: without a first connection there is no run, such as for a wrong password.
        """
        sink = self._sink
        for attempt in count(1):
            try:
                return await self._pool.call(function, *args)
            except Lost as error:
                if at_once and isinstance(error, CannotConnect):
                    raise
                if attempt >= sink.attempts:
                    raise SinkFailed(
                        f"{sink.place} failed {attempt} times: {error.args[0]}"
                    ) from error
                delay = sink.backoff.delay(attempt, random.random())
                self._say_lost(error, delay)
            await anyio.sleep(delay)
        raise AssertionError

    # -- the log

    def _say_lost(self, error: Lost, delay: float) -> None:
        _log.warning(
            "%s: writing to %s failed and is tried again in %.1f s: %s", self._context.pipeline,
            self._sink.place, delay, error.args[0], extra={"pipeline": self._context.pipeline},
        )  # fmt: skip

    def _say_done(self, reference: str, messages: Sequence[Message[Any]]) -> None:
        """Once for each stream: messages that were written before a crash come again."""
        for stream in dict.fromkeys(message.stream for message in messages):
            offsets = [message.offset for message in messages if message.stream == stream]
            self._say_once(
                "done", stream, logging.INFO,
                "%s: %s@%d and others are in the table already, and are left out: they were "
                "written by an earlier run, or attempt (flowstream_offsets, %s)",
                self._context.pipeline, stream, min(offsets), reference,
            )  # fmt: skip

    def _say_uncounted(self, reference: str, stream: str) -> None:
        self._say_once(
            "uncounted", stream, logging.WARNING,
            "%s: the source of %s stores no offsets, so that rows of a run may come again in the "
            "next one: %s writes at least once", self._context.pipeline, stream, reference,
        )  # fmt: skip

    def _say_once(self, what: str, stream: str, level: int, text: str, *args: Any) -> None:
        if (what, stream) not in self._said:
            self._said.add((what, stream))
            _log.log(level, text, *args, extra={"pipeline": self._context.pipeline,
                                                "stream": stream})  # fmt: skip
