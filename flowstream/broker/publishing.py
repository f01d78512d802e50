"""Handlers of publishers' commands. Source of rules and codes: rabbit_stream_reader."""

from __future__ import annotations

from typing import cast

from flowstream.broker.registrations import Publisher, reference_too_long
from flowstream.broker.session import Session
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
    sub_entry_is_sound,
)

MAX_PUBLISHERS = 256


def declare(session: Session, command: DeclarePublisher) -> None:
    code = _declare(session, command)
    session.send(Response(Key.DECLARE_PUBLISHER, command.correlation_id, code))


def _declare(session: Session, command: DeclarePublisher) -> Code:
    publishers = session.publishers
    if len(publishers) >= MAX_PUBLISHERS or reference_too_long(command.reference):
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
    """Accept the entries; the committer confirms them when they are durable.

    All are confirmed, duplicates too: for the publisher both mean that the message is stored.
    """
    entries = cast(Entries, command.messages)
    publisher = session.publishers.get(command.publisher_id)
    if publisher is None:
        _refuse(session, command.publisher_id, entries.ids, Code.PUBLISHER_DOES_NOT_EXIST)
        return
    if entries.batches:
        entries = _sound_part(session, publisher, entries)
    session.unconfirmed += len(entries)
    publisher.stream.append(entries, publisher.reference)
    session.node.committer.confirm_when_durable(publisher, entries.ids)


def _sound_part(session: Session, publisher: Publisher, entries: Entries) -> Entries:
    """The entries before the first unsound sub-entry; that one and all after it are refused.

    If later entries were accepted, a publisher with a reference could not send the refused ones
    again: their ids would be below the highest one and count as duplicates.
    """
    for index in entries.batches:
        if not sub_entry_is_sound(entries.entries[index]):
            refused = entries.ids[index:]
            _refuse(session, publisher.publisher_id, refused, Code.PRECONDITION_FAILED)
            return entries.select(range(index))
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
    # Answered only when durable: the publisher goes on after this id, and if a crash took the
    # messages up to it, they would not be sent again.
    await session.node.committer.flush(stream)
    session.send(QueryPublisherSequenceResponse(correlation_id, OK, sequence))


def delete(session: Session, command: DeletePublisher) -> None:
    publisher = session.publishers.pop(command.publisher_id, None)
    code = OK if publisher is not None else Code.PUBLISHER_DOES_NOT_EXIST
    if publisher is not None:
        session.unwatch_if_unused(publisher.stream)
    session.send(Response(Key.DELETE_PUBLISHER, command.correlation_id, code))
