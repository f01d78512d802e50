"""`flowstream peek` and `tail`: the right messages, decoded, and nothing taken."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator

import pytest

from flowstream.cli.messages import decoded, printable, shown
from flowstream.protocol import Properties, encode_message
from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream

LINES = b"".join(b'{"n":%d}\n' % number for number in range(1_000))


@pytest.fixture
def url(broker: Broker, stream_name: str) -> Iterator[str]:
    flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=LINES)
    yield broker.url
    flowstream("streams", "delete", stream_name, "--yes", "--if-exists", url=broker.url)


def numbers(text: str) -> list[int]:
    return [json.loads(line)["body"]["n"] for line in text.splitlines()]


def test_peek_shows_what_was_asked_for(url: str, stream_name: str) -> None:
    def peek(*arguments: str) -> list[int]:
        result = flowstream("peek", stream_name, "--json", *arguments, url=url)
        assert result.code == 0, result.err
        return numbers(result.out)

    assert peek() == list(range(10))
    assert peek("-n", "3", "--from", "500") == [500, 501, 502]
    assert peek("--last", "3") == [997, 998, 999]
    line = ("offsets", "set", "me", stream_name, "1")  # takes up an offset of the stream
    assert flowstream(*line, url=url).code == 0
    flowstream("publish", stream_name, "-", url=url, stdin=b'{"n":1000}\n')
    assert peek("--last", "3") == [998, 999, 1000]
    assert peek("--from", "1h", "-n", "1") == [0]
    assert peek("--from", "990", "--grep", '"n":99[78]') == [997, 998]
    assert peek("--from", "next") == []
    assert peek("--from", "2000-01-01T00:00", "-n", "1") == [0]
    assert peek("--grep", "Z  ") == []  # the pattern is for what was published, not for our columns


def test_lines_for_people(url: str, stream_name: str) -> None:
    out = flowstream("peek", stream_name, "-n", "1", url=url).out
    assert out.startswith("0  20")
    assert out.endswith('Z  {"n":0}\n')
    assert flowstream("peek", stream_name, "-n", "2", "--bodies", url=url).out == (
        '{"n":0}\n{"n":1}\n'
    )


def test_tail_follows_until_ctrl_c(url: str, stream_name: str) -> None:
    with Started("tail", stream_name, "--from", "999", "--json", url=url) as tail:
        assert numbers(tail.stdout.readline().decode()) == [999]
        flowstream("publish", stream_name, "-", url=url, stdin=b'{"n":1000}\n')
        assert numbers(tail.stdout.readline().decode()) == [1000]
        tail.signal(signal.SIGINT)
        assert tail.end().code == 0


def test_on_a_terminal_it_is_the_same_lines(url: str, stream_name: str) -> None:
    with Terminal("peek", stream_name, "-n", "2", url=url) as terminal:
        assert terminal.end() == 0
    assert re.search(r'0  20\S+Z  {"n":0}\r\n1  20\S+Z  {"n":1}', terminal.screen)
    with Terminal("tail", stream_name, "--from", "999", url=url) as terminal:
        terminal.expect('{"n":999}')
        terminal.type("\x03")
        assert terminal.end() == 0


def test_a_super_stream_is_followed_in_all_its_partitions(broker: Broker, stream_name: str) -> None:
    one, two = (f"{stream_name}-{number}" for number in range(2))
    line = ("super-streams", "create", stream_name, "--partitions", "2")
    assert flowstream(*line, url=broker.url).code == 0
    for partition in (one, two):
        body = partition[-1:].encode()
        flowstream("publish", partition, "-", url=broker.url, stdin=body)
    with Started("tail", stream_name, "--from", "first", url=broker.url) as tail:
        lines = sorted(tail.stdout.readline().decode().split() for _ in range(2))
        tail.signal(signal.SIGINT)
        assert tail.end().code == 0
    assert [(line[0], line[1], line[3]) for line in lines] == [(one, "0", "0"), (two, "0", "1")]
    refused = flowstream("peek", stream_name, url=broker.url)
    assert refused.code == 2
    assert f"name a partition: {one}, {two}" in refused.err
    flowstream("super-streams", "delete", stream_name, "--yes", url=broker.url)


def test_a_reader_that_leaves_ends_it_quietly(url: str, stream_name: str) -> None:
    with Started("peek", stream_name, "-n", "1000", "--from", "first", url=url) as peek:
        peek.stdout.close()
        assert peek.stderr.read() == b""
        assert peek.process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--from", "soon"), 2, "--from 'soon' is no place in a stream"),
        (("--grep", "("), 2, "is no pattern"),
        (("--json", "--bodies"), 2, "exclude each other"),
        (("--last", "2", "--from", "1"), 2, "exclude each other"),
        ((), 6, "does not exist"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, text: str, broker: Broker) -> None:
    result = flowstream("peek", "no-such-stream", *arguments, url=broker.url)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err


def test_amqp_messages_show_their_payload_and_properties() -> None:
    raw = encode_message(
        b"[1]",
        properties=Properties(subject="x"),
        application_properties={"why": "late\x1b", "n": 3},
    )
    message = shown("s", 7, 1_000, raw)
    assert message.line() == "7  1970-01-01T00:00:01Z  [1] subject=x why=late\\x1b n=3"
    assert message.document() == {
        "stream": "s",
        "offset": 7,
        "timestamp": 1_000,
        "body": [1],
        "properties": {"why": "late\x1b", "n": 3},
        "standard_properties": {"subject": "x"},
    }


def test_bytes_that_only_look_like_amqp_are_a_body() -> None:
    assert shown("s", 0, 0, b"\x00Su\xb0garbage").body == b"\x00Su\xb0garbage"


def test_bodies_are_json_text_or_base64() -> None:
    assert decoded(b'{"a":1}') == ("body", {"a": 1})
    assert decoded("é".encode()) == ("text", "é")
    assert decoded(b"\xff\x00") == ("base64", "/wA=")


def test_nothing_a_terminal_should_not_get_is_printed() -> None:
    assert printable(b"a\x1b[31m\nb\xff") == "a\\x1b[31m\\nb\\xff"
