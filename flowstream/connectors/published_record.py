"""What a sink, or a policy of dead letters, has published exactly once, as the broker knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowstream.connectors.dead_letter import DeadLetter
from flowstream.connectors.environment import StreamEnvironment
from flowstream.connectors.publish_once import offset_of, sequence_reference
from flowstream.connectors.stream_sink import StreamSink
from flowstream.pipeline import FailurePolicy, Sink


@dataclass(frozen=True, slots=True)
class Published:
    """What a target stream has of a source stream, under a reference.

    `last_offset` is the source offset that the last publishing id was made from; None if nothing is
    published.
    """

    source: str
    target: str
    reference: str
    last_publishing_id: int
    last_offset: int | None


def once_reference(end: Sink | FailurePolicy | None, pipeline: str, name: str) -> str | None:
    """The reference of an end of a pipeline that publishes exactly once; None of others."""
    if isinstance(end, StreamSink | DeadLetter) and end.exactly_once:
        return end.once_reference(pipeline, name)
    return None


async def published(
    environment: StreamEnvironment, reference: str, sources: Sequence[str], targets: Sequence[str]
) -> list[Published]:
    """What each target has of each source. Opens a publisher for each pair, and publishes nothing.

    Raises errors of the client, such as StreamDoesNotExist.
    """
    found = []
    for source in sources:
        full = sequence_reference(reference, source)
        for target in targets:
            async with environment.publisher(target, reference=full) as publisher:
                last = publisher.last_publishing_id or 0
            found.append(Published(source, target, full, last, offset_of(last) if last else None))
    return found
