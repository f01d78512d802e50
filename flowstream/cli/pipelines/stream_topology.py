"""The streams that pipelines read and write, and circles among them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowstream.connectors import DeadLetter, StreamProducer, StreamSink, SuperStreamProducer
from flowstream.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class StreamTopology:
    """The streams of one pipeline, which stores its offsets under `reference`.

    `super_streams` are those among `reads` and `sinks` that are super streams. `filter_options` are
    the options of the filter that it reads with, empty without one.
    """

    pipeline: str
    reads: tuple[str, ...]
    reference: str
    sinks: tuple[str, ...]
    dead_letters: str | None
    super_streams: frozenset[str] = frozenset()
    filter_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs_broker(self) -> bool:
        return bool(self.reads or self.sinks or self.dead_letters)

    @property
    def needed(self) -> tuple[str, ...]:
        """Streams that must exist before the pipeline starts. It creates its dead-letter stream."""
        return (*self.reads, *self.sinks)

    @property
    def all(self) -> tuple[str, ...]:
        """Every stream of the pipeline, including that of dead letters."""
        return (*self.needed, *(() if self.dead_letters is None else (self.dead_letters,)))


def topology_of(pipeline: Pipeline) -> StreamTopology:
    """The streams in a pipeline's declaration. Those of a custom producer are unknown."""
    producer, policy = pipeline.producer, pipeline.options.on_failure
    return StreamTopology(
        pipeline.name,
        (producer.stream,) if isinstance(producer, StreamProducer) else (),
        (producer.reference if isinstance(producer, StreamProducer) else None) or pipeline.name,
        tuple(_sinks(pipeline)),
        policy.stream if isinstance(policy, DeadLetter) else None,
        frozenset(_super_streams(pipeline)),
        producer.filter.options if isinstance(producer, StreamProducer) and producer.filter else {},
    )


@dataclass(frozen=True, slots=True)
class Edge:
    """A pipeline, with a stream that it reads and one that it writes."""

    pipeline: str
    reads: str
    writes: str
    dead_letters: bool


def chains(topologies: Iterable[StreamTopology]) -> list[tuple[Edge, ...]]:
    """Every path through two or more pipelines that returns to its first stream."""
    edges = [
        Edge(each.pipeline, read, written, written == each.dead_letters)
        for each in topologies
        for read in each.reads
        for written in dict.fromkeys((*each.sinks, each.dead_letters))
        if written is not None
    ]
    found: list[tuple[Edge, ...]] = []

    def follow(path: tuple[Edge, ...]) -> None:
        first, last = path[0], path[-1]
        if last.writes == first.reads and len(path) > 1:
            found.append(path)
            return
        for number in range(edges.index(first) + 1, len(edges)):  # finds each chain once
            edge = edges[number]
            if edge.reads == last.writes and all(edge.pipeline != it.pipeline for it in path):
                follow((*path, edge))

    for edge in edges:
        follow((edge,))
    return found


def endless(chain: Iterable[Edge]) -> bool:
    """Whether failed messages circulate forever, because every edge is dead letters."""
    return all(edge.dead_letters for edge in chain)


def chain_text(chain: tuple[Edge, ...]) -> str:
    """A chain in words, for an error or a warning."""
    path = ", ".join(
        f"{edge.pipeline} {'dead-letters' if edge.dead_letters else 'publishes'} from {edge.reads} "
        f"into {edge.writes}"
        for edge in chain
    )
    if endless(chain):
        return f"{path}: a message that fails circulates forever"
    return f"{path}: messages may circulate forever"


def _sinks(pipeline: Pipeline) -> Iterable[str]:
    for sink in stream_sinks(pipeline):
        yield sink.stream


def _super_streams(pipeline: Pipeline) -> Iterable[str]:
    if isinstance(pipeline.producer, SuperStreamProducer):
        yield pipeline.producer.stream
    for sink in stream_sinks(pipeline):
        if sink.key is not None:
            yield sink.stream


def stream_sinks(pipeline: Pipeline) -> Iterable[StreamSink]:
    """The sinks that publish to streams."""
    for declared in pipeline.declaration.batchers.values():
        if isinstance(declared.sink, StreamSink):
            yield declared.sink
