"""A dead letter, read back: the original message and how it failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from flowstream.cli.output import note, plural
from flowstream.cli.safe_text import visible

if TYPE_CHECKING:
    from flowstream.client import Environment

PREFIX = "x-"


@dataclass(frozen=True, slots=True)
class Letter:
    """`body` is the original entry byte for byte; `offset` is the letter's own.

    `source` and `source_offset` are where the message came from; `timestamp` (ms) is when it was
    buried.
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

    @property
    def time(self) -> str:
        """When it was buried, UTC."""
        from flowstream.cli.messages import moment

        return moment(self.timestamp)

    def row(self) -> dict[str, Any]:
        """What a list shows."""
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
        """Everything, for programs."""
        from flowstream.cli.messages import shown

        original = shown(self.source, self.source_offset, self.timestamp, self.body)
        return {
            **self.row(),
            "error": self.error,
            "traceback": self.traceback,
            "message": original.document(),
        }

    def text(self) -> str:
        """Everything, for people."""
        from flowstream.cli.messages import shown

        original = shown(self.source, self.source_offset, self.timestamp, self.body)
        lines = [f"{key:9} {visible(str(value))}" for key, value in self.row().items()]
        if self.error:
            lines.append(f"{'error':9} {visible(self.error)}")
        lines += ["", original.text()]
        if self.traceback:
            lines += ["", visible(self.traceback.rstrip(), keep="\n")]
        return "\n".join(lines)


def letter(offset: int, timestamp: int, raw: bytes) -> Letter | None:
    """The dead letter in an entry; None where the entry is none."""
    from flowstream.client import AmqpMessage, is_amqp
    from flowstream.errors import ProtocolError

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
    attempts = about.get(PREFIX + "attempts")
    return Letter(
        offset,
        timestamp,
        body,
        pipeline=str(about[PREFIX + "pipeline"]),
        source=str(about[PREFIX + "stream"]),
        source_offset=source_offset,
        stage=str(about.get(PREFIX + "stage", "")),
        phase=str(about.get(PREFIX + "phase", "")),
        attempts=attempts if isinstance(attempts, int) else 0,
        reason=str(about.get(PREFIX + "reason", "")),
        error=str(about.get(PREFIX + "error", "")),
        traceback=str(about.get(PREFIX + "traceback", "")),
    )


async def read(environment: Environment, stream: str, start: int) -> AsyncIterator[list[Letter]]:
    """Dead letters from `start` to the present end, a chunk at a time; other messages are left out
    with a note."""
    end = await environment.last_offset(stream)
    if end is None or start > end:
        return
    strange = 0
    async with environment.consumer(stream, offset=start) as consumer:
        async for delivery in consumer:
            batch = []
            for offset, raw in zip(delivery.offsets, delivery.bodies, strict=True):
                found = letter(offset, delivery.timestamp, raw) if offset <= end else None
                strange += found is None and offset <= end
                if found is not None:
                    batch.append(found)
            yield batch
            if delivery.offsets[-1] >= end:
                break
    if strange:
        note(f"{plural(strange, 'message')} of {stream} are no dead letters and were left out")
