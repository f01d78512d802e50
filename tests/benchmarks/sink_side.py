"""A stream into a database or files: at least once, and exactly once beside it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowstream import FileSink, PostgresSink, SqliteSink
from flowstream.connectors import StreamProducer
from flowstream.pipeline import Batch, Message, Pipeline, Sink
from tests.benchmarks.measuring import BATCH, Skipped, Stopwatch, Target
from tests.benchmarks.shapes import Order
from tests.support.postgres import served_postgres


async def written(target: Target) -> dict[str, Any]:
    """A whole run: from connecting to the last row and the last commit."""
    with destination(target.options["kind"], once=target.options["once"]) as sink:
        whole = Pipeline(
            "benchmark", StreamProducer(target.stream, reference=f"benchmark-{uuid.uuid4().hex}")
        )
        left = target.messages

        @whole.processor
        async def handle(message: Message[Order]) -> None:
            nonlocal left
            left -= 1
            if not left:
                assert whole.running is not None
                whole.running.stop()

        if isinstance(sink, Sink):
            whole.sink("rows", sink, size=BATCH, concurrency=target.options.get("workers", 1))
        else:
            whole.batcher("rows", size=BATCH)(sink)
        watch = Stopwatch()
        result = await whole.run(url=target.url, tune_gc=True)
        measured = watch.stop(target.messages)
        assert result.settled == {"ok": target.messages}, result
        return measured


@contextmanager
def destination(kind: str, *, once: bool) -> Iterator[Any]:
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            yield SqliteSink(
                f"{folder}/rows.db", "rows", columns=Order, create=True, exactly_once=once
            )
        elif kind == "files":
            yield FileSink(folder, format="ndjson") if once else _plain_files(Path(folder))
        else:
            try:
                with served_postgres(durable=True) as server:
                    yield PostgresSink(
                        server.database(), "rows", columns=Order, create=True, exactly_once=once
                    )
            except pytest.skip.Exception as reason:
                raise Skipped(str(reason)) from None


def _plain_files(folder: Path) -> Any:
    """A handler that writes what FileSink does, each file whole, and keeps no record of it."""
    from flowstream.connectors.files.formats import Rows, ndjson
    from flowstream.connectors.files.stores import LocalStore

    store = LocalStore(str(folder))

    def write(batch: Batch[Order]) -> None:
        encoded = ndjson(Rows(batch.data, None))
        name = uuid.uuid4().hex
        store.put(f"{name}.ndjson", encoded.content, f"{name}.tmp")

    return write
