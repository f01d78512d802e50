"""Dead letters: what a pipeline could not handle, kept with where, why and how often it failed.

A dead letter is an AMQP 1.0 message. Its data section is the original body, byte for byte (also
where that is an AMQP message itself), so publishing it again replays it exactly. PROPERTIES lists
its application properties.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowstream.client import AmqpMessage, Publisher
from flowstream.connectors.environment import environment_of
from flowstream.connectors.stream_producer import check_stream
from flowstream.connectors.valve import SafetyValve
from flowstream.errors import ConfigurationError, FlowstreamError
from flowstream.pipeline import Disposer, Failure, FailurePolicy, RunContext
from flowstream.texts import type_name

log = logging.getLogger("flowstream.connectors")

PROPERTIES = {
    "x-pipeline": "the pipeline's name",
    "x-stream": "the stream (or partition) the message came from",
    "x-offset": "its offset there",
    "x-timestamp": "when the broker wrote it there: milliseconds since 1970, 0 if unknown",
    "x-phase": "decode, process, batch or sink",
    "x-stage": "the processor's or batcher's name",
    "x-attempts": "how often it was tried",
    "x-reason": "why it failed, in words",
    "x-error": "the exception's class; empty where a handler failed the message itself",
    "x-traceback": "the end of the traceback, at most 8192 characters",
    "x-failed-at": "when it was given up: ISO 8601, UTC",
}
"""The application properties of a dead letter."""
REASON_LIMIT = 2048


@dataclass(frozen=True, slots=True)
class DeadLetter(FailurePolicy):
    """Publish what failed to `stream`, and settle it once that is confirmed.

    The stream is created, with a notice in the log, where it does not exist. A safety valve halts
    the pipeline instead when more than `max_ratio` of any 1000 messages fail (counted by offset,
    in blocks of 1000), or more than `max_consecutive` in a row; None turns either off.
    """

    stream: str
    max_ratio: float | None = 0.5
    max_consecutive: int | None = None

    def __post_init__(self) -> None:
        check_stream("DeadLetter > stream", self.stream)
        ratio, row = self.max_ratio, self.max_consecutive
        if ratio is not None and not 0 <= ratio <= 1:
            raise ConfigurationError(f"DeadLetter > max_ratio: between 0 and 1, got {ratio}")
        if row is not None and row < 1:
            raise ConfigurationError(f"DeadLetter > max_consecutive: at least 1, got {row}")

    @asynccontextmanager
    async def disposer(self, context: RunContext) -> AsyncIterator[Disposer]:
        environment = await environment_of(context)
        if not await environment.stream_exists(self.stream):
            await environment.create_stream(self.stream, exist_ok=True)
            log.warning(
                "%s: created the stream %r for dead letters", context.pipeline, self.stream,
                extra={"pipeline": context.pipeline, "stream": self.stream},
            )  # fmt: skip
        async with environment.publisher(self.stream) as publisher:
            valve = SafetyValve(self.max_ratio, self.max_consecutive)
            yield DeadLetters(context.pipeline, publisher, valve)


class DeadLetters(Disposer):
    """The policy at work: publishes failures in bulk."""

    def __init__(self, pipeline: str, publisher: Publisher, valve: SafetyValve) -> None:
        self._pipeline = pipeline
        self._publisher = publisher
        self._valve = valve

    async def dispose(self, failures: Sequence[Failure]) -> str:
        for failure in failures:
            tripped = self._valve.failed(failure.message.stream, failure.message.offset)
            if tripped is not None:
                raise SafetyValveTripped(f"the safety valve of dead letters tripped: {tripped}")
        await self._publisher.publish_many([dead_letter(self._pipeline, f) for f in failures])
        return "dead_lettered"


class SafetyValveTripped(FlowstreamError):
    """Too many messages fail for dead letters to be the answer."""


def dead_letter(pipeline: str, failure: Failure) -> bytes:
    """The AMQP 1.0 message for a failure; see PROPERTIES."""
    message = failure.message
    properties: dict[str, Any] = {
        "x-pipeline": pipeline,
        "x-stream": message.stream,
        "x-offset": message.offset,
        "x-timestamp": message.timestamp,
        "x-phase": failure.phase,
        "x-stage": failure.stage,
        "x-attempts": failure.attempts,
        "x-reason": failure.reason[:REASON_LIMIT],
        "x-error": "" if failure.error is None else type_name(failure.error),
        "x-traceback": failure.traceback(),
        "x-failed-at": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    return AmqpMessage.of(message.raw, application_properties=properties).raw
