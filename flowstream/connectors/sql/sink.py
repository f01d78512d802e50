"""What the SQL sinks share: options, a pool of connections, threads and retries.

A batch is written in a worker thread, as one transaction (transaction.py). Each worker of the sink
has a connection of its own, which is opened when it is first needed. When a worker is cancelled (by
a timeout, or at the end of a drain), its thread goes on, and its connection is shut down. If the
thread still commits, no message is written twice: the next attempt finds the offsets done.
"""

from __future__ import annotations

import logging
import random
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any, Final, TypeVar

import anyio
import anyio.to_thread

from flowstream.backoff import Backoff
from flowstream.connectors.commit_gate import OutcomeOpen, in_thread
from flowstream.connectors.done_ranges import CLOSE_WITHIN, DoneRanges
from flowstream.connectors.sql.columns import Column, Convert, Kind, RowMaker, columns_of
from flowstream.connectors.sql.offsets_table import Place
from flowstream.connectors.sql.transaction import Row, finish_record, write_batch
from flowstream.errors import (
    ConfigurationError,
    FlowstreamError,
    OutcomeUnknown,
    SinkFailed,
    SinkUnavailable,
    StreamReplaced,
)
from flowstream.pipeline import (
    EXACTLY_ONCE,
    Batch,
    Guarantee,
    Message,
    RunContext,
    Sink,
    thread_limiter,
)
from flowstream.schema import Rule, checked, whole
from flowstream.texts import describe, interrupts, shown, type_name

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
        str | tuple[str, ...] | None,
        KEY,
        "the columns that identify a row: a new row replaces the one with the same values",
    ] = None
    row: Annotated[
        MakeRow | None,
        "makes an object or dict with the columns from a message; None: the message's data",
    ] = None
    create: Annotated[bool, "create the tables if they do not exist"] = False
    exactly_once: Annotated[
        bool, "store offsets with the rows; False: rows may be written twice"
    ] = True
    attempts: Annotated[
        int,
        whole(1, unit="attempts"),
        "attempts to write a batch while the database cannot be reached",
    ] = 10
    backoff: Annotated[Backoff, "the delays between attempts"] = Backoff(maximum=5.0)  # noqa: RUF009


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
                    f"{type_name(self)} > key={shown(options.key)}: {name!r} is not a column; the "
                    f"columns are {', '.join(names)}"
                )

    def guarantee(self) -> Guarantee:
        if self.exactly_once:
            return EXACTLY_ONCE
        return Guarantee(
            "at least once",
            "with exactly_once=False, rows may be written again after a crash or a retry",
            "remove exactly_once=False, so that offsets are stored with the rows",
        )

    @property
    @abstractmethod
    def place(self) -> str:
        """The database, without secrets."""

    @abstractmethod
    def connect(self) -> Any:
        """A new connection (see transaction.py) that can also create and check its tables."""

    @property
    def destination(self) -> str:
        return f"the table {self.table!r} of {self.place}"

    def record_reference(self, pipeline: str, batcher: str) -> str:
        return f"{pipeline}/{batcher}"

    def record(self, pipeline: str, name: str) -> str | None:
        if not self.exactly_once:
            return None
        return f"{self.record_place}, reference {self.record_reference(pipeline, name)!r}"

    @property
    def record_place(self) -> str:
        """The database of the record, the same for each of its names."""
        return self.place

    def initialize(self) -> None:
        with self._connected() as database:
            database.create_tables()
            self._check(database)

    def written(self, reference: str) -> Mapping[str, DoneRanges] | None:
        if not self.exists():
            return None
        with self._connected() as database:
            return database.offsets.list(reference) if database.has_offsets() else None

    def forget(self, reference: str, stream: str) -> None:
        with self._connected() as database:
            database.offsets.forget(reference, stream)

    def exists(self) -> bool:
        """False where a connection would make the database."""
        return True

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A connection for one call of a command."""
        database = opened(self)
        try:
            yield database
        except FlowstreamError:
            raise
        except Exception as error:
            raise SinkFailed(f"{self.place}: {describe(error)}") from None
        finally:
            database.close()

    @asynccontextmanager
    async def writer(self, context: RunContext) -> AsyncIterator[Any]:
        pool = Pool(self)
        try:
            writer = BatchWriter(self, pool, context)
            await writer.reach(self._prepare, at_once=True)
            context.hand_overs.append(writer.hand_over)
            yield writer.write
            await writer.finish(context.settled())
        finally:
            pool.close()

    def _prepare(self, database: Any) -> None:
        if self.create:
            try:
                database.create_tables()
            except Exception as error:
                if database.lost(error):
                    raise
                text = describe(error)
                raise SinkFailed(f"cannot create {self.destination}: {text}") from None
        self._check(database)

    def _check(self, database: Any) -> None:
        try:
            database.check_tables(offsets=self.exactly_once)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{self!r}: {error} (if a table does not exist, create=True creates it, and so "
                "does flowstream sinks init)"
            ) from error


class Pool:
    """Open connections that are not in use, and the threads of those that are."""

    def __init__(self, sink: SqlSink) -> None:
        self._sink = sink
        self._idle: list[Any] = []
        self._closed = False
        self._threads = thread_limiter()  # for workers and cancelled ones

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call `function(database, *args)` in a thread.

        Cancellation shuts the connection down, unless it is committing: a commit has its outcome.
        """
        use = _Use(self, self._idle.pop() if self._idle else None)
        try:
            return await in_thread(
                use.run, function, args, give_up=use.give_up, limiter=self._threads
            )
        except OutcomeOpen as error:
            use.interrupt()
            lost = Lost(str(error))
            lost.in_doubt = True
            raise lost from error

    @property
    def idle(self) -> bool:
        """Whether a connection is open that is not in use."""
        return bool(self._idle)

    async def try_call(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """Call `function(database, *args)` in a thread.

        Nobody waits longer for it, not even for a commit that has begun: use it for what may or may
        not happen. Raises what the function raises.
        """
        use = _Use(self, self._idle.pop() if self._idle else None)
        with anyio.move_on_after(seconds) as scope:
            await self.in_thread(use.run, function, args)
        if scope.cancelled_caught:
            use.give_up()
            use.interrupt()

    async def in_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a thread, without a connection."""
        return await anyio.to_thread.run_sync(
            function, *args, abandon_on_cancel=True, limiter=self._threads
        )

    def connect(self) -> Any:
        """A new connection; raises SinkUnavailable."""
        return opened(self._sink)

    def put(self, database: Any) -> None:
        """Keep a connection for the next call."""
        if self._closed:
            database.close()
        else:
            database.gate.reopen()
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
        self._given_up = threading.Event()
        self._done = False
        self._lock = threading.Lock()

    def run(self, function: Callable[..., T], args: Sequence[Any]) -> T:
        """Call the function. Runs in the thread."""
        database = self._database
        if database is None:
            database = self._database = self._pool.connect()
        try:
            if self._given_up.is_set():
                raise Lost("cancelled")
            result = function(database, *args)
        except BaseException as error:
            lost = self._given_up.is_set() or database.lost(error)
            with self._lock:
                self._done = True
                with suppress(Exception):  # its transaction may be in any state
                    database.close()
            if lost:
                again = Lost(describe(error))
                again.in_doubt = database.in_doubt
                raise again from error
            raise
        with self._lock:
            self._done = True
            if self._given_up.is_set():
                database.close()
            else:
                self._pool.put(database)
        return result

    def give_up(self) -> bool:
        """Give the call up. False if it has committed, or does. Runs on the event loop."""
        with self._lock:
            if self._done or not (self._database is None or self._database.gate.close()):
                return False
            self._given_up.set()
            self.interrupt()
            return True

    def interrupt(self) -> None:
        """End what the thread waits for."""
        if self._database is not None and not self._done:
            with suppress(Exception):
                self._database.interrupt()


class Lost(Exception):
    """The connection was lost, or the database ended the transaction: another attempt may work.

    `in_doubt`: the transaction may be committed.
    """

    in_doubt: bool = False


class CannotConnect(SinkUnavailable, Lost):
    """No connection could be made."""


def outcome_unknown(text: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{text}. An attempt may have been committed, so the messages are left to the next run, "
        "which finds out"
    )


def opened(sink: SqlSink) -> Any:
    """A new connection of the sink; raises SinkUnavailable."""
    try:
        return sink.connect()
    except ConfigurationError:
        raise
    except Exception as error:
        raise CannotConnect(f"cannot open {sink.place}: {describe(error)}") from None


class BatchWriter:
    """Writes the batches of one run."""

    def __init__(self, sink: SqlSink, pool: Pool, context: RunContext) -> None:
        self._sink = sink
        self._pool = pool
        self._context = context
        self._logged: set[tuple[str, str]] = set()
        self._ended: SinkFailed | None = None
        self._reference = ""
        """The reference of the batches; empty before the first one is written."""

    async def write(self, batch: Batch[Any]) -> None:
        """Write a batch. Returns after the commit."""
        reference = f"{self._context.pipeline}/{batch.batcher}"
        messages = batch.messages
        settled = batch.settled or {}
        if self._sink.exactly_once:
            for stream in {message.stream for message in messages}.difference(settled):
                self._log_uncounted(reference, stream)
        with_row, rows, places = await self._pool.in_thread(self._rows, messages, settled)
        if not rows:
            return
        try:
            if self._ended is not None:  # what is written of a new stream would come again
                raise self._ended
            result = await self.reach(write_batch, reference, rows, places, settled)
        except (OutcomeUnknown, StreamReplaced) as error:
            self._ended = error
            for message in with_row:
                message.fail(error)
            return
        self._reference = reference
        for index, refusal in result.refused:
            with_row[index].fail(refusal)
        if result.done:
            self._log_done(reference, [with_row[index] for index in result.done])

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

    async def finish(self, settled: Mapping[str, range]) -> None:
        """At the end of the run: `hand_over` of all that the run has settled.

        Without a connection the database is away, and the end does not wait for a new one.
        """
        if self._pool.idle:
            await self.hand_over(settled)

    async def hand_over(self, settled: Mapping[str, range]) -> None:
        """Close the gaps in the record of streams up to what the run has settled of them.

        Who reads them next begins behind the gaps, and could not close them. If it is not done,
        nothing is wrong, but the record is larger. So it may only take a moment.
        """
        if not (self._reference and self._sink.exactly_once) or self._ended is not None:
            return
        try:
            await self._pool.try_call(CLOSE_WITHIN, finish_record, self._reference, settled)
        except Exception as error:
            _log.debug(
                "%s: the gaps in the record of %s were not closed: %s", self._context.pipeline,
                self._sink.place, describe(error),
                extra={"pipeline": self._context.pipeline},
            )  # fmt: skip

    async def reach(self, function: Callable[..., T], *args: Any, at_once: bool = False) -> T:
        """Call a function with a connection. Try again while the database cannot be reached.

        With `at_once`, the first attempt must connect: a wrong password must end the run. Raises
        OutcomeUnknown instead of another error if an attempt may have been committed: a message
        that may be written must not become a dead letter.
        """
        sink = self._sink
        in_doubt = False
        for attempt in count(1):
            try:
                return await self._pool.call(function, *args)
            except anyio.get_cancelled_exc_class():
                if not in_doubt:
                    raise
                raise outcome_unknown(f"{sink.place}: cancelled in attempt {attempt}") from None
            except Lost as error:
                if at_once and isinstance(error, CannotConnect):
                    raise
                in_doubt = in_doubt or (error.in_doubt and sink.exactly_once)
                if attempt >= sink.attempts:
                    text = f"{sink.place} failed {attempt} times: {error.args[0]}"
                    raise (outcome_unknown(text) if in_doubt else SinkFailed(text)) from error
                delay = sink.backoff.delay(attempt, random.random())
                self._log_lost(error, delay)
                try:
                    await anyio.sleep(delay)
                except anyio.get_cancelled_exc_class():
                    if not in_doubt:
                        raise
                    text = f"{sink.place}: cancelled before another attempt"
                    raise outcome_unknown(text) from error
            except Exception as error:
                if in_doubt and not isinstance(error, StreamReplaced):
                    text = f"{sink.place}: {describe(error)}"
                    raise outcome_unknown(text) from error
                raise
        raise AssertionError

    # -- the log

    def _log_lost(self, error: Lost, delay: float) -> None:
        _log.warning(
            "%s: writing to %s failed; next attempt in %.1f s: %s", self._context.pipeline,
            self._sink.place, delay, error.args[0], extra={"pipeline": self._context.pipeline},
        )  # fmt: skip

    def _log_done(self, reference: str, messages: Sequence[Message[Any]]) -> None:
        """Log once for each stream that messages arrived again and are skipped."""
        for stream in dict.fromkeys(message.stream for message in messages):
            offsets = [message.offset for message in messages if message.stream == stream]
            self._log_once(
                "done", stream, logging.INFO,
                "%s: skipped %s@%d and others, because an earlier run or attempt wrote them or "
                "settled them otherwise (flowstream_offsets, %s)",
                self._context.pipeline, stream, min(offsets), reference,
            )  # fmt: skip

    def _log_uncounted(self, reference: str, stream: str) -> None:
        self._log_once(
            "uncounted", stream, logging.WARNING,
            "%s: the source of %s stores no offsets, so the next run may write the same rows "
            "again: %s writes at least once", self._context.pipeline, stream, reference,
        )  # fmt: skip

    def _log_once(self, what: str, stream: str, level: int, text: str, *args: Any) -> None:
        if (what, stream) not in self._logged:
            self._logged.add((what, stream))
            _log.log(level, text, *args, extra={"pipeline": self._context.pipeline,
                                                "stream": stream})  # fmt: skip
