"""`flowstream lag`: messages and seconds behind, the same figures on every broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowstream.cli.readers.position import lost
from tests.brokers.running import Broker
from tests.cli.command import Result, Terminal, flowstream
from tests.cli.modules import numbered, write_module
from tests.cli.rows import MISSING, TABLE, Bad, Row

ROWS = {
    ("lag",): Row(
        "{stream} me", r"\S+ +me +0 +2 +2 ", Bad("no-such-stream", 6, MISSING),
        drawn=TABLE, document='"lag": 2',
        waiting="s",
    ),
}  # fmt: skip


pytestmark = pytest.mark.timeout(300)  # many processes


def publish(url: str, stream: str, count: int) -> None:
    line = ("publish", stream, "-", "--create")
    assert flowstream(*line, url=url, stdin=numbered(count)).code == 0


@pytest.mark.every_broker
def test_lag_is_told_in_messages_and_seconds(broker: Broker, stream_name: str) -> None:
    publish(broker.url, stream_name, 100)

    def show(*arguments: str) -> Result:
        return flowstream("lag", stream_name, *arguments, url=broker.url)

    (row,) = show("me", "--json").json
    assert (row["stream"], row["reference"], row["offset"]) == (stream_name, "me", None)
    assert (row["lag"], row["lost"]) == (100, 0)
    assert 0 <= row["lag_seconds"] < 600
    assert "nothing is stored under 'me'" in show("me").err
    assert f"flowstream lag {stream_name} PIPELINE" in show().err
    flowstream("offsets", "set", "me", stream_name, "89", url=broker.url)
    flowstream("offsets", "set", stream_name, stream_name, "99", url=broker.url)
    assert [it["lag"] for it in show("me", stream_name, "--json").json] == [10, 0]
    (up_to_date,) = show("--json").json
    assert (up_to_date["reference"], up_to_date["lag_seconds"]) == (stream_name, 0)
    table = show("me").out.splitlines()
    assert table[0].split() == [
        *("stream", "reference", "offset", "last", "offset", "lag", "lag", "seconds", "lost")
    ]
    assert table[1].split()[:5] == [stream_name, "me", "89", "99", "10"]


def test_scripts_are_told_by_the_exit_code(broker: Broker, stream_name: str) -> None:
    publish(broker.url, stream_name, 10)

    def show(*arguments: str) -> Result:
        return flowstream("lag", stream_name, "me", *arguments, url=broker.url)

    assert show("--fail-above", "10", "--fail-above-seconds", "3600").code == 0
    above = show("--fail-above", "9", "--json")
    assert above.code == 30
    assert above.json[0]["lag"] == 10
    assert above.err.endswith(
        f"me is 10 messages behind on {stream_name}, but only 9 are allowed\n"
    )
    old = show("--fail-above-seconds", "0")
    assert old.code == 30
    assert "s old, but only 0 s are allowed" in old.err


def test_a_pipeline_names_its_stream_and_reference(
    broker: Broker, stream_name: str, tmp_path: Path
) -> None:
    publish(broker.url, stream_name, 20)
    target = write_module(tmp_path, stream_name)
    line = ("lag", "--pipeline", target, "--json")
    assert flowstream(*line, url=broker.url, cwd=tmp_path).json[0]["lag"] == 20
    run = flowstream("run", target, "--until-idle", "0.2", url=broker.url, cwd=tmp_path)
    assert run.code == 0, run.err
    assert flowstream(*line, url=broker.url, cwd=tmp_path).json[0]["lag"] == 0
    flowstream("streams", "delete", f"{stream_name}.dead", "-y", "--if-exists", url=broker.url)


def test_on_a_terminal_it_is_a_table(broker: Broker, stream_name: str) -> None:
    publish(broker.url, stream_name, 3)
    with Terminal("lag", stream_name, "me", url=broker.url) as terminal:
        assert terminal.end() == 0
    assert "──" in terminal.screen
    assert "lag seconds" in terminal.screen


@pytest.mark.every_broker
def test_a_stream_that_is_missing(broker: Broker) -> None:
    result = flowstream("lag", "no-such-stream", "me", url=broker.url)
    assert (result.code, result.out) == (6, "")
    assert "no-such-stream" in result.err
    assert "does not exist" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ((), 2, "give a stream"),
        (("--pipeline", "gone"), 10, "no module 'gone'"),
        (("orders", "--fail-above", "-1"), 2, "--fail-above"),
        (("orders", "--url", "http://x"), 3, "the scheme must be"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = flowstream("lag", *arguments)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("stored", "first", "gone"),
    [
        (None, None, 0),
        (None, 50, 0),
        (-1, 0, 0),
        (41, 0, 0),
        (10, 50, 39),
        (49, 50, 0),
        (120, 0, 0),
    ],
)
def test_what_is_gone(stored: int | None, first: int | None, gone: int) -> None:
    assert lost(stored, first) == gone
