"""Who reads a stream under a reference, by a monitor or the management API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from flowstream.cli.readers.active_readers import ReaderQuery, phase_of, reader_among
from tests.brokers.running import Broker
from tests.cli.command import Result, flowstream
from tests.cli.modules import numbered

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
