"""Dead letters: messages that a pipeline could not handle, published with the place and the reason.

A dead letter is an AMQP 1.0 message. Its data section is the original body, byte for byte, even if
that is itself an AMQP message, so publishing it replays the original exactly. Of an object, which a
source may send instead of a body, it is the data as JSON. PROPERTIES lists its application
properties.

A letter must fit into one frame. If it does not, first the traceback is shortened, then the reason.
If the body leaves no room for the rest, it is left out: then the letter has the stream, offset,
size and SHA-256 of the original, from which the body can be fetched.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from flowstream.client import AmqpMessage
from flowstream.connectors.encoding import encode_payload
from flowstream.connectors.environment import (
    StreamEnvironment,
    StreamWriter,
    environment_of,
    refuse_super_stream,
)
from flowstream.connectors.publish_once import (
    OncePublisher,
    published_record,
    publishing_ids,
    when_connected,
)
from flowstream.connectors.valve import SafetyValve
from flowstream.errors import (
    ConfigurationError,
    FlowstreamError,
    MessageTooLarge,
)
from flowstream.pipeline import (
    EXACTLY_ONCE,
    Batch,
    Failure,
    FailurePolicy,
    Guarantee,
    Message,
    OpenPolicy,
    RunContext,
)
from flowstream.schema import NAME, STREAM, check, listing, number, whole
from flowstream.texts import interrupts, shown, type_name

_log = logging.getLogger("flowstream.connectors")

PROPERTIES = {
    "x-pipeline": "the pipeline's name",
    "x-stream": "the stream (or partition) the message came from",
    "x-offset": "its offset there",
    "x-timestamp": "when the broker wrote it there: milliseconds since 1970, 0 if unknown",
    "x-phase": "decode, prepare, process, batch or sink",
    "x-stage": "the processor's or batcher's name",
    "x-attempts": "how often it was tried",
    "x-reason": "the reason why it failed",
    "x-error": "the exception's class; empty if a handler called `message.fail`",
    "x-traceback": "the end of the traceback, at most 8192 characters",
    "x-failed-at": "when it was given up: ISO 8601, UTC",
    "x-omitted-bytes": "0, or the size of a body that is too large for the letter; it is at "
    "x-offset of x-stream",
    "x-omitted-sha256": "the SHA-256 of a body that was left out, in hexadecimal; empty otherwise",
}
"""The application properties of a dead letter."""
REASON_LIMIT = 2048
TRACEBACK_LIMIT = 8192
DATA_LIMIT = 65_536
"""The most characters of the `repr` of data that are kept."""
LENGTHS = 16
"""Bytes that the lengths of a long message need in addition."""


@listing
@dataclass(frozen=True, slots=True)
class DeadLetter(FailurePolicy):
    """Publish failed messages to `stream`, and settle them when that is confirmed.

    If the stream does not exist, it is created and a line is logged. A safety valve halts the
    pipeline instead if more than `max_ratio` of any 1000 messages fail (counted by offset, in
    blocks of 1000), or more than `max_consecutive` in a row; None turns either off.

    With `exactly_once` each message has one letter, whatever dies and is repeated. A letter waits
    until all messages before it are settled (docs/exactly-once.md).
    """

    stream: Annotated[str, STREAM, "where dead letters are published"]
    max_ratio: Annotated[
        float | None, number(0, 1), "the share of any 1000 messages that may fail"
    ] = 0.5
    max_consecutive: Annotated[
        int | None, whole(1, unit="messages"), "messages in a row that may fail"
    ] = None
    exactly_once: Annotated[bool, "publish one letter for a message, whatever is repeated"] = False
    reference: Annotated[
        str | None, NAME, "what is published exactly once under; None: PIPELINE/dead-letters"
    ] = None

    def __post_init__(self) -> None:
        check(self, "DeadLetter")
        if self.reference is not None and not self.exactly_once:
            raise ConfigurationError(
                f"DeadLetter > reference={self.reference!r}: it needs exactly_once=True"
            )

    @property
    def ordered(self) -> bool:
        return self.exactly_once

    def writes(self) -> Sequence[str]:
        return [self.stream]

    def record(self, pipeline: str, name: str) -> str | None:
        if not self.exactly_once:
            return None
        return published_record(self.stream, self.once_reference(pipeline))

    def guarantee(self) -> Guarantee:
        if self.exactly_once:
            return EXACTLY_ONCE
        return Guarantee(
            "at least once",
            "a crash may publish a dead letter again",
            "exactly_once=True publishes one letter for a message, in the order of the source",
        )

    def once_reference(self, pipeline: str, name: str = "dead-letters") -> str:
        """What letters are published under, with `exactly_once`."""
        return self.reference or f"{pipeline}/{name}"

    @asynccontextmanager
    async def open_policy(self, context: RunContext) -> AsyncIterator[OpenPolicy]:
        environment = await environment_of(context)
        async with AsyncExitStack() as stack:
            # It may be opened in the middle of a run, when the first message fails.
            await when_connected(partial(self._create, environment, context.pipeline))
            publisher = await when_connected(
                lambda: stack.enter_async_context(environment.publisher(self.stream))
            )
            valve = SafetyValve(self.max_ratio, self.max_consecutive)
            if not self.exactly_once:
                yield DeadLetters(context.pipeline, publisher, valve)
                return
            reference = self.once_reference(context.pipeline)
            once = OncePublisher(environment, context.pipeline, reference)
            try:
                yield DeadLettersOnce(context.pipeline, publisher, valve, once, self.stream)
            finally:
                await once.close()

    async def _create(self, environment: StreamEnvironment, pipeline: str) -> None:
        """Create the stream if it does not exist."""
        if await environment.stream_exists(self.stream):
            return
        await refuse_super_stream(
            environment, self.stream, f"DeadLetter({self.stream!r})",
            "and dead letters go to a stream; name another one",
        )  # fmt: skip
        await environment.create_stream(self.stream, exist_ok=True)
        _log.warning(
            "%s: created the stream %r for dead letters", pipeline, self.stream,
            extra={"pipeline": pipeline, "stream": self.stream},
        )  # fmt: skip


class DeadLetters(OpenPolicy):
    """The policy, opened for a run: publishes failures in bulk."""

    def __init__(self, pipeline: str, publisher: StreamWriter, valve: SafetyValve) -> None:
        self._pipeline = pipeline
        self._publisher = publisher
        self._valve = valve

    async def handle(self, failures: Sequence[Failure]) -> str:
        for failure in failures:
            tripped = self._valve.failed(failure.message.stream, failure.message.offset)
            if tripped is not None:
                raise SafetyValveTripped(f"the safety valve of dead letters tripped: {tripped}")
        await self._publish(failures)
        return "dead_lettered"

    async def _publish(self, failures: Sequence[Failure]) -> None:
        while True:
            room = self._publisher.max_body
            try:
                await self._publisher.publish_many(self._letters(failures, room))
            except MessageTooLarge:
                if self._publisher.max_body == room:
                    raise
            else:
                return

    def _letters(self, failures: Sequence[Failure], room: int | None) -> list[bytes]:
        """A letter for each failure, of at most `room` bytes."""
        return [dead_letter(self._pipeline, failure, room) for failure in failures]


class DeadLettersOnce(DeadLetters):
    """The policy, opened for a run: publishes one letter for each message, in their order."""

    def __init__(
        self,
        pipeline: str,
        publisher: StreamWriter,
        valve: SafetyValve,
        once: OncePublisher,
        stream: str,
    ) -> None:
        super().__init__(pipeline, publisher, valve)
        self._once = once
        self._stream = stream

    async def _publish(self, failures: Sequence[Failure]) -> None:
        others: list[Failure] = []
        streams: dict[str, list[Failure]] = {}
        resumes = _resumes(failures)
        for failure in failures:
            message = failure.message
            if not resumes[message.stream]:
                others.append(failure)
                continue
            theirs = streams.setdefault(message.stream, [])
            if not theirs or message.offset > theirs[-1].message.offset:  # else it failed twice
                theirs.append(failure)
        channels = [await self._once.channel(source, self._stream) for source in streams]
        for channel, theirs in zip(channels, streams.values(), strict=True):
            ids = [publishing_ids(failure.message.offset, 1)[0] for failure in theirs]
            await channel.send(ids, self._letters(theirs, channel.publisher.max_body))
        for channel in channels:
            await channel.confirmed()
        if others:
            await super()._publish(others)


class SafetyValveTripped(FlowstreamError):
    """Too many messages fail to dead-letter them all."""


def dead_letter(pipeline: str, failure: Failure, room: int | None = None) -> bytes:
    """The AMQP 1.0 message for a failure, of at most `room` bytes; see PROPERTIES."""
    raw = _body_of(failure.message)
    properties = _about(pipeline, failure)
    letter = _written(raw, properties)
    if room is None or len(letter) <= room:
        return letter
    reason, trace = properties["x-reason"], properties["x-traceback"]
    properties["x-reason"] = properties["x-traceback"] = ""
    spare = room - LENGTHS - len(_written(raw, properties))
    if spare < 0:
        properties["x-omitted-bytes"] = len(raw)
        properties["x-omitted-sha256"] = hashlib.sha256(raw).hexdigest()
        raw = b""
        spare = max(0, room - LENGTHS - len(_written(raw, properties)))
    reason = reason.encode()[:spare]
    trace = trace.encode()[max(0, len(trace.encode()) - (spare - len(reason))) :]
    properties["x-reason"] = reason.decode(errors="ignore")
    properties["x-traceback"] = trace.decode(errors="ignore")
    return _written(raw, properties)


def _body_of(message: Message[Any]) -> bytes:
    """The body as it was delivered. Of an object it is the data as JSON, or else its `repr`."""
    if not message.is_object:
        return message.raw
    try:
        return encode_payload(message.data)
    except BaseException as error:
        if interrupts(error):
            raise
        return shown(message.data, DATA_LIMIT).encode()


def _resumes(failures: Sequence[Failure]) -> dict[str, bool]:
    """Which streams of these messages store offsets; what is pushed into a run has none."""
    batch: Batch[Any] = Batch([failure.message for failure in failures])
    return {origin.stream: origin.resumes for origin in batch.origins}


def _about(pipeline: str, failure: Failure) -> dict[str, Any]:
    message = failure.message
    about: dict[str, Any] = {
        "x-pipeline": pipeline,
        "x-stream": message.stream,
        "x-offset": message.offset,
        "x-timestamp": message.timestamp,
        "x-phase": failure.phase,
        "x-stage": failure.stage,
        "x-attempts": failure.attempts,
        "x-reason": failure.reason[:REASON_LIMIT],
        "x-error": "" if failure.error is None else type_name(failure.error),
        "x-traceback": failure.traceback(TRACEBACK_LIMIT),
        "x-failed-at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "x-omitted-bytes": 0,
        "x-omitted-sha256": "",
    }
    return {name: _utf8(it) if isinstance(it, str) else it for name, it in about.items()}


def _utf8(text: str) -> str:
    """The text, with lone surrogates escaped, which UTF-8 cannot encode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _written(body: bytes, properties: dict[str, Any]) -> bytes:
    return AmqpMessage.of(body, application_properties=properties).raw
