"""`flowstream publish`: every record once and in order, confirmed before the end."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import signal
from contextlib import nullcontext
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from flowstream.backoff import Backoff
from flowstream.broker import Broker as EmbeddedBroker
from flowstream.cli.commands.publish import how_to_continue
from flowstream.cli.publishing.feed import Feed, FeedPlan, Tally
from flowstream.client import Environment, StreamUrl
from flowstream.errors import FlowstreamError, PublishFailed
from flowstream.protocol import data_of, encode_data
from flowstream.testing import broker as embedded
from tests.brokers.running import Broker
from tests.cli.command import TIMEOUT, Started, Terminal, flowstream
from tests.cli.rows import Bad, Row

ROWS = {
    ("publish",): Row(
        "{stream} three.ndjson", r"3 messages confirmed in \S+",
        Bad("{stream} gone.csv", 20, "cannot read gone.csv"), document='"messages": 3',
        waiting="s some.ndjson",
    ),
}  # fmt: skip


def read(url: str, stream: str, count: int, *, writer: Started | None = None) -> list[bytes]:
    """The first `count` raw bodies of a stream, which a `writer` that goes on may still write."""
    found: list[bytes] = []

    async def consume() -> None:
        async with (
            Environment(url) as environment,
            environment.consumer(stream, offset="first") as consumer,
            anyio.create_task_group() as group,
        ):
            if writer is not None:
                group.start_soon(writer.must_run)
            async for delivery in consumer:
                found.extend(delivery.bodies)
                if len(found) >= count:
                    break
            group.cancel_scope.cancel()

    async def in_time() -> None:
        with anyio.move_on_after(TIMEOUT) as limit:
            await consume()
        assert not limit.cancelled_caught, f"{len(found)} of {count} messages in {TIMEOUT:g} s"

    anyio.run(in_time)
    return found


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


def test_a_named_pipe_is_read_to_its_end_and_until_ctrl_c(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    """As `<(command)` is: it has no size, and no position to ask for."""
    pipe = tmp_path / "pipe.ndjson"
    os.mkfifo(pipe)
    line = ("publish", stream_name, str(pipe), "--create", "--raw")
    with Started(*line, url=broker.url) as command:
        pipe.write_bytes(b"1\n2\n")
        result = command.end()
    assert (result.code, result.out[:21]) == (0, "2 messages confirmed "), result.err
    with Started(*line, url=broker.url) as command, pipe.open("wb", buffering=0) as writer:
        writer.write(b"3\n")
        assert read(broker.url, stream_name, 3, writer=command) == [b"1", b"2", b"3"]
        command.signal(signal.SIGINT)
        result = command.end()
    assert result.code == 130
    assert "continue with --from-line 2" in result.err


def test_a_stream_that_does_not_exist_is_not_made(broker: Broker, stream_name: str) -> None:
    result = flowstream("publish", stream_name, "-", url=broker.url, stdin=b"x\n")
    assert result.code == 6
    assert stream_name in result.err
    assert "flowstream streams create" in result.err


@pytest.mark.parametrize("more", [(), ("--create",)], ids=["", "create"])
def test_with_a_key_a_super_stream_is_missing(
    broker: Broker, stream_name: str, more: tuple[str, ...]
) -> None:
    line = ("publish", stream_name, "-", "--format", "ndjson", "--key", "n", *more)
    result = flowstream(*line, url=broker.url, stdin=b'{"n":1}\n')
    assert result.code == 6
    advice = f"flowstream super-streams create {stream_name}"
    assert advice in result.err
    assert flowstream(*advice.split()[1:], url=broker.url).code == 0
    assert flowstream(*line, url=broker.url, stdin=b'{"n":1}\n').code == 0
    flowstream("super-streams", "delete", stream_name, "--yes", url=broker.url)


def test_what_trickles_in_is_sent_at_once_and_a_signal_ends_it(
    broker: Broker, stream_name: str
) -> None:
    """Standard input stays open all the time."""
    flowstream("streams", "create", stream_name, url=broker.url)
    with Started("publish", stream_name, "-", "--raw", url=broker.url) as publisher:
        publisher.write(b"one\ntwo\nthr")
        assert read(broker.url, stream_name, 2, writer=publisher) == [b"one", b"two"]
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
        bodies = read(broker.url, stream_name, 10, writer=feed)
        feed.signal(signal.SIGTERM)
        result = feed.end()
    assert bodies[:10] == [b"a", b"b", b"c"] * 3 + [b"a"]
    assert result.code == 0
    assert len(bodies) < 60  # a second's worth at most, not the whole machine's speed


def test_progress_is_a_bar_on_a_terminal(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    """Of what takes longer than a second; there is none before."""
    (tmp_path / "some.txt").write_text("line\n" * 150)
    line = ("publish", stream_name, "some.txt", "--create", "--rate", "60")
    with Terminal(*line, url=broker.url, cwd=tmp_path, width=200) as terminal:
        terminal.expect(rf"publishing to {stream_name} +━+ +\d+ messages, \d+/s, [3-7]\d%, .* left")
        assert terminal.end() == 0
    assert terminal.seen.lines[0].startswith("150 messages confirmed")


def ndjson(path: Path, count: int, *, wrong: int = 0) -> str:
    """A file of so many lines; the one numbered `wrong` is no JSON."""
    lines = [f'{{"n":{number}}}' for number in range(1, count + 1)]
    if wrong:
        lines[wrong - 1] = '{"n":'
    path.write_text("\n".join(lines))
    return str(path)


def numbers(url: str, stream: str, count: int) -> list[int]:
    return [json.loads(data_of(body))["n"] for body in read(url, stream, count)]


@pytest.mark.every_broker
def test_after_a_mistake_the_corrected_file_adds_nothing_twice(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    line = ("publish", stream_name, ndjson(tmp_path / "o.ndjson", 3_000, wrong=2_001))
    failed = flowstream(*line, "--name", "once", "--create", url=broker.url)
    assert (failed.code, failed.out) == (20, "")
    assert "line 2001 is not JSON" in failed.err
    assert "2,000 messages are confirmed: every line before 2001;" in failed.err
    assert "continue with --from-line 2001 --name once" in failed.err
    ndjson(tmp_path / "o.ndjson", 3_000)
    figures = flowstream(*line, "--name", "once", "--json", url=broker.url).json
    assert (figures["messages"], figures["deduplicated"]) == (1_000, 2_000)
    again = flowstream(*line, "--name", "once", url=broker.url)
    assert again.code == 0
    assert again.out.startswith("0 messages confirmed")
    assert f"3,000 messages were in {stream_name} already under 'once'" in again.err
    flowstream("publish", stream_name, "-", "--raw", url=broker.url, stdin=b"end\n")
    bodies = read(broker.url, stream_name, 3_001)
    assert [json.loads(data_of(body))["n"] for body in bodies[:-1]] == [*range(1, 3_001)]
    assert bodies[-1] == b"end"


def test_without_a_name_a_file_goes_on_from_the_line(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    line = ("publish", stream_name, ndjson(tmp_path / "o.ndjson", 30, wrong=20), "--create")
    failed = flowstream(*line, "--json", url=broker.url)
    assert (failed.code, failed.json["messages"], failed.json["next_line"]) == (20, 19, 20)
    ndjson(tmp_path / "o.ndjson", 30)
    assert flowstream(*line, "--from-line", "20", url=broker.url).out.startswith("11 messages")
    assert numbers(broker.url, stream_name, 30) == [*range(1, 31)]


def test_a_message_no_frame_can_hold_is_named_and_all_before_it_confirmed(
    broker: Broker, stream_name: str
) -> None:
    lines = b"one\n" + b"x" * 1_048_560 + b"\nthree\n"
    result = flowstream("publish", stream_name, "-", "--create", url=broker.url, stdin=lines)
    assert result.code == 20
    assert "standard input line 2 is too large" in result.err
    assert "1 message is confirmed: every line before 2" in result.err
    assert read(broker.url, stream_name, 1) == [encode_data(b"one")]


def test_ctrl_c_says_where_to_go_on(broker: Broker, stream_name: str, tmp_path: Path) -> None:
    line = ("publish", stream_name, ndjson(tmp_path / "o.ndjson", 500), "--create", "--rate", "50")
    with Started(*line, url=broker.url) as publisher:
        flowstream("streams", "create", stream_name, "--if-missing", url=broker.url)
        read(broker.url, stream_name, 2, writer=publisher)
        publisher.signal(signal.SIGINT)
        result = publisher.end()
    assert result.code == 130
    count = int(result.out.split()[0])
    assert f"every line before {count + 1}; continue with --from-line {count + 1}" in result.err
    assert numbers(broker.url, stream_name, count) == [*range(1, count + 1)]


def test_a_stream_deleted_meanwhile_ends_it_with_what_was_confirmed(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    plan = FeedPlan(stream_name, ndjson(tmp_path / "o.ndjson", 5_000), rate=500)

    async def publish() -> str:
        async with (
            Environment(broker.url, missing_timeout=0.1) as environment,
            anyio.create_task_group() as group,
        ):
            await environment.create_stream(stream_name)
            parts = itertools.count()

            def shown() -> None:
                if next(parts) == 1:
                    group.start_soon(environment.delete_stream, stream_name)

            with Feed(plan) as feed, pytest.raises(FlowstreamError) as caught:
                await feed.send(environment, shown)
        assert "does not exist" in str(caught.value)
        assert feed.tally.messages == feed.tally.next_line - 1 < 5_000
        return how_to_continue(plan, feed.tally)

    assert re.search(r"every line before \d+; continue with --from-line \d+", anyio.run(publish))


def test_a_named_file_outlives_a_broker_that_is_started_again(
    tmp_path: Path, stream_name: str
) -> None:
    """What was sent and not confirmed is sent again, and what the broker had is dropped."""
    count = 20_000
    plan = FeedPlan(stream_name, ndjson(tmp_path / "o.ndjson", count), raw=True, name="once")

    async def publish() -> tuple[Tally, list[bytes]]:
        lost = anyio.Event()

        async def serve(task_status: TaskStatus[str]) -> None:
            async with EmbeddedBroker(port=0, data=tmp_path / "data") as first:
                port = StreamUrl.parse(first.url).port
                task_status.started(first.url)
                await lost.wait()
            async with EmbeddedBroker(port=port, data=tmp_path / "data"):
                await anyio.sleep_forever()

        def shown() -> None:
            if feed.tally.messages > count // 3:
                lost.set()

        async with anyio.create_task_group() as group:
            url = await group.start(serve)
            async with Environment(url, backoff=Backoff(initial=0.02)) as environment:
                await environment.create_stream(stream_name)
                with Feed(plan) as feed:
                    await feed.send(environment, shown)
                bodies: list[bytes] = []
                async with environment.consumer(stream_name) as consumer:
                    async for delivery in consumer:
                        bodies += delivery.bodies
                        if len(bodies) >= count:
                            break
            group.cancel_scope.cancel()
        return feed.tally, bodies

    tally, bodies = anyio.run(publish)
    assert (tally.messages, tally.next_line) == (count, count + 1)
    assert [json.loads(body)["n"] for body in bodies] == [*range(1, count + 1)]


@pytest.mark.parametrize("by_hand", [False, True], ids=["in time", "by two signals"])
def test_a_broker_that_confirms_nothing_is_given_up(
    tmp_path: Path, stream_name: str, monkeypatch: pytest.MonkeyPatch, by_hand: bool
) -> None:
    """The broker goes away in the middle: what it has confirmed is an unbroken run."""
    monkeypatch.setattr("flowstream.cli.publishing.feed.PATIENCE", 600.0 if by_hand else 0.3)
    file = ndjson(tmp_path / "o.ndjson", 100_000)

    async def publish() -> Tally:
        lost = anyio.Event()

        async def serve(task_status: TaskStatus[str]) -> None:
            async with embedded() as running:
                task_status.started(running.url)
                await lost.wait()
            for _ in range(2 * by_hand):
                feed.stop()
                await anyio.lowlevel.checkpoint()

        def shown() -> None:
            if feed.tally.messages > 20_000:
                lost.set()

        async with anyio.create_task_group() as group:
            url = await group.start(serve)
            with Feed(FeedPlan(stream_name, file, raw=True)) as feed:
                async with Environment(url, close_timeout=0.1) as environment:
                    await environment.create_stream(stream_name)
                    with (
                        nullcontext()
                        if by_hand
                        else pytest.raises(PublishFailed, match="confirmed no message of")
                    ):
                        await feed.send(environment, shown)
        return feed.tally

    tally = anyio.run(publish)
    assert tally.interrupted is by_hand
    assert 0 < tally.messages == tally.next_line - 1 < 100_000


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "text"),
    [
        (("s", "gone.csv"), b"", 20, "cannot read gone.csv"),
        (("s", "some.parquet"), b"", 20, "add --format"),
        (("s", "-", "--format", "ndjson"), b"{", 20, "line 1 is not JSON"),
        (("s", "-", "--loop"), b"", 2, "--loop needs a file"),
        (("s", "/dev/stdin", "--format", "lines", "--loop"), b"", 2, "--loop needs a file"),
        (("s", "-", "--format", "csv"), b"a\r1\r", 20, "line 1 is not CSV: a carriage return"),
        (("s", "-", "--rate", "0"), b"", 2, "--rate"),
        (("s", "-", "--from-line", "0"), b"", 2, "--from-line"),
        (("s", "-", "--name", ""), b"", 2, "--name '': a name has 1 to 255 bytes"),
        (("s", "-", "--name", "é" * 128), b"", 2, "a name has 1 to 255 bytes"),
        (("s", "a.txt", "--loop", "--name", "n"), b"", 2, "--loop and --name exclude"),
        (("s", "a.txt", "--loop", "--from-line", "2"), b"", 2, "--loop and --from-line exclude"),
        (("s", "-", "--format", "ndjson"), b"[" * 99_999, 20, "line 1 is nested too deeply"),
        (("s", "-"), "one".encode("utf-16"), 20, "standard input looks like UTF-16"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...], stdin: bytes, code: int, text: str, broker: Broker,
    stream_name: str,
) -> None:  # fmt: skip
    """`s` stands for a stream of the test's own."""
    flowstream("streams", "create", stream_name, url=broker.url)
    words = [stream_name if word == "s" else word for word in arguments]
    result = flowstream("publish", *words, url=broker.url, stdin=stdin)
    flowstream("streams", "delete", stream_name, "--yes", url=broker.url)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err
