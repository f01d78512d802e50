"""The sinks of pipelines, with what they keep of what they have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowstream.cli.configuration.overrides import override
from flowstream.cli.pipelines.stream_topology import topology_of
from flowstream.connectors import DeadLetter, KeepsRecord, StreamSink, once_reference
from flowstream.pipeline import Pipeline, ends_of

LETTERS = "dead-letters"
"""The name of dead letters that are published exactly once, among sinks."""


@dataclass(frozen=True, slots=True)
class PublishedOnce:
    """The target of a sink that publishes exactly once, and the reference that it uses."""

    stream: str
    reference: str


@dataclass(frozen=True, slots=True)
class Found:
    """A sink of a pipeline, or its dead letters if they are published exactly once.

    `record` is None if the sink keeps none. `once` is None if it does not publish exactly once.
    """

    pipeline: Pipeline
    name: str
    guarantee: str
    shown: str
    record: KeepsRecord | None = None
    once: PublishedOnce | None = None

    @property
    def destination(self) -> str:
        return self.shown if self.record is None else self.record.destination

    @property
    def reference(self) -> str | None:
        if self.record is None:
            return None if self.once is None else self.once.reference
        return self.record.record_reference(self.pipeline.name, self.name)

    def written(self) -> Mapping[str, Any] | None:
        """The offsets that are written, by stream; None if nothing is there yet."""
        reference = self.reference
        if self.record is None or reference is None:
            return None
        return self.record.written(reference)


def sinks_of(pipelines: Sequence[Pipeline]) -> Iterator[Found]:
    """The sinks of pipelines, in the order of their declaration."""
    for pipeline in pipelines:
        override(pipeline)
        pipeline.check()
        levels = {end.name: end.guarantee.level for end in ends_of(pipeline.declaration)}
        for name, declared in pipeline.declaration.batchers.items():
            sink = declared.sink
            if sink is not None:
                record = sink if isinstance(sink, KeepsRecord) else None
                once = _once(sink, pipeline, name)
                yield Found(pipeline, name, levels[name], repr(sink), record, once)
        policy = pipeline.options.on_failure
        once = _once(policy, pipeline, LETTERS)
        if once is not None:
            shown = f"DeadLetter({once.stream!r})"
            yield Found(pipeline, LETTERS, levels["failures"], shown, once=once)


def clashes(pipelines: Iterable[Pipeline]) -> Iterator[tuple[str, str]]:
    """Pipelines that record what they have written of one stream in one place, with the reason."""
    known: dict[tuple[str, str], str] = {}
    for pipeline in pipelines:
        for end, record in pipeline.declaration.records:
            for stream in topology_of(pipeline).reads:
                other = known.setdefault((record, stream), pipeline.name)
                if other != pipeline.name:
                    yield (
                        pipeline.name,
                        f"{end}: the pipeline {other!r}, which reads {stream!r} too, records what "
                        f"it has written in the same place ({record}), so each would leave out "
                        "what the other has written",
                    )


def _once(end: Any, pipeline: Pipeline, name: str) -> PublishedOnce | None:
    reference = once_reference(end, pipeline.name, name)
    if reference is None or not isinstance(end, StreamSink | DeadLetter):
        return None
    return PublishedOnce(end.stream, reference)
