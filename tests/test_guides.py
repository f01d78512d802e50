"""The guides to handlers, batchers, sinks and failures have every option, and run code with it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable

import pytest

from flowstream import Backoff, DeadLetter, RateLimit, Retry, StreamSink
from flowstream.connectors.files.file_sink import FileSinkArguments
from flowstream.connectors.sql.postgres import PostgresSinkArguments
from flowstream.connectors.sql.sqlite import SqliteSinkArguments
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions
from tests.documents import ROOT, blocks


def fields(*kinds: type) -> list[str]:
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


POSITIONAL = {"directory", "name", "stream", "path", "url", "table"}
"""What is given without its name."""
OF_SINKS = [*inspect.signature(StreamSink.__init__).parameters][1:]
OPTIONS = [
    ("handlers", fields(PipelineOptions, ProcessorOptions, RateLimit)),
    ("failures", fields(Retry, Backoff, DeadLetter)),
    ("batchers", fields(BatcherOptions)),
    ("sinks", OF_SINKS),
    ("databases", fields(SqliteSinkArguments, PostgresSinkArguments)),
    ("files", fields(FileSinkArguments)),
]


@pytest.mark.parametrize(("guide", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
def test_every_option_is_explained_and_used(guide: str, options: Iterable[str]) -> None:
    page = ROOT / "docs" / f"{guide}.md"
    text = page.read_text()
    code = "\n".join(block.source for block in blocks(page) if block.language == "python")
    assert [option for option in options if f"`{option}`" not in text] == []
    used = {option for option in options if f"{option}=" in code}
    assert {*options} - used - POSITIONAL == set()
