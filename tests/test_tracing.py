"""Spans per slice and batch, linked to what the messages carry, and carried on by what is sent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from flowstream import (
    Batch,
    Drop,
    Environment,
    Message,
    Pipeline,
    Retry,
    StreamProducer,
    StreamSink,
    Telemetry,
    Tracing,
)
from flowstream.client import AmqpMessage
from flowstream.errors import NotSupported, ProtocolError
from flowstream.tracing import MAX_LINKS
from tests.brokers.running import Broker
from tests.cli.command import flowstream
from tests.support.pipelines import pipeline_of


class Spans:
    """A tracing whose spans are kept."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)
        self.telemetry = Telemetry(tracer=self.tracing)
        self.tracer = provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


@dataclass
class Carrying:
    """A message that carries application properties."""

    application_properties: Mapping[str, Any]
    stream: str = "s"
    failed: str | None = None


class Damaged(Carrying):
    """A message whose application properties cannot be read."""

    @property
    def application_properties(self) -> Mapping[str, Any]:
        raise ProtocolError("damaged")

    @application_properties.setter
    def application_properties(self, _: Mapping[str, Any]) -> None: ...


def links(span: ReadableSpan) -> set[int]:
    return {link.context.span_id for link in span.links}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.both_backends
async def test_a_slice_and_a_batch_are_a_span_each(spans: Spans) -> None:
    pipeline = pipeline_of(10)
    current = []

    @pipeline.processor
    async def look(message: Message[bytes]) -> None:
        current.append(trace.get_current_span().get_span_context().span_id)

    @pipeline.batcher(size=10, batch_timeout=60)
    def load(batch: Batch[bytes]) -> None:  # in a worker thread
        current.append(trace.get_current_span().get_span_context().span_id)

    with spans.tracer.start_as_current_span("program"):
        await pipeline.run(telemetry=spans.telemetry)
    slices, batch = spans.named("process test.processor"), spans.one("process test.default")
    assert sum(attributes(each)["messaging.batch.message_count"] for each in slices) == 10
    assert set(current) == {each.context.span_id for each in (*slices, batch)}
    for each in (*slices, batch):
        assert each.parent is None
        assert each.kind is SpanKind.CONSUMER
        assert each.status.status_code is StatusCode.UNSET
    assert attributes(batch) == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.consumer.group.name": "test",
        "messaging.batch.message_count": 10,
        "flowstream.pipeline": "test",
        "flowstream.stage": "default",
    }


async def test_failures_are_told(spans: Spans) -> None:
    pipeline = pipeline_of(3, on_failure=Drop(), retry=Retry(attempts=1))

    @pipeline.processor
    async def look(message: Message[bytes]) -> None:
        if message.offset == 1:
            message.fail("ones are not wanted")

    @pipeline.batcher(size=2, batch_timeout=60)
    async def load(batch: Batch[bytes]) -> None:
        raise OSError("the warehouse is closed")

    await pipeline.run(telemetry=spans.telemetry)
    bad = [s for s in spans.named("process test.processor") if not s.status.is_ok]
    assert [s.status.description for s in bad] == ["ones are not wanted"]
    assert [attributes(s)["flowstream.failed_message_count"] for s in bad] == [1]
    batch = spans.one("process test.default")
    assert batch.status.description == "the warehouse is closed"
    assert attributes(batch)["error.type"] == "OSError"
    assert attributes(batch)["flowstream.failed_message_count"] == 2
    assert [event.name for event in batch.events] == ["exception"]


async def test_a_span_has_no_password_of_an_address(spans: Spans) -> None:
    pipeline = pipeline_of(1, on_failure=Drop())

    @pipeline.batcher(size=1)
    async def load(batch: Batch[bytes]) -> None:
        raise OSError("cannot reach postgresql://app:hunter2@db/shop")

    await pipeline.run(telemetry=spans.telemetry)
    span = spans.one("process test.default")
    (event,) = span.events
    told = dict(event.attributes or {})
    assert told["exception.message"] == "cannot reach postgresql://app:***@db/shop"
    assert "raise OSError" in str(told["exception.stacktrace"])
    assert "hunter2" not in span.to_json()


def test_a_span_links_to_each_context_once_and_to_so_many_at_most(spans: Spans) -> None:
    tracing = spans.tracing
    carried = []
    for _ in range(3):
        with tracing.publishing("s", 1) as properties:
            carried.append(properties)
    messages = [Carrying(properties) for properties in carried * 2]
    odd = [Carrying({}), Carrying({"traceparent": 5}), Carrying({"traceparent": "?"}), Damaged({})]
    late = Carrying({"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"})
    padding = [Carrying({})] * (MAX_LINKS - len(messages) - len(odd))
    with tracing.handling("p", "stage", [*messages, *odd, *padding, late]):
        pass
    sent = {span.context.span_id for span in spans.named("publish s")}
    assert links(spans.one("process p.stage")) == sent
    assert len(spans.one("process p.stage").links) == 3


def test_messages_of_several_streams_have_no_one_destination(spans: Spans) -> None:
    with spans.tracing.handling("p", "stage", [Carrying({}, "a"), Carrying({}, "b")]):
        pass
    assert "messaging.destination.name" not in attributes(spans.one("process p.stage"))


def test_publishing_is_below_the_current_span(spans: Spans) -> None:
    with (
        spans.tracer.start_as_current_span("program") as program,
        spans.tracing.publishing("s", 7) as properties,
    ):
        pass
    span = spans.one("publish s")
    assert span.parent is not None
    assert span.parent.span_id == program.get_span_context().span_id
    assert span.kind is SpanKind.PRODUCER
    assert attributes(span)["messaging.batch.message_count"] == 7
    assert f"{span.context.trace_id:032x}-{span.context.span_id:016x}" in properties["traceparent"]


async def test_a_trace_goes_through_streams(spans: Spans, broker: Broker, stream_name: str) -> None:
    """A program publishes, a pipeline reads and publishes on, another reads that."""
    further = f"{stream_name}.further"
    first = Pipeline("first", StreamProducer(stream_name))

    @first.processor
    async def look(message: Message[bytes]) -> None: ...

    first.sink("on", StreamSink(further, amqp=True), size=3)
    second = Pipeline("second", StreamProducer(further))
    bodies = []

    @second.processor
    async def end(message: Message[bytes]) -> None:
        bodies.append(message.data)

    async with Environment(broker.url) as environment:
        for stream in (stream_name, further):
            await environment.create_stream(stream)
        async with environment.publisher(stream_name) as publisher:
            for body in (b"a", b"b", b"c"):
                with spans.tracing.publishing(stream_name, 1) as properties:
                    message = AmqpMessage.of(body, application_properties=properties)
                    await publisher.publish(message)
        for pipeline in (first, second):
            with anyio.fail_after(30):
                async with pipeline.start(
                    environment=environment, telemetry=spans.telemetry
                ) as running:
                    await running.wait_idle(0.1)
        for stream in (stream_name, further):
            await environment.delete_stream(stream)
    assert bodies == [b"a", b"b", b"c"]
    sent = {span.context.span_id for span in spans.named(f"publish {stream_name}")}
    assert len(sent) == 3
    read = spans.named("process first.processor")
    assert set().union(*map(links, read)) == sent
    on = spans.named("process first.on")
    assert set().union(*map(links, on)) == sent
    published = spans.named(f"publish {further}")
    assert {s.parent.span_id for s in published if s.parent} == {s.context.span_id for s in on}
    arrived = set().union(*map(links, spans.named("process second.processor")))
    assert arrived == {span.context.span_id for span in published}


async def test_bodies_that_are_not_amqp_stay_as_they_are(
    spans: Spans, broker: Broker, stream_name: str
) -> None:
    pipeline = pipeline_of(2)

    @pipeline.processor
    async def plain(message: Message[bytes]) -> bytes:
        return b"plain"

    pipeline.sink("on", StreamSink(stream_name), size=2)
    async with Environment(broker.url) as environment:
        await environment.create_stream(stream_name)
        await pipeline.run(environment=environment, telemetry=spans.telemetry)
        async with environment.consumer(stream_name, offset="first") as consumer:
            bodies: list[bytes] = []
            while len(bodies) < 2:
                bodies += (await anext(consumer)).bodies
        await environment.delete_stream(stream_name)
    assert bodies == [b"plain", b"plain"]
    assert spans.one(f"publish {stream_name}").parent is not None


# -- the switch


@pytest.mark.slow
def test_without_it_opentelemetry_is_not_imported() -> None:
    program = (
        "import flowstream.cli.running.supervisor, sys; sys.exit('opentelemetry' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(NotSupported, match="pip install opentelemetry-api"):
        Tracing()


MODULE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from flowstream import IterableProducer, Message, Pipeline

provider = TracerProvider()
out = open("spans", "w")
exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.name + "\\n")
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
pipeline = Pipeline("shop", IterableProducer([b"1", b"2"], stream="some"))

@pipeline.processor
async def look(message: Message[bytes]) -> None:
    pass
"""


@pytest.mark.parametrize("option", [[], ["--tracing"]])
def test_the_command_line_has_a_switch(tmp_path: Path, option: list[str]) -> None:
    (tmp_path / "shop.py").write_text(MODULE)
    result = flowstream("run", "shop", *option, cwd=tmp_path)
    assert result.code == 0, result.err
    names = set((tmp_path / "spans").read_text().split("\n")) - {""}
    assert names == ({"process shop.processor"} if option else set())
