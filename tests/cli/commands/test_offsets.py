"""`flowstream offsets reset`: to every kind of place, refused while the reader runs."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from flowstream import Environment
from tests.brokers.running import Broker
from tests.cli.command import Result, Started, Terminal, flowstream
from tests.cli.modules import FAIL, LOAD, handled, numbered, write_module
from tests.cli.rows import MISSING, TABLE, Bad, Row

ROWS = {
    ("offsets", "get"): Row(
        "me {stream}", r"me +\S+ +0 +0 +2 +2", Bad("me no-such-stream", 6, MISSING),
        drawn=TABLE, document='"offset": 0',
        waiting="r s",
    ),
    ("offsets", "set"): Row(
        "me {stream} 1", r"me on \S+: 0 -> 1; it continues with offset 2",
        Bad("me {stream} -- -1", 2, "0 or more is expected"), document='"offset": 1',
        waiting="r s 1",
    ),
    ("offsets", "forget"): Row(
        "me {stream}", r"me +\S+ +0", Bad("me no-such-stream --yes", 6, MISSING),
        drawn=TABLE, document='"forgotten": true', asks=r"Forget the stored offset of me\?",
        waiting="r s --yes",
    ),
    ("offsets", "reset"): Row(
        "me {stream} --to first --watch 0",
        r"\S+ +0 +0 +1 +0[\s\S]+me on \S+: 0 -> -1; it continues",
        Bad("me {stream} --to 99 --watch 0 --yes", 20, "has the offsets 0 to 2"),
        drawn=TABLE, document='"stored": true', asks=r"Store this for me\?",
        waiting="r s --to first",
    ),
}  # fmt: skip


pytestmark = pytest.mark.timeout(300)  # many processes


COUNT = 100


class Stream:
    """A hundred messages on a broker."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.name = name
        line = ("publish", name, "-", "--create")
        assert flowstream(*line, url=broker.url, stdin=numbered(COUNT)).code == 0

    def line(self, *arguments: str) -> tuple[str, ...]:
        """Without `--watch` given, commits are not watched for."""
        watch = () if "--watch" in arguments else ("--watch", "0")
        return ("offsets", "reset", self.name, self.name, *arguments, *watch)

    def reset(self, *arguments: str) -> Result:
        return flowstream(*self.line(*arguments), url=self.broker.url)

    def place(self, *arguments: str) -> int:
        """Where a reset leads to."""
        result = self.reset(*arguments, "--yes", "--json")
        assert result.code == 0, result.err
        (row,) = result.json
        return int(row["goes_on_with"])

    @property
    def stored(self) -> int | None:
        line = ("offsets", "get", self.name, self.name, "--json")
        value: int | None = flowstream(*line, url=self.broker.url).json["offset"]
        return value


@pytest.fixture
def stream(broker: Broker, stream_name: str) -> Iterator[Stream]:
    yield Stream(broker, stream_name)
    names = (stream_name, f"{stream_name}.dead")
    flowstream("streams", "delete", *names, "--yes", "--if-exists", url=broker.url)


@pytest.mark.every_broker
def test_to_an_offset_and_before_the_first_one(stream: Stream) -> None:
    assert stream.place("--to", "42") == 42
    assert stream.stored == 41
    assert stream.place("--to", "first") == 0
    assert stream.stored == -1
    assert stream.place("--by", "5") == 5


@pytest.mark.slow
def test_to_every_other_kind_of_place(stream: Stream) -> None:
    stream.place("--to", "42")
    assert stream.place("--by", "-10") == 32
    assert stream.place("--by", "1000") == COUNT
    assert stream.place("--to", "next") == COUNT
    assert stream.place("--to", "1h") == 0
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert stream.place("--to", tomorrow.isoformat()) == COUNT
    assert stream.place("--to", "last") <= COUNT - 1


def test_what_set_and_reset_skip_is_said_and_nothing_behind_the_end_is_stored(
    stream: Stream,
) -> None:
    def set_(offset: int) -> Result:
        line = ("offsets", "set", stream.name, stream.name, str(offset))
        return flowstream(*line, url=stream.broker.url)

    stream.place("--to", "42")
    far = set_(44)
    assert far.code == 0
    assert (
        f"skips up to 3 messages of {stream.name} that it has not handled (offsets 42 to 44;"
        in (" ".join(far.err.split()))
    )
    assert "skips" not in set_(10).err
    refused = set_(COUNT)
    assert (refused.code, refused.out) == (20, "")
    assert (
        f"has the offsets 0 to {COUNT - 1:,}, so offset {COUNT:,} cannot be settled" in refused.err
    )
    assert stream.stored == 10
    reset = stream.reset("--to", "12", "--yes")
    assert "skips up to 1 message of" in " ".join(reset.err.split())
    assert "(offset 11;" in " ".join(reset.err.split())


@pytest.mark.slow
def test_a_pipeline_goes_on_where_it_was_sent(stream: Stream, tmp_path: Path) -> None:
    target = write_module(tmp_path, stream.name)

    def run() -> list[int]:
        (tmp_path / "handled.txt").unlink(missing_ok=True)
        line = ("run", target, "--until-idle", "0.2")
        result = flowstream(*line, url=stream.broker.url, cwd=tmp_path)
        assert result.code == 0, result.err
        return handled(tmp_path)

    everything = [number for number in range(COUNT) if number != 7]
    assert run() == everything
    assert run() == []
    stream.place("--to", "first")
    assert run() == everything
    stream.place("--to", "90")
    assert run() == everything[-10:]
    assert stream.stored == COUNT - 1


@pytest.mark.every_broker
def test_a_run_in_which_everything_fails_leaves_a_reset_as_it_is(
    stream: Stream, tmp_path: Path
) -> None:
    def run(handler: str, policy: str | None = None) -> Result:
        target = write_module(tmp_path, stream.name, handler=handler, policy=policy)
        return flowstream(
            *("run", target, "--until-idle", "0.2"), url=stream.broker.url, cwd=tmp_path
        )

    assert stream.place("--to", "first") == 0
    assert run(FAIL, "Halt()").code == 7
    assert stream.stored == -1
    assert run(LOAD).code == 0
    assert handled(tmp_path) == [number for number in range(COUNT) if number != 7]


def test_it_is_shown_and_asked_first(stream: Stream) -> None:
    dry = stream.reset("--to", "10", "--dry-run")
    assert dry.code == 0
    heading, row = dry.out.splitlines()
    assert heading.split() == ["stream", "offset", "goes", "on", "with", "again", "skipped"]
    assert row.split() == [stream.name, "-", "10", "0", "10"]
    assert stream.stored is None
    unasked = stream.reset("--to", "10")
    assert unasked.code == 2
    assert "add --yes" in unasked.err
    assert stream.stored is None
    with Terminal(*stream.line("--to", "10"), url=stream.broker.url) as terminal:
        terminal.expect(r"Store this for .*\?")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert stream.stored == 9


@pytest.mark.slow
def test_it_refuses_while_the_reader_commits(stream: Stream, tmp_path: Path) -> None:
    """Where neither a monitor nor the management API is asked."""
    target = write_module(tmp_path, stream.name)
    module = tmp_path / "shop.py"
    module.write_text(
        module.read_text().replace("drain_timeout", "commit_interval=0.2, drain_timeout")
    )
    line = ("run", target, "--feed", "numbers.ndjson@200", "--plain")
    (tmp_path / "numbers.ndjson").write_bytes(numbered(50))
    with Started(*line, url=stream.broker.url, cwd=tmp_path) as run:
        while stream.stored is None:
            assert run.process.poll() is None, run.end().err
        refused = stream.reset("--to", "first", "--yes", "--watch", "20")
        run.signal(signal.SIGINT)
        assert run.end().code == 0
    assert (refused.code, refused.out) == (31, "")
    assert f"{stream.name} stores offsets on {stream.name} now" in refused.err
    assert "stop it first" in refused.err
    before = stream.stored
    assert before is not None
    assert stream.place("--to", "first") == 0


@pytest.mark.slow
def test_a_monitor_tells_of_an_idle_reader(stream: Stream, tmp_path: Path) -> None:
    target = write_module(tmp_path, stream.name)
    with Started(
        "run", target, "--http", "127.0.0.1:0", url=stream.broker.url, cwd=tmp_path
    ) as run:
        address = run.line("live page on").split("//")[1].split("/")[0]
        while stream.stored != COUNT - 1:
            assert run.process.poll() is None, run.end().err
        refused = stream.reset("--to", "first", "--yes", "--http", address)
        line = stream.line("--to", "first", "--yes")
        found = flowstream(*line, url=stream.broker.url, env={"FLOWSTREAM_HTTP": address})
        forced = stream.reset("--to", "first", "--yes", "--http", address, "--force")
        run.signal(signal.SIGTERM)
        assert run.end().code == 0
    assert refused.code == found.code == 31  # where the run listens, as its own variable says
    assert f"the run at http://{address}/ has the pipeline {stream.name} (running)" in refused.err
    assert forced.code == 0
    gone = stream.reset("--to", "first", "--dry-run", "--http", address)
    assert gone.code == 0


def test_the_management_api_tells_of_an_idle_reader(
    rabbitmq: Broker, stream_name: str, tmp_path: Path
) -> None:
    stream = Stream(rabbitmq, stream_name)
    target = write_module(tmp_path, stream.name)
    api = ("--management", str(rabbitmq.management))
    assert stream.reset("--to", "next", "--yes", *api).code == 0
    with Started("run", target, url=rabbitmq.url, cwd=tmp_path) as run:
        refused = stream.reset("--to", "first", "--yes", *api)
        while refused.code == 0 and run.process.poll() is None:  # it tells some seconds late
            refused = stream.reset("--to", "first", "--yes", *api)
        run.signal(signal.SIGTERM)
        assert run.end().code == 0
    assert refused.code == 31
    assert f"the broker has a consumer of {stream.name} for {stream.name}" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "either --to OFFSET or --by N"),
        (("--to", "first", "--by", "1"), 2, "either --to OFFSET or --by N"),
        (("--to", "soon"), 2, "'soon' is not a position in a stream"),
        (("--by", "1"), 20, "nothing is stored under"),
        (("--to", "101"), 20, "has the offsets 0 to 99"),
        (("--to", "first", "--http", "x"), 2, "is not an address"),
        (
            ("--to", "first", "--management", "ftp://x"),
            2,
            "--management: the scheme must be http:// or",
        ),
        (("--to", "first", "--management", "http://localhost:9"), 4, "no management API"),
    ],
)
def test_bad_input(stream: Stream, arguments: tuple[str, ...], code: int, text: str) -> None:
    result = stream.reset(*arguments, "--yes")
    assert (result.code, result.out) == (code, ""), result.err
    assert text in result.err
    assert "Traceback" not in result.err


def test_a_stream_that_is_missing(broker: Broker) -> None:
    line = ("offsets", "reset", "me", "no-such-stream", "--to", "first", "--yes")
    result = flowstream(*line, url=broker.url)
    assert (result.code, result.out) == (6, "")
    assert "does not exist" in result.err


def test_a_reference_is_forgotten(broker: Broker, stream_name: str) -> None:
    def run(*arguments: str) -> Result:
        return flowstream("offsets", *arguments, url=broker.url)

    flowstream("streams", "create", stream_name, url=broker.url)
    flowstream("publish", stream_name, "-", url=broker.url, stdin=b"1\n2\n")
    line = ("me", stream_name)
    assert run("set", *line, "1").code == 0
    assert run("forget", *line).code == 2  # nobody is there to say yes
    assert run("get", *line, "--json").json["offset"] == 1
    assert run("forget", *line, "--yes", "--json").json[0]["forgotten"]
    assert run("get", *line, "--json").json["offset"] is None
    assert "nothing is stored" in run("forget", *line, "--yes").err


@pytest.mark.every_broker
def test_a_stored_offset_that_the_stream_does_not_have_is_told(
    broker: Broker, stream_name: str
) -> None:
    """As after a deletion, under a run that goes on with the old offsets."""
    publish = ("publish", stream_name, "-", "--create")
    flowstream(*publish, url=broker.url, stdin=numbered(100))
    assert flowstream("offsets", "set", "me", stream_name, "99", url=broker.url).code == 0
    commands = [("offsets", "get", "me", stream_name), ("lag", stream_name, "me")]
    for line in commands:
        assert flowstream(*line, url=broker.url).err == ""
    store(broker.url, "me", stream_name, 500)
    for line in (*commands, *((*line, "--json") for line in commands)):
        told = flowstream(*line, url=broker.url)
        assert told.code == 0
        assert "and offset 500 is stored for it under the reference 'me'" in told.err
        assert "no message before 501 will be handled" in told.err
        assert f"flowstream offsets reset me {stream_name} --to first" in told.err


def store(url: str, reference: str, stream: str, offset: int) -> None:
    async def stored() -> None:
        async with Environment(url) as environment:
            await environment.store_offset_verified(reference, stream, offset)

    anyio.run(stored)
