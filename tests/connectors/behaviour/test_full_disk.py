"""A disk that is full ends the run; with room again, each message is there once."""

from __future__ import annotations

import json
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio.to_thread
import pytest

from flowstream import Backoff, FileSink, Message, Pipeline, SqliteSink
from flowstream.connectors import complete_files
from flowstream.errors import FlowstreamError, Halted, OutcomeUnknown
from flowstream.pipeline import Sink
from tests.support.pipelines import MemoryStream

pytestmark = pytest.mark.anyio

COUNT = 4000
SOON = Backoff(initial=0.01, maximum=0.01)


def sinks(folder: Path) -> dict[str, Sink]:
    columns = {"n": int, "pad": str}
    return {
        "sqlite": SqliteSink(
            folder / "rows.db", "rows", columns=columns, create=True, attempts=2, backoff=SOON
        ),
        "files": FileSink(folder / "files", format="ndjson"),
    }


def found(kind: str, folder: Path) -> list[int]:
    if kind == "files":
        files = complete_files(folder / "files")
        return [json.loads(line)["n"] for it in files for line in Path(it).read_text().splitlines()]
    with closing(sqlite3.connect(folder / "rows.db")) as database:
        return [n for (n,) in database.execute("SELECT n FROM rows")]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What is longer cannot be written, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("kind", "size", "error"),
    [("sqlite", 200_000, OutcomeUnknown), ("files", 7_850, Halted)],
)
@pytest.mark.medium
async def test_a_full_disk_loses_and_repeats_nothing(
    kind: str, size: int, error: type[FlowstreamError], tmp_path: Path
) -> None:
    """A limited file fails a commit of SQLite halfway, so that nobody knows whether it is there."""
    source = MemoryStream([b'{"n": %d, "pad": "%s"}' % (n, b"x" * 60) for n in range(COUNT)])

    async def run() -> dict[str, int]:
        pipeline = Pipeline("full", source)

        @pipeline.processor
        async def read(message: Message[dict[str, object]]) -> None: ...

        pipeline.sink("rows", sinks(tmp_path)[kind], size=100, batch_timeout=0.05, concurrency=2)
        return dict((await pipeline.run()).settled)

    with files_of_at_most(size), pytest.raises(error):
        # Numbers of four digits make lines that are too long for a file.
        await run()
    before = await anyio.to_thread.run_sync(found, kind, tmp_path)
    assert 0 < len(before) < COUNT
    assert max(source.stored.values(), default=-1) < COUNT - 1
    await run()
    assert sorted(await anyio.to_thread.run_sync(found, kind, tmp_path)) == [*range(COUNT)]
