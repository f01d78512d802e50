"""A run warns where another process reads the same stream under the same reference."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from flowstream import Environment, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.cli.configuration.settings import settings
from flowstream.cli.readers import other_runs
from flowstream.cli.readers.other_runs import is_shared, others_among, warn_of_others
from flowstream.client import this_process
from flowstream.telemetry import Event, Telemetry, Warned
from tests.brokers.running import Broker
from tests.support.reading import PATIENCE

STREAMS = frozenset({"orders-0", "orders-1"})


def consumer(
    stream: str = "orders-0",
    name: str = "orders",
    process: str | None = "web-1:7",
    place: str = "a -> b",
) -> dict[str, Any]:
    return {
        "queue": {"name": stream},
        "properties": {"name": name},
        "connection_details": {"name": place},
        "process": process,
    }


def test_who_else_reads_under_the_reference() -> None:
    consumers = [
        consumer(place="1 -> b"),
        consumer("orders-1", place="1 -> b"),
        consumer(process="", place="2 -> b"),
        consumer(process="web-2:7", place="mine -> b"),
        consumer(process=None, place="young -> b"),
        consumer("returns"),
        consumer(name="billing"),
        {**consumer(), "properties": {}},
        {**consumer(), "connection_details": []},
    ]
    found = others_among(consumers, STREAMS, "orders", "web-2:7")
    assert found == {"1 -> b": ("orders-0", "web-1:7"), "2 -> b": ("orders-0", "")}


def test_who_is_meant_to_share() -> None:
    assert not is_shared(StreamProducer("orders"))
    assert not is_shared(SuperStreamProducer("orders"))
    assert is_shared(SuperStreamProducer("orders", single_active=True))


@pytest.fixture
def _settings_are_read() -> None:
    """They read files, which commands do before there is a loop."""
    settings()


@pytest.mark.anyio
@pytest.mark.usefixtures("_settings_are_read")
@pytest.mark.parametrize("process", ["other:1", this_process()], ids=["another", "this"])
async def test_the_management_api_tells(
    rabbitmq: Broker, stream_name: str, process: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer of this process is not another one; one that has gone is none."""
    monkeypatch.setattr(other_runs, "LOOKS", [0.2] * 60 if process == "other:1" else [1.0] * 3)
    configured = SimpleNamespace(given=lambda key: rabbitmq.management)
    monkeypatch.setattr(other_runs, "settings", lambda: configured)
    warned: list[Warned] = []

    class Seen:
        def observe(self, event: Event, /) -> None:
            if isinstance(event, Warned):
                warned.append(event)

    pipeline = Pipeline("orders", StreamProducer(stream_name))
    telemetry = Telemetry(Seen())
    monkeypatch.setattr(other_runs, "this_process", lambda: "here:1")
    if process != "other:1":
        monkeypatch.setattr(other_runs, "this_process", lambda: process)
    with anyio.fail_after(PATIENCE):
        async with Environment(rabbitmq.url, name="another") as environment:
            await environment.create_stream(stream_name)
            async with environment.consumer(stream_name, reference="orders"):
                await warn_of_others(environment, rabbitmq.url, pipeline, telemetry)
            found, warned[:] = list(warned), []
            monkeypatch.setattr(other_runs, "LOOKS", [0.2])
            await warn_of_others(environment, rabbitmq.url, pipeline, telemetry)
    assert warned == []
    if process == "other:1":
        (event,) = found
        assert (event.pipeline, event.subject) == ("orders", stream_name)
        assert (
            f"another process also reads {stream_name!r} under the reference 'orders'" in event.text
        )
        assert this_process() in event.text
    else:
        assert found == []
