"""`flowstream super-streams`, and what other commands make of a super stream's partitions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flowstream.client import hash_route
from tests.brokers.running import Broker
from tests.cli.command import Result, Terminal, flowstream
from tests.cli.modules import numbered
from tests.integration.test_client_consuming import declare_super_stream

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
    assert f"name one (such as {partitions[0]})" in wrong.err
    assert len(flowstream("offsets", "get", "me", stream_name, "--json", url=broker.url).json) == 2


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
    refused(2, "--max-age 'soon'", "create", "x", "--max-age", "soon")
    refused(2, "--partitions", "create", "x", "--partitions", "0")
    refused(2, "Add --yes", "delete", stream_name)
    for command in ("list-partitions", "route"):
        key = ("k",) if command == "route" else ()
        refused(6, "does not exist", command, "no-such-super-stream", *key)
    refused(6, "does not exist", "delete", "no-such-super-stream", "--yes")
