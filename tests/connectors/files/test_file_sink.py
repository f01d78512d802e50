"""FileSink in pipelines: every batch is whole, whatever fails, and each message is there once."""

from __future__ import annotations

import json
import os
import random
import re
import threading
import uuid
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel, field_serializer

from flowstream import (
    Backoff,
    Drop,
    FileSink,
    IterableProducer,
    Message,
    Pipeline,
    RateLimit,
    Retry,
)
from flowstream.connectors import complete_files as complete_files_of
from flowstream.connectors.done_ranges import DoneRanges
from flowstream.connectors.files import file_sink
from flowstream.connectors.files.reading import written
from flowstream.connectors.files.stores import LocalStore
from flowstream.errors import (
    ConfigurationError,
    DrainTimeout,
    NotSupported,
    OutcomeUnknown,
    StreamReplaced,
)
from flowstream.pipeline import Failure, Intake, Producer
from tests.support.callbacks import nothing
from tests.support.pipelines import MemoryStream, numbers
from tests.support.stores import MemoryStore, complete, litter
from tests.test_texts import hostile

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    id: int
    region: str


def pipeline_of(producer: Producer, sink: FileSink, **options: Any) -> Pipeline:
    pipeline = Pipeline("filed", producer, on_failure=options.pop("on_failure", Drop()))
    pipeline.sink("files", sink, **{"size": 10, "batch_timeout": 0.05} | options)
    return pipeline


async def complete_files(*arguments: Any, **options: Any) -> list[str]:
    """It blocks, as readers of files do."""
    return await anyio.to_thread.run_sync(partial(complete_files_of, *arguments, **options))


async def rows(directory: Path, **options: Any) -> list[Any]:
    """The rows of all complete files."""

    def read() -> list[Any]:
        files = complete_files_of(directory, **options)
        return [json.loads(line) for file in files for line in Path(file).read_text().splitlines()]

    return await anyio.to_thread.run_sync(read)


def rows_in(files: dict[str, bytes]) -> list[int]:
    """The numbers in the complete files of a store in memory."""
    return [json.loads(line)["n"] for path in complete(files) for line in files[path].splitlines()]


async def test_a_batch_is_a_file_of_its_stream(tmp_path: Path) -> None:
    stream = MemoryStream(numbers(25))
    result = await pipeline_of(stream, FileSink(tmp_path, format="ndjson")).run()
    assert result.settled == {"ok": 25}
    files = await complete_files(tmp_path, reference="filed", stream="orders")
    assert await rows(tmp_path) == [{"n": n} for n in range(25)]
    names = [re.sub(r"-\w{13}\.", "-TOKEN.", Path(file).name) for file in files]
    assert names == [
        "orders-000000000000-000000000009-000000000-TOKEN.ndjson",
        "orders-000000000010-000000000019-000000001-TOKEN.ndjson",
        "orders-000000000020-000000000024-000000002-TOKEN.ndjson",
    ]
    assert await complete_files(tmp_path, stream="other") == []
    assert await complete_files(tmp_path / "no") == []


async def test_what_comes_again_is_left_out_in_whatever_batches(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "flowstream.connectors")
    sink = FileSink(tmp_path, format="ndjson")
    await pipeline_of(MemoryStream(numbers(25)), sink).run()
    again = MemoryStream(numbers(40))
    result = await pipeline_of(again, sink, size=7, concurrency=3).run()
    assert result.settled == {"ok": 40}
    assert sorted(row["n"] for row in await rows(tmp_path)) == [*range(40)]
    assert "skipped 7 messages of orders that are already in complete files" in caplog.text


@pytest.mark.medium
@pytest.mark.parametrize("breaks", [None, "raises", "hangs"])
async def test_a_run_that_ends_leaves_no_gaps(
    tmp_path: Path, breaks: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of messages that were dropped, where more wait. It does not wait long for that."""
    stream = MemoryStream(numbers(9000), slices=[100])
    create, ends, over = LocalStore.create, threading.Event(), threading.Event()

    def breaking(self: LocalStore, *arguments: Any) -> None:
        if ends.is_set() and breaks == "raises":
            raise OSError("it is away")
        if ends.is_set() and breaks == "hangs":
            over.wait(30)
        create(self, *arguments)

    monkeypatch.setattr(LocalStore, "create", breaking)
    finish = file_sink._Writer.finish

    async def finishing(self: Any, settled: Any) -> None:
        ends.set()
        await finish(self, settled)
        ends.clear()

    monkeypatch.setattr(file_sink._Writer, "finish", finishing)
    taken: list[int] = []
    for number in (1, 2, 3):
        pipeline = Pipeline("filed", stream, max_in_flight=200, rate_limit=RateLimit(2000))
        pipeline.sink("files", FileSink(tmp_path, format="ndjson"), size=20, batch_timeout=0.05)

        @pipeline.processor
        async def handle(message: Message[dict[str, int]]) -> None:
            taken.append(message.offset)
            if message.offset % 2:
                message.drop()

        async with pipeline.start() as running:
            while running.statistics().settled.get("ok", 0) < 200:
                await anyio.sleep(0.01)
            since = anyio.current_time()
            running.stop()
        assert anyio.current_time() - since < 4
        found = await anyio.to_thread.run_sync(written, LocalStore(str(tmp_path)), "filed")
        assert found is not None
        if breaks is None:
            assert len(found["orders"]) <= number
        assert found["orders"].last <= stream.stored["orders"]
    over.set()
    found_rows = sorted(row["n"] for row in await rows(tmp_path))
    assert found_rows == [n for n in range(max(taken) + 1) if n % 2 == 0]


async def test_of_an_iterable_each_run_is_written_anew(tmp_path: Path) -> None:
    for _ in range(2):
        sink = FileSink(tmp_path, format="ndjson")
        await pipeline_of(IterableProducer(numbers(12)), sink).run()
    assert sorted(row["n"] for row in await rows(tmp_path)) == sorted([*range(12)] * 2)


class Forgetful(MemoryStream):
    """A producer that stores no offset, and so begins anew."""

    commit = Producer.commit  # type: ignore[assignment]


async def test_of_a_producer_that_stores_no_offsets_each_run_is_written_anew(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        sink = FileSink(tmp_path, format="ndjson")
        with suppress(Exception):
            await pipeline_of(Forgetful(numbers(3)), sink).run()
    assert sorted(row["n"] for row in await rows(tmp_path)) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("by", ["region", lambda m: {"region": m.data.region}])
async def test_partitions_are_folders_and_what_has_none_fails_alone(
    tmp_path: Path, by: Any
) -> None:
    orders = [b'{"id": %d, "region": "r%d"}' % (n, n % 3) for n in range(20)]
    orders[4] = b'{"id": 4, "region": ""}'
    orders[5] = b'{"id": 5, "region": "../../up"}'
    failures: list[Failure] = []
    sink = FileSink(tmp_path / "files", format="ndjson", partition_by=by)
    pipeline = pipeline_of(MemoryStream(orders), sink)

    @pipeline.processor
    async def handle(message: Message[Order]) -> None: ...

    @pipeline.on_failed
    async def failed(failure: Failure) -> None:
        failures.append(failure)

    result = await pipeline.run()
    assert result.settled == {"ok": 19, "discarded": 1}
    assert [(f.message.offset, f.phase, f.attempts) for f in failures] == [(4, "sink", 1)]
    found = {Path(file).parent.name for file in await complete_files(tmp_path / "files")}
    assert found == {"region=r0", "region=r1", "region=r2", "region=..%2F..%2Fup"}
    assert await anyio.to_thread.run_sync(os.listdir, tmp_path) == ["files"]
    assert len(await rows(tmp_path / "files")) == 19


def refuse_five(n: int) -> int:
    if n == 5:
        raise SystemExit(hostile())
    return n


class Number(BaseModel):
    n: int


class Serialized(Number):
    @field_serializer("n")
    def _serialized(self, n: int) -> int:
        return refuse_five(n)


@pytest.mark.parametrize("where", ["partition_by", "serializer"])
async def test_whatever_users_functions_raise_only_their_message_fails(
    tmp_path: Path, where: str
) -> None:
    by = None if where == "serializer" else lambda message: {"n": refuse_five(message.data.n)}
    sink = FileSink(tmp_path / "files", format="ndjson", partition_by=by)
    pipeline = pipeline_of(MemoryStream(numbers(20)), sink)

    @pipeline.processor
    async def handle(message: Message[Number]) -> Number | None:
        return Serialized(n=message.data.n) if where == "serializer" else None

    result = await pipeline.run()
    assert result.settled == {"ok": 19, "discarded": 1}
    (reason,) = result.reasons
    assert reason.error in ("SystemExit", "PydanticSerializationError")


@pytest.mark.medium
async def test_a_thread_that_hangs_is_given_up_and_each_message_is_there_once(
    tmp_path: Path,
) -> None:
    """It goes on later, while the next attempt writes, or after it."""
    hangs, released = threading.Event(), threading.Event()

    def by(message: Message[dict]) -> dict[str, int]:
        if message.data["n"] == 5 and not hangs.is_set():
            hangs.set()
            released.wait(10)
        return {"n": message.data["n"] % 2}

    sink = FileSink(tmp_path / "files", format="ndjson", partition_by=by)
    # On a busy machine other attempts may run out of time, too.
    pipeline = Pipeline("filed", MemoryStream(numbers(20)), retry=Retry(100))
    pipeline.sink("files", sink, size=10, batch_timeout=0.05, timeout=0.2)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        if message.offset == 19:  # the first attempt has failed by then, and the second is on
            await anyio.sleep(0.3)
            released.set()

    with anyio.fail_after(30):
        result = await pipeline.run()
    assert result.settled == {"ok": 20}
    assert sorted(row["n"] for row in await rows(tmp_path / "files")) == [*range(20)]


@pytest.mark.medium
async def test_a_drain_does_not_wait_for_a_thread_that_hangs(tmp_path: Path) -> None:
    hangs, released = threading.Event(), threading.Event()

    def by(message: Message[dict]) -> dict[str, int]:
        hangs.set()
        released.wait(10)
        return {"n": 0}

    sink = FileSink(tmp_path / "files", format="ndjson", partition_by=by)
    pipeline = Pipeline("filed", MemoryStream(numbers(5)), drain_timeout=0.2)
    pipeline.processor(nothing)
    pipeline.sink("files", sink, size=5)
    with anyio.fail_after(5):
        async with pipeline.start() as running:
            await anyio.to_thread.run_sync(hangs.wait)
            running.stop()
            result = await running.wait()
    assert isinstance(result.error, DrainTimeout)
    released.set()


@pytest.mark.medium
async def test_parquet_is_read_by_pyarrow_with_its_partitions(tmp_path: Path) -> None:
    reason = "pyarrow is not installed: the extra parquet"
    dataset = pytest.importorskip("pyarrow.dataset", reason=reason).dataset
    orders = [b'{"id": %d, "region": "r%d"}' % (n, n % 3) for n in range(50)]
    orders[7] = b"no order"
    pipeline = pipeline_of(
        MemoryStream(orders), FileSink(tmp_path, partition_by="region", origin=True)
    )

    @pipeline.processor
    async def handle(message: Message[Order]) -> None: ...

    assert (await pipeline.run()).settled == {"ok": 49, "discarded": 1}
    for files in (await complete_files(tmp_path), tmp_path):
        read = partial(dataset, files, partitioning="hive")
        table = (await anyio.to_thread.run_sync(read)).to_table()
        assert {field.name: str(field.type) for field in table.schema} == {
            "id": "int64", "region": "string", "_stream": "string", "_offset": "int64",
        }  # fmt: skip
        assert sorted(table.column("_offset").to_pylist()) == [n for n in range(50) if n != 7]
        assert all(row["region"] == f"r{row['id'] % 3}" for row in table.to_pylist())


async def test_a_file_system_of_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: the extra files")
    url = f"memory://{uuid.uuid4().hex}"
    for count in (25, 40):
        sink = FileSink(url, format="ndjson", partition_by=lambda m: {"block": m.offset // 20})
        await pipeline_of(MemoryStream(numbers(count)), sink, size=7).run()
    files = await complete_files(url)
    assert all(file.startswith(f"{url[:9]}") and "/block=" in file for file in files)
    lines = [json.loads(line) for file in fsspec.open_files(files) for line in file.open()]
    assert sorted(line["n"] for line in lines) == [*range(40)]


async def test_two_sinks_of_one_directory_need_references_of_their_own(tmp_path: Path) -> None:
    pipeline = Pipeline("filed", MemoryStream(numbers(4)))

    @pipeline.processor
    async def route(message: Message[dict]) -> None:
        message.to("one", "two")

    pipeline.sink("one", FileSink(tmp_path, format="ndjson"), batch_timeout=0.05)
    same = FileSink(f"file://{tmp_path}/there/..", format="ndjson")
    pipeline.sink("two", same, batch_timeout=0.05)
    with pytest.raises(ConfigurationError, match=r"'one' records .* in the same place"):
        await pipeline.run()

    pipeline = Pipeline("filed", MemoryStream(numbers(4)))
    pipeline.processor(route)
    pipeline.sink("one", FileSink(tmp_path, format="ndjson"), batch_timeout=0.05)
    other = FileSink(tmp_path, format="ndjson", reference="other")
    pipeline.sink("two", other, batch_timeout=0.05)
    assert (await pipeline.run()).settled == {"ok": 4}
    assert len(await rows(tmp_path, reference="other")) == 4
    assert len(await rows(tmp_path)) == 8


class Newer(MemoryStream):
    """A stream that was created again: its messages have the same offsets, and are newer."""

    time = 1000

    async def run(self, intake: Intake) -> None:
        partition = intake.open(self.stream)
        await partition.send(self.bodies, offset=0, timestamp=self.time)


async def test_a_stream_that_was_created_again_ends_the_run(tmp_path: Path) -> None:
    stream = Newer(numbers(5))
    await pipeline_of(stream, FileSink(tmp_path, format="ndjson")).run()
    stream = Newer(numbers(3))
    stream.time = 2000
    with pytest.raises(StreamReplaced, match="Give FileSink another reference= or directory"):
        await pipeline_of(stream, FileSink(tmp_path, format="ndjson")).run()
    assert stream.commits == []


@pytest.mark.medium
async def test_each_run_notices_a_stream_that_was_created_again(tmp_path: Path) -> None:
    """A restart must not take what the run before wrote of the new stream for the old one."""
    await pipeline_of(Newer(numbers(10)), FileSink(tmp_path, format="ndjson")).run()
    stream = Newer(numbers(100))
    stream.time = 2000
    for _ in range(3):
        sink = FileSink(tmp_path, format="ndjson", origin=True)
        pipeline = Pipeline("filed", stream, retry=Retry(attempts=3, backoff=Backoff(0.01)))

        @pipeline.processor
        async def slow_first(message: Message[dict[str, int]]) -> None:
            if message.offset < 10 and message.attempt < 3:
                raise OSError("not yet")

        pipeline.sink("files", sink, size=5, batch_timeout=0.05, concurrency=3)
        with pytest.raises(StreamReplaced):
            await pipeline.run()
    assert stream.commits == []
    assert all(row.get("_offset", 10) >= 10 for row in await rows(tmp_path))


@pytest.mark.medium
@pytest.mark.parametrize("seed", range(8))
async def test_whatever_fails_and_is_cut_in_whatever_way_each_message_is_there_once(
    seed: int,
) -> None:
    """Runs that end at any effect, with other batches and workers, and offsets that were lost."""
    chance = random.Random(seed)
    count, files = chance.randint(1, 150), dict[str, bytes]()
    dropped = {n for n in range(count) if chance.random() < 0.2}
    stream = MemoryStream(numbers(count), slices=[chance.randint(1, 50) for _ in range(5)])
    committed: list[int | None] = [None]
    found: list[int] = []
    for number in range(4):
        store = MemoryStore(files)
        stop = chance.randint(0, 60) if number < 3 else 10**6
        after = chance.random() < 0.5

        def fail(effect: int, done: bool, stop: int = stop, after: bool = after) -> None:
            if effect > stop or (effect == stop and done == after):
                raise OSError("the disk is gone")

        store.on_effect = fail
        if (stored := chance.choice(committed)) is None:
            stream.stored.pop("orders", None)
        else:
            stream.stored["orders"] = stored
        with suppress(Exception) if number < 3 else nullcontext(), anyio.fail_after(60):
            await run_once(stream, store, chance, dropped)
        committed.append(stream.stored.get("orders"))
        found = rows_in(files)
        assert len(found) == len({*found})
    assert sorted(found) == [n for n in range(count) if n not in dropped]
    assert {path for path in litter(files) if "/_probe/" not in path} == set()


async def run_once(
    stream: MemoryStream, store: MemoryStore, chance: random.Random, dropped: set[int]
) -> None:
    pipeline = Pipeline("filed", stream, commit_every=chance.randint(1, 50), max_in_flight=60)

    @pipeline.processor(concurrency=chance.randint(1, 3))
    async def some(message: Message[dict]) -> None:
        if message.offset in dropped:
            message.drop()

    sink = FileSink("/nowhere", format="ndjson", partition_by=lambda m: {"p": m.data["n"] % 2})
    size, workers = chance.randint(1, 40), chance.randint(1, 3)
    pipeline.sink("files", sink, size=size, concurrency=workers, batch_timeout=0.01)
    patch = pytest.MonkeyPatch()
    patch.setattr(file_sink, "open_store", lambda directory: store)
    try:
        await pipeline.run()
    finally:
        patch.undo()


@pytest.mark.medium
async def test_a_batch_that_failed_is_tried_again_and_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    failing = iter([8, 4, 9, 12, 30, 31])
    at = [next(failing)]

    def fail(effect: int, done: bool) -> None:
        if effect >= at[0] and done:
            at[0] = effect + next(failing, 10**6)
            raise OSError("the network is gone")

    store.on_effect = fail
    monkeypatch.setattr(file_sink, "open_store", lambda directory: store)
    pipeline = Pipeline("filed", MemoryStream(numbers(60)), retry=Retry(attempts=9))
    pipeline.sink("files", FileSink("/nowhere", format="ndjson"), size=10, batch_timeout=0.05)
    assert (await pipeline.run()).settled == {"ok": 60}
    assert sorted(rows_in(store.files)) == [*range(60)]
    assert {path for path in litter(store.files) if "/_probe/" not in path} == set()


class Two(MemoryStream):
    """Two streams, whose messages come together."""

    async def run(self, intake: Intake) -> None:
        for stream in ("one", "two"):
            await intake.open(stream).send(self.bodies, offset=0)


@pytest.mark.medium
@pytest.mark.parametrize("times_out", [False, True])
async def test_no_policy_gets_messages_whose_files_are_complete(
    monkeypatch: pytest.MonkeyPatch, times_out: bool
) -> None:
    """A batch of two streams, of which one is committed: all became dead letters."""
    store, release = MemoryStore(), threading.Event()

    def fail(effect: int, done: bool) -> None:
        if not any("/two/" in path for path in store.files):
            return
        if times_out:
            release.wait(10)
        raise OSError("no room")

    store.on_effect = fail
    monkeypatch.setattr(file_sink, "open_store", lambda directory: store)
    given_up: list[tuple[str, int]] = []
    pipeline = Pipeline("filed", Two(numbers(5)), on_failure=Drop())

    @pipeline.on_failed
    async def keep(failure: Failure) -> None:
        given_up.append((failure.message.stream, failure.message.offset))

    timeout = 0.2 if times_out else None
    pipeline.sink("files", FileSink("/nowhere", format="ndjson"), size=10, timeout=timeout)
    with (
        pytest.raises(OutcomeUnknown, match="the files of one were complete")
        if times_out
        else nullcontext()
    ):
        await pipeline.run()
    release.set()
    assert sorted(rows_in(store.files)) == [*range(5)]
    assert given_up == [("two", n) for n in range(5) if not times_out]


def test_a_wrong_combination_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match='format="ndjson" has no schema'):
        FileSink("x", format="ndjson", schema=Order)
    with pytest.raises(ConfigurationError, match=r"FileSink > directory='': expected a path"):
        FileSink("")

    def missing() -> Any:
        raise NotSupported("pip install")

    monkeypatch.setattr(file_sink, "require_pyarrow", missing)
    with pytest.raises(NotSupported):
        FileSink("x")
    assert (
        repr(FileSink("s3://k:s@b/x", format="ndjson")) == "FileSink('s3://b/x', format='ndjson')"
    )


# -- files that are rolled


class Written(MemoryStream):
    """Its deliveries of five messages were written `seconds` apart."""

    seconds = 1.0
    begin = 1_800_000_000.0

    async def run(self, intake: Intake) -> None:
        partition = intake.open(self.stream, committed=self.stored.get(self.stream))
        for offset in range(0, len(self.bodies), 5):
            written = int((self.begin + offset / 5 * self.seconds) * 1000)
            await partition.send(self.bodies[offset : offset + 5], offset=offset, timestamp=written)
        if self.endless:
            await anyio.sleep_forever()


async def lines_of(directory: Path) -> list[list[int]]:
    """The numbers of each complete file."""

    def read() -> list[list[int]]:
        return [
            [json.loads(line)["n"] for line in Path(file).read_text().splitlines()]
            for file in complete_files_of(directory)
        ]

    return await anyio.to_thread.run_sync(read)


async def test_a_file_has_the_bytes_that_it_is_rolled_at(tmp_path: Path) -> None:
    sink = FileSink(tmp_path, format="ndjson", roll=90)  # a body has 9 bytes
    pipeline = Pipeline("rolled", MemoryStream([b'{"n": %02d}' % n for n in range(10, 35)]))
    pipeline.sink("files", sink)
    assert (await pipeline.run()).settled == {"ok": 25}
    assert await lines_of(tmp_path) == [[*range(10, 20)], [*range(20, 30)], [*range(30, 35)]]


@pytest.mark.parametrize("by", [None, lambda message: {"odd": message.data["n"] % 2}])
async def test_a_file_has_the_messages_of_its_time(tmp_path: Path, by: Any) -> None:
    sink = FileSink(tmp_path, format="ndjson", roll=timedelta(seconds=4), partition_by=by)
    source = Written(numbers(60))
    pipeline = Pipeline("rolled", source)

    @pipeline.processor
    async def decode(message: Message[dict[str, int]]) -> None: ...

    pipeline.sink("files", sink)
    assert (await pipeline.run()).settled == {"ok": 60}
    files = await lines_of(tmp_path)
    windows = [[*range(n, n + 20)] for n in (0, 20, 40)]
    if by is None:
        assert files == windows
    else:
        assert sorted(files) == sorted([n for n in w if n % 2 == odd] for w in windows
                                       for odd in (0, 1))  # fmt: skip
        assert {Path(file).parent.name for file in await complete_files(tmp_path)} == {
            "odd=0", "odd=1",
        }  # fmt: skip


async def test_a_rolled_file_is_settled_when_it_is_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The window bounds it: then the file is closed early, which is logged once."""
    source = Written(numbers(40), endless=True)
    pipeline = Pipeline("rolled", source, max_in_flight=10, commit_interval=0.01)
    sink = FileSink(tmp_path, format="ndjson", roll=timedelta(hours=1))
    pipeline.sink("files", sink, batch_timeout=30)
    async with pipeline.start() as running:
        while running.statistics().received < 40:
            await anyio.sleep(0.005)
        assert running.statistics().in_flight <= 10
        assert source.stored.get("orders", -1) < 30  # the open file
    assert caplog.text.count("files are closed before they are full") == 1
    assert [n for file in await lines_of(tmp_path) for n in file] == [*range(40)]
    assert source.stored["orders"] == 39


@pytest.mark.parametrize("roll", [0, -1, True, 1.5, timedelta(0), timedelta(milliseconds=999)])
def test_a_roll_is_bytes_or_a_time(roll: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"FileSink > roll=.*bytes.*timedelta"):
        FileSink("x", roll=roll)


async def test_files_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    """Of file managers, editors, copies and readers, in every folder."""
    stream = MemoryStream(numbers(20))
    await pipeline_of(stream, FileSink(tmp_path, format="ndjson")).run()
    names = [".DS_Store", "_SUCCESS", "notes.txt", "000000099.json~", "000000098.json.partial"]

    def visit() -> list[Path]:
        folders = [Path(folder) for folder, _, _ in os.walk(tmp_path)]
        files = [folder / name for folder in folders for name in names]
        for file in files:
            file.write_text("foreign")
        return files

    foreign = await anyio.to_thread.run_sync(visit)
    stream.bodies += numbers(40)[20:]
    stream.stored = {}
    await pipeline_of(stream, FileSink(tmp_path, format="ndjson")).run()
    assert await rows(tmp_path) == [{"n": n} for n in range(40)]
    done = await anyio.to_thread.run_sync(written, LocalStore(str(tmp_path)), "filed")
    assert done == {"orders": DoneRanges([(0, 39)])}
    assert await anyio.to_thread.run_sync(lambda: {it.read_text() for it in foreign}) == {"foreign"}
