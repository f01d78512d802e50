"""SQL sinks in pipelines, on both databases: each message is written once."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from flowstream import (
    Backoff,
    Drop,
    FileSink,
    Halt,
    IterableProducer,
    Message,
    Pipeline,
    Retry,
    RunResult,
    SqliteSink,
)
from flowstream.connectors.done_ranges import DoneRanges
from flowstream.connectors.sql.offsets_table import parsed
from flowstream.errors import (
    ConfigurationError,
    Halted,
    OutcomeUnknown,
    SinkFailed,
    StreamReplaced,
)
from flowstream.pipeline import Failure, Intake, Producer
from tests.connectors.sql.conftest import SqliteStore, Store
from tests.support.pipelines import MemoryStream

pytestmark = pytest.mark.anyio


@dataclass
class Order:
    id: int
    name: str


NAN = float("nan")


def bodies(*ids: int, name: Any = "n") -> list[bytes]:
    return [json.dumps({"id": n, "name": name}).encode() for n in ids]


def pipeline_of(
    producer: Producer, *, handle: Callable[[Message[Order]], None] | None = None, **options: Any
) -> Pipeline:
    """A pipeline without a sink yet."""
    pipeline = Pipeline("shop", producer, **{"on_failure": Drop(), **options})

    @pipeline.processor
    async def process(message: Message[Order]) -> None:
        if handle is not None:
            handle(message)

    return pipeline


async def run(pipeline: Pipeline) -> RunResult:
    with anyio.fail_after(60):
        return await pipeline.run()


@pytest.mark.both_backends
async def test_each_message_is_a_row(store: Store) -> None:
    pipeline = pipeline_of(MemoryStream(bodies(*range(250))))
    pipeline.sink("load", store.sink(columns=Order), size=40, concurrency=3)
    assert (await run(pipeline)).settled == {"ok": 250}
    assert store.ask("SELECT id, name FROM orders ORDER BY id") == [(n, "n") for n in range(250)]
    assert store.done() == {("shop/load", "orders"): "0-249"}


async def test_what_comes_again_is_written_already(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flowstream.connectors")
    stream = MemoryStream(bodies(*range(100)))
    for stored in (None, None, 59):
        stream.stored = {} if stored is None else {"orders": stored}
        pipeline = pipeline_of(stream)
        pipeline.sink("load", store.sink(columns=Order), size=30)
        assert (await run(pipeline)).settled == {"ok": 99 - (-1 if stored is None else stored)}
    assert store.count() == 100
    assert (
        "skipped orders@0 and others, because an earlier run or attempt wrote them" in caplog.text
    )


async def test_a_key_replaces_rows_and_keeps_the_last(store: Store) -> None:
    data = [body for name in "abc" for body in bodies(*range(20), name=name)]
    pipeline = pipeline_of(MemoryStream(data))
    pipeline.sink("load", store.sink(columns=Order, key="id"), size=25)
    assert (await run(pipeline)).settled == {"ok": 60}
    assert store.ask("SELECT id, name FROM orders ORDER BY id") == [(n, "c") for n in range(20)]


async def test_a_key_that_is_all_columns_keeps_one_row(store: Store) -> None:
    pipeline = pipeline_of(MemoryStream(bodies(1, 2, 1, 2)))
    pipeline.sink("load", store.sink(columns={"id": int}, key=("id",)), size=4)
    assert (await run(pipeline)).settled == {"ok": 4}
    assert store.ask("SELECT id FROM orders ORDER BY id") == [(1,), (2,)]


async def test_what_the_database_refuses_fails_alone(store: Store) -> None:
    failures: list[Failure] = []
    data = bodies(*range(50))
    data[7], data[8], data[49] = bodies(7, 2**70, 3)
    pipeline = pipeline_of(MemoryStream(data), retry=Retry(attempts=2, backoff=Backoff(0)))

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    store.ask("CREATE TABLE orders (id BIGINT PRIMARY KEY CHECK (id <> 7), name TEXT)")
    pipeline.sink("load", store.sink(columns=Order), size=50)
    assert (await run(pipeline)).settled == {"ok": 47, "discarded": 3}
    assert sorted(failure.message.offset for failure in failures) == [7, 8, 49]
    assert store.count() == 47
    assert {(failure.phase, failure.stage) for failure in failures} == {("sink", "load")}


async def test_data_without_a_row_fails_alone(store: Store) -> None:
    failures: list[Failure] = []

    def row(message: Message[Order]) -> dict[str, Any]:
        return {"id": message.data.id, "twice": 2 * message.data.id} if message.offset else {}

    pipeline = pipeline_of(MemoryStream(bodies(*range(5))), retry=Retry(attempts=3))

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    pipeline.sink("load", store.sink(columns={"id": int, "twice": int}, row=row))
    assert (await run(pipeline)).settled == {"ok": 4, "discarded": 1}
    (failure,) = failures
    assert failure.attempts == 1
    assert failure.reason == "the data has no field 'id', but the table has this column"
    assert store.ask("SELECT sum(id), sum(twice) FROM orders") == [(10, 20)]


async def test_a_message_for_two_sinks_is_in_both(store: Store) -> None:
    stream = MemoryStream(bodies(*range(30)))
    for _ in range(2):
        stream.stored.clear()
        pipeline = pipeline_of(stream, handle=lambda message: message.to("a", "b"))
        pipeline.sink("a", store.sink("first", columns=Order), size=7)
        pipeline.sink("b", store.sink("second", columns=Order), size=11)
        assert (await run(pipeline)).settled == {"ok": 30}
    assert (store.count("first"), store.count("second")) == (30, 30)
    assert store.done() == {("shop/a", "orders"): "0-29", ("shop/b", "orders"): "0-29"}


@pytest.mark.medium
async def test_gaps_close_behind_the_watermark(store: Store) -> None:
    """What is dropped, or fails, leaves no range behind for each message."""

    def handle(message: Message[Order]) -> None:
        if message.offset % 2:
            message.drop()

    stream = MemoryStream(bodies(*range(2000)), slices=[100])
    pipeline = pipeline_of(stream, handle=handle, max_in_flight=200)
    pipeline.sink("load", store.sink(columns=Order), size=20, batch_timeout=0.05)
    assert (await run(pipeline)).settled == {"ok": 1000, "dropped": 1000}
    assert store.count() == 1000
    (ranges,) = store.done().values()
    assert len(ranges.split(",")) <= 101
    assert ranges.startswith("0-1")


@pytest.mark.medium
async def test_a_run_that_ends_leaves_no_gaps(store: Store) -> None:
    """Not even where more messages wait, and a slower one is settled last.

    The last message may be a dropped one, which is behind everything that was written.
    """
    stream = MemoryStream(bodies(*range(9000)), slices=[100])

    async def process(message: Message[Order]) -> None:
        if message.offset % 2:
            message.drop()
        elif message.offset % 100 == 0:
            await anyio.sleep(0.02)

    for number in (1, 2, 3):
        pipeline = Pipeline("shop", stream, max_in_flight=400)
        pipeline.processor(concurrency=4)(process)
        pipeline.sink("load", store.sink(columns=Order), size=20, concurrency=2)
        async with pipeline.start() as running:
            while running.statistics().settled.get("ok", 0) < 300:
                await anyio.sleep(0.01)
            running.stop()
        ((_, stored),) = stream.stored.items()
        (done,) = store.done().values()
        ranges = parsed(done)
        last = stored - stored % 2
        assert len(ranges) <= number
        assert (ranges[0][0], ranges[-1][1]) == (0, last)
    (last,) = (it - it % 2 for it in stream.stored.values())
    assert store.ask("SELECT count(*), max(id) FROM orders") == [(last // 2 + 1, last)]


@pytest.mark.parametrize("files", [False, True])
async def test_a_partition_that_is_handed_over_leaves_no_gaps(
    store: Store, tmp_path: Path, files: bool
) -> None:
    """Its next owner begins behind them, and cannot close them."""
    handed_over = anyio.Event()

    class Leaving(MemoryStream):
        async def run(self, intake: Intake) -> None:
            partition = intake.open(self.stream)
            await partition.send(self.bodies, offset=0)
            assert await partition.drain(10)
            handed_over.set()
            await anyio.sleep_forever()

    stream = Leaving(bodies(*range(100)))
    pipeline = pipeline_of(stream, handle=lambda m: m.drop() if m.offset % 2 else None)
    sink = FileSink(tmp_path, format="ndjson") if files else store.sink(columns=Order)
    pipeline.sink("load", sink, size=20, batch_timeout=0.01)
    async with pipeline.start():
        with anyio.fail_after(20):
            await handed_over.wait()
        reference = sink.record_reference("shop", "load")
        written = await anyio.to_thread.run_sync(sink.written, reference)
        assert {name: [*done] for name, done in (written or {}).items()} == {"orders": [(0, 98)]}


async def test_what_a_run_has_not_settled_is_no_gap(store: Store) -> None:
    """Behind a halt only what was written is done; before the start of the run likewise."""

    def handle(message: Message[Order]) -> None:
        if message.offset % 2:
            message.drop()
        elif message.offset == 60:
            raise OSError("no")

    stream = MemoryStream(bodies(*range(100)), slices=[100])
    stream.stored["orders"] = 9
    pipeline = pipeline_of(stream, handle=handle, on_failure=Halt())
    pipeline.sink("load", store.sink(columns=Order), size=5)
    with pytest.raises(Halted):
        await run(pipeline)
    assert stream.stored == {"orders": 59}
    (done,) = store.done().values()
    assert done.split(",")[0] == "10-58"
    assert "60" not in done
    written = {n for (n,) in store.ask("SELECT id FROM orders")}
    for n in range(60, 100):
        assert (n in written) == (n in DoneRanges(parsed(done)))


async def test_what_was_reset_while_it_ran_stays_forgotten(store: Store) -> None:
    stream = MemoryStream(bodies(*range(20)), endless=True)
    pipeline = pipeline_of(stream, handle=lambda m: m.drop() if m.offset % 2 else None)
    pipeline.sink("load", store.sink(columns=Order), size=5, batch_timeout=0.01)
    async with pipeline.start() as running:
        while sum(running.statistics().settled.values()) < 20:
            await anyio.sleep(0.01)
        store.ask("DELETE FROM flowstream_offsets")
    assert store.done() == {}


@pytest.mark.medium
@pytest.mark.parametrize("breaks", ["raises", "hangs"])
async def test_gaps_that_cannot_be_closed_do_not_hold_up_the_end(
    store: Store, breaks: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flowstream.connectors")
    sink = store.sink(columns=Order)
    connect, ends, over = sink.connect, threading.Event(), threading.Event()

    def breaking() -> Any:
        database = connect()
        begin = database.begin

        def begins() -> None:
            if ends.is_set() and breaks == "hangs":
                over.wait(30)
            elif ends.is_set():
                raise OSError("it is away")
            begin()

        database.begin = begins
        return database

    sink.connect = breaking  # type: ignore[method-assign]
    stream = MemoryStream(bodies(*range(40)), endless=True)
    pipeline = pipeline_of(stream, handle=lambda m: m.drop() if m.offset % 2 else None)
    pipeline.sink("load", sink, size=10, batch_timeout=0.01)
    try:
        async with pipeline.start() as running:
            while sum(running.statistics().settled.values()) < 40:
                await anyio.sleep(0.01)
            ends.set()
            since = anyio.current_time()
            running.stop()
        assert anyio.current_time() - since < 2.5
    finally:
        over.set()
    assert (store.count(), stream.stored) == (20, {"orders": 39})
    assert ("were not closed: OSError: it is away" in caplog.text) == (breaks == "raises")


async def test_what_was_skipped_by_a_reset_is_not_done(store: Store) -> None:
    stream = MemoryStream(bodies(*range(100)))
    for stored in (69, 9):
        stream.stored = {"orders": stored}
        pipeline = pipeline_of(stream)
        pipeline.sink("load", store.sink(columns=Order), size=10)
        await run(pipeline)
    assert [n for (n,) in store.ask("SELECT id FROM orders ORDER BY id")] == [*range(10, 100)]
    assert store.done() == {("shop/load", "orders"): "10-99"}


async def test_what_a_handler_settled_early_is_written(store: Store) -> None:
    def handle(message: Message[Order]) -> None:
        if message.offset < 10:
            message.settle()

    pipeline = pipeline_of(MemoryStream(bodies(*range(20))), handle=handle)
    # The first batch closes the gap over those below it, which wait in another batch.
    pipeline.sink(
        "load", store.sink(columns=Order), size=5, concurrency=4,
        partition_by=lambda message: message.offset >= 10,
    )  # fmt: skip
    assert (await run(pipeline)).settled == {"ok": 20}
    assert store.count() == 20


async def test_a_source_without_stored_offsets_is_written_at_least_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        pipeline = pipeline_of(IterableProducer(bodies(1, 2)))
        pipeline.sink("load", store.sink(columns=Order))
        assert (await run(pipeline)).settled == {"ok": 2}
    assert store.count() == 4
    assert "the source of iterable stores no offsets" in caplog.text


async def test_exactly_once_can_be_turned_off(store: Store) -> None:
    stream = MemoryStream(bodies(1, 2))
    for _ in range(2):
        stream.stored.clear()
        pipeline = pipeline_of(stream)
        pipeline.sink("load", store.sink(columns=Order, exactly_once=False))
        await run(pipeline)
    assert store.count() == 4
    assert store.done() == {}


class Timed(MemoryStream):
    """Its chunks have a time, as those of brokers have."""

    def __init__(self, data: list[bytes], timestamp: int) -> None:
        super().__init__(data)
        self.timestamp = timestamp

    async def run(self, intake: Any) -> None:
        stored = self.stored.get(self.stream)
        offset = 0 if stored is None else stored + 1
        partition = intake.open(self.stream, committed=stored)
        await partition.send(self.bodies[offset:], offset=offset, timestamp=self.timestamp)


async def test_a_stream_that_was_created_again_is_never_left_out(store: Store) -> None:
    pipeline = pipeline_of(Timed(bodies(*range(10)), 1_000))
    pipeline.sink("load", store.sink(columns=Order))
    await run(pipeline)
    again = Timed(bodies(*range(5)), 2_000)
    pipeline = pipeline_of(again, on_failure=Drop(), retry=Retry(attempts=3))
    pipeline.sink("load", store.sink(columns=Order))
    with pytest.raises(StreamReplaced, match=r"orders@0 is newer .* was deleted and created"):
        await run(pipeline)
    assert (store.count(), again.stored) == (10, {})
    store.ask("DELETE FROM flowstream_offsets WHERE reference = 'shop/load'")
    pipeline = pipeline_of(again)
    pipeline.sink("load", store.sink(columns=Order))
    await run(pipeline)
    assert store.count() == 15


@pytest.mark.medium
async def test_each_run_notices_a_stream_that_was_created_again(store: Store) -> None:
    """A restart must not take what the run before wrote of the new stream for the old one."""
    pipeline = pipeline_of(Timed(bodies(*range(10)), 1_000))
    pipeline.sink("load", store.sink(columns=Order))
    await run(pipeline)
    again = Timed(bodies(*range(100, 200)), 2_000)

    def slow_first(message: Message[Order]) -> None:
        if message.offset < 10 and message.attempt < 3:
            raise OSError("not yet")

    for _ in range(3):
        pipeline = pipeline_of(again, handle=slow_first, retry=Retry(3, Backoff(0.01)))
        pipeline.sink("load", store.sink(columns=Order), size=5, concurrency=3)
        with pytest.raises(StreamReplaced):
            await run(pipeline)
    assert store.ask("SELECT count(*) FROM orders WHERE id BETWEEN 100 AND 109") == [(0,)]
    assert again.stored == {}


async def test_tables_that_are_missing_are_reported_before_the_first_message(store: Store) -> None:
    async def refused(sink: Any) -> str:
        pipeline = pipeline_of(MemoryStream(bodies(1)))
        pipeline.sink("load", sink)
        with pytest.raises(ConfigurationError) as caught:
            await run(pipeline)
        return str(caught.value)

    text = await refused(store.sink(columns=Order, create=False))
    assert "flowstream_offsets" in text
    assert "create=True" in text
    store.ask("CREATE TABLE orders (id INTEGER)")
    for options in ({}, {"key": "id"}):
        text = await refused(store.sink(columns=Order, **options))
        assert "name" in text or "ON CONFLICT" in text


@pytest.mark.parametrize("key", ["nr", ("id", "nr")])
def test_a_key_is_among_the_columns(store: Store, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="'nr' is not a column; the columns are id, name"):
        store.sink(columns=Order, key=key)


async def test_names_may_be_anything(store: Store) -> None:
    columns = {'a "b"': int, "select": str, "Ä": bool}
    data = [json.dumps({'a "b"': 1, "select": "x", "Ä": True}).encode()]
    pipeline = Pipeline("shop", MemoryStream(data))

    @pipeline.processor
    async def process(message: Message[dict[str, Any]]) -> None: ...

    pipeline.sink("load", store.sink('t"1', columns=columns, key="select"))
    assert (await run(pipeline)).settled == {"ok": 1}
    assert store.ask('SELECT * FROM "t""1"') == [(1, "x", True)]


@pytest.mark.medium
async def test_a_batch_that_is_given_up_is_not_written_twice(store: Store) -> None:
    """Its thread goes on, and may still commit: the next attempt finds out."""
    sink = store.sink(columns=Order)
    gate, connect = threading.Event(), sink.connect

    def slow() -> Any:
        database = connect()
        commit = database.commit

        def wait() -> None:
            commit()
            if not gate.is_set():
                gate.set()
                threading.Event().wait(0.5)

        database.commit = wait
        return database

    sink.connect = slow  # type: ignore[method-assign]
    pipeline = pipeline_of(
        MemoryStream(bodies(*range(10))), retry=Retry(attempts=5, backoff=Backoff(0.01))
    )
    pipeline.sink("load", sink, size=10, timeout=0.2)
    assert (await run(pipeline)).settled == {"ok": 10}
    assert store.count() == 10


async def test_a_database_that_stays_away_fails_the_batch(store: Store) -> None:
    sink = store.sink(columns=Order, attempts=3, backoff=Backoff(0.01))
    connect, tries = sink.connect, []

    class Away(Exception):
        pass

    def broken() -> Any:
        database = connect()

        def begin() -> None:
            tries.append(1)
            raise Away

        database.begin = begin
        database.create_tables = database.check_tables = lambda **_: None
        database.lost = lambda error: isinstance(error, Away)
        return database

    sink.connect = broken  # type: ignore[method-assign]
    pipeline = pipeline_of(MemoryStream(bodies(1)), on_failure=Halt())
    pipeline.sink("load", sink)
    with pytest.raises(Exception, match=r"failed 3 times: Away") as caught:
        await run(pipeline)
    assert isinstance(caught.value.__cause__, SinkFailed)
    assert len(tries) == 3


@pytest.mark.both_backends
async def test_a_table_that_cannot_be_created_is_the_error_of_the_run(store: Store) -> None:
    pipeline = pipeline_of(MemoryStream(bodies(1)))
    pipeline.sink("load", store.sink("nowhere.orders", columns=Order), size=1)
    with pytest.raises(SinkFailed, match=r"cannot create the table 'nowhere\.orders' of .*nowhere"):
        await run(pipeline)


@pytest.mark.parametrize("path", [":memory:", "file::memory:?cache=shared", "file:rows.db"])
def test_a_database_in_memory_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SqliteSink > path=.*the path of a file"):
        SqliteSink(path, "orders", columns=Order)


async def test_nan_fails_instead_of_becoming_null(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    pipeline = Pipeline("shop", MemoryStream([b"1", b"nan", b"3"]), on_failure=Drop())

    @pipeline.processor
    async def ratio(message: Message[str]) -> dict[str, float]:
        return {"x": float(message.data)}

    pipeline.sink("load", store.sink(columns={"x": float}), size=3)
    result = await run(pipeline)
    assert result.settled == {"ok": 2, "discarded": 1}
    assert [reason.text for reason in result.reasons] == ["SQLite cannot store NaN"]
    assert store.ask("SELECT x FROM orders ORDER BY x") == [(1.0,), (3.0,)]


@pytest.mark.parametrize("kind", [int, bool, float])
async def test_nan_in_a_column_that_may_be_null_fails(tmp_path: Path, kind: type) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    pipeline = pipeline_of(MemoryStream(bodies(1, 2)))
    sink = store.sink(columns={"x": kind | None}, row=lambda it: {"x": 0 if it.offset else NAN})
    pipeline.sink("load", sink, size=3)
    assert (await run(pipeline)).settled == {"ok": 1, "discarded": 1}
    assert store.ask("SELECT x FROM orders") == [(0,)]


@pytest.mark.parametrize(("kind", "value"), [(str, b"x"), (str, ["a"]), (bytes, "x"), (bytes, 5)])
async def test_a_value_of_another_type_fails_instead_of_becoming_its_text(
    store: Store, kind: type, value: object
) -> None:
    pipeline = pipeline_of(MemoryStream(bodies(1, 2)))
    good: object = "x" if kind is str else b"x"
    sink = store.sink(columns={"x": kind}, row=lambda it: {"x": value if it.offset else good})
    pipeline.sink("load", sink, size=3)
    result = await run(pipeline)
    assert result.settled == {"ok": 1, "discarded": 1}
    assert "got an object of type" in result.reasons[0].text
    assert store.count() == 1


async def test_what_may_be_committed_is_left_to_the_next_run(store: Store) -> None:
    """The answer to a commit is lost, and the database is away for longer than the attempts."""
    stream = MemoryStream(bodies(*range(10)))
    sink = store.sink(columns=Order, attempts=3, backoff=Backoff(0.01))
    connect = sink.connect
    committed: list[bool] = []

    class Away(Exception):
        pass

    def breaking() -> Any:
        if committed:
            raise Away
        database = connect()
        commit, lost = database.commit, database.lost

        def commits() -> None:
            commit()
            if store.count():
                committed.append(True)
                database.in_doubt = True
                raise Away

        database.commit, database.lost = commits, lambda it: isinstance(it, Away) or lost(it)
        return database

    sink.connect = breaking  # type: ignore[method-assign]
    pipeline = pipeline_of(stream, on_failure=Drop(), retry=Retry(2, Backoff(0.01)))
    pipeline.sink("load", sink, size=10)
    with pytest.raises(OutcomeUnknown, match="may have been committed"):
        await run(pipeline)
    assert (store.count(), stream.stored) == (10, {})
    pipeline = pipeline_of(stream)
    pipeline.sink("load", store.sink(columns=Order))
    assert (await run(pipeline)).settled == {"ok": 10}
    assert store.count() == 10
