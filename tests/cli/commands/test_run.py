"""`flowstream run`: to the end, to a signal, to a failure; what it says and how it exits."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstream.cli.exit_codes import CommandError
from flowstream.cli.parser.parsing import parse_address, parse_feed
from flowstream.cli.running.supervisor import reader_of
from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream, wait_until
from tests.cli.modules import FAIL, HANG, HEAD, LOAD, SLOW, handled, numbered, write_module
from tests.cli.rows import Bad, Row

ROWS = {
    ("run",): Row(  # idle for longer than a frame of the live view stands
        "{module} --until-idle 1.5", r"3 messages handled \(3 ok\)[\s\S]+committed offset 2",
        Bad("shop --until-idle", 6, '"orders": the stream does not exist'),
        drawn=r"in flight +[\d,]+ of 10,000", document='"handled": 3',
        waiting="shop",
    ),
}  # fmt: skip


COUNT = 2_000
FAILING = 20  # of them
POISONED = """
pipeline = Pipeline("{stream}", StreamProducer("{stream}"), on_failure=Halt())

@pipeline.processor(concurrency=4, max_demand=1)
async def check(message: Message[dict]) -> None:
    if message.offset in (3, 700):
        raise ValueError("poison")
    await asyncio.sleep(0.05 if message.offset < 3 else 0)
    record([message])
"""


class Shop:
    """A stream with messages, and a folder for the module that reads it."""

    def __init__(self, url: str, stream: str, folder: Path) -> None:
        self.url = url
        self.stream = stream
        self.folder = folder
        sent = flowstream("publish", stream, "-", "--create", url=url, stdin=numbered(COUNT))
        assert sent.code == 0, sent.err

    def offset(self) -> int | None:
        stored = flowstream("offsets", "get", self.stream, self.stream, "--json", url=self.url)
        offset = stored.json["offset"]
        assert offset is None or isinstance(offset, int)
        return offset


@pytest.fixture
def shop(broker: Broker, stream_name: str, tmp_path: Path) -> Iterator[Shop]:
    yield Shop(broker.url, stream_name, tmp_path)
    dead = f"{stream_name}.dead"
    flowstream("streams", "delete", stream_name, dead, "-y", "--if-exists", url=broker.url)


@pytest.mark.every_broker
def test_until_idle_everything_is_handled_and_a_second_run_has_nothing_to_do(shop: Shop) -> None:
    target = write_module(shop.folder, shop.stream)
    line = ("run", target, "--until-idle", "0.5")
    first = flowstream(*line, url=shop.url, cwd=shop.folder)
    assert first.code == 0, first.err
    counts = f"{COUNT - FAILING:,} ok, {FAILING} dead-lettered"
    assert "idle after" in first.out
    assert f"{COUNT:,} messages handled ({counts})" in first.out
    assert f"{shop.stream}: committed offset {COUNT - 1:,}" in first.out
    assert f"to see failed messages: flowstream dead-letters list {shop.stream}.dead" in first.out
    assert "to continue: flowstream run shop" in first.out
    assert handled(shop.folder) == [n for n in range(COUNT) if n % 100 != 7]
    assert shop.offset() == COUNT - 1
    second = flowstream(*line, "--json", url=shop.url, cwd=shop.folder)
    (result,) = second.json
    assert (second.code, result["handled"], result["committed"]) == (0, 0, {shop.stream: COUNT - 1})
    third = flowstream(*line, url=shop.url, cwd=shop.folder)
    assert "nothing to do: there was no message" in third.out


@pytest.mark.every_broker
def test_a_pipeline_may_have_the_longest_name(shop: Shop) -> None:
    """The name of its connection was longer than a name may be."""
    name = "n" * 255
    (shop.folder / "longest.py").write_text(
        "from flowstream import Message, Pipeline, StreamProducer\n"
        f"pipeline = Pipeline({name!r}, StreamProducer({shop.stream!r}))\n"
        "@pipeline.processor\n"
        "async def handle(message: Message[bytes]) -> None: ...\n"
    )
    line = ("run", "longest", "--until-idle", "0.5")
    for said in (f"{COUNT:,} messages handled", "nothing to do"):
        result = flowstream(*line, url=shop.url, cwd=shop.folder)
        assert result.code == 0, result.err
        assert said in result.out


def test_sigterm_drains_commits_and_exits_zero(shop: Shop) -> None:
    target = write_module(shop.folder, shop.stream, handler=SLOW)
    with Started("run", target, "--http", "127.0.0.1:0", url=shop.url, cwd=shop.folder) as run:
        metrics = re.search(r"http\S+/metrics", run.line("live page on"))
        assert metrics is not None
        wait_until(lambda: handled(shop.folder))
        with urllib.request.urlopen(metrics[0], timeout=10) as answer:
            exposition = answer.read().decode()
        run.signal(signal.SIGTERM)
        result = run.end()
    assert result.code == 0, result.err
    assert "draining" in result.err
    assert f'flowstream_received_messages_total{{pipeline="{shop.stream}"' in exposition
    offset = shop.offset()
    assert offset is not None
    assert handled(shop.folder) == [n for n in range(offset + 1) if n % 100 != 7]
    assert f"committed offset {offset:,}" in result.out


def test_a_handler_that_hangs_ends_at_the_deadline(shop: Shop) -> None:
    target = write_module(shop.folder, shop.stream, handler=HANG, drain=0.5)
    with Started("run", target, url=shop.url, cwd=shop.folder) as run:
        wait_until(lambda: (shop.folder / "hanging").exists())
        run.signal(signal.SIGTERM)
        result = run.end()
    assert result.code == 8
    assert "did not drain within 0.5 s" in result.err
    assert "Traceback" not in result.err
    assert shop.offset() is None


@pytest.mark.every_broker
def test_retries_that_are_due_after_the_deadline_are_no_success(shop: Shop) -> None:
    late = f'DeadLetter("{shop.stream}.dead"), retry=Retry(9, backoff=Backoff(1000, maximum=1000))'
    target = write_module(shop.folder, shop.stream, handler=FAIL, policy=late)
    with Started("run", target, "--json", url=shop.url, cwd=shop.folder) as run:
        wait_until(lambda: (shop.folder / "failed").exists())
        run.signal(signal.SIGTERM)
        result = run.end()
    assert result.code == 8, result.err
    assert "did not drain within 25 s" in result.err
    assert "the next attempt of failed messages is due later" in result.err
    assert result.json[0]["reason"] == "drain timeout"
    assert result.json[0]["unsettled"] > 0
    assert shop.offset() is None


def test_a_second_signal_forces(shop: Shop) -> None:
    target = write_module(shop.folder, shop.stream, handler=HANG)
    with Started("run", target, url=shop.url, cwd=shop.folder) as run:
        wait_until(lambda: (shop.folder / "hanging").exists())
        run.signal(signal.SIGINT)
        run.line("draining")
        run.signal(signal.SIGINT)
        result = run.end()
    assert result.code == 130
    assert shop.offset() is None


@pytest.mark.every_broker
def test_a_failure_halts_with_the_offset_before_it(shop: Shop) -> None:
    target = write_module(shop.folder, shop.stream, policy="Halt()")
    result = flowstream("run", target, "--until-idle", url=shop.url, cwd=shop.folder)
    assert result.code == 7
    assert f"halted at {shop.stream}@7" in result.err
    assert "sevens are not wanted" in result.err
    assert f"--discard {shop.stream}@7" in result.err
    remedy = re.search(r"to continue without the failed message: flowstream (.+)", result.out)
    assert remedy is not None
    assert shop.offset() == 6
    again = flowstream(*remedy[1].split(), "--until-idle", url=shop.url, cwd=shop.folder)
    assert f"discarded {shop.stream}@7 unhandled, as requested" in again.err
    assert f"discarded on request: {shop.stream}@7" in again.out
    assert f"halted at {shop.stream}@107" in again.err


@pytest.mark.slow
def test_the_advice_of_halts_loses_nothing_else(shop: Shop) -> None:
    """Followed to the letter, with messages in front of the failed one still in their handlers."""
    text = POISONED.format(stream=shop.stream)
    (shop.folder / "poisoned.py").write_text(HEAD + text)
    line = ["run", "poisoned", "--until-idle", "0.5"]
    while (result := flowstream(*line, url=shop.url, cwd=shop.folder)).code == 7:
        remedy = re.search(r"to continue without the failed messages?: flowstream (.+)", result.out)
        assert remedy is not None
        line = [*remedy[1].split(), "--until-idle", "0.5"]
    assert result.code == 0, result.err
    assert set(range(COUNT)) - set(handled(shop.folder)) == {3, 700}
    assert shop.offset() == COUNT - 1
    late = flowstream(*line, "--json", url=shop.url, cwd=shop.folder)
    assert [*late.json[0]["not_discarded"]] == [f"{shop.stream}@700"]
    assert f"did not discard {shop.stream}@700: it was settled before this run" in late.err


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("orders@-1", "'orders@-1' is not STREAM@OFFSET, such as orders@42"),
        ("order@1", "--discard order@1: no pipeline of this run reads the stream 'order'"),
    ],
)
def test_what_cannot_be_discarded_is_refused_at_the_start(
    tmp_path: Path, value: str, text: str
) -> None:
    target = write_module(tmp_path, "orders")
    result = flowstream("run", target, "--discard", value, cwd=tmp_path, url="rabbitmq-stream://x")
    assert (result.code, result.out) == (2, "")
    assert text in result.err


def test_who_discards_when_several_pipelines_run() -> None:
    reads: dict[str, list[str] | None] = {"a": ["x"], "b": ["x", "y"], "c": None}
    assert reader_of(("y", 1), reads) == "b"
    assert reader_of(("z", 1), reads) == "c"
    with pytest.raises(CommandError, match=r"--discard x@1: several .* 'x' \(a, b\); run only"):
        reader_of(("x", 1), reads)
    with pytest.raises(CommandError, match="they read x"):
        reader_of(("z", 1), {"a": ["x"]})


def test_two_pipelines_run_side_by_side_and_a_failing_one_drains_the_other(shop: Shop) -> None:
    write_module(shop.folder, shop.stream, policy="Halt()", name="halting")
    (shop.folder / "halting.py").write_text((shop.folder / "shop.py").read_text())
    write_module(shop.folder, shop.stream, handler=LOAD)
    result = flowstream("run", "shop", "halting", url=shop.url, cwd=shop.folder)
    assert result.code == 7
    assert f"{shop.stream}: stopped" in result.out
    assert "halting: halted" in result.out


def test_on_a_terminal_the_view_is_live(shop: Shop) -> None:
    target = write_module(shop.folder, shop.stream, handler=SLOW)
    with Terminal("run", target, url=shop.url, cwd=shop.folder) as terminal:
        terminal.expect(r"in flight +[\d,]+ of 10,000")
        terminal.expect(r"default +\d+%")
        terminal.type("\x03")
        assert terminal.end() == 0
    assert "draining" in terminal.screen
    assert "to continue: flowstream run shop" in terminal.screen


def test_missing_streams_are_made_when_asked(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    target = write_module(tmp_path, stream_name)
    line = ("run", target, "--until-idle", "0.2")
    refused = flowstream(*line, url=broker.url, cwd=tmp_path)
    assert refused.code == 6
    broker_line, said = refused.err.splitlines()
    assert re.match(
        r"broker: .+ at .+, address from FLOWSTREAM_URL, data in (the cluster|that broker)",
        broker_line,
    )
    assert f'"{stream_name}": the stream does not exist' in said
    assert said.endswith("with its address from FLOWSTREAM_URL; --create creates missing streams")
    made = flowstream(*line, "--create", url=broker.url, cwd=tmp_path)
    flowstream("streams", "delete", f"{stream_name}.dead", "-y", url=broker.url)
    assert made.code == 0
    assert f"created the stream {stream_name}" in made.err


def test_a_stream_that_is_created_again_meanwhile_has_a_remedy_of_its_own(
    embedded_broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    """The stream exists, so `--create` is no help."""
    target, url = write_module(tmp_path, stream_name), embedded_broker.url
    publish = ("publish", stream_name, "-", "--create")
    flowstream(*publish, url=url, stdin=numbered(50))
    with Started("run", target, "--create", url=url, cwd=tmp_path) as run:
        wait_until(lambda: len(handled(tmp_path)) >= 49)  # one fails
        deleted = flowstream("streams", "delete", stream_name, "-y", url=url)
        assert deleted.code == 0, deleted.err
        again = flowstream(*publish, url=url, stdin=numbered(3))
        assert again.code == 0, again.err
        result = run.end()
    assert result.code == 6
    assert "was deleted and created again while pipeline" in result.err
    said = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert said[0].endswith("Start the pipeline again: it begins where offset= says")


def test_a_feed_runs_beside_and_ends_with_it(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    target = write_module(tmp_path, stream_name)
    (tmp_path / "some.ndjson").write_bytes(numbered(50))
    line = ("run", target, "--create", "--feed", "some.ndjson@200", "--json")
    with Started(*line, url=broker.url, cwd=tmp_path) as run:
        wait_until(lambda: len(handled(tmp_path)) >= 60)
        run.signal(signal.SIGINT)
        result = run.end()
    flowstream("streams", "delete", f"{stream_name}.dead", "-y", url=broker.url)
    assert result.code == 0, result.err
    (summary,) = json.loads(result.out)
    fed = re.search(rf"published (\d+) messages to {stream_name} \(--feed\)", result.err)
    assert fed is not None
    assert 60 <= summary["handled"] <= int(fed[1])


def test_a_feed_that_cannot_be_read_ends_the_run(shop: Shop) -> None:
    """It fails before the pipeline is started, which must not miss it and run on."""
    target = write_module(shop.folder, shop.stream)
    result = flowstream("run", target, "--feed", "gone.csv", url=shop.url, cwd=shop.folder)
    assert result.code == 20
    assert "error: cannot read gone.csv: No such file or directory" in result.err.splitlines()
    assert handled(shop.folder) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        (":80", ("127.0.0.1", 80)),
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9", ("::1", 9)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "feed"),
    [
        ("a.csv@20", ("a.csv", 20.0)),
        ("a.csv", ("a.csv", 500.0)),
        ("a@b.csv", ("a@b.csv", 500.0)),
        ("a@b.csv@0.5", ("a@b.csv", 0.5)),
        ("a.csv@-1", ("a.csv@-1", 500.0)),
    ],
)
def test_feeds(text: str, feed: tuple[str, float]) -> None:
    assert parse_feed(text) == feed


EXHAUSTED = """
import time
from flowstream import Drop, Message, Pipeline, StreamProducer

pipeline = Pipeline(
    "{stream}", StreamProducer("{stream}"), on_failure=Drop(), max_threads=2, drain_timeout=0.5
)

@pipeline.processor(timeout=0.2, concurrency=2, max_demand=1)
def ask(message: Message[dict]) -> None:
    if message.data["n"] >= 10:
        time.sleep(3600)
"""


def test_when_all_threads_hang_the_process_ends_with_the_reason(shop: Shop) -> None:
    (shop.folder / "shop.py").write_text(EXHAUSTED.format(stream=shop.stream))
    result = flowstream("run", "shop", url=shop.url, cwd=shop.folder)
    assert result.code == 25, result.err
    assert "all of max_threads=2 worker threads hang" in result.err
    assert "2 of 'processor'" in result.err
    assert "in ask\n    time.sleep(3600)" in result.err
    assert (shop.offset() or -1) < 13


SEVERAL = """
eu = Pipeline("{stream}.eu", StreamProducer("{stream}"))
us = Pipeline("{stream}.us", StreamProducer("{stream}"))

@eu.processor
@us.processor
async def handle(message: Message[dict]) -> None: ...
"""


def test_every_pipeline_of_a_module_runs_and_has_its_result(shop: Shop) -> None:
    (shop.folder / "both.py").write_text(HEAD + SEVERAL.format(stream=shop.stream))
    line = ("run", "both", "--until-idle", "0.2")
    result = flowstream(*line, url=shop.url, cwd=shop.folder)
    assert result.code == 0, result.err
    for variable in ("eu", "us"):
        assert f"{shop.stream}.{variable}: idle after" in result.out
        assert f"to continue: flowstream run both:{variable}" in result.out
    assert result.out.count(f"{COUNT:,} messages handled ({COUNT:,} ok)") == 2
    one = flowstream(*line[:1], "both:us", *line[2:], "--json", url=shop.url, cwd=shop.folder)
    assert [each["target"] for each in one.json] == ["both:us"]


UNEQUAL = """
from contextlib import asynccontextmanager
from dataclasses import dataclass
from flowstream import FileSink, SqliteSink

@dataclass
class Row:
    n: int

@asynccontextmanager
async def opened():
    raise LookupError("no sécret for the warehouse")
    yield

good = Pipeline("good", StreamProducer("{stream}", reference="{stream}.good"))
life = Pipeline("life", StreamProducer("{stream}", reference="{stream}.life"), lifespan=opened)
rows = Pipeline("rows", StreamProducer("{stream}", reference="{stream}.rows"))
files = Pipeline("files", StreamProducer("{stream}", reference="{stream}.files"))

@good.processor
@life.processor
@rows.processor
@files.processor
async def handle(message: Message[Row]) -> None: ...

rows.sink("table", SqliteSink("missing/rows.sqlite3", "rows", columns=Row, create=True))
files.sink("files", FileSink("both.py"))
"""


@pytest.mark.parametrize(
    ("which", "code", "said"),
    [
        ("life", 1, "error: LookupError: no sécret for the warehouse (pipeline 'life': lifespan; "
         "flowstream --debug ... shows the traceback)"),
        ("rows", 27, "error: cannot open the SQLite file 'missing/rows.sqlite3': "),
        ("files", 27, "both.py\": no file can be written there: NotADirectoryError: "),
    ],
)  # fmt: skip
def test_a_pipeline_that_cannot_be_opened_is_named(
    shop: Shop, which: str, code: int, said: str
) -> None:
    (shop.folder / "both.py").write_text(HEAD + UNEQUAL.format(stream=shop.stream))
    result = flowstream("run", f"both:{which}", "both:good", "--until-idle", "20",
                        url=shop.url, cwd=shop.folder)  # fmt: skip
    assert result.code == code
    assert f"{which}: failed before it was running" in result.out.splitlines()
    assert re.search(r"^good: stopped (after|before it was running)", result.out, re.MULTILINE)
    assert "good: idle" not in result.out
    assert said in result.err


def test_every_pipeline_that_fails_says_why(shop: Shop) -> None:
    text = HEAD + UNEQUAL.format(stream=shop.stream)
    (shop.folder / "both.py").write_text(text)
    result = flowstream("run", "both:rows", "both:files", url=shop.url, cwd=shop.folder)
    assert result.code == 27
    failed = [line for line in result.out.splitlines() if line.endswith("before it was running")]
    said = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert len(failed) == 2
    assert len(said) == sum("failed" in line for line in failed)
