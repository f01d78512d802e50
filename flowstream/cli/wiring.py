"""Which streams a declared pipeline reads and writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowstream.connectors import DeadLetter, StreamProducer, StreamSink
from flowstream.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Wiring:
    """Streams by what they are to a pipeline; offsets are stored under `reference`."""

    pipeline: str
    reads: tuple[str, ...]
    reference: str
    sinks: tuple[str, ...]
    dead_letters: str | None

    @property
    def needs_broker(self) -> bool:
        return bool(self.reads or self.sinks or self.dead_letters)

    @property
    def needed(self) -> tuple[str, ...]:
        """Streams that must exist before the pipeline starts (it makes that of dead letters)."""
        return (*self.reads, *self.sinks)

    @property
    def all(self) -> tuple[str, ...]:
        """Every stream of the pipeline."""
        return (*self.needed, *(() if self.dead_letters is None else (self.dead_letters,)))


def wiring(pipeline: Pipeline) -> Wiring:
    """What the declaration says; a producer of the user's own reads no stream that is known."""
    producer, policy = pipeline.producer, pipeline.options.on_failure
    return Wiring(
        pipeline.name,
        (producer.stream,) if isinstance(producer, StreamProducer) else (),
        (producer.reference if isinstance(producer, StreamProducer) else None) or pipeline.name,
        tuple(_sinks(pipeline)),
        policy.stream if isinstance(policy, DeadLetter) else None,
    )


def _sinks(pipeline: Pipeline) -> Iterable[str]:
    for declared in pipeline.batchers.values():
        if isinstance(declared.sink, StreamSink):
            yield declared.sink.stream
