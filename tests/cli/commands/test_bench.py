"""`flowstream bench`: a table of what was measured, and nothing left on the broker."""

from __future__ import annotations

import re
import signal

import pytest

from flowstream.cli.commands.bench import ConfirmTimes, percentile
from tests.brokers.running import Broker
from tests.cli.command import Result, Started, Terminal, flowstream
from tests.cli.rows import TABLE, Bad, Row

ROWS = {
    ("bench",): Row(
        "--messages 500 --seconds 0.1", r"publish to delivery +\d+",
        Bad("--size 7", 2, "--size"), drawn=TABLE, document='"messages_per_s"',
        waiting="",
    ),
}  # fmt: skip


QUICK = ("--messages", "2000", "--seconds", "0.5")
NAME = re.compile(r"flowstream-bench-[0-9a-f]+")


def exists(broker: Broker, text: str) -> bool:
    """Whether the stream that a bench spoke of is on the broker."""
    (name,) = set(NAME.findall(text))
    result = flowstream("streams", "stats", name, url=broker.url)
    assert result.code in {0, 6}, result.err
    return result.code == 0


@pytest.mark.slow
def test_four_measurements_and_nothing_is_left(broker: Broker) -> None:
    result = flowstream("bench", *QUICK, "--json", url=broker.url)
    assert result.code == 0, result.err
    rows = {row["measured"]: row for row in result.json}
    assert [*rows] == ["publish", "consume", "publish one by one", "publish to delivery"]
    assert rows["publish"]["messages"] == rows["consume"]["messages"] <= 2000
    for name in rows.keys() - {"consume"}:
        assert rows[name]["messages"] > 0
        assert 0 < rows[name]["p50_ms"] <= rows[name]["p99_ms"]
    assert rows["consume"]["p50_ms"] is None
    assert not exists(broker, result.err)


@pytest.mark.slow
def test_on_a_terminal_and_through_a_pipe_it_is_a_table(broker: Broker) -> None:
    with Terminal("bench", *QUICK, url=broker.url) as terminal:
        assert terminal.end() == 0
    assert "messages per s" in terminal.screen
    plain = flowstream("bench", *QUICK, url=broker.url).out.splitlines()
    assert len(plain) == 5
    assert plain[1].startswith("publish ")


@pytest.mark.slow
def test_ctrl_c_deletes_the_stream(broker: Broker) -> None:
    with Started("bench", "--seconds", "60", "--size", "8", url=broker.url) as bench:
        told = bench.line("measuring in the stream")
        assert exists(broker, told)
        bench.signal(signal.SIGINT)
        result: Result = bench.end()
    assert result.code == 130
    assert "interrupted; the stream was deleted" in result.err
    assert "Traceback" not in result.err
    assert not exists(broker, told)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--size", "7"), 2, "--size"),
        (("--seconds", "0"), 2, "--seconds"),
        (("--messages", "many"), 2, "--messages"),
        (("--url", "rabbitmq-stream://localhost:1"), 4, "localhost:1"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = flowstream("bench", *arguments)
    assert (result.code, result.out) == (code, "")
    assert text in result.err
    assert "Traceback" not in result.err


def test_percentiles() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0], 0.99) == 3.0
    values = [float(n) for n in reversed(range(100))]
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50.0, 99.0)


def test_confirms_are_matched_to_what_was_sent() -> None:
    times = ConfirmTimes(10)
    times.sent(5, 1.0)  # 10 to 14
    times.sent(5, 2.0)  # 15 to 19
    times.confirmed((10, 11), 3.0)
    assert times.seconds == []
    times.confirmed((14, 13, 12), 4.0)
    assert times.seconds == [3.0]
    times.confirmed((19,), 5.0)
    assert times.seconds == [3.0, 3.0]
    assert times.next == 20
