"""A halt names what to discard, and a run that is told so discards exactly that."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from flowstream.errors import ConfigurationError, Halted
from flowstream.pipeline import Message, Pipeline, discard_options, parse_places
from flowstream.pipeline.deciders.discards import Discards
from flowstream.pipeline.delivery import Delivery
from flowstream.telemetry import Dropped, Settled
from tests.support.pipelines import MemoryStream, Recorder, numbers, pipeline_of

BROKEN = b"\xff\xfe no JSON"


def advice(error: BaseException) -> list[str]:
    """The messages that the text says to discard."""
    return re.findall(r"--discard (\S+@\d+)", str(error))


async def halted(pipeline: Pipeline, **options: Any) -> Halted:
    with pytest.raises(Halted) as caught:
        await pipeline.run(**options)
    return caught.value


async def test_what_cannot_be_decoded_is_discarded_before_it_is_decoded(caplog):
    seen = Recorder()
    pipeline = pipeline_of(MemoryStream([*numbers(3), BROKEN, *numbers(2)]))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    error = await halted(pipeline)
    assert advice(error) == ["orders@3"]
    with caplog.at_level(logging.WARNING):
        result = await pipeline.run(discard="orders@3", telemetry=seen.telemetry)
    assert result.settled == {"ok": 2, "discarded": 1}
    assert result.discarded == (("orders", 3),)
    assert "discarded orders@3 unhandled, as requested" in caplog.text
    (dropped,) = seen.of(Dropped)
    assert (dropped.reason, dropped.messages, dropped.intentional) == (
        "discarded on request", 1, True,
    )  # fmt: skip
    assert ("discarded", 1) in [(it.outcome, it.messages) for it in seen.of(Settled)]


async def test_the_whole_stream_may_be_discarded():
    producer = MemoryStream(numbers(5))
    pipeline = pipeline_of(producer)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise AssertionError

    result = await pipeline.run(discard=[("orders", n) for n in range(5)])
    assert (result.settled, producer.stored) == ({"discarded": 5}, {"orders": 4})


async def test_what_never_came_is_said_at_the_end(caplog):
    producer = MemoryStream(numbers(10))
    producer.stored["orders"] = 4
    pipeline = pipeline_of(producer)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    result = await pipeline.run(discard=["orders@4", "orders@6", "orders@10", "other@1"])
    assert result.discarded == (("orders", 6),)
    assert result.not_discarded == {
        ("orders", 4): "it was settled before this run, whose committed offset was 4",
        ("orders", 10): "the stream ends at offset 9",
        ("other", 1): "nothing was read from this stream",
    }
    for name in ("orders@4", "orders@10", "other@1"):
        assert f"did not discard {name}:" in caplog.text


async def test_a_stream_that_the_pipeline_does_not_read_is_refused_at_the_start():
    class Known(MemoryStream):
        def reads(self) -> list[str]:
            return ["orders", "returns"]

    pipeline = pipeline_of(Known(numbers(3)))

    @pipeline.processor
    async def handle(message: Message[dict]) -> None:
        raise AssertionError

    with pytest.raises(ConfigurationError, match=r"'order@1'.* it reads 'orders', 'returns'"):
        await pipeline.run(discard=["order@1"])


@pytest.mark.parametrize(
    "value",
    ["orders", "@3", "orders@", "orders@-1", "orders@x", "orders@1.5", "orders@٣", "orders@ 3",
     f"orders@{2**63}", ("orders", -1), ("orders", True), ("", 3), ("orders", "3"), 3, None,
     ("orders",)],
)  # fmt: skip
async def test_malformed_messages_are_refused_with_the_format(value):
    with pytest.raises(ConfigurationError, match="discard: expected STREAM@OFFSET such as"):
        await pipeline_with_handler().run(discard=[value])


@pytest.mark.parametrize("values", [3, None])
async def test_what_is_no_list_of_messages_is_refused(values):
    with pytest.raises(ConfigurationError, match="discard: expected messages such as"):
        await pipeline_with_handler().run(discard=values)


def pipeline_with_handler() -> Pipeline:
    pipeline = pipeline_of(1)

    @pipeline.processor
    async def handle(message: Message[dict]) -> None: ...

    return pipeline


def test_names_of_messages() -> None:
    assert parse_places("a@b@3", "x") == (("a@b", 3),)
    assert parse_places(["s@3", ("s", 3), "s@4"], "x") == (("s", 3), ("s", 4))
    assert discard_options([("a b", 1)]) == "--discard 'a b@1'"
    many = discard_options([("s", n) for n in range(150)])
    assert many.endswith("--discard s@99 ... (and 50 more; `Halted.messages` has all of them)")


class SourcePartition:
    def __init__(self, *, end: int, first: int = 0, tail: int | None = None) -> None:
        self.stream, self.end, self.first, self.tail = "s", end, first, tail


def test_why_a_message_did_not_come() -> None:
    discards = Discards([("s", n) for n in (2, 5, 8, 20, 30)])
    assert discards.opened(SourcePartition(end=10, first=4, tail=25), None)
    delivery = Delivery(SourcePartition(end=10), 4, 3, offsets=[4, 7, 8])
    assert discards.indexes(delivery) == [2]
    assert discards.unmet() == {
        ("s", 2): "the first message that came has offset 4",
        ("s", 5): "the stream has no such message, or the filter left it out",
        ("s", 20): "the run ended before it, at offset 9",
        ("s", 30): "the stream ends at offset 25",
    }
