"""Commands of publishers. Source of rules and codes: rabbit_stream_reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from flowstream.broker.chunk_builder import pick
from flowstream.broker.registrations import Publisher
from flowstream.protocol import (
    OK,
    Code,
    DeclarePublisher,
    DeletePublisher,
    Entries,
    Key,
    Publish,
    PublishError,
    PublishFiltered,
    QueryPublisherSequence,
    QueryPublisherSequenceResponse,
    Response,
    sub_batch_is_sound,
)

if TYPE_CHECKING:
    from flowstream.broker.session import Session

MAX_REFERENCE_BYTES = 255
MAX_PUBLISHERS = 256


def too_long(reference: str | None) -> bool:
    return reference is not None and len(reference.encode()) > MAX_REFERENCE_BYTES


def declare(session: Session, command: DeclarePublisher) -> None:
    code = _declare(session, command)
    session.send(Response(Key.DECLARE_PUBLISHER, command.correlation_id, code))


def _declare(session: Session, command: DeclarePublisher) -> Code:
    publishers = session.publishers
    if len(publishers) >= MAX_PUBLISHERS or too_long(command.reference):
        return Code.PRECONDITION_FAILED
    reference = command.reference or None
    taken = reference is not None and any(
        other.reference == reference and other.stream.name == command.stream
        for other in publishers.values()
    )
    if command.publisher_id in publishers or taken:
        return Code.PRECONDITION_FAILED
    stream = session.node.catalog.streams.get(command.stream)
    if stream is None:
        return Code.STREAM_DOES_NOT_EXIST
    session.watched.add(stream)
    publishers[command.publisher_id] = Publisher(session, command.publisher_id, stream, reference)
    return OK


def publish(session: Session, command: Publish | PublishFiltered) -> None:
    entries = cast(Entries, command.messages)
    publisher = session.publishers.get(command.publisher_id)
    if publisher is None:
        _refuse(session, command.publisher_id, entries.ids, Code.PUBLISHER_DOES_NOT_EXIST)
        return
    if entries.batches:
        entries = _sound_part(publisher, entries)
    session.unconfirmed += len(entries)
    publisher.stream.append(entries, publisher.reference)
    session.node.committer.confirm(publisher, entries.ids)


def _sound_part(publisher: Publisher, entries: Entries) -> Entries:
    """All before the first unsound sub-batch; the rest is refused, lest the ids have a gap."""
    for index in entries.batches:
        if not sub_batch_is_sound(entries.entries[index]):
            refused = entries.ids[index:]
            _refuse(publisher.session, publisher.publisher_id, refused, Code.PRECONDITION_FAILED)
            return pick(entries, range(index)) if index else Entries([], [], 0, [])
    return entries


def _refuse(session: Session, publisher_id: int, publishing_ids: list[int], code: Code) -> None:
    errors = tuple((publishing_id, int(code)) for publishing_id in publishing_ids)
    session.send(PublishError(publisher_id, errors))


async def query_sequence(session: Session, command: QueryPublisherSequence) -> None:
    correlation_id = command.correlation_id
    stream = session.node.catalog.streams.get(command.stream)
    if stream is None:
        code = Code.STREAM_DOES_NOT_EXIST
        session.send(QueryPublisherSequenceResponse(correlation_id, code, 0))
        return
    sequence = stream.sequences.get(command.reference, 0)
    # What is told must outlive a crash: the publisher goes on after it.
    await session.node.committer.settle(stream)
    session.send(QueryPublisherSequenceResponse(correlation_id, OK, sequence))


def delete(session: Session, command: DeletePublisher) -> None:
    publisher = session.publishers.pop(command.publisher_id, None)
    code = OK if publisher is not None else Code.PUBLISHER_DOES_NOT_EXIST
    if publisher is not None:
        session.unwatch(publisher.stream)
    session.send(Response(Key.DELETE_PUBLISHER, command.correlation_id, code))
