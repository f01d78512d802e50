"""`flowstream check`: what is found in a declaration, and at the broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream import Environment
from tests.brokers.running import Broker
from tests.cli.command import Terminal, flowstream
from tests.cli.modules import numbered, write_module
from tests.cli.rows import TABLE, Bad, Row

ROWS = {
    ("check",): Row(
        "{module} --connect", r"ok +\S+ +offset +\S+: no offset is stored; a run starts at first",
        Bad("gone --connect", 24, "no module 'gone'"), drawn=TABLE, document='"check": "read"',
        waiting="shop --connect",
    ),
}  # fmt: skip


HEAD = """
from pydantic import BaseModel
from flowstream import (Batch, DeadLetter, Halt, Message, Pipeline, Retry, StreamProducer,
                        StreamSink, SuperStreamProducer)

class Order(BaseModel):
    n: int
"""

WHOLE = """
pipeline = Pipeline("{stream}", StreamProducer("{stream}"), on_failure=DeadLetter("{stream}.dead"))

@pipeline.processor(concurrency=2)
async def price(message: Message[Order]) -> None: ...

pipeline.sink("priced", StreamSink("{stream}.priced"), size=7)
"""

ONCE = """
pipeline.sink("{sink}", StreamSink("{stream}.once", exactly_once=True, reference="once"))
"""
TWICE = ONCE.replace("{sink}", "one") + ONCE.replace("{sink}", "two")

MISTAKES = [
    ("x = 1 / 0", "shop", "ZeroDivisionError"),
    ("x = 1", "shop", "declares no pipeline"),
    ("", "gone", "no module 'gone'"),
    ('pipeline = Pipeline("a", StreamProducer("a"))', "declaration", "it has no processor"),
    (WHOLE.replace("[Order]", "[complex]"), "shop", "cannot be decoded to complex"),
    (WHOLE + '\npipeline.sink("loop", StreamSink("{stream}"))', "streams", "an endless loop"),
    (WHOLE + TWICE, "declaration", "give one of them another reference="),
    (WHOLE.replace("message: Message[Order]", "a, b"), "declaration", "takes a second parameter"),
]


def write(folder: Path, text: str, stream: str = "a") -> None:
    (folder / "shop.py").write_text(HEAD + text.replace("{stream}", stream))


def bad(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["result"] == "bad"]


@pytest.mark.parametrize(("module", "check", "text"), MISTAKES)
def test_a_mistake_is_a_finding(tmp_path: Path, module: str, check: str, text: str) -> None:
    write(tmp_path, module)
    target = check if check == "gone" else "shop"
    result = flowstream("check", target, "--json", cwd=tmp_path)
    assert result.code == 24, result.err
    (found,) = bad(result.json)
    assert found["check"] == (check if check in {"declaration", "streams"} else "module")
    assert text in found["detail"]


def test_two_pipelines_that_would_leave_out_what_the_other_has_published(tmp_path: Path) -> None:
    """They ended well, and half of the messages were missing."""
    write(tmp_path, WHOLE + ONCE + WHOLE.replace("pipeline", "other") + ONCE)
    module = tmp_path / "shop.py"
    text = module.read_text().replace('other = Pipeline("a"', 'other = Pipeline("b"')
    head, tail = text.split("\nother = ")
    module.write_text(head + "\nother = " + tail.replace("pipeline.sink", "other.sink"))
    refused = flowstream("check", "shop", "--json", cwd=tmp_path)
    (found,) = bad(refused.json)
    assert (refused.code, found["check"], found["about"]) == (24, "record", "b")
    assert "the pipeline 'a', which reads 'a' too" in found["detail"]
    ran = flowstream("run", "shop", "--embedded", "--create", cwd=tmp_path)
    assert ran.code == 3
    assert "give one of them another name or reference=" in ran.err
    module.write_text(module.read_text().replace('reference="once"', "", 1))
    assert flowstream("check", "shop", cwd=tmp_path).code == 0


def test_two_tables_whose_sinks_have_one_record(tmp_path: Path) -> None:
    """The names of pipeline and sink make the same text, and one of them wrote nothing."""
    (tmp_path / "shop.py").write_text("""
from flowstream import Message, Pipeline, SqliteSink, StreamProducer

async def same(message: Message[dict]) -> None: ...

def load(pipeline: str, sink: str, path: str) -> Pipeline:
    loading = Pipeline(pipeline, StreamProducer("a"))
    loading.processor(same)
    loading.sink(sink, SqliteSink(path, sink, columns={"n": int}, create=True))
    return loading

one, two = load("a", "b/c", "rows.db"), load("a/b", "c", "./rows.db")
""")
    result = flowstream("check", "shop", "--json", cwd=tmp_path)
    (found,) = bad(result.json)
    assert (result.code, found["check"], found["about"]) == (24, "record", "a/b")
    assert "give one of them another name" in found["remedy"]


def test_a_declaration_in_words(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    result = flowstream("check", "shop", cwd=tmp_path)
    assert result.code == 0, result.err
    lines = [line.split(maxsplit=3) for line in result.out.splitlines()]
    assert lines[0] == ["result", "about", "check", "detail"]
    assert ["ok", "a", "processor", "price (async def), Order, 2 at a time"] in lines
    assert ["ok", "a", "priced", "StreamSink('a.priced'), batches of 7 or 1 s"] in lines
    assert any(line[0] == "warn" and "without partition_by" in line[3] for line in lines)
    assert result.err == "5 checks: 0 bad, 1 warning\n"


def test_every_end_has_its_guarantee(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    told = flowstream("check", "shop", "--json", cwd=tmp_path).json
    found = {row["check"]: row for row in told if row["result"] == "info"}
    assert set(found) == {"priced guarantee", "failures guarantee", "offsets guarantee"}
    assert found["priced guarantee"]["detail"].startswith("at least once: ")


def test_configured_options_are_checked_too(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    few = {"FLOWSTREAM_PIPELINES__A__MAX_IN_FLIGHT": "3"}
    refused = flowstream("check", "shop", "--json", cwd=tmp_path, env=few)
    assert "FLOWSTREAM_PIPELINES__A__MAX_IN_FLIGHT" in bad(refused.json)[0]["detail"]
    more = {"FLOWSTREAM_PIPELINES__A__MAX_IN_FLIGHT": "30"}
    found = flowstream("check", "shop", "--json", cwd=tmp_path, env=more).json
    assert ("max_in_flight", "configured by FLOWSTREAM_PIPELINES__A__MAX_IN_FLIGHT") in [
        (row["check"], row["detail"]) for row in found
    ]


UNANNOTATED = [
    ("message: Message[Order]", "message", "price", "write message: Message[Order]"),
    ("b: Batch[Order]", "b", "load", "write b: Batch[Order]"),
]
LOADS = (
    WHOLE
    + """
@pipeline.batcher("load", timeout=60)
def load(b: Batch[Order]) -> None: ...
"""
)


@pytest.mark.parametrize(("annotated", "bare", "name", "remedy"), UNANNOTATED)
def test_a_handler_says_what_it_takes(
    tmp_path: Path, annotated: str, bare: str, name: str, remedy: str
) -> None:
    write(tmp_path, LOADS.replace(annotated, bare))
    result = flowstream("check", "shop", "--json", cwd=tmp_path)
    assert result.code == 24
    (found,) = bad(result.json)
    assert f"{name} (" in found["detail"]
    assert "has no annotation" in found["detail"]
    assert found["remedy"] == remedy


def test_options_that_do_not_fit_are_warned_of(tmp_path: Path) -> None:
    write(tmp_path, LOADS)
    options = {
        "FLOWSTREAM_PIPELINES__A__MAX_IN_FLIGHT": "105",
        "FLOWSTREAM_PIPELINES__A__DRAIN_TIMEOUT": "40",
    }
    result = flowstream("check", "shop", "--json", cwd=tmp_path, env=options)
    assert result.code == 0, result.out
    warned = {row["check"]: row for row in result.json if row["result"] == "warn"}
    assert "'priced' 7 + 'load' 100 = 107 messages" in warned["max_in_flight"]["detail"]
    assert warned["max_in_flight"]["remedy"].startswith("raise max_in_flight to at least 107")
    assert "timeout=60 is longer than drain_timeout=40" in warned["load"]["detail"]


def test_two_pipelines_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    (tmp_path / "other.py").write_text((tmp_path / "shop.py").read_text())
    result = flowstream("check", "shop", "other", "--json", cwd=tmp_path)
    assert result.code == 24
    assert "offsets are stored by name" in bad(result.json)[0]["detail"]


def test_on_a_terminal(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    with Terminal("check", "shop", cwd=tmp_path) as terminal:
        assert terminal.end() == 0
    assert "StreamSink('a.priced')" in terminal.screen


# -- with a broker


def test_nobody_answers(tmp_path: Path) -> None:
    write(tmp_path, WHOLE)
    url = "rabbitmq-stream://guest:secret@localhost:1"
    result = flowstream("check", "shop", "--connect", "--json", url=url, cwd=tmp_path)
    assert result.code == 24
    (found,) = bad(result.json)
    assert (found["about"], found["check"]) == ("broker", "connection")
    assert "secret" not in result.out


@pytest.mark.slow
def test_streams_are_missing_and_then_there(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    write(tmp_path, WHOLE, stream_name)
    line = ("check", "shop", "--connect", "--json")
    missing = flowstream(*line, url=broker.url, cwd=tmp_path)
    assert missing.code == 24
    assert [row["remedy"] for row in bad(missing.json)] == [
        f"flowstream streams create {stream_name}",
        f"flowstream streams create {stream_name}.priced",
    ]
    for row in bad(missing.json):
        words = row["remedy"].split()[1:]
        assert flowstream(*words, url=broker.url).code == 0
    there = flowstream(*line, url=broker.url, cwd=tmp_path)
    assert there.code == 0, there.out
    text = " | ".join(f"{row['check']}: {row['detail']}" for row in there.json)
    assert f"read: {stream_name}: empty" in text
    assert f"offset: {stream_name}: no offset is stored; a run starts at first" in text
    assert f"publish: {stream_name}.priced: allowed" in text
    assert f"{stream_name}.dead does not exist; a run creates it" in text
    flowstream("streams", "delete", stream_name, f"{stream_name}.priced", "-y", url=broker.url)


def test_where_it_stands(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    target = write_module(tmp_path, stream_name, policy="Halt()")
    sent = flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=numbered(10))
    assert sent.code == 0, sent.err

    async def store(offset: int) -> None:
        async with Environment(broker.url) as environment:
            await environment.store_offset_verified(stream_name, stream_name, offset)

    def offset(stored: int) -> dict[str, Any]:
        anyio.run(store, stored)  # `offsets set` refuses what is behind the end
        result = flowstream("check", target, "--connect", "--json", url=broker.url, cwd=tmp_path)
        (found,) = (row for row in result.json if row["check"] == "offset")
        return dict(found)

    assert offset(3)["detail"] == f"{stream_name}: stored 3, 6 behind the end"
    beyond = offset(400)
    assert (beyond["result"], "the stream ends at 9" in beyond["detail"]) == ("warn", True)
    remedy = beyond["remedy"].partition("flowstream ")[2].split()
    assert remedy == ["offsets", "reset", stream_name, stream_name, "--to", "first"]
    assert flowstream(*remedy, "--yes", "--watch", "0", url=broker.url).code == 0
    flowstream("streams", "delete", stream_name, "-y", url=broker.url)


@pytest.mark.parametrize(
    ("policy", "result"), [("error", "bad"), ("skip", "warn")], ids=["error", "skip"]
)
def test_truncation(policy: str, result: str) -> None:
    from flowstream import StreamProducer
    from flowstream.cli.diagnosis.pipelines import _offset
    from flowstream.cli.pipelines.stream_topology import StreamTopology
    from flowstream.client import StreamBacklog

    producer = StreamProducer("s", on_truncated=policy)  # type: ignore[arg-type]
    streams = StreamTopology("p", ("s",), "p", (), None)
    found = _offset(producer, streams, "s", stored=4, first=10, backlog=StreamBacklog(20, 11, 0))
    assert found.result == result
    assert "5" in found.detail.partition("; ")[2]
    assert ("flowstream offsets reset p s --to first" in found.remedy) == (result == "bad")


def test_permissions_that_are_missing(rabbitmq: Broker, stream_name: str, tmp_path: Path) -> None:
    write(tmp_path, WHOLE, stream_name)
    for stream in (stream_name, f"{stream_name}.priced"):
        assert flowstream("streams", "create", stream, url=rabbitmq.url).code == 0
    user = f"u{stream_name[-8:]}"
    rabbitmq.ctl("add_user", user, "pw")
    try:
        rabbitmq.ctl("set_permissions", user, "", "", stream_name.replace(".", "[.]") + "$")
        url = rabbitmq.url.replace("guest:guest", f"{user}:pw")
        result = flowstream("check", "shop", "--connect", "--json", url=url, cwd=tmp_path)
    finally:
        rabbitmq.ctl("delete_user", user)
    assert result.code == 24, result.out
    found = bad(result.json)
    assert {row["check"] for row in found} == {"publish"}
    assert f"{stream_name}.priced: " in found[0]["detail"]
