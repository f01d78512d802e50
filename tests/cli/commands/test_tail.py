"""`flowstream peek` and `tail`: the right messages, decoded, and nothing taken."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import anyio
import pytest

from flowstream.cli.commands.tail import ReadRequest, _messages
from flowstream.client import Environment
from flowstream.protocol import Array, Described, Symbol, UInt, encode_message
from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream
from tests.cli.rows import MISSING, Bad, Row

ROWS = {
    ("peek",): Row(
        "{stream} -n 2", r'0  20\S+Z  \{"n":0\}\r?\n1  20\S+Z  \{"n":1\}',
        Bad("{stream} --from soon", 2, "is not a position in a stream"), document='{"n":0}',
        waiting="s",
    ),
    ("tail",): Row(
        "{stream} --from first", r'0  20\S+Z  \{"n":0\}',
        Bad("no-such-stream", 6, MISSING), document='{"n":0}', endless="out",
        waiting="s",
    ),
}  # fmt: skip


LINES = b"".join(b'{"n":%d}\n' % number for number in range(1_000))


@pytest.fixture
def url(broker: Broker, stream_name: str) -> Iterator[str]:
    flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=LINES)
    yield broker.url
    flowstream("streams", "delete", stream_name, "--yes", "--if-exists", url=broker.url)


def numbers(text: str) -> list[int]:
    return [json.loads(line)["body"]["n"] for line in text.splitlines()]


@pytest.mark.slow
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


@pytest.mark.anyio
async def test_what_retention_removed_does_not_end_it(broker: Broker, stream_name: str) -> None:
    async with Environment(broker.url) as environment:
        await environment.create_stream(
            stream_name, max_length_bytes=200_000, max_segment_size_bytes=50_000
        )
        async with environment.publisher(stream_name) as publisher:
            for _ in range(20):
                await publisher.publish_many([b"x" * 1000] * 50)
        first = (await environment.stream_stats(stream_name)).first_offset
        assert first

        for last in (None, 900):
            asked = ReadRequest(broker.url, stream_name, 0, None, last, False, None, "json")
            there = [it.offset async for it in _messages(environment, asked, False)]
            assert there == [*range(there[0], 1000)]
            assert there[0] >= first  # retention works in the background


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
    peeked = flowstream("peek", stream_name, url=broker.url)
    assert peeked.code == 0
    assert [line.split()[0] for line in sorted(peeked.out.splitlines())] == [one, two]
    flowstream("super-streams", "delete", stream_name, "--yes", url=broker.url)


def test_a_reader_that_leaves_ends_it_quietly(url: str, stream_name: str) -> None:
    with Started("peek", stream_name, "-n", "1000", "--from", "first", url=url) as peek:
        peek.stdout.close()
        assert peek.stderr.read() == b""
        assert peek.process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--from", "soon"), 2, "'soon' is not a position in a stream"),
        (("--grep", "("), 2, "is not a regular expression"),
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


DEEP = b"[" * 5_000 + b"]" * 5_000


AWKWARD: list[tuple[bytes, str, Any]] = [
    (b'{"a": 12345678901234567890.10}', "body", '{"a": 12345678901234567890.10}'),
    (b"[1e400, -0.0, %s]" % (b"9" * 5_000), "body", "[1e400, -0.0, " + "9" * 5_000 + "]"),
    (b'{\n  "a": [1,\t2]\r\n}', "body", '{   "a": [1, 2]  }'),
    (b'{"a": 1, "a": 2}', "body", '{"a": 1, "a": 2}'),
    (b'{"a": "\\ud800"}', "body", '{"a": "\\ud800"}'),
    (b'{"a": NaN}', "text", r'"{\"a\": NaN}"'),
    (b"[-Infinity]", "text", '"[-Infinity]"'),
    (DEEP, "text", f'"{DEEP.decode()}"'),
    (b"\xed\xa0\x80", "base64", '"7aCA"'),
    (b"\xff\xfe{\x00}\x00", "base64", '"//57AH0A"'),
    ("\x1b]0;title\x07\x9b31m\x7f\u202e".encode(), "text",
     r'"\u001b]0;title\u0007\u009b31m\u007f\u202e"'),
    (b"", "text", '""'),
    (b"x" * 2_000_000, "text", '"' + "x" * 2_000_000 + '"'),
    (encode_message(value={b"\xff": 1, UUID(int=1): b"\x00", 3: None, None: 1.5}), "body",
     '{"/w==": 1, "00000000-0000-0000-0000-000000000001": {"base64": "AA=="}, "3": null, '
     '"null": 1.5}'),
    (encode_message(value={1: "a", "1": "b"}), "body", '[[1, "a"], ["1", "b"]]'),
    (encode_message(value=[math.inf, math.nan, 2**63 - 1, UInt(1), Symbol("s")]), "body",
     '["Infinity", "NaN", 9223372036854775807, 1, "s"]'),
    (encode_message(value=Described(Symbol("d"), [Array(UInt, [UInt(1)])])), "body",
     '{"descriptor": "d", "value": [[1]]}'),
    (encode_message(sequence=[1, "\x1b"]), "body", r'[1, "\u001b"]'),
    (encode_message(b"x", application_properties={"a": b"\xff", "b": 1}), "text", '"x"'),
    (b"\x00\x53\x77" + b"\x00" * 5_000, "base64", ...),
]  # fmt: skip


@pytest.mark.slow
def test_one_awkward_message_hides_none_behind_it(broker: Broker, stream_name: str) -> None:
    bodies = [raw for raw, _, _ in AWKWARD if len(raw) < 1_000_000]

    async def fill() -> None:
        async with Environment(broker.url) as environment:
            await environment.create_stream(stream_name)
            async with environment.publisher(stream_name) as publisher:
                await publisher.publish_many([*bodies, b"last"])
                letters = [
                    encode_message(
                        body,
                        application_properties={
                            "x-pipeline": "p\x1b[2J",
                            "x-stream": stream_name,
                            "x-offset": offset,
                            "x-reason": "\x1b]0;owned\x07",
                            "x-traceback": "a\n\x1b[31mb",
                        },
                    )
                    for offset, body in enumerate(bodies)
                ]
                await environment.create_stream(f"{stream_name}.dead")
            async with environment.publisher(f"{stream_name}.dead") as publisher:
                await publisher.publish_many(letters)

    anyio.run(fill)
    everything = ("-n", "1000", "--from", "first")
    peeked = flowstream("peek", stream_name, "--json", *everything, url=broker.url)
    assert (peeked.code, peeked.err) == (0, "")
    lines = peeked.out.splitlines()
    documents = [json.loads(line, parse_int=str, parse_float=str) for line in lines]
    assert [int(document["offset"]) for document in documents] == list(range(len(bodies) + 1))
    assert documents[-1]["text"] == "last"
    with Terminal("peek", stream_name, *everything, url=broker.url) as terminal:
        assert terminal.end() == 0
    assert b"\x1b]0;title" not in terminal.raw
    with Started("tail", stream_name, "--json", "--from", "first", url=broker.url) as tail:
        tailed = [tail.stdout.readline().decode().rstrip("\n") for _ in lines]
        tail.signal(signal.SIGINT)
        assert tail.end().code == 0
    assert tailed == lines
    dead = f"{stream_name}.dead"
    listed = flowstream("dead-letters", "list", dead, "--json", url=broker.url)
    assert len(listed.json) == len(bodies)
    with Terminal("dead-letters", "list", dead, url=broker.url) as terminal:
        assert terminal.end() == 0
    assert b"owned\x07" not in terminal.raw
    assert b"\x1b[2J" not in terminal.raw
    shown_letter = flowstream("dead-letters", "show", dead, "7", url=broker.url)
    assert shown_letter.code == 0
    assert "\x1b" not in shown_letter.out
    for offset in map(bodies.index, (DEEP, AWKWARD[13][0])):
        one = flowstream("dead-letters", "show", dead, str(offset), "--json", url=broker.url)
        assert one.code == 0
        found = json.loads(one.out, parse_int=str, parse_float=str)["message"]
        expected = documents[offset] | {"timestamp": found["timestamp"]}
        assert found == expected
    flowstream("streams", "delete", stream_name, dead, "--yes", url=broker.url)
