"""Broadway-style data pipelines for Python on RabbitMQ Streams.

    errors.py       every error, as one tree
    protocol/       bytes <-> frames, commands, chunks, AMQP 1.0 messages; no clock, no I/O
    client/         Environment, publishers, consumers; the connection and its recovery
    pipeline/       Pipeline and its stages; knows no RabbitMQ
    connectors/     StreamProducer, StreamSink, SqliteSink, PostgresSink, DeadLetter, ...
    broker/         the embedded broker
    telemetry.py    events and observers; metrics/: the catalogue; tracing.py: OpenTelemetry
    monitor/        /metrics, health and the live page of a run
    testing/        helpers for your tests
    cli/            the `flowstream` command

Names that are not in `__all__` here are found in the rooms they belong to.
"""

from typing import TYPE_CHECKING, Any

from flowstream.version import __version__

if TYPE_CHECKING:
    from flowstream.backoff import Backoff
    from flowstream.client import Environment, OffsetSpec
    from flowstream.connectors import (
        DeadLetter,
        ExactlyOnce,
        FileSink,
        Filter,
        PostgresSink,
        SqliteSink,
        StreamProducer,
        StreamSink,
        SuperStreamProducer,
    )
    from flowstream.errors import FlowstreamError
    from flowstream.pipeline import (
        Acknowledger,
        Batch,
        Drop,
        Failure,
        Halt,
        Intake,
        IterableProducer,
        Message,
        Pipeline,
        Producer,
        RateLimit,
        Reason,
        Retry,
        RunningPipeline,
        RunResult,
        Slice,
    )
    from flowstream.telemetry import Telemetry
    from flowstream.tracing import Tracing

__all__ = [
    "Acknowledger",
    "Backoff",
    "Batch",
    "DeadLetter",
    "Drop",
    "Environment",
    "ExactlyOnce",
    "Failure",
    "FileSink",
    "Filter",
    "FlowstreamError",
    "Halt",
    "Intake",
    "IterableProducer",
    "Message",
    "OffsetSpec",
    "Pipeline",
    "PostgresSink",
    "Producer",
    "RateLimit",
    "Reason",
    "Retry",
    "RunResult",
    "RunningPipeline",
    "Slice",
    "SqliteSink",
    "StreamProducer",
    "StreamSink",
    "SuperStreamProducer",
    "Telemetry",
    "Tracing",
    "__version__",
]

_ROOMS = {
    "backoff": ("Backoff",),
    "client": ("Environment", "OffsetSpec"),
    "connectors": (
        *("DeadLetter", "ExactlyOnce", "FileSink", "Filter", "PostgresSink", "SqliteSink"),
        *("StreamProducer", "StreamSink", "SuperStreamProducer"),
    ),
    "errors": ("FlowstreamError",),
    "telemetry": ("Telemetry",),
    "tracing": ("Tracing",),
}


def __getattr__(name: str) -> Any:
    """Import a name's room when the name is first used: the command line starts faster so."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'flowstream' has no attribute {name!r}")
    room = next((room for room, names in _ROOMS.items() if name in names), "pipeline")
    value = getattr(importlib.import_module(f"flowstream.{room}"), name)
    globals()[name] = value
    return value
