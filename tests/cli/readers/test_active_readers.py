"""Who reads a stream under a reference, by a monitor or the management API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowstream.cli.readers.active_readers import ReaderQuery, phase_of, reader_among
from flowstream.testing import broker_in_thread
from tests.brokers.running import Broker
from tests.cli.command import Result, Started, flowstream, wait_until
from tests.cli.modules import numbered, write_module

pytestmark = pytest.mark.timeout(300)  # many processes


COUNT = 100


class Stream:
    """A hundred messages on a broker."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.broker = broker
        self.name = name
        line = ("publish", name, "-", "--create")
        assert flowstream(*line, url=broker.url, stdin=numbered(COUNT)).code == 0

    def line(self, *arguments: str) -> tuple[str, ...]:
        """Without `--watch` given, commits are not watched for."""
        watch = () if "--watch" in arguments else ("--watch", "0")
        return ("offsets", "reset", self.name, self.name, *arguments, *watch)

    def reset(self, *arguments: str) -> Result:
        return flowstream(*self.line(*arguments), url=self.broker.url)

    def place(self, *arguments: str) -> int:
        """Where a reset leads to."""
        result = self.reset(*arguments, "--yes", "--json")
        assert result.code == 0, result.err
        (row,) = result.json
        return int(row["goes_on_with"])

    @property
    def stored(self) -> int | None:
        line = ("offsets", "get", self.name, self.name, "--json")
        value: int | None = flowstream(*line, url=self.broker.url).json["offset"]
        return value


@pytest.fixture
def stream(broker: Broker, stream_name: str) -> Iterator[Stream]:
    yield Stream(broker, stream_name)
    names = (stream_name, f"{stream_name}.dead")
    flowstream("streams", "delete", *names, "--yes", "--if-exists", url=broker.url)


QUESTION = ReaderQuery("rabbitmq-stream://x", "orders", "orders", ("orders",))


def test_who_is_the_reader_by_a_monitor() -> None:
    def board(name: str, *streams: str) -> dict[str, Any]:
        found = [{"stream": stream} for stream in streams]
        return {"pipelines": [{"name": name, "phase": "running", "streams": found}]}

    assert phase_of(board("orders", "orders"), QUESTION) == "running"
    assert phase_of(board("orders"), QUESTION) == "running"
    assert phase_of(board("orders", "returns"), QUESTION) is None
    assert phase_of(board("billing", "orders"), QUESTION) is None


def test_a_run_of_another_broker_is_another_reader() -> None:
    pipelines = [{"name": "orders", "phase": "running", "streams": [{"stream": "orders"}]}]
    board = {"pipelines": pipelines, "broker": "rabbit@one, virtual host /"}
    assert phase_of(board, QUESTION, "rabbit@one, virtual host /") == "running"
    assert phase_of(board, QUESTION, "rabbit@one, virtual host /shop") is None
    assert phase_of(board, QUESTION, "rabbit@two, virtual host /") is None
    # What is not known may be the same one.
    assert phase_of(board, QUESTION, "") == "running"
    assert phase_of({**board, "broker": ""}, QUESTION, "rabbit@two, virtual host /") == "running"
    old = {"pipelines": pipelines}
    assert phase_of(old, QUESTION, "rabbit@two, virtual host /") == "running"


def test_a_run_on_another_broker_is_not_in_the_way(stream: Stream, tmp_path: Path) -> None:
    write_module(tmp_path, stream.name)
    line = ("run", "shop", "--http", "127.0.0.1:0")
    with broker_in_thread() as other:
        sent = flowstream("publish", stream.name, "-", "--create", url=other.url, stdin=numbered(9))
        assert sent.code == 0
        with Started(*line, url=other.url, cwd=tmp_path) as running:
            monitor = running.line("live page on").split("//")[1].split("/")[0]
            wait_until(lambda: (tmp_path / "handled.txt").exists())
            asked = ("offsets", "reset", stream.name, stream.name, "--to", "first", "--yes",
                     "--watch", "0", "--http", monitor)  # fmt: skip
            refused = flowstream(*asked, url=other.url)
            accepted = flowstream(*asked, url=stream.broker.url)
    assert (refused.code, accepted.code) == (31, 0), (refused.err, accepted.err)


def test_who_is_the_reader_by_the_management_api() -> None:
    def consumer(stream: str, connection: str, name: str | None = None) -> dict[str, Any]:
        properties = {} if name is None else {"name": name}
        details = {"name": "127.0.0.1:1 -> 127.0.0.1:2"}
        return {
            "queue": {"name": stream},
            "properties": properties,
            "connection": connection,
            "connection_details": details,
        }

    mine = consumer("orders", "flowstream orders-consuming-2")
    assert reader_among([mine], QUESTION) is not None
    assert reader_among([consumer("orders", "x", "orders")], QUESTION) is not None
    others = [
        consumer("returns", "flowstream orders-consuming-2"),
        consumer("orders", "flowstream billing-consuming-2"),
        consumer("orders", "flowstream orders-consuming-2", "billing"),
        consumer("orders", ""),
    ]
    assert reader_among(others, QUESTION) is None
    young = {**mine, "connection_details": []}
    assert "a new connection" in str(reader_among([young], QUESTION))
