"""A filter names what is wanted, and refuses values that select nothing."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from flowstream import Filter, Message, Pipeline, StreamProducer, SuperStreamProducer
from flowstream.errors import ConfigurationError
from flowstream.testing import MemoryEnvironment, Pause, virtual_time


def wanted(body: bytes) -> bool:
    return body == b"a"


def test_a_consumer_gets_its_options() -> None:
    found = Filter(("eu", "us"), wanted, unfiltered=True).options
    assert found == {"filter_values": ("eu", "us"), "match": wanted, "match_unfiltered": True}
    assert not Filter(("eu",), wanted).options["match_unfiltered"]


@pytest.mark.parametrize(
    ("values", "match", "says"),
    [
        ("eu", wanted, "values"),
        ((), wanted, "values"),
        ((5,), wanted, "values"),
        (("x" * 40_000,), wanted, "values"),
        (("eu",), "eu", "match"),
        (("eu",), None, "match"),
    ],
)
def test_what_cannot_filter_is_refused(values: Any, match: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^Filter > {says}"):
        Filter(values, match)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [virtual_time("asyncio"), virtual_time("trio")])
@pytest.mark.parametrize("shared", [False, True])
async def test_a_run_is_idle_once_what_is_wanted_has_come(shared: bool) -> None:
    """However slow the broker is: silence says nothing about what it has not sent yet."""
    environment = MemoryEnvironment(chunk_size=1)
    producer: StreamProducer = StreamProducer("orders", filter=Filter(("x",), wanted))
    stream = "orders"
    if shared:
        producer = SuperStreamProducer("orders", filter=Filter(("x",), wanted))
        stream = environment.super_stream("orders", 2)[1]
    environment.append(stream, [Pause(0.5), b"a", b"b", b"a", Pause(0.5), b"a", b"b", b"b"])
    pipeline = Pipeline("filtered", producer)

    @pipeline.processor
    async def handle(message: Message[str]) -> None:
        assert message.data == "a"

    async with pipeline.start(environment=environment) as running:
        with anyio.fail_after(10):
            assert (await running.wait_idle(0.1)).settled == {"ok": 3}
