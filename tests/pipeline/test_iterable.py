"""A source that fails fails the run: what it gave goes through once, and nothing is repeated."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import anyio
import pytest

from flowstream.errors import ConfigurationError, Halted, SourceFailed
from flowstream.pipeline import (
    Drop,
    IterableProducer,
    Message,
    Pipeline,
    Producer,
)
from tests.support.pipelines import Recorder, n_of
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


async def test_a_source_that_raises_generator_exit_does_not_close_the_run() -> None:
    """Raised in the run's own coroutine it would mean that the event loop closes it."""
    pipeline, seen = over(mapped(GeneratorExit("no more")))
    with pytest.raises(SourceFailed, match="GeneratorExit: no more"):
        await pipeline.run()
    assert seen == list(range(AT))


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


class Rows:
    """A cursor whose `iter` is a new generator each time, as SQLAlchemy's results have it."""

    def __init__(self, count: int) -> None:
        self._rows = iter(range(count))

    def fetchone(self) -> int | None:
        return next(self._rows, None)

    def __iter__(self) -> Iterator[int]:
        while (row := self.fetchone()) is not None:
            yield row


@pytest.mark.parametrize("kind", ["rows", "temporary file"])
async def test_a_run_that_is_stopped_leaves_the_rest_of_a_cursor_or_file_to_the_next_one(
    kind: str,
) -> None:
    with NamedTemporaryFile() as file:
        file.writelines(b"%d\n" % number for number in range(200))
        file.seek(0)
        producer = IterableProducer(Rows(200) if kind == "rows" else file)
        pipeline = Pipeline("test", producer, max_in_flight=7)
        seen: list[int] = []

        @pipeline.processor
        async def handle(message: Message[Any]) -> None:
            seen.append(int(message.data))
            if seen[-1] in (50, 150):
                assert pipeline.running is not None
                pipeline.running.stop()

        for _ in range(3):
            await pipeline.run()
    assert seen == list(range(200))


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
    with pytest.raises(ConfigurationError, match="cannot continue in another run"):
        await pipeline.run()
    assert seen == [0]


@pytest.mark.parametrize("wrong", [None, 5, generator, async_generator, "text", b"bytes"])
def test_what_is_no_iterable_is_refused_where_it_is_declared(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"IterableProducer > iterable=.*: expected a li"):
        IterableProducer(wrong)


@pytest.mark.parametrize("size", [0, 2.5, "7", True, float("nan"), None])
def test_a_slice_size_is_a_whole_number(size: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"IterableProducer > slice_size=.*: expected a wh"
    ):
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
    assert "if the source starts again with the same offsets, discard this message" in told
    assert "messages of 'iterable' are not settled. The source has no offsets" in caplog.text


@pytest.mark.parametrize(
    "items",
    [lambda: ["a", "b"], lambda: [b"a", b"b"], lambda: iter(["a", "b"]), lambda: (c for c in "ab")],
)
async def test_iterables_of_text_are_decoded(items):
    got = []
    pipeline = Pipeline("test", IterableProducer(items()))

    @pipeline.processor
    async def handle(message: Message[str]) -> None:
        got.append(message.data)

    result = await pipeline.run()
    assert got == ["a", "b"]
    assert (result.reason, result.committed) == ("ended", {})


async def test_iterables_of_objects_are_the_data():
    got = []

    async def items():
        for n in range(3):
            yield {"n": n}

    for source in (items(), [{"n": 0}, {"n": 1}, b'{"n": 2}']):
        pipeline = Pipeline("test", IterableProducer(source))

        @pipeline.processor
        async def handle(message: Message[dict]) -> None:
            got.append(n_of(message))

        await pipeline.run()
    assert got == [0, 1, 2, 0, 1, 2]
