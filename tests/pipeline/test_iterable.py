"""A source that fails fails the run: what it gave goes through once, and nothing is repeated."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream.errors import ConfigurationError, ConnectionFailed, Halted, SourceFailed
from flowstream.pipeline import Drop, Intake, IterableProducer, Message, Pipeline, Producer
from tests.pipeline.test_callbacks import nothing
from tests.support.pipelines import MemoryStream, Recorder, numbers
from tests.test_texts import hostile

pytestmark = pytest.mark.anyio
COUNT, AT = 250, 230


def over(iterable: Any, **options: Any) -> tuple[Pipeline, list[Any]]:
    """A pipeline over an iterable, and what it has handled."""
    options = {"slice_size": 100} | options
    producer = iterable if isinstance(iterable, Producer) else IterableProducer(iterable, **options)
    pipeline = Pipeline("test", producer)
    seen: list[Any] = []

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        seen.append(message.data)

    return pipeline, seen


async def result_of(pipeline: Pipeline) -> Any:
    with anyio.fail_after(100):
        async with pipeline.start() as running:
            return await running.wait()


def generator(error: BaseException) -> Iterator[int]:
    for n in range(COUNT):
        if n == AT:
            raise error
        yield n


async def async_generator(error: BaseException) -> AsyncIterator[int]:
    for n in generator(error):
        yield n


def mapped(error: BaseException) -> Iterator[int]:
    def each(n: int) -> int:
        if n == AT:
            raise error
        return n

    return map(each, range(COUNT))


class Again:
    """Can be iterated again, and raises each time."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[int]:
        return generator(self.error)


class ListLike:
    """A sequence by its items."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> int:
        if index == AT:
            raise self.error
        return index


class AsyncAgain:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __aiter__(self) -> AsyncIterator[int]:
        return async_generator(self.error)


SOURCES: list[Callable[[BaseException], Any]] = [
    generator, async_generator, mapped, Again, ListLike, AsyncAgain,
]  # fmt: skip


@pytest.mark.parametrize("kind", [ValueError, SystemExit, hostile])
@pytest.mark.parametrize("source", SOURCES, ids=[source.__name__ for source in SOURCES])
async def test_what_was_read_goes_through_once_and_the_run_fails(
    source: Any, kind: Callable[[], BaseException]
) -> None:
    recorder, error = Recorder(), kind()
    pipeline, seen = over(source(error))
    with pytest.raises(SourceFailed, match="IterableProducer failed after 230 messages") as caught:
        await pipeline.run(telemetry=recorder.telemetry)
    assert seen == list(range(AT))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("source", SOURCES, ids=[source.__name__ for source in SOURCES])
async def test_a_source_in_a_thread_fails_the_same_way(source: Any, threads: None) -> None:
    pipeline, seen = over(source(ValueError("x")), threaded=True)
    result = await result_of(pipeline)
    assert isinstance(result.error, SourceFailed)
    assert result.reason == "failed"
    assert result.settled == {"ok": AT}
    assert seen == list(range(AT))


class NoIterator:
    def __iter__(self) -> Any:
        raise ValueError("closed")


class NoAsyncIterator:
    def __aiter__(self) -> Any:
        raise ValueError("closed")


@pytest.mark.parametrize("source", [NoIterator(), NoAsyncIterator()])
async def test_what_cannot_even_be_iterated_fails_the_run(source: Any) -> None:
    pipeline, seen = over(source)
    with pytest.raises(SourceFailed, match="failed after 0 messages: ValueError: closed"):
        await pipeline.run()
    assert seen == []


async def test_a_file_that_is_no_text_and_a_cursor_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"".join(b"%d\n" % n for n in range(2000)) + b"\xff\n" * 2000)
    with file.open(encoding="utf-8") as lines:
        pipeline, seen = over(lines)
        with pytest.raises(SourceFailed, match="UnicodeDecodeError"):
            await pipeline.run()
    assert seen == [b"%d\n" % n for n in range(len(seen))]
    database = sqlite3.connect(":memory:")
    query = "with n(i) as (select 0 union all select i + 1 from n where i < 250) select abs(case when i = 230 then -9223372036854775808 else i end) from n"  # noqa: E501
    pipeline, seen = over(database.execute(query))
    with pytest.raises(SourceFailed, match="integer overflow"):
        await pipeline.run()
    assert seen == [(n,) for n in range(AT - 1)]  # sqlite reads a row ahead
    database.close()


@pytest.mark.parametrize("payload", [str, dict])
async def test_text_that_has_no_utf8_fails_alone(payload: type) -> None:
    items = ['{"a": "a"}', '{"a": "\ud800"}', '{"a": "b"}']
    pipeline = Pipeline("test", IterableProducer(items), on_failure=Drop())

    @pipeline.processor()
    async def handle(message: Message[payload]) -> None: ...  # type: ignore[valid-type]

    assert (await pipeline.run()).settled == {"ok": 2, "discarded": 1}


@pytest.mark.parametrize("kind", ["iterator", "async"])
async def test_a_run_that_is_stopped_leaves_the_rest_of_an_iterator_to_the_next_one(
    kind: str,
) -> None:
    items: Any = generator(ValueError("x")) if kind == "iterator" else async_generator(ValueError())
    producer = IterableProducer(items)
    pipeline = Pipeline("test", producer, max_in_flight=7)
    seen: list[int] = []

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        seen.append(message.data)
        if message.data in (50, 150):
            assert pipeline.running is not None
            pipeline.running.stop()

    for _ in range(2):
        assert (await result_of(pipeline)).error is None
    assert len(seen) < AT
    with pytest.raises(SourceFailed):
        await pipeline.run()
    assert seen == list(range(AT))


async def test_what_can_be_iterated_again_begins_anew_in_each_run() -> None:
    pipeline, seen = over(list(range(10)))
    await pipeline.run()
    await pipeline.run()
    assert seen == [*range(10), *range(10)]


async def test_a_read_in_a_thread_that_a_stop_left_behind_is_kept(threads: None) -> None:
    release = threading.Event()

    def slow() -> Iterator[int]:
        yield from range(5)
        release.wait(20)
        yield from range(5, 10)

    pipeline, seen = over(slow(), threaded=True, slice_size=5)
    async with pipeline.start() as running:
        await anyio.sleep(0.5)
        running.stop()
        await running.wait()
    release.set()
    with anyio.fail_after(1000):
        while len(pipeline.producer._reading.unsent) < 5:  # type: ignore[attr-defined]
            await anyio.sleep(0.1)
    await pipeline.run()
    assert seen == list(range(10))


async def test_how_a_read_ends_that_a_stop_left_behind_in_a_thread_is_not_forgotten(
    threads: None,
) -> None:
    release = threading.Event()

    def slow() -> Iterator[int]:
        yield from range(5)
        release.wait(20)
        yield 5
        raise OSError("the connection was lost")

    pipeline, seen = over(slow(), threaded=True, slice_size=5)
    async with pipeline.start() as running:
        await anyio.sleep(0.5)
        running.stop()
        await running.wait()
    threading.Timer(0.05, release.set).start()  # the next run begins while the thread still reads
    with pytest.raises(SourceFailed, match="after 1 message: OSError: the connection was lost"):
        await pipeline.run()
    assert seen == list(range(6))


async def test_an_async_generator_that_a_stop_has_ended_is_no_source_that_has_ended() -> None:
    async def slow() -> AsyncIterator[int]:
        yield 0
        await anyio.sleep(100)
        yield 1

    pipeline, seen = over(slow())
    async with pipeline.start() as running:
        await anyio.sleep(1)
        running.stop()
        assert (await running.wait()).error is None
    with pytest.raises(ConfigurationError, match="cannot go on in another run"):
        await pipeline.run()
    assert seen == [0]


@pytest.mark.parametrize("wrong", [None, 5, generator, async_generator, "text", b"bytes"])
def test_what_is_no_iterable_is_refused_where_it_is_declared(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="IterableProducer > iterable: expected a list"):
        IterableProducer(wrong)


@pytest.mark.parametrize("size", [0, 2.5, "7", True, float("nan"), None])
def test_a_slice_size_is_a_whole_number(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="IterableProducer > slice_size: expected a whole"):
        IterableProducer([1], slice_size=size)


async def test_what_is_lost_with_a_source_that_has_no_offsets_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = Pipeline("test", IterableProducer(iter(range(10)), slice_size=5))

    @pipeline.processor
    async def handle(message: Message[Any]) -> None:
        if message.data == 7:
            raise ValueError("x")

    with caplog.at_level(logging.ERROR, "flowstream"), pytest.raises(Halted) as caught:
        await pipeline.run()
    told = str(caught.value)
    assert "Offsets of iterable are not stored: the next run gets this message only if" in told
    assert "if the source begins anew with the same offsets, discard this message" in told
    assert "messages of 'iterable' are not settled; it has no offsets" in caplog.text


class HandsOver(Producer):
    """Hands its stream over while the message at offset 3 does not settle."""

    async def run(self, intake: Intake) -> None:
        partition = intake.open("orders")
        await partition.send(numbers(20))
        assert not await partition.drain(2)
        await anyio.sleep_forever()


async def test_a_hand_over_that_runs_out_of_time_says_how_many_come_again_and_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pipeline = Pipeline("test", HandsOver(), drain_timeout=1)

    @pipeline.processor(concurrency=2, max_demand=1)
    async def handle(message: Message[Any]) -> None:
        if message.offset == 3:
            await anyio.sleep_forever()

    with caplog.at_level(logging.WARNING, "flowstream"):
        async with pipeline.start() as running:
            await anyio.sleep(5)
            running.stop()
            await running.wait()
    text = next(r.getMessage() for r in caplog.records if "handed over" in r.getMessage())
    assert "orders is handed over with 1 messages that are not settled (after 2 s" in text
    assert "in handlers: processor" in text
    assert "The next owner gets 17 messages again: all from offset 3 on" in text


# -- producers of users


class Lines(Producer):
    """Ten numbers, five at a time; fails in front of the second five, `failures` times."""

    def __init__(self, failures: int, error: BaseException | None = None) -> None:
        self.failures = failures
        self.error = error or OSError("gone")
        self.runs = 0
        self.stored: list[int] = []

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        partition = intake.open("lines")
        for first in (0, 5):
            if first and self.failures:
                self.failures -= 1
                raise self.error
            await partition.send(numbers(10)[first : first + 5], offset=first)

    async def commit(self, stream: str, offset: int) -> None:
        self.stored.append(offset)


class Resuming(Lines):
    """The same, and it goes on where it was."""

    resumable = True

    async def run(self, intake: Intake) -> None:
        self.runs += 1
        partition = intake.open("lines")
        while partition.next < 10:
            if partition.next and self.failures:
                self.failures -= 1
                raise self.error
            await partition.send(numbers(10)[partition.next : partition.next + 5])


@pytest.mark.parametrize("error", [OSError("gone"), ExceptionGroup("g", [OSError("gone")]),
                                   BaseExceptionGroup("g", [SystemExit(1)])])  # fmt: skip
async def test_a_producer_of_the_users_that_fails_is_not_run_again(error: BaseException) -> None:
    producer = Lines(1, error)
    pipeline, seen = over(producer)
    with pytest.raises(SourceFailed, match="Lines failed after 5 messages") as caught:
        await pipeline.run()
    assert caught.value.__cause__ is error
    assert (producer.runs, len(seen), producer.stored[-1]) == (1, 5, 4)


async def test_a_producer_that_can_resume_is_run_again_and_goes_on_behind_what_it_sent() -> None:
    producer = Resuming(3)
    pipeline, seen = over(producer)
    result = await result_of(pipeline)
    assert result.error is None
    assert result.settled == {"ok": 10}
    assert seen == numbers(10)
    assert producer.stored[-1] == 9


async def test_a_producer_that_can_resume_fails_the_run_in_the_end() -> None:
    producer = Resuming(50)
    pipeline, seen = over(producer)
    with pytest.raises(SourceFailed, match="OSError: gone"):
        await pipeline.run()
    assert producer.runs == 4
    assert seen == numbers(5)
    assert producer.stored[-1] == 4


async def test_a_producer_that_says_it_resumes_and_repeats_is_refused() -> None:
    class Repeating(Lines):
        resumable = True

    pipeline, seen = over(Repeating(1))
    with pytest.raises(ConfigurationError, match="offset 0 was delivered before"):
        await pipeline.run()
    assert seen == numbers(5)


async def test_what_a_lane_cannot_take_is_refused_instead_of_taken_for_something_else() -> None:
    class Sends(Producer):
        def __init__(self, bodies: Any, **options: Any) -> None:
            self.bodies, self.options = bodies, options

        async def run(self, intake: Intake) -> None:
            await intake.open("lines").send(self.bodies, **self.options)

    for producer, told in (
        (Sends(b"line"), r"send takes a list of bodies, got b'line'"),
        (Sends("line"), r"send takes a list of bodies, got 'line'"),
        (Sends(None), r"send takes a list of bodies, got None"),
        (Sends(n for n in [b"1"]), r"send takes a list of bodies, got <generator"),
        (Sends([b"1", b"2"], offsets=[5]), r"2 bodies were sent with 1 offsets"),
        (Sends([b"1", b"2"], offsets=[]), r"2 bodies were sent with 0 offsets"),
        (Sends([b"1", b"2"], offsets=[5, 5]), r"offsets must ascend, got \[5, 5\]"),
        (Sends([b"1", b"2"], offsets=[6, 5]), r"offsets must ascend, got \[6, 5\]"),
    ):
        pipeline, seen = over(producer)
        with pytest.raises(ConfigurationError, match=f"partition 'lines': {told}"):
            await pipeline.run()
        assert seen == []


async def test_offsets_go_on_behind_the_committed_one_where_none_is_given() -> None:
    class GoesOn(Lines):
        async def run(self, intake: Intake) -> None:
            partition = intake.open("lines", committed=41)
            await partition.send(numbers(5))
            await partition.send(numbers(5))

    producer = GoesOn(0)
    pipeline, _ = over(producer)
    assert (await pipeline.run()).committed == {"lines": 51}
    assert producer.stored[-1] == 51


async def test_an_error_of_flowstream_ends_the_run_as_it_is() -> None:
    for error in (ConnectionFailed("x"), ExceptionGroup("g", [ConnectionFailed("x")])):
        pipeline, _ = over(Resuming(1, error))
        with pytest.raises(ConnectionFailed):
            await pipeline.run()


async def test_endless_sources_end_by_a_stop_alone() -> None:
    pipeline, seen = over(itertools.count())
    async with pipeline.start() as running:
        await anyio.sleep(0)
        running.stop()
        assert (await running.wait()).error is None
    assert seen == list(range(len(seen)))
    pipeline = Pipeline("test", MemoryStream(numbers(3)))
    pipeline.processor(nothing)
    assert (await pipeline.run()).settled == {"ok": 3}
