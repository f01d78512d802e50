"""`flowstream streams` and `flowstream offsets`, on every broker."""

from __future__ import annotations

import pytest

from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream
from tests.cli.rows import LIST, MISSING, TABLE, Bad, Row

ROWS = {
    ("streams", "create"): Row(
        "{new} --max-age 7d", r"\S+ created",
        Bad("{stream}", 18, "exists already; --if-missing"),
        waiting="s",
    ),
    ("streams", "delete"): Row(
        "{stream}", r"\S+ deleted",
        Bad("no-such-stream --yes", 6, "does not exist; with --if-exists"),
        asks=r"Delete \S+ with all messages\?",
        waiting="s --yes",
    ),
    ("streams", "list"): Row(
        "--management {management}", r"messages +leader", LIST, drawn=TABLE, document='"leader"',
        wide=True,
        waiting="",
    ),
    ("streams", "stats"): Row(
        "{stream}", r"\S+ +0 +2 +\S+:\d+ +1", Bad("no-such-stream", 6, MISSING),
        drawn=TABLE, document='"last_offset": 2',
        waiting="s",
    ),
}  # fmt: skip


@pytest.mark.every_broker
def test_a_stream_lives_and_dies(broker: Broker, stream_name: str) -> None:
    url = broker.url
    assert flowstream("streams", "create", stream_name, url=url).out == f"{stream_name} created\n"
    again = flowstream("streams", "create", stream_name, "--if-missing", url=url)
    assert again.out == f"{stream_name} exists\n"
    (row,) = flowstream("streams", "stats", stream_name, "--json", url=url).json
    assert (row["stream"], row["last_offset"]) == (stream_name, None)
    assert flowstream("streams", "delete", stream_name, "-y", url=url).code == 0
    gone = flowstream("streams", "delete", stream_name, "--yes", "--if-exists", url=url)
    assert gone.out == f"{stream_name} does not exist\n"


@pytest.mark.every_broker
def test_a_stream_that_two_create_at_once_is_there_for_both(
    broker: Broker, stream_name: str
) -> None:
    """RabbitMQ says that it exists before it has a leader."""
    for number in range(2 if broker.name == "embedded" else 8):
        stream = f"{stream_name}.{number}"
        publish = ("publish", stream, "-", "--create")
        with Started(*publish, url=broker.url) as one, Started(*publish, url=broker.url) as other:
            made = flowstream("streams", "create", stream, "--if-missing", url=broker.url)
            for result in (one.feed(b"1\n"), other.feed(b"2\n"), made):
                assert result.code == 0, result.err


@pytest.mark.every_broker
def test_offsets_are_set_and_shown(broker: Broker, stream_name: str) -> None:
    url = broker.url
    flowstream("streams", "create", stream_name, url=url)
    lines = b"".join(b"%d\n" % number for number in range(100))
    assert flowstream("publish", stream_name, "-", url=url, stdin=lines).code == 0
    row = flowstream("offsets", "get", "reader", stream_name, "--json", url=url).json
    assert (row["offset"], row["last_offset"], row["lag"]) == (None, 99, 100)
    told = flowstream("offsets", "set", "reader", stream_name, "41", url=url)
    assert told.out == f"reader on {stream_name}: none -> 41; it continues with offset 42\n"
    assert told.err.startswith(f"reader skips up to 42 messages of {stream_name} that it has not")
    assert "(offsets 0 to 41;" in told.err
    row = flowstream("offsets", "get", "reader", stream_name, "--json", url=url).json
    assert (row["offset"], row["lag"]) == (41, 58)
    beyond = flowstream("offsets", "set", "other", stream_name, "500", url=url)
    assert (beyond.code, beyond.out) == (20, "")
    assert f"{stream_name} has the offsets 0 to 99, so offset 500 cannot be settled" in beyond.err
    table = flowstream("offsets", "get", "reader", stream_name, url=url).out.splitlines()
    assert table[1].split() == ["reader", stream_name, "41", "0", "99", "58"]


def test_streams_are_listed_by_the_management_api(rabbitmq: Broker, stream_name: str) -> None:
    flowstream("streams", "create", stream_name, "--max-age", "7d", url=rabbitmq.url)
    api = ("--management", str(rabbitmq.management))
    rows = flowstream("streams", "list", *api, "--json", url=rabbitmq.url).json
    (row,) = [row for row in rows if row["stream"] == stream_name]
    assert row["max_age"] in {"7D", "604800s"}
    assert stream_name in flowstream("streams", "list", *api, url=rabbitmq.url).out


def test_listing_without_the_api_says_what_to_do() -> None:
    result = flowstream("streams", "list", "--management", "http://a:secret@localhost:9")
    assert result.code == 4
    assert "no management API at http://localhost:9" in result.err
    assert "--management URL" in result.err
    assert "secret" not in result.err


def test_deleting_asks_on_a_terminal_and_refuses_without_one(
    broker: Broker, stream_name: str
) -> None:
    flowstream("streams", "create", stream_name, url=broker.url)
    refused = flowstream("streams", "delete", stream_name, url=broker.url)
    assert refused.code == 2
    assert "add --yes" in refused.err
    with Terminal("streams", "delete", stream_name, url=broker.url) as terminal:
        terminal.expect(r"Delete .* with all messages\?")
        terminal.type("n\n")
        assert terminal.end() == 130
    with Terminal("streams", "delete", stream_name, url=broker.url) as terminal:
        terminal.expect(r"Delete .* with all messages\?")
        terminal.type("y\n")
        assert terminal.end() == 0
    assert f"{stream_name} deleted" in terminal.screen


def test_a_partition_of_a_super_stream_is_not_deleted_by_mistake(
    broker: Broker, stream_name: str
) -> None:
    """Its publishers and consumers failed, and nothing had said so."""
    name, other = f"{stream_name}-eu-west", f"{stream_name}-eu-west-x"
    flowstream("super-streams", "create", name, "--partitions", "2", url=broker.url)
    flowstream("streams", "create", other, url=broker.url)
    words = ["streams", "delete", other, f"{name}-1", "--yes"]
    refused = flowstream(*words, url=broker.url)
    assert refused.code == 2
    assert f"{name}-1 is a partition of the super stream {name}" in refused.err
    assert f"flowstream super-streams delete {name}" in refused.err
    assert flowstream("streams", "stats", other, f"{name}-1", url=broker.url).code == 0
    forced = flowstream(*words, "--force", url=broker.url)
    assert forced.out.splitlines() == [f"{other} deleted", f"{name}-1 deleted"]
    flowstream("super-streams", "delete", name, "--yes", url=broker.url)
