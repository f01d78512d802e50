"""Dead letters read back: the original message, and why it failed.

A body that was too large for the dead letter is read from its original stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from flowstream.cli.connection.streams import retained
from flowstream.cli.output.console import note
from flowstream.cli.output.messages import moment, shown
from flowstream.cli.output.progress import Step
from flowstream.cli.output.safe_text import visible
from flowstream.client import AmqpMessage, Environment, is_amqp
from flowstream.errors import FlowstreamError, ProtocolError
from flowstream.texts import plural, without_passwords

PREFIX = "x-"


@dataclass(frozen=True, slots=True)
class DeadLetterRecord:
    """One dead letter, at `offset` of its stream. `body` is the original entry, byte for byte.

    `source` and `source_offset` are the original stream and offset. `timestamp` (ms) is when the
    dead letter was written. `omitted` is the size of a body that is not in the dead letter,
    `sha256` its checksum, and `missing` the reason if it could not be read; see `whole`.
    """

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "offset", "time", "pipeline", "source", "stage", "phase", "attempts", "reason",
    )  # fmt: skip

    offset: int
    timestamp: int
    body: bytes
    pipeline: str
    source: str
    source_offset: int
    stage: str
    phase: str
    attempts: int
    reason: str
    error: str
    traceback: str
    omitted: int = 0
    sha256: str = ""
    missing: str = ""

    @property
    def time(self) -> str:
        """When it was written, in UTC."""
        return moment(self.timestamp)

    def row(self) -> dict[str, Any]:
        """The row of a list."""
        return {
            "offset": self.offset,
            "time": self.time,
            "pipeline": self.pipeline,
            "source": f"{self.source}@{self.source_offset}",
            "stage": self.stage,
            "phase": self.phase,
            "attempts": self.attempts,
            "reason": self.reason,
        }

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        original = shown(self.source, self.source_offset, self.timestamp, self.body).document()
        if self.missing:
            original = {
                "stream": self.source,
                "offset": self.source_offset,
                "timestamp": self.timestamp,
                "missing": self.missing,
            }
        return {
            **self.row(),
            "error": self.error,
            "traceback": self.traceback,
            "message": original,
        }

    def text(self) -> str:
        """Everything, as text."""
        original = shown(self.source, self.source_offset, self.timestamp, self.body)
        lines = [f"{key:9} {visible(str(value))}" for key, value in self.row().items()]
        if self.error:
            lines.append(f"{'error':9} {visible(self.error)}")
        lines += ["", visible(self.missing) or original.text()]
        if self.traceback:
            lines += ["", visible(self.traceback.rstrip(), keep="\n")]
        return "\n".join(lines)


def record_of(offset: int, timestamp: int, raw: bytes) -> DeadLetterRecord | None:
    """The dead letter in an entry; None if the entry is another message.

    Older versions have written passwords of URLs into the reason and the traceback.
    """
    if not is_amqp(raw):
        return None
    message = AmqpMessage(raw)
    try:
        about, body = message.application_properties or {}, message.data
    except ProtocolError:
        return None
    source_offset = about.get(PREFIX + "offset")
    if body is None or not isinstance(source_offset, int):
        return None
    if not {PREFIX + "pipeline", PREFIX + "stream"} <= set(about):
        return None
    attempts, omitted = about.get(PREFIX + "attempts"), about.get(PREFIX + "omitted-bytes")
    return DeadLetterRecord(
        offset,
        timestamp,
        body,
        pipeline=str(about[PREFIX + "pipeline"]),
        source=str(about[PREFIX + "stream"]),
        source_offset=source_offset,
        stage=str(about.get(PREFIX + "stage", "")),
        phase=str(about.get(PREFIX + "phase", "")),
        attempts=attempts if isinstance(attempts, int) else 0,
        reason=without_passwords(str(about.get(PREFIX + "reason", ""))),
        error=str(about.get(PREFIX + "error", "")),
        traceback=without_passwords(str(about.get(PREFIX + "traceback", ""))),
        omitted=omitted if isinstance(omitted, int) else 0,
        sha256=str(about.get(PREFIX + "omitted-sha256", "")),
    )


async def whole(environment: Environment, letter: DeadLetterRecord) -> DeadLetterRecord:
    """The dead letter with its body, read from the original stream if it was omitted.

    `missing` is the reason if that is impossible.
    """
    if not letter.omitted:
        return letter
    place = f"{letter.source}@{letter.source_offset}"
    what = f"its body ({letter.omitted:,} bytes) did not fit into the dead letter, and {place}"
    try:
        body = await _message_at(environment, letter.source, letter.source_offset)
    except FlowstreamError as error:
        return replace(letter, missing=f"{what} cannot be read: {error}")
    if body is None:
        return replace(letter, missing=f"{what} is gone: the stream no longer has it")
    if hashlib.sha256(body).hexdigest() != letter.sha256:
        return replace(
            letter, missing=f"{what} is another message: the stream was deleted and created again"
        )
    return replace(letter, body=body)


async def _message_at(environment: Environment, stream: str, offset: int) -> bytes | None:
    """The body of the message at an offset; None if the stream does not have it."""
    statistics = await environment.stream_stats(stream)
    end = await environment.last_offset(stream)
    first = statistics.first_offset
    if end is None or first is None or not first <= offset <= end:
        return None
    async with environment.consumer(stream, offset=offset) as consumer:
        async for delivery in consumer:
            for place, body in zip(delivery.offsets, delivery.bodies, strict=True):
                if place >= offset:
                    return body if place == offset else None
    return None


async def read(
    environment: Environment,
    stream: str,
    start: int,
    step: Step | None = None,
    *,
    quiet: bool = False,
) -> AsyncIterator[list[DeadLetterRecord]]:
    """Dead letters from `start` to the current end, a chunk at a time.

    Other messages are left out, with a note unless `quiet`. `step` is updated after each chunk.
    """
    end = await environment.last_offset(stream)
    if end is None or start > end:
        return
    others = 0
    start = await retained(environment, stream, start)
    if step is not None:
        step.size = end - start + 1
    async with environment.consumer(stream, offset=start, on_truncated="skip") as consumer:
        async for delivery in consumer:
            batch = []
            for offset, raw in zip(delivery.offsets, delivery.bodies, strict=True):
                found = record_of(offset, delivery.timestamp, raw) if offset <= end else None
                others += found is None and offset <= end
                if found is not None:
                    batch.append(found)
            yield batch
            if step is not None:
                step.update(delivery.offsets[-1] - start + 1, step.done + len(batch))
            if delivery.offsets[-1] >= end:
                break
    if others and not quiet:
        note(f"left out {plural(others, 'message')} of {stream} that are not dead letters")
