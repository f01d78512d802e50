"""`flowstream publish`: every record once and in order, confirmed before the end."""

from __future__ import annotations

import gzip
import json
import signal
from pathlib import Path

import anyio
import pytest

from flowstream.client import Environment
from flowstream.protocol import data_of, encode_data
from tests.brokers.running import Broker
from tests.cli.command import Started, Terminal, flowstream


def read(url: str, stream: str, count: int) -> list[bytes]:
    """The first `count` raw bodies of a stream."""

    async def consume() -> list[bytes]:
        found: list[bytes] = []
        async with (
            Environment(url) as environment,
            environment.consumer(stream, offset="first") as consumer,
        ):
            async for delivery in consumer:
                found += delivery.bodies
                if len(found) >= count:
                    break
        return found

    return anyio.run(consume)


def test_csv_becomes_json_in_order(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv.gz"
    lines = ["id,amount", *(f"{number},{number}.50" for number in range(5_000))]
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    result = flowstream("publish", stream_name, str(file), "--create", url=broker.url)
    assert result.code == 0
    assert result.out.startswith(f"5,000 messages confirmed in {stream_name} (")
    bodies = read(broker.url, stream_name, 5_000)
    assert [json.loads(data_of(body)) for body in bodies] == [
        {"id": str(number), "amount": f"{number}.50"} for number in range(5_000)
    ]


def test_bodies_are_amqp_unless_raw(broker: Broker, stream_name: str) -> None:
    flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=b"one\n")
    figures = flowstream(
        "publish", stream_name, "-", "--raw", "--json", url=broker.url, stdin=b"two\n"
    ).json
    assert (figures["messages"], figures["bytes"]) == (1, 3)
    assert read(broker.url, stream_name, 2) == [encode_data(b"one"), b"two"]


def test_a_stream_that_does_not_exist_is_not_made(broker: Broker, stream_name: str) -> None:
    result = flowstream("publish", stream_name, "-", url=broker.url, stdin=b"x\n")
    assert result.code == 6
    assert stream_name in result.err
    assert "flowstream streams create" in result.err


def test_what_trickles_in_is_sent_at_once_and_a_signal_ends_it(
    broker: Broker, stream_name: str
) -> None:
    """Standard input stays open all the time."""
    flowstream("streams", "create", stream_name, url=broker.url)
    with Started("publish", stream_name, "-", "--raw", url=broker.url) as publisher:
        publisher.write(b"one\ntwo\nthr")
        assert read(broker.url, stream_name, 2) == [b"one", b"two"]
        publisher.signal(signal.SIGINT)
        result = publisher.end()
    assert result.code == 130
    assert result.out.startswith("2 messages confirmed")
    assert "interrupted" in result.err


def test_a_feed_loops_at_a_rate_until_ctrl_c(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    (tmp_path / "three.txt").write_text("a\nb\nc\n")
    line = ("publish", stream_name, "three.txt", "--create", "--raw", "--rate", "50", "--loop")
    with Started(*line, url=broker.url, cwd=tmp_path) as feed:
        flowstream("streams", "create", stream_name, "--if-missing", url=broker.url)
        bodies = read(broker.url, stream_name, 10)
        feed.signal(signal.SIGTERM)
        result = feed.end()
    assert bodies[:10] == [b"a", b"b", b"c"] * 3 + [b"a"]
    assert result.code == 0
    assert len(bodies) < 60  # a second's worth at most, not the whole machine's speed


def test_progress_is_a_bar_on_a_terminal(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("line\n" * 30)
    line = ("publish", stream_name, "some.txt", "--create", "--rate", "60")
    with Terminal(*line, url=broker.url, cwd=tmp_path) as terminal:
        terminal.expect(rf"publishing to {stream_name[:20]}")
        assert terminal.end() == 0
    assert "30 messages confirmed" in terminal.screen


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "text"),
    [
        (("s", "gone.csv"), b"", 20, "cannot read gone.csv"),
        (("s", "some.parquet"), b"", 20, "add --format"),
        (("s", "-", "--format", "ndjson"), b"{", 20, "line 1 is not JSON"),
        (("s", "-", "--loop"), b"", 2, "--loop needs a file"),
        (("s", "-", "--rate", "0"), b"", 2, "--rate"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...], stdin: bytes, code: int, text: str, broker: Broker
) -> None:
    flowstream("streams", "create", "s", "--if-missing", url=broker.url)
    result = flowstream("publish", *arguments, url=broker.url, stdin=stdin)
    flowstream("streams", "delete", "s", "--yes", url=broker.url)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err
