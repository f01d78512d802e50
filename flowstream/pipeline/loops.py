"""Finds streams that a pipeline both reads and writes, so that its messages come back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flowstream.errors import ConfigurationError
from flowstream.pipeline.iterable import IterableProducer
from flowstream.pipeline.policies import FailurePolicy
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.sink import Sink
from flowstream.texts import shown


def sources(producer: Producer) -> Sequence[str]:
    """The streams that a producer reads, as far as they are known; an iterable reads no stream."""
    return () if isinstance(producer, IterableProducer) else producer.reads() or ()


def refuse_loop(pipeline: str, policy: FailurePolicy, reads: Sequence[str]) -> None:
    """Raise ConfigurationError for a policy that writes failed messages into a source."""
    for stream in policy.writes():
        if stream in reads:
            raise ConfigurationError(
                f"pipeline {pipeline!r} > on_failure: {shown(policy)} writes into {stream!r}, "
                "which the pipeline reads: a message that fails would come back endlessly. Name "
                f"another stream, such as {stream + '.dead'!r}"
            )


def fed_back(sinks: Iterable[Sink], reads: Sequence[str]) -> list[str]:
    """The source streams that the sinks write into."""
    written = {stream for sink in sinks for stream in sink.writes()}
    return [stream for stream in reads if stream in written]
