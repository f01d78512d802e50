"""Parts of a pipeline's declaration in words, for `check` and `graph`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from flowstream.cli.output.console import short_size
from flowstream.connectors import DeadLetter, StreamProducer, SuperStreamProducer
from flowstream.pipeline import Pipeline
from flowstream.texts import plural


def source(pipeline: Pipeline) -> str:
    """The producer and where it starts."""
    producer = pipeline.producer
    kind = type(producer).__name__
    if not isinstance(producer, StreamProducer):
        return kind
    what = "super stream" if isinstance(producer, SuperStreamProducer) else "stream"
    reference = producer.reference or pipeline.name
    return f"{kind}: {what} {producer.stream} from {producer.offset}, offsets as {reference}"


def handler(declared: Any) -> str:
    """A processor or batcher: its handler, how it runs, and its payload type."""
    if declared.sink is not None:
        parts = [repr(declared.sink)]
    else:
        kind = "async def" if declared.signature.is_async else "def in threads"
        if declared.options.processes:
            kind = "def in processes"
        parts = [f"{declared.signature.name} ({kind})", payload(declared.signature.payload)]
    return ", ".join(filter(None, [*parts, *work(declared)]))


def payload(kind: Any) -> str:
    """The payload type as written in the annotation; empty without one."""
    if kind is Any:
        return ""
    name = getattr(kind, "__qualname__", "") if isinstance(kind, type) else ""
    generic = bool(getattr(kind, "__args__", ()))
    return name if name and not generic else str(kind).replace("typing.", "")


def work(declared: Any) -> Iterator[str]:
    """Concurrency, ordering and the limits of a batch."""
    options = declared.options
    if hasattr(options, "size"):
        limits = [] if options.size is None else [_size(options.size)]
        limits += [short_size(options.max_bytes)] if options.max_bytes else []
        rolling = None if declared.sink is None else declared.sink.rolling
        if rolling is not None and rolling.window is not None:
            limits.append(f"each {timedelta(seconds=rolling.window)}")
        else:
            limits.append(f"{options.batch_timeout:g} s")
        yield f"batches of {' or '.join(limits)}"
    if options.concurrency > 1:
        yield f"{options.concurrency} at a time"
    if options.partition_by is not None:
        yield "ordered by key"


def _size(size: Any) -> str:
    return "a custom rule" if isinstance(size, tuple) else f"{size:,}"


def failures(pipeline: Pipeline) -> str:
    """What happens to a message that fails."""
    options = pipeline.options
    policy = options.on_failure
    what = (
        f"DeadLetter {policy.stream}" if isinstance(policy, DeadLetter) else type(policy).__name__
    )
    if options.retry is None or options.retry.attempts == 1:
        return what
    return f"{plural(options.retry.attempts, 'attempt')}, then {what}"
