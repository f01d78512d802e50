"""The guides to handlers, batchers, sinks and failures have every option, and run code with it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable

import pytest

from flowstream import (
    Backoff,
    Batch,
    DeadLetter,
    Filter,
    IterableProducer,
    Producer,
    RateLimit,
    Retry,
    RunningPipeline,
    StreamProducer,
    StreamSink,
    SuperStreamProducer,
)
from flowstream.connectors.files.file_sink import FileSinkArguments
from flowstream.connectors.sql.postgres import PostgresSinkArguments
from flowstream.connectors.sql.sqlite import SqliteSinkArguments
from flowstream.pipeline import SourcePartition
from flowstream.pipeline.options import BatcherOptions, PipelineOptions, ProcessorOptions
from tests.documents import ROOT, blocks


def fields(*kinds: type) -> list[str]:
    return [field.name for kind in kinds for field in dataclasses.fields(kind)]


def parameters(*kinds: type) -> list[str]:
    return [name for kind in kinds for name in [*inspect.signature(kind).parameters]]


POSITIONAL = {"directory", "name", "stream", "path", "url", "table"}
"""What is given without its name."""
OF_SOURCES = parameters(StreamProducer, SuperStreamProducer, IterableProducer, Filter)
OPTIONS = [
    ("handlers", fields(PipelineOptions, ProcessorOptions, RateLimit)),
    ("failures", fields(Retry, Backoff, DeadLetter)),
    ("batchers", fields(BatcherOptions)),
    ("sinks", parameters(StreamSink)),
    ("sources", [*{*OF_SOURCES} - {"super_stream", "iterable", "values", "match"}]),
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


METHODS = [
    ("own-producer", Producer, set()),
    ("own-producer", SourcePartition, {"stream"}),
    ("batchers", Batch, {"new", "opened", "settled", "origins"}),
    ("programs", RunningPipeline, {"set_rate_limit", "threads"}),
]
"""The guides that list what a class has, and what they leave to the reference."""


@pytest.mark.parametrize(
    ("guide", "kind", "others"), METHODS, ids=[kind.__name__ for _, kind, _ in METHODS]
)
def test_a_guide_lists_what_a_class_has(guide: str, kind: type, others: set[str]) -> None:
    text = (ROOT / "docs" / f"{guide}.md").read_text()
    public = {name for name in vars(kind) if not name.startswith("_")}
    assert {name for name in public if not re.search(rf"[`. ]{name}[`(]", text)} - others == set()
