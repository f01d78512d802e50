"""Broadway-style data pipelines for Python on RabbitMQ Streams.

    from flowstream import Batch, DeadLetter, Message, Pipeline, Retry, StreamProducer

What stands here is the whole public face. Where it comes from:

    errors.py, telemetry.py   exceptions as one tree; events and the Observer told of them
    protocol/                 bytes, frames, commands, chunks, AMQP 1.0; no I/O
    client/                   Environment, publishers, consumers: the stream client
    pipeline/                 Pipeline, its stages, policies and drain; knows no RabbitMQ
    connectors/               StreamProducer, StreamSink, DeadLetter: client and pipeline joined
    broker/                   the embedded broker
    metrics.py, monitor/      the metric catalogue, and the HTTP face of a run
    testing/                  helpers for your tests (import flowstream.testing)
    cli/                      the `flowstream` command
"""

__version__ = "0.1.0"

from flowstream.client import Compression, Consumer, Environment, Publisher
from flowstream.connectors import DeadLetter, StreamProducer, StreamSink
from flowstream.errors import ConfigurationError, FlowstreamError, Halted, PayloadError
from flowstream.pipeline import (
    Acknowledger,
    Backoff,
    Batch,
    Drop,
    Failure,
    FailurePolicy,
    Feed,
    Halt,
    IterableProducer,
    Lane,
    Message,
    Pipeline,
    Producer,
    RateLimit,
    Retry,
    RunningPipeline,
    RunResult,
    Sink,
)

__all__ = [
    "Acknowledger",
    "Backoff",
    "Batch",
    "Compression",
    "ConfigurationError",
    "Consumer",
    "DeadLetter",
    "Drop",
    "Environment",
    "Failure",
    "FailurePolicy",
    "Feed",
    "FlowstreamError",
    "Halt",
    "Halted",
    "IterableProducer",
    "Lane",
    "Message",
    "PayloadError",
    "Pipeline",
    "Producer",
    "Publisher",
    "RateLimit",
    "Retry",
    "RunResult",
    "RunningPipeline",
    "Sink",
    "StreamProducer",
    "StreamSink",
    "__version__",
]
