"""Writes down what happens in a run, by the run's own hooks: nothing is put around its parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import count
from typing import Any

from flowstream.pipeline import Batch, Declaration, Failure, Message, Producer, RunHooks, Signal
from flowstream.telemetry import Event, Received
from flowstream.testing.results import HandledBatch, Outcome

Place = tuple[str, int]
"""A message's stream and offset."""


def place_of(message: Message[Any]) -> Place:
    return message.stream, message.offset


class Record(RunHooks):
    """What happened in one run. It is also an observer: it counts messages, and reports changes."""

    def __init__(self, changed: Signal) -> None:
        self.changed = changed
        self.killed = False
        self.received: int = 0
        self.statuses: dict[Place, tuple[str, Any]] = {}
        self.failures: dict[Place, Failure] = {}
        self.attempts: dict[Place, int] = {}
        self.offsets: dict[str, int] = {}
        self._batches: dict[int, HandledBatch] = {}
        self._numbers = count()

    @property
    def batches(self) -> list[HandledBatch]:
        return [batch for _, batch in sorted(self._batches.items())]

    def observe(self, event: Event) -> None:
        if isinstance(event, Received):
            self.received += event.messages
        self.changed.notify()

    # -- hooks

    @property
    def crashed(self) -> bool:
        return self.killed

    def resumed(self, stream: str, committed: int) -> None:
        self.offsets[stream] = committed

    def committed(self, stream: str, offset: int) -> None:
        self.offsets[stream] = offset

    def attempted(self, messages: Sequence[Message[Any]]) -> None:
        for message in messages:
            self._tried(message, message.attempt)

    def batch_begins(self, batch: Batch[Any]) -> int:
        """Write a batch down as its handler gets it."""
        messages, number = batch.messages, next(self._numbers)
        for message in messages:
            self._tried(message, batch.attempt)
        self._batches[number] = HandledBatch(
            batcher=batch.batcher,
            data=tuple(message.data for message in messages),
            offsets=tuple(message.offset for message in messages),
            trigger=batch.trigger,
            key=batch.key,
            partition=batch.partition,
            attempt=batch.attempt,
        )
        return number

    def batch_ended(self, token: int, error: BaseException | None) -> None:
        if error is not None:
            self._batches[token] = dataclasses.replace(self._batches[token], error=error)

    def failed(self, failure: Failure) -> None:
        self.failures[place_of(failure.message)] = failure

    def settled(self, messages: Sequence[Message[Any]], outcome: str) -> None:
        if not self.killed:
            self.statuses |= {place_of(each): (outcome, each.data) for each in messages}
            self.changed.notify()

    def _tried(self, message: Message[Any], attempt: int) -> None:
        place = place_of(message)
        self.attempts[place] = max(attempt, self.attempts.get(place, 0))

    # -- what became of messages

    @property
    def places(self) -> list[Place]:
        """Every message that a handler or the acknowledger saw, in order."""
        return sorted({*self.attempts, *self.failures, *self.statuses})

    def outcome(self, place: Place) -> Outcome:
        """What became of a message."""
        status, data = self.statuses.get(place, ("open", None))
        failure = self.failures.get(place)
        if status == "open" and failure is not None and not self.killed:
            status, data = "halted", failure.message.data
        attempts = self.attempts.get(place, 0)
        if failure is None or status in ("ok", "dropped"):
            return Outcome(*place, status, data, attempts=attempts)
        return Outcome(
            *place,
            status,
            data,
            reason=failure.reason,
            phase=failure.phase,
            stage=failure.stage,
            error=failure.error,
            attempts=max(attempts, failure.attempts),
        )


def under_test(declaration: Declaration, *, producer: Producer, lifespan: Any) -> Declaration:
    """The declaration with another producer and lifespan. Handlers of worker processes run in
    threads: what a test looks at is in its own process."""
    processor = declaration.processor
    return dataclasses.replace(
        declaration,
        producer=producer,
        options=dataclasses.replace(declaration.options, lifespan=lifespan),
        processor=None if processor is None else _in_threads(processor),
        batchers={name: _in_threads(each) for name, each in declaration.batchers.items()},
    )


def _in_threads(declared: Any) -> Any:
    if not getattr(declared.options, "processes", False):
        return declared
    return dataclasses.replace(
        declared, options=dataclasses.replace(declared.options, processes=False)
    )
