"""The pipelines that are measured, declared from the options of a scenario."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import pydantic

import flowstream.pipeline
from flowstream.errors import ConfigurationError
from flowstream.pipeline import Batch, Message, Pipeline, Producer
from tests.benchmarks.bodies import KEY
from tests.benchmarks.measuring import BATCH, Skipped


class Order(pydantic.BaseModel):
    by: str
    id: int
    customer: int
    date: date
    cds: int
    amount: Decimal
    note: str


@dataclass(frozen=True, slots=True)
class End:
    """What the last stage does: `stop` after so many messages, and `look` at each batch."""

    messages: int
    stop: Callable[[], None]
    look: Callable[[], None] | None = None


def payload_type(name: str) -> Any:
    """What the handlers' messages are decoded to: "bytes", "dict", "pydantic" or "msgspec"."""
    if name == "msgspec":
        import msgspec

        fields = [(name, field.annotation) for name, field in Order.model_fields.items()]
        return msgspec.defstruct("OrderStruct", fields)
    return {"bytes": bytes, "dict": dict[str, Any], "pydantic": Order}[name]


def declare(
    producer: Producer,
    end: End | None,
    *,
    processor: str | None = "async",
    payload: str = "bytes",
    batcher: bool = True,
    key: str | None = None,
    workers: int = 1,
) -> Pipeline:
    """A pipeline whose handlers take the data of each message, and do nothing with it.

    `processor` is "async", "def" (handlers in worker threads), "slices", "filter" (it drops every
    other message), "route" (it sends each to one of two batchers) or None; `key` is what it is
    partitioned by: "raw" (a part of the body) or "data" (a field). `end` is None where the source
    ends by itself.
    """
    pipeline = Pipeline("benchmark", producer)
    annotation = payload_type(payload)
    options: dict[str, Any] = {"concurrency": workers}
    if key is not None:
        options["partition_by"] = KEYS[key]
    if processor == "slices":
        options["slices"] = True
    if processor is not None:
        handler = HANDLERS[processor](annotation, None if batcher else end)
        try:
            pipeline.processor(**options)(handler)
        except ConfigurationError as error:
            raise Skipped(f"this version does not know it: {error}") from None
    if batcher:
        threaded = processor == "def"
        for name in ("default", "other") if processor == "route" else ("default",):
            batched = _batch_handler(annotation, end, threaded=threaded)
            pipeline.batcher(name=name, size=BATCH)(batched)
    try:
        pipeline.check()
    except ConfigurationError as error:
        raise Skipped(f"this version does not know it: {error}") from None
    return pipeline


KEYS: dict[str, Callable[[Message[Any]], Any]] = {
    "raw": lambda message: message.raw[KEY],
    "data": lambda message: message.data["by"],
}


# Handlers count in their own body, as the callbacks of the peer do: a call for it would cost more
# than what is called.


def _async_handler(annotation: Any, end: End | None) -> Callable[..., Any]:
    if end is None:

        async def take(message: Message[Any]) -> None:
            _ = message.data

        return _annotated(take, Message[annotation])
    left, stop = end.messages, end.stop

    async def count(message: Message[Any]) -> None:
        nonlocal left
        _ = message.data
        left -= 1
        if not left:
            stop()

    return _annotated(count, Message[annotation])


def _plain_handler(annotation: Any, end: End | None) -> Callable[..., Any]:
    if end is None:

        def take(message: Message[Any]) -> None:
            _ = message.data

        return _annotated(take, Message[annotation])
    left, stop = end.messages, end.stop

    def count(message: Message[Any]) -> None:
        nonlocal left
        _ = message.data
        left -= 1
        if not left:
            stop()

    return _annotated(count, Message[annotation])


def _filter_handler(annotation: Any, end: End | None) -> Callable[..., Any]:
    assert end is None
    odd = False

    async def take(message: Message[Any]) -> None:
        nonlocal odd
        odd = not odd
        if odd:
            message.drop("every other")

    return _annotated(take, Message[annotation])


def _route_handler(annotation: Any, end: End | None) -> Callable[..., Any]:
    assert end is None
    odd = False

    async def take(message: Message[Any]) -> None:
        nonlocal odd
        odd = not odd
        message.to("other" if odd else "default")

    return _annotated(take, Message[annotation])


def _slice_handler(annotation: Any, end: End | None) -> Callable[..., Any]:
    kind: Any = getattr(flowstream.pipeline, "Slice", None)
    if kind is None:
        raise Skipped("this version has no handlers of slices")
    left = end.messages if end else 0

    async def count(some: Any) -> None:
        nonlocal left
        left -= len(some.data)
        if end is not None and not left:
            end.stop()

    return _annotated(count, kind[annotation])


def _batch_handler(annotation: Any, end: End | None, *, threaded: bool) -> Callable[..., Any]:
    left = end.messages if end else 0

    def take(batch: Batch[Any]) -> None:
        nonlocal left
        left -= len(batch.data)
        if end is not None and end.look is not None:
            end.look()
        if end is not None and not left:
            end.stop()

    async def take_async(batch: Batch[Any]) -> None:
        take(batch)

    return _annotated(take if threaded else take_async, Batch[annotation])


HANDLERS: dict[str, Callable[[Any, End | None], Callable[..., Any]]] = {
    "async": _async_handler,
    "def": _plain_handler,
    "slices": _slice_handler,
    "filter": _filter_handler,
    "route": _route_handler,
}


def _annotated(handler: Callable[..., Any], annotation: Any) -> Callable[..., Any]:
    """The handler with the payload type that the scenario names in place of `Any`."""
    first = next(iter(inspect.signature(handler).parameters))
    handler.__annotations__[first] = annotation
    return handler
