"""The ends of a pipeline, each with its guarantee. Pure: only this file decides it.

A sink and a failure policy say what they guarantee by themselves. Here that meets the rest of the
declaration: a source that stores no offsets delivers nothing again after a crash, or everything,
and then no end can recognise what it has written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from flowstream.pipeline.declaration import Declaration, Declared
from flowstream.pipeline.guarantee import Guarantee
from flowstream.pipeline.producer import Producer
from flowstream.texts import type_name

Kind = Literal["handler", "sink", "failures", "offsets"]
OFFSETS = Guarantee(
    "at least once",
    "an offset is stored after its messages are settled, so a crash repeats the last ones; ends "
    "that are exactly once leave them out",
)
HANDLER = Guarantee(
    "at least once",
    "after a crash or a retry it is called with the same messages again, and what it did is done "
    "twice, unless it claims them",
    "write with a sink that is exactly once, or claim the messages with ExactlyOnce",
)


@dataclass(frozen=True, slots=True)
class End:
    """Where messages end. `name` is the stage, "failures" or "offsets"."""

    name: str
    kind: Kind
    guarantee: Guarantee


def ends_of(declaration: Declaration) -> tuple[End, ...]:
    """Every batcher (the processor of a pipeline without one), failed messages, and the offsets."""
    return tuple(_ends(declaration))


def _ends(declaration: Declaration) -> Iterator[End]:
    unstored = None if _stores(declaration.producer) else _unstored(declaration.producer)
    last = [*declaration.batchers.values()]
    if not last and declaration.processor is not None:
        last = [declaration.processor]
    for declared in last:
        kind: Kind = "handler" if declared.sink is None else "sink"
        yield End(declared.options.name, kind, unstored or _of(declared))
    failures = declaration.options.on_failure.guarantee()
    if failures.level != "at most once":
        failures = unstored or failures
    yield End("failures", "failures", failures)
    yield End("offsets", "offsets", unstored or OFFSETS)


def _of(declared: Declared) -> Guarantee:
    return HANDLER if declared.sink is None else declared.sink.guarantee()


def _stores(producer: Producer) -> bool:
    return type(producer).commit is not Producer.commit


def _unstored(producer: Producer) -> Guarantee:
    return Guarantee(
        "no guarantee",
        f"{type_name(producer)} stores no offsets, so its source decides whether messages come "
        "again after a crash, or are lost",
        "read from a stream, with StreamProducer",
    )
