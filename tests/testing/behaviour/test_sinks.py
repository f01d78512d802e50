"""Sinks that write in threads, in a tester: virtual time does not overtake the threads."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from flowstream import FileSink, Message, Pipeline, SqliteSink, StreamProducer
from flowstream.pipeline import Sink
from flowstream.testing import PipelineTester
from flowstream.testing.clock import Backend


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", ["sqlite", "file"])
def test_a_sink_has_its_timeout(
    kind: str, backend: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink: Sink = (
        SqliteSink(tmp_path / "rows.db", "rows", columns={"n": int}, create=True)
        if kind == "sqlite"
        else FileSink(tmp_path / "rows", format="ndjson")
    )
    pipeline = Pipeline("rows", StreamProducer("numbers"))

    @pipeline.processor
    async def read(message: Message[dict]) -> None: ...

    pipeline.sink("rows", sink, timeout=20.0, batch_timeout=0.1)
    with caplog.at_level(logging.WARNING):
        result = PipelineTester(pipeline).run_sync({"n": 1}, {"n": 2}, backend=backend)
    assert result.statuses == ["ok", "ok"]
    assert caplog.messages == []  # nothing took longer than 60 s
