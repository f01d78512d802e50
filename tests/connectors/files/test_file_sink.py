"""FileSink in pipelines: every batch is whole, whatever fails, and each message is there once."""

from __future__ import annotations

import json
import os
import random
import re
import uuid
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from pydantic import BaseModel

from flowstream import Drop, FileSink, IterableProducer, Message, Pipeline, Retry
from flowstream.connectors import complete_files as complete_files_of
from flowstream.connectors.files import file_sink
from flowstream.errors import ConfigurationError, NotSupported, StreamReplaced
from flowstream.pipeline import Failure, Intake, Producer
from tests.support.pipelines import MemoryStream, numbers
from tests.support.stores import MemoryStore, complete, litter

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
    assert "left out 7 messages of orders that are in complete files already" in caplog.text


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
    pipeline.sink("two", FileSink(f"{tmp_path}", format="ndjson"), batch_timeout=0.05)
    with pytest.raises(ConfigurationError, match="another sink of the pipeline writes to"):
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


async def test_a_batch_that_failed_is_tried_again_and_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    failing = iter([5, 9, 12, 30, 31])
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
