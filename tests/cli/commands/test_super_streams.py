"""`flowstream super-streams`, and what other commands make of a super stream's partitions."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowstream.client import AmqpMessage, Environment, hash_route
from tests.brokers.running import Broker
from tests.cli.command import Result, Started, Terminal, flowstream
from tests.cli.modules import numbered, write_module
from tests.cli.rows import LIST, TABLE, Bad, Row
from tests.integration.test_client_consuming import declare_super_stream

ROWS = {
    ("super-streams", "create"): Row(
        "{new} --partitions 2", r"(\S+) created: \1-0, \1-1",
        Bad("{super}", 18, "exists already; --if-missing"),
        waiting="s",
    ),
    ("super-streams", "delete"): Row(
        "{super}", r"\S+ deleted",
        Bad("no-such-stream --yes", 6, "does not exist; with --if-exists"),
        asks=r"Delete \S+ with all its partitions and messages\?",
        waiting="s --yes",
    ),
    ("super-streams", "list"): Row(
        "--management {management}", r"super stream", LIST, drawn=TABLE,
        document='"super_stream"', wide=True,
        waiting="",
    ),
    ("super-streams", "list-partitions"): Row(
        "{super}", r"1 +\S+-1 +- +- +\S+:\d+ +1", Bad("no-such-stream", 6, "does not exist"),
        drawn=TABLE, document='"number": 1',
        waiting="s",
    ),
    ("super-streams", "route"): Row(
        "{super} customer-42", r"customer-42 +\S+-[01] +-",
        Bad("no-such-stream key", 6, "does not exist"), drawn=TABLE, document='"by_hash"',
        waiting="s k",
    ),
}  # fmt: skip


pytestmark = pytest.mark.timeout(300)  # many processes

OLD = (3, 13)


def commands(broker: Broker, *arguments: str) -> Result:
    return flowstream("super-streams", *arguments, url=broker.url)


@pytest.mark.every_broker
def test_a_super_stream_lives_and_dies(broker: Broker, stream_name: str) -> None:
    made = commands(broker, "create", stream_name, "--partitions", "2", "--max-age", "7d")
    gone = commands(broker, "delete", stream_name, "--yes")
    if broker.version < OLD:
        for refused in (made, gone):
            assert (refused.code, refused.out) == (21, "")
            assert "needs RabbitMQ 3.13 or later" in refused.err
            assert len(refused.err.splitlines()) == 1
        return
    assert made.out == f"{stream_name} created: {stream_name}-0, {stream_name}-1\n"
    assert gone.out == f"{stream_name} deleted\n"
    again = commands(broker, "delete", stream_name, "--yes", "--if-exists")
    assert again.out == f"{stream_name} does not exist\n"


@pytest.fixture
def partitions(broker: Broker, stream_name: str) -> Iterator[list[str]]:
    """A super stream of two partitions, named like the test, with ten messages in the first."""
    names = [f"{stream_name}-{number}" for number in range(2)]
    if broker.version < OLD:
        declare_super_stream(broker, stream_name, 2)
    else:
        assert commands(broker, "create", stream_name, "--partitions", "2").code == 0
    flowstream("publish", names[0], "-", url=broker.url, stdin=numbered(10))
    yield names
    if broker.version >= OLD:
        commands(broker, "delete", stream_name, "--yes", "--if-exists")


@pytest.mark.slow
@pytest.mark.every_broker
def test_every_partition_is_shown_and_reset(
    broker: Broker, stream_name: str, partitions: list[str]
) -> None:
    rows = commands(broker, "list-partitions", stream_name, "--json").json
    assert [(row["number"], row["stream"]) for row in rows] == [*enumerate(partitions)]
    assert [row["last_offset"] for row in rows] == [9, None]
    table = commands(broker, "list-partitions", stream_name).out.splitlines()
    assert table[1].split()[:4] == ["0", partitions[0], "0", "9"]

    def lags() -> list[tuple[str, int | None, int]]:
        found = flowstream("lag", stream_name, "me", "--json", url=broker.url).json
        return [(row["stream"], row["offset"], row["lag"]) for row in found]

    assert lags() == [(partitions[0], None, 10), (partitions[1], None, 0)]
    line = ("offsets", "reset", "me", stream_name, "--watch", "0", "--yes")
    reset = flowstream(*line, "--to", "next", url=broker.url)
    assert reset.code == 0, reset.err
    assert lags() == [(partitions[0], 9, 0), (partitions[1], -1, 0)]
    wrong = flowstream(*line, "--to", "5", url=broker.url)
    assert wrong.code == 2
    assert f"name a partition (such as {partitions[0]})" in wrong.err
    assert len(flowstream("offsets", "get", "me", stream_name, "--json", url=broker.url).json) == 2


def lines(count: int) -> bytes:
    return b"".join(b'{"n":%d,"customer":"c%d"}\n' % (n, n % 7) for n in range(count))


def found(broker: Broker, partitions: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The bodies in each partition."""
    peeked = {
        name: flowstream("peek", name, "-n", "1000", "--bodies", url=broker.url).out
        for name in partitions
    }
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in peeked.items()}


@pytest.mark.slow
@pytest.mark.every_broker
def test_every_command_takes_one(
    broker: Broker, stream_name: str, partitions: list[str], tmp_path: Path
) -> None:
    url = broker.url
    (tmp_path / "o.ndjson").write_bytes(lines(100))
    publish = ("publish", stream_name, str(tmp_path / "o.ndjson"), "--name", "once")
    unkeyed = flowstream(*publish, "--create", url=url)
    assert unkeyed.code == 2
    assert "is a super stream; name the field that selects the partition" in unkeyed.err
    assert not any(found(broker, partitions[1:]).values())
    sent = flowstream(*publish, "--key", "customer", url=url)
    assert sent.out.startswith(f"100 messages confirmed in {stream_name}")
    again = flowstream(*publish, "--key", "customer", url=url)
    assert f"100 messages were in {stream_name} already under 'once'" in again.err
    bodies = found(broker, partitions)
    bodies[partitions[0]] = bodies[partitions[0]][10:]  # the fixture's
    assert bodies == {
        name: [
            {"n": n, "customer": f"c{n % 7}"}
            for n in range(100)
            if hash_route(f"c{n % 7}", partitions) == name
        ]
        for name in partitions
    }
    rows = flowstream("streams", "stats", stream_name, "--json", url=url).json
    assert [row["stream"] for row in rows] == partitions
    peeked = flowstream("peek", stream_name, "-n", "2", url=url).out.splitlines()
    assert [line.split()[0] for line in peeked] == [partitions[0]] * 2 + [partitions[1]] * 2
    last = flowstream("peek", stream_name, "--last", "1", "--json", url=url).out.splitlines()
    assert [json.loads(line)["stream"] for line in last] == partitions
    examined = flowstream("doctor", stream_name, url=url)
    assert examined.code == 0
    assert f"{stream_name} is a super stream: {', '.join(partitions)}" in examined.out
    refused = flowstream("offsets", "set", "me", stream_name, "5", url=url)
    assert refused.code == 2
    assert f"flowstream offsets reset me {stream_name} --to" in refused.err
    assert partitions[1] in refused.err
    letters = flowstream("dead-letters", "list", stream_name, url=url)
    assert (letters.code, letters.out) == (2, "")
    assert "name a partition" in letters.err
    deleted = flowstream("streams", "delete", stream_name, "--yes", "--if-exists", url=url)
    assert deleted.code == 2
    assert f"flowstream super-streams delete {stream_name}" in deleted.err


def test_a_message_without_its_key_is_named_and_all_before_it_confirmed(
    broker: Broker, stream_name: str, partitions: list[str], tmp_path: Path
) -> None:
    text = lines(20) + b'{"n":20}\n' + lines(1)
    line = ("publish", stream_name, "-", "--format", "ndjson", "--key", "customer")
    failed = flowstream(*line, url=broker.url, stdin=text)
    assert failed.code == 20
    assert "standard input line 21 has no field 'customer' for --key" in failed.err
    assert "20 messages are confirmed: every line before 21" in failed.err


def test_routing_keys_are_routed_by(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    commands(broker, "create", stream_name, "--key", "eu", "--key", "us")
    (tmp_path / "o.csv").write_text("n,region\n1,eu\n2,us\n3,us\n4,asia\n5,eu\n")
    line = ("publish", stream_name, str(tmp_path / "o.csv"), "--key", "region")
    failed = flowstream(*line, url=broker.url)
    assert failed.code == 20
    assert "line 5 cannot be routed: no partition" in failed.err
    assert "3 messages are confirmed: every line before 5" in failed.err
    bodies = found(broker, [f"{stream_name}-eu", f"{stream_name}-us"])
    assert [[body["n"] for body in its] for its in bodies.values()] == [["1"], ["2", "3"]]
    commands(broker, "delete", stream_name, "--yes")


def test_a_stream_is_no_super_stream(broker: Broker, stream_name: str) -> None:
    flowstream("streams", "create", stream_name, url=broker.url)
    line = ("publish", stream_name, "-", "--format", "ndjson", "--key", "n")
    keyed = flowstream(*line, url=broker.url, stdin=b'{"n":"1"}')
    assert keyed.code == 2
    assert "--key is only for super streams" in keyed.err
    for command, *rest in (["list-partitions"], ["route", "k"], ["delete", "--yes"]):
        refused = commands(broker, command, stream_name, *rest)
        assert refused.code == 6, refused
        assert "is a stream, not a super stream" in refused.err


def test_no_command_makes_a_name_of_both(
    broker: Broker, stream_name: str, partitions: list[str], tmp_path: Path
) -> None:
    """A stream of a super stream's name, or the reverse, would be found by no command."""
    target = write_module(tmp_path, stream_name)
    policy = f'DeadLetter("{stream_name}")'
    dead = write_module(tmp_path, partitions[0], name="dead", policy=policy, module="dead")
    for line, code, said in (
        (("streams", "create", stream_name, "--if-missing"), 2, "is a super stream; give"),
        (("super-streams", "create", partitions[1]), 2, "is a stream; give the super stream"),
        (("run", target, "--create", "--until-idle", "0"), 3, "but a pipeline uses it as a stream"),
        (("run", dead, "--until-idle", "0"), 3, "this is a super stream, and dead letters go to"),
    ):
        refused = flowstream(*line, url=broker.url, cwd=tmp_path)
        assert (refused.code, refused.out) == (code, ""), refused
        assert said in refused.err
    assert flowstream("streams", "stats", stream_name, url=broker.url).code == 0


def test_a_name_of_both_is_refused(broker: Broker, stream_name: str, partitions: list[str]) -> None:
    async def create() -> None:
        async with Environment(broker.url) as environment:
            await environment.create_stream(stream_name)

    anyio.run(create)
    for line in (("streams", "stats"), ("peek",), ("lag",)):
        refused = flowstream(*line, stream_name, url=broker.url)
        assert (refused.code, refused.out) == (2, "")
        assert "a stream and a super stream have this name" in refused.err
    examined = flowstream("doctor", stream_name, url=broker.url)
    assert examined.code == 24
    assert "a super stream have this name" in examined.out


def test_a_name_of_neither_says_so(broker: Broker) -> None:
    for line in (("streams", "stats"), ("peek",), ("lag",)):
        refused = flowstream(*line, "no-such-stream", url=broker.url)
        assert refused.code == 6
        assert "and no super stream has this name" in refused.err


def test_letters_are_replayed_into_one(
    broker: Broker, stream_name: str, partitions: list[str]
) -> None:
    dead = f"{stream_name}.dead"

    async def bury() -> None:
        about = {"x-pipeline": "p", "x-stream": "gone"}
        letters = [
            AmqpMessage.of(line, application_properties={**about, "x-offset": number}).raw
            for number, line in enumerate(lines(10).splitlines())
        ]
        async with Environment(broker.url) as environment:
            await environment.create_stream(dead)
            async with environment.publisher(dead) as publisher:
                await publisher.publish_many(letters)

    anyio.run(bury)
    line = ("dead-letters", "replay", dead, "--to", stream_name)
    unkeyed = flowstream(*line, url=broker.url)
    assert unkeyed.code == 2
    assert "--key FIELD" in unkeyed.err
    for more in (("--dry-run",), ()):  # a mistyped key passes over no letter
        lost = flowstream(*line, "--key", "nothing", *more, url=broker.url)
        assert lost.code == 32
        assert "nothing was replayed; dead letter 0" in lost.err
        assert "has no field 'nothing' for --key" in lost.err
    rows = flowstream(*line, "--key", "customer", "--json", url=broker.url).json
    assert sum(row["messages"] for row in rows) == 10
    for name, bodies in found(broker, partitions).items():
        for body in bodies:
            if "customer" in body:
                assert hash_route(body["customer"], partitions) == name
    assert flowstream("dead-letters", "replay", dead, "--key", "n", url=broker.url).code == 2


def test_a_key_leads_to_a_partition(
    broker: Broker, stream_name: str, partitions: list[str]
) -> None:
    rows = commands(broker, "route", stream_name, "hello", "1", "--json").json
    assert [row["by_hash"] for row in rows] == [hash_route(k, partitions) for k in ("hello", "1")]
    assert [row["by_key"] for row in rows] == [[], [partitions[1]]]
    table = commands(broker, "route", stream_name, "1").out.splitlines()
    assert table[0].split() == ["key", "by", "hash", "by", "key"]


def test_partitions_by_key(broker: Broker, stream_name: str) -> None:
    line = ("create", stream_name, "--key", "eu", "--key", "us", "--if-missing")
    names = f"{stream_name}-eu, {stream_name}-us"
    assert commands(broker, *line).out == f"{stream_name} created: {names}\n"
    assert commands(broker, *line).out == f"{stream_name} exists: {names}\n"
    (row,) = commands(broker, "route", stream_name, "us", "--json").json
    assert row["by_key"] == [f"{stream_name}-us"]
    with Terminal("super-streams", "delete", stream_name, url=broker.url) as terminal:
        terminal.expect(r"Delete .* with all its partitions and messages\?")
        terminal.type("y\n")
        assert terminal.end() == 0


def test_the_management_api_lists_them(rabbitmq: Broker, stream_name: str) -> None:
    if rabbitmq.version < OLD:
        pytest.skip("creating one takes RabbitMQ 3.13")
    commands(rabbitmq, "create", stream_name, "--partitions", "1")
    api = ("--management", str(rabbitmq.management))
    assert {"super_stream": stream_name} in commands(rabbitmq, "list", *api, "--json").json
    assert stream_name in commands(rabbitmq, "list", *api).out
    nobody = commands(rabbitmq, "list", "--management", "http://localhost:9")
    assert nobody.code == 4


def test_bad_input(broker: Broker, stream_name: str) -> None:
    def refused(code: int, text: str, *arguments: str) -> None:
        result = commands(broker, *arguments)
        assert (result.code, result.out) == (code, ""), result.err
        assert text in result.err
        assert "Traceback" not in result.err

    refused(2, "exclude each other", "create", "x", "--partitions", "2", "--key", "a")
    refused(2, "'soon' is not a time span", "create", "x", "--max-age", "soon")
    refused(2, "--partitions", "create", "x", "--partitions", "0")
    refused(2, "add --yes", "delete", stream_name)
    for command in ("list-partitions", "route"):
        key = ("k",) if command == "route" else ()
        refused(6, "does not exist", command, "no-such-super-stream", *key)
    refused(6, "does not exist", "delete", "no-such-super-stream", "--yes")


MODULE = """
from flowstream import Message, Pipeline, StreamProducer, StreamSink, SuperStreamProducer

pipeline = Pipeline("shop", {producer}("{stream}"))

@pipeline.processor
async def handle(message: Message[dict]) -> None: ...

pipeline.sink("out", StreamSink("{stream}.out"{key}), batch_timeout=0.1)
"""


@pytest.mark.slow
def test_a_run_makes_them_feeds_them_and_is_checked(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    names = [stream_name, f"{stream_name}.out"]
    (tmp_path / "some.ndjson").write_bytes(lines(20))

    def write(producer: str, key: str) -> None:
        text = MODULE.format(producer=producer, stream=stream_name, key=key)
        (tmp_path / "shop.py").write_text(text)

    def check() -> list[str]:
        line = ("check", "shop", "--connect", "--json")
        rows = flowstream(*line, url=broker.url, cwd=tmp_path).json
        return [f"{row['detail']} ({row['remedy']})" for row in rows if row["result"] == "bad"]

    write("SuperStreamProducer", ', key="customer"')
    (source, sink) = check()
    assert f"reads the super stream {stream_name}" in source
    assert f"publishes to the super stream {names[1]}, which does not exist" in sink

    def filled(name: str) -> int:
        stats = flowstream("streams", "stats", name, "--json", url=broker.url).json
        return sum(row["last_offset"] is not None for row in stats)

    line = ("run", "shop", "--create", "--feed", "some.ndjson@1000", "--plain")
    with Started(*line, url=broker.url, cwd=tmp_path) as run:
        run.line(f"created the super stream {stream_name}: {stream_name}-0")
        run.line(f"created the super stream {names[1]}: {names[1]}-0")
        while not all(filled(name) > 1 for name in names):
            assert run.process.poll() is None, run.end().err
        run.signal(signal.SIGINT)
        assert run.end().code == 0
    assert check() == []
    write("StreamProducer", "")
    (source, sink) = check()
    assert "which is a super stream" in source
    assert "use SuperStreamProducer, which reads all partitions" in source
    assert "which is a super stream (give StreamSink key=, which selects the partition)" in sink
    for name in names:
        commands(broker, "delete", name, "--yes")
    flowstream("streams", "create", names[1], url=broker.url)
    write("SuperStreamProducer", ', key="customer"')
    assert "by key to" in check()[1]
