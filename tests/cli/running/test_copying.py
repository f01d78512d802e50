"""`super-streams create --from`: every message is copied once, in the order of its key."""

from __future__ import annotations

import json
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from flowstream.cli.exit_codes import ExitCode
from flowstream.cli.running.copying import key_from
from flowstream.client import AmqpMessage, Environment
from flowstream.pipeline import Message
from flowstream.testing import broker_in_thread
from tests.brokers.running import Broker
from tests.cli.command import Result, Started, flowstream

COUNT = 30_000
FEW = 3_000
"""For a copy that nobody kills."""
KEYS = 13


@pytest.fixture
def source(broker: Broker, stream_name: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A stream with COUNT messages, or as many as its parameter says; every tenth of them is
    AMQP 1.0 with a property."""
    count = getattr(request, "param", COUNT)
    if broker.version < (3, 13):
        pytest.skip("the protocol creates super streams from RabbitMQ 3.13 on")

    async def publish() -> None:
        async with Environment(broker.url) as environment:
            await environment.create_stream(stream_name)
            async with environment.publisher(stream_name) as publisher:
                for start in range(0, count, 1_000):
                    await publisher.publish_many([body(n) for n in range(start, start + 1_000)])

    anyio.run(publish)
    yield stream_name
    flowstream(
        "super-streams", "delete", f"{stream_name}.v2", "--yes", "--if-exists", url=broker.url
    )
    flowstream(
        "super-streams", "delete", f"{stream_name}.v3", "--yes", "--if-exists", url=broker.url
    )


def body(n: int) -> bytes:
    plain = b'{"n":%d,"customer":%d}' % (n, n % KEYS)
    if n % 10:
        return plain
    return AmqpMessage.of(plain, application_properties={"tenth": n}).raw


def copied(broker: Broker, super_stream: str) -> dict[str, list[int]]:
    """The numbers in each partition. Bodies are compared byte for byte."""
    found: dict[str, list[int]] = defaultdict(list)

    async def read() -> None:
        async with Environment(broker.url) as environment:
            for partition in await environment.partitions(super_stream):
                last = await environment.last_offset(partition)
                if last is None:
                    continue
                async with environment.consumer(partition, offset="first") as consumer:
                    async for delivery in consumer:
                        for raw in delivery.bodies:
                            start = raw.index(b'{"n"')
                            n = json.loads(raw[start:])["n"]
                            assert raw == body(n)
                            found[partition].append(n)
                        if delivery.offsets[-1] >= last:
                            break

    anyio.run(read)
    return found


def check_complete(found: dict[str, list[int]], count: int = COUNT) -> None:
    assert sorted(n for numbers in found.values() for n in numbers) == list(range(count))
    for numbers in found.values():
        by_key: dict[int, list[int]] = defaultdict(list)
        for n in numbers:
            by_key[n % KEYS].append(n)
        assert all(theirs == sorted(theirs) for theirs in by_key.values())


def copy(broker: Broker, source: str, target: str, *more: str, key: str = "customer") -> Result:
    line = ("super-streams", "create", target, "--from", source, "--key", key, *more)
    return flowstream(*line, url=broker.url)


@pytest.mark.slow
@pytest.mark.every_broker
def test_a_copy_that_is_killed_is_complete_in_the_end(broker: Broker, source: str) -> None:
    target = f"{source}.v2"
    line = ("super-streams", "create", target, "--partitions", "3", "--from", source,
            "--key", "customer")  # fmt: skip
    for seconds in (0.3, 0.8, 0.1):
        with Started(*line, url=broker.url) as running:
            running.line("is running|: running|settled|live|resumes|begins")
            time.sleep(seconds)
            running.signal(signal.SIGKILL)
            running.end()
    done = copy(broker, source, target, "--until-idle")
    assert done.code == 0, done.err
    assert f"{target} exists: {target}-0, {target}-1, {target}-2" in done.out
    check_complete(copied(broker, target))
    more = copy(broker, target, f"{source}.v3", "--partitions", "5", "--until-idle")
    assert more.code == 0, more.err
    assert f"to continue: flowstream super-streams create {source}.v3 --from {target}" in more.out
    found = copied(broker, f"{source}.v3")
    assert len(found) == 5
    check_complete(found)


@pytest.mark.medium
@pytest.mark.parametrize("source", [FEW], indirect=True)
def test_a_copy_keeps_the_field_that_it_began_with(broker: Broker, source: str) -> None:
    """By two fields, messages with one key would be in two partitions, out of their order."""
    target, again = f"{source}.v2", f"{source}.v3"
    wrong = copy(broker, source, target, "--partitions", "2", "--until-idle", key="customers")
    assert wrong.code == ExitCode.HALTED
    assert copy(broker, source, target, "--until-idle").code == 0  # nothing was copied by it
    refused = copy(broker, source, target, "--until-idle", key="n")
    assert refused.code == ExitCode.USAGE
    assert f"--key n: {target} has messages of {source} that were copied by another field" in (
        refused.err
    )
    assert copy(broker, source, target, "--until-idle").code == 0
    check_complete(copied(broker, target), FEW)
    assert copy(broker, target, again, "--until-idle").code == 0
    assert copy(broker, target, again, "--until-idle", key="n").code == ExitCode.USAGE


def test_what_does_not_fit_is_refused(broker: Broker, stream_name: str) -> None:
    def refused(words: str, code: int = 2) -> str:
        result = flowstream("super-streams", "create", *words.split(), url=broker.url)
        assert result.code == code, result.err
        return result.err

    assert "--from needs one --key" in refused("a --from b")
    assert "--from needs one --key" in refused("a --from b --key x --key y")
    assert "is the super stream itself" in refused("a --from a --key x")
    long = f"{'a' * 120} --from {'b' * 150} --key x"
    assert "a name that is 34 bytes shorter" in refused(long), "it was created, and never filled"
    assert "--until-idle is only for --from" in refused("a --until-idle")
    assert "does not exist" in refused(f"{stream_name} --from no-such --key x", 6)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"x", "the body is not JSON, so it has no field 'k'"),
        (b"[1]", "the body has no field 'k'"),
        (b'{"k":1.5}', "the field 'k' is float; expected text or a whole number"),
        (b'{"k":true}', "the field 'k' is bool"),
    ],
)
def test_a_message_without_a_key_fails_with_its_reason(raw: bytes, says: str) -> None:
    with pytest.raises(LookupError, match=says.replace("[", r"\[")):
        key_from("k")(Message.new(raw, raw=raw))


def test_keys_are_text_or_whole_numbers() -> None:
    for raw, key in ((b'{"k":7}', "7"), (b'{"k":"eu"}', "eu")):
        assert key_from("k")(Message.new(raw, raw=raw)) == key


@pytest.mark.slow
def test_what_cannot_be_copied_is_left_out_by_the_command_that_the_error_names(
    tmp_path: Path,
) -> None:
    (tmp_path / "rows.ndjson").write_text('{"k": 1}\n{"n": 2}\n{"k": null}\n{"k": 4}\n')
    line = ["super-streams", "create", "v2", "--from", "rows", "--key", "k", "--until-idle"]
    with broker_in_thread() as broker:

        def run(*words: str) -> Result:
            return flowstream(*words, url=broker.url, cwd=tmp_path)

        assert run("publish", "rows", "rows.ndjson", "--create").code == 0
        halted = run(*line)
        assert halted.code == ExitCode.HALTED
        more = "--discard rows@1 --discard rows@2"
        command = " ".join(("flowstream", *line))
        assert f"to continue: {command}\n" in halted.out
        assert f"to continue without the failed messages: {command} {more}\n" in halted.out
        error = halted.err[halted.err.rindex("error: ") :]
        assert "the copy halted at rows@1: the body has no field 'k'. Leave these 2" in error
        assert f"{command} {more}" in error
        assert "flowstream run" not in halted.out + error
        assert "address from FLOWSTREAM_URL" in halted.err
        done = run(*line, *more.split())
        assert done.code == 0, done.err
        assert "3 messages handled (1 ok, 2 discarded)" in done.out
        assert "discarded on request: rows@1, rows@2" in done.out
        assert run(*line).code == 0
        assert "--discard is only for --from" in run(*line[:3], "--discard", "rows@1").err
