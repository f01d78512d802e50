"""Dead letters: what finally failed is kept in another stream, with where, why and how often."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from flowstream.client import Properties, Publisher, encode_message, is_amqp
from flowstream.connectors.sharing import environment
from flowstream.errors import ConfigurationError, FlowstreamError, MessageTooLarge
from flowstream.pipeline import Disposer, Failure, FailurePolicy, RunContext

log = logging.getLogger("flowstream.connectors")

RATIO_FROM = 100
"""`max_ratio` counts from so many settled messages on."""
AMQP_TYPE = "application/amqp"
"""The content type of a dead letter whose original body was an AMQP 1.0 message."""


@dataclass(frozen=True, slots=True)
class DeadLetter(FailurePolicy):
    """Publish the failed message to `stream` and go on; it settles after the confirm.

    The data of the AMQP 1.0 dead letter is the original body, byte for byte. Its application
    properties are flowstream-pipeline, -stream, -offset, -timestamp (ms), -phase, -stage,
    -attempts, -reason, -error (the exception's class) and -traceback (at most 8 KiB).

    The safety valve halts the pipeline when more than `max_ratio` (0 to 1) of all settled messages
    are dead letters, counted from 100 messages on, or when `max_consecutive` failed with none
    that succeeded between them. `create` makes the stream where it is missing.
    """

    stream: str
    max_ratio: float | None = None
    max_consecutive: int | None = None
    create: bool = True

    def __post_init__(self) -> None:
        if not self.stream:
            raise ConfigurationError("DeadLetter: the stream's name is empty")
        if self.max_ratio is not None and not 0 < self.max_ratio <= 1:
            raise ConfigurationError(
                f"DeadLetter > max_ratio: more than 0 and at most 1, got {self.max_ratio}"
            )
        if self.max_consecutive is not None and self.max_consecutive < 1:
            raise ConfigurationError(
                f"DeadLetter > max_consecutive: at least 1, got {self.max_consecutive}"
            )

    @asynccontextmanager
    async def disposer(self, context: RunContext) -> AsyncIterator[Disposer]:
        """Raises StreamDoesNotExist with create=False, and what `Environment` raises."""
        env = await environment(context)
        if self.create and not await env.stream_exists(self.stream):
            await env.create_stream(self.stream, exist_ok=True)
            log.info("created the dead-letter stream %r", self.stream)
        async with env.publisher(self.stream) as publisher:
            yield _Burial(self, context, publisher)


class _Burial(Disposer):
    def __init__(self, policy: DeadLetter, context: RunContext, publisher: Publisher) -> None:
        self._policy = policy
        self._context = context
        self._publisher = publisher
        self._consecutive = 0
        self._ok_before = 0

    async def dispose(self, failures: Sequence[Failure]) -> str:
        self._check_valve(len(failures))
        name = self._context.pipeline
        letters = [dead_letter(failure, name) for failure in failures]
        try:
            await self._publisher.publish_many(letters)
        except MessageTooLarge:
            await self._publisher.publish_many(
                [dead_letter(failure, name, traceback=False) for failure in failures]
            )
        return "dead_lettered"

    def _check_valve(self, failed: int) -> None:
        policy, counts = self._policy, self._context.counts
        ok = counts.get("ok", 0)
        self._consecutive = failed + (self._consecutive if ok == self._ok_before else 0)
        self._ok_before = ok
        if policy.max_consecutive is not None and self._consecutive > policy.max_consecutive:
            raise FlowstreamError(
                f"safety valve: {self._consecutive} messages failed with none that succeeded "
                f"between them, max_consecutive is {policy.max_consecutive}"
            )
        total = sum(counts.values()) + failed
        dead = counts.get("dead_lettered", 0) + failed
        if policy.max_ratio is not None and total >= RATIO_FROM and dead > policy.max_ratio * total:
            raise FlowstreamError(
                f"safety valve: {dead} of {total} messages are dead letters, max_ratio is "
                f"{policy.max_ratio:g}"
            )


def dead_letter(failure: Failure, pipeline: str, *, traceback: bool = True) -> bytes:
    """The AMQP 1.0 message that keeps a failed one."""
    message = failure.message
    about: dict[str, Any] = {
        "flowstream-pipeline": pipeline,
        "flowstream-stream": message.stream,
        "flowstream-offset": message.offset,
        "flowstream-timestamp": message.timestamp,
        "flowstream-phase": failure.phase,
        "flowstream-stage": failure.stage,
        "flowstream-attempts": failure.attempts,
        "flowstream-reason": failure.reason[:1024],
    }
    if failure.error is not None:
        about["flowstream-error"] = type(failure.error).__name__
        if traceback:
            about["flowstream-traceback"] = failure.traceback()
    properties = Properties(content_type=AMQP_TYPE) if is_amqp(message.raw) else None
    return encode_message(message.raw, properties=properties, application_properties=about)
