"""Creates OpenTelemetry spans, by its API only: the program chooses the SDK and the exporter.

    telemetry = Telemetry(tracer=Tracing())
    await pipeline.run(telemetry=telemetry)

A slice of a processor and a batch of a batcher have a span each; single messages have none. These
spans are roots: a slice has many senders, so its span links to the contexts that the messages carry
in their AMQP application properties. Messages that a sink publishes as AMQP 1.0 carry the context
of the sink's span. Names and attributes are those of the messaging conventions. It needs the extra
`otel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from flowstream.errors import FlowstreamError, NotSupported
from flowstream.texts import LOG_LIMIT, printable, text_of, traceback_of, type_name
from flowstream.version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, TracerProvider

MAX_LINKS = 64
"""How many messages of a span are read for contexts, to bound what tracing costs."""


class Traced(Protocol):
    """The application properties that may carry a context."""

    @property
    def stream(self) -> str: ...

    @property
    def application_properties(self) -> Mapping[str, Any]: ...

    @property
    def failed(self) -> str | None: ...


class Tracing:
    """Creates spans with a tracer of `tracer_provider`, or of the global provider.

    Raises NotSupported if the extra is not installed.
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        try:
            self._trace = import_module("opentelemetry.trace")
            self._propagate = import_module("opentelemetry.propagate")
        except ImportError as error:
            raise NotSupported(
                "tracing needs OpenTelemetry's API (the extra otel): pip install opentelemetry-api"
            ) from error
        self._nothing = import_module("opentelemetry.context").Context()
        self._tracer = self._trace.get_tracer("flowstream", __version__, tracer_provider)

    @contextmanager
    def handling(
        self, pipeline: str, stage: str, messages: Sequence[Traced]
    ) -> Iterator[Callable[[Sequence[Traced], BaseException | None], None]]:
        """The span of a stage's handler over a slice or batch; current while it runs.

        It yields a function to call at the end with the messages and the error that failed them.
        """
        attributes: dict[str, Any] = {
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": pipeline,
            "flowstream.pipeline": pipeline,
            "flowstream.stage": stage,
        }
        streams = {message.stream for message in messages}
        if len(streams) == 1:
            attributes["messaging.destination.name"] = streams.pop()
        with self._tracer.start_as_current_span(
            f"process {pipeline}.{stage}",
            context=self._nothing,
            kind=self._trace.SpanKind.CONSUMER,
            attributes=attributes | _common(len(messages)),
            links=self._links(messages),
        ) as span:

            def tell(messages: Sequence[Traced], error: BaseException | None) -> None:
                self._outcome(span, messages, error)

            yield tell

    @contextmanager
    def publishing(self, stream: str, messages: int) -> Iterator[dict[str, str]]:
        """The span of publishing to a stream, a child of the current one.

        It yields the application properties that carry its context to consumers:

            with tracing.publishing("orders", 1) as properties:
                message = AmqpMessage.of(body, application_properties=properties)
                await publisher.publish(message)
        """
        with self._tracer.start_as_current_span(
            f"publish {stream}",
            kind=self._trace.SpanKind.PRODUCER,
            attributes={
                "messaging.operation.name": "publish",
                "messaging.operation.type": "send",
                "messaging.destination.name": stream,
            }
            | _common(messages),
        ):
            carrier: dict[str, str] = {}
            self._propagate.inject(carrier)
            yield carrier

    def _links(self, messages: Sequence[Traced]) -> list[Link]:
        """The different contexts that the first messages carry."""
        found: dict[tuple[int, int], Link] = {}
        for message in messages[:MAX_LINKS]:
            context = self._sender(message)
            if context is not None and context.is_valid:
                found[context.trace_id, context.span_id] = self._trace.Link(context)
        return list(found.values())

    def _sender(self, message: Traced) -> Any:
        """The span context that a message carries, or None."""
        try:
            properties = message.application_properties
        except FlowstreamError:
            return None  # a damaged message fails when it is decoded
        carrier = {name: text for name, text in properties.items() if isinstance(text, str)}
        if not carrier:
            return None
        context = self._propagate.extract(carrier, context=self._nothing)
        return self._trace.get_current_span(context).get_span_context()

    def _outcome(self, span: Span, messages: Sequence[Traced], error: BaseException | None) -> None:
        if error is not None:
            failed, reason = len(messages), text_of(error)
            shown = {"message": reason, "stacktrace": traceback_of(error, LOG_LIMIT)}
            span.record_exception(
                printable(error), {f"exception.{name}": text for name, text in shown.items()}
            )
            span.set_attribute("error.type", type_name(error))
        else:
            reasons = [message.failed for message in messages if message.failed is not None]
            failed, reason = len(reasons), next(iter(reasons), "")
        if failed:
            span.set_attribute("flowstream.failed_message_count", failed)
            span.set_status(self._trace.StatusCode.ERROR, reason)


def _common(messages: int) -> dict[str, Any]:
    return {"messaging.system": "rabbitmq", "messaging.batch.message_count": messages}
