"""A pipeline as declared: one frozen value, without any running part.

`Pipeline` (pipeline.py) builds it, one decorator after the other. Everything that runs, checks or
shows a pipeline reads this value, which cannot change meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flowstream.errors import ConfigurationError
from flowstream.pipeline.annotations import Handler, Signature
from flowstream.pipeline.loops import refuse_loop, sources
from flowstream.pipeline.options import BatcherOptions, PipelineOptions
from flowstream.pipeline.payload import decoder
from flowstream.pipeline.producer import Producer
from flowstream.pipeline.sink import Sink
from flowstream.texts import type_name


@dataclass(frozen=True, slots=True)
class Declared:
    """A handler (or sink) with its options."""

    handler: Handler
    signature: Signature
    options: Any = None
    sink: Sink | None = None

    @property
    def ordered(self) -> bool:
        """Whether it is a sink that needs the order of the source."""
        return self.sink is not None and self.sink.ordered


@dataclass(frozen=True, slots=True)
class StageTopology:
    """A stage as declared. `handler` is its function's name, or the class of a producer or sink."""

    name: str
    kind: str
    handler: str
    concurrency: int
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Topology:
    """The stages of a pipeline, producer first; batchers all follow the processor."""

    pipeline: str
    stages: tuple[StageTopology, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """A pipeline as declared. `batchers` are by name, in the order of their declaration.

    `module` is the name of the module that declares it. Without a
    `processor`, the messages of the producer go to the only batcher.
    """

    name: str
    module: str
    producer: Producer
    options: PipelineOptions
    processor: Declared | None = None
    batchers: Mapping[str, Declared] = field(default_factory=lambda: MappingProxyType({}))
    prepare: Declared | None = None
    on_failed: Declared | None = None

    @property
    def path(self) -> str:
        """Its name in errors: `pipeline 'orders'`."""
        return f"pipeline {self.name!r}"

    @property
    def first(self) -> Declared:
        """The first stage. Its annotation is the type that bodies are decoded to.

        Raises ConfigurationError if there is neither a processor nor a batcher.
        """
        for declared in (self.processor, *self.batchers.values()):
            if declared is not None:
                return declared
        raise ConfigurationError(
            f"{self.path}: it has no processor and no batcher; decorate a handler with "
            "@pipeline.processor() or @pipeline.batcher(), or call pipeline.sink(...)"
        )

    @property
    def stages(self) -> Iterator[tuple[str, Declared]]:
        """("processor" or "batcher", what is declared), in the order of a message's path."""
        if self.processor is not None:
            yield "processor", self.processor
        for declared in self.batchers.values():
            yield "batcher", declared

    @property
    def handlers(self) -> dict[tuple[str, str], str]:
        """The names of the functions in which messages may fail, by stage and phase."""
        found = {}
        for kind, declared in self.stages:
            phase = "process" if kind == "processor" else "batch"
            found[declared.options.name, phase] = declared.signature.name
        if self.processor is not None and self.prepare is not None:
            found[self.processor.options.name, "prepare"] = self.prepare.signature.name
        return {place: name.rpartition("<locals>.")[2] for place, name in found.items()}

    @property
    def records(self) -> Iterator[tuple[str, str]]:
        """The ends that record what they have written: the name of each in errors, and where."""
        for name, declared in self.batchers.items():
            if declared.sink is not None and (record := declared.sink.record(self.name, name)):
                yield f"sink {name!r}", record
        if record := self.options.on_failure.record(self.name, "on_failure"):
            yield "on_failure", record

    def check(self) -> None:
        """Raise ConfigurationError for mistakes that only the whole declaration shows."""
        first = self.first
        if self.processor is None:
            self._check_without_processor(first)
        refuse_loop(self.name, self.options.on_failure, sources(self.producer))
        self._check_ordered()
        self._check_records()
        handlers = (self.processor, *self.batchers.values(), self.prepare, self.on_failed)
        for each in handlers:
            if each is not None and each.signature.resource and self.options.lifespan is None:
                raise ConfigurationError(
                    f"{self.path}: {each.signature.name} takes a second parameter "
                    f"{each.signature.resource!r}, but the pipeline has no lifespan= to fill it"
                )

    def _check_ordered(self) -> None:
        """A message has one number for all runs only if the source stores offsets."""
        for name, declared in self.batchers.items():
            if declared.ordered and type(self.producer).commit is Producer.commit:
                raise ConfigurationError(
                    f"{self.path} > sink {name!r} > exactly_once=True: it needs a source that "
                    f"stores offsets, such as StreamProducer, and {type_name(self.producer)} "
                    "stores none"
                )

    def _check_records(self) -> None:
        ends: dict[str, str] = {}
        for end, record in self.records:
            other = ends.setdefault(record, end)
            if other != end:
                raise ConfigurationError(
                    f"{self.path} > {end}: {other} records what it has written in the same place "
                    f"({record}), so each would leave out what the other has written; give one of "
                    "them another reference="
                )

    def _check_without_processor(self, first: Declared) -> None:
        if len(self.batchers) > 1:
            raise ConfigurationError(
                f"{self.path}: a processor is needed to choose between the batchers "
                f"{', '.join(map(repr, self.batchers))}; declare a processor that calls "
                "message.to(...), or keep one batcher"
            )
        if self.prepare is not None:
            raise ConfigurationError(
                f"{self.path} > prepare: it runs before the processor, but there is none"
            )
        path = f"{self.path} > batcher {first.options.name!r}"
        decoder(first.signature.payload, handler=f"{path}: {first.signature.name}")

    def topology(self) -> Topology:
        """The stages as declared."""
        stages = [StageTopology("producer", "producer", type_name(self.producer), 1,
                                dict(self.producer.describe()))]  # fmt: skip
        for kind, declared in self.stages:
            options = {
                f.name: getattr(declared.options, f.name)
                for f in dataclasses.fields(declared.options)
            }
            stages.append(
                StageTopology(
                    options["name"], kind, declared.signature.name, options["concurrency"], options
                )
            )
        return Topology(self.name, tuple(stages))


def check_size(batcher: BatcherOptions, pipeline: PipelineOptions, path: str) -> None:
    """Raise ConfigurationError if a batch is larger than the pipeline's window."""
    if isinstance(batcher.size, int) and batcher.size > pipeline.max_in_flight:
        raise ConfigurationError(
            f"{path} > size={batcher.size}: a batch can never fill while max_in_flight is "
            f"{pipeline.max_in_flight}; raise max_in_flight or lower size"
        )
