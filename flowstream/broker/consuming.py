"""Handlers of consumers' commands. Source of rules and codes: rabbit_stream_reader."""

from __future__ import annotations

from flowstream.broker.registrations import Subscription, reference_too_long
from flowstream.broker.session import Session
from flowstream.broker.single_active import ALONE
from flowstream.protocol import (
    OK,
    Code,
    ConsumerUpdateResponse,
    Credit,
    CreditError,
    Key,
    OffsetKind,
    OffsetSpec,
    QueryOffset,
    QueryOffsetResponse,
    ResolveOffsetSpec,
    ResolveOffsetSpecResponse,
    Response,
    StoreOffset,
    Subscribe,
    Unsubscribe,
)

MAX_SUBSCRIPTIONS = 256


async def subscribe(session: Session, command: Subscribe) -> None:
    if command.offset.kind is OffsetKind.NONE:
        session.abort("the client sent a Subscribe without an offset")
        return
    code = _check(session, command)
    if code is not OK:
        session.send(Response(Key.SUBSCRIBE, command.correlation_id, code))
        return
    stream = session.node.catalog.streams[command.stream]
    subscription = Subscription(
        session,
        command.subscription_id,
        stream,
        command.offset,
        command.credit,
        command.properties,
    )
    if subscription.single_active:
        _join_group(session, subscription, command)
        return
    # Added before its position is known, so that a deletion in between finds it; it is not served
    # until it is attached.
    session.add_subscription(subscription)
    position = await session.node.reader.locate(stream, command.offset)
    code = Code.STREAM_DOES_NOT_EXIST if stream.deleted else OK
    session.send(Response(Key.SUBSCRIBE, command.correlation_id, code))
    if code is OK:
        session.serve_first(subscription, position)


def _check(session: Session, command: Subscribe) -> Code:
    properties = command.properties
    name = properties.get("name")
    if len(session.subscriptions) >= MAX_SUBSCRIPTIONS or reference_too_long(name):
        return Code.PRECONDITION_FAILED
    if command.stream not in session.node.catalog.streams:
        return Code.STREAM_DOES_NOT_EXIST
    if command.subscription_id in session.subscriptions:
        return Code.SUBSCRIPTION_ID_ALREADY_EXISTS
    if properties.get("single-active-consumer") == "true" and name is None:
        return Code.PRECONDITION_FAILED
    return OK


def _join_group(session: Session, subscription: Subscription, command: Subscribe) -> None:
    """A single active consumer joins its group; it is served once its client knows it is active."""
    node = session.node
    if (super_stream := subscription.properties.get("super-stream")) is not None:
        index = node.catalog.partition_index(super_stream, subscription.stream.name)
        subscription.partition_index = ALONE if index is None else index
    notices = node.coordinator.register(
        subscription.stream.name, subscription.name, subscription.partition_index, subscription
    )
    code = OK if notices is not None else Code.PRECONDITION_FAILED
    session.send(Response(Key.SUBSCRIBE, command.correlation_id, code))
    if notices is not None:
        session.add_subscription(subscription)
        node.notify(notices)


async def consumer_updated(session: Session, command: ConsumerUpdateResponse) -> None:
    """The client answered a ConsumerUpdate: serve the consumer, or promote the next one.

    An answer without a pending update is ignored.
    """
    update = session.updates.pop(command.correlation_id, None)
    if update is None:
        return
    subscription = update.subscription
    if session.subscriptions.get(subscription.subscription_id) is not subscription:
        return
    node = session.node
    if subscription.active:
        chosen = command.offset.kind is not OffsetKind.NONE
        spec = command.offset if chosen else subscription.offset
        generation = subscription.generation
        position = await node.reader.locate(subscription.stream, spec)
        # It may have been made inactive, or its stream deleted, while a thread was looking.
        if subscription.generation == generation and not subscription.stream.deleted:
            subscription.attach(position)
    elif update.stepping_down:
        node.notify(node.coordinator.stepped_down(subscription.stream.name, subscription.name))


def unsubscribe(session: Session, command: Unsubscribe) -> None:
    subscription = session.subscriptions.get(command.subscription_id)
    code = OK if subscription is not None else Code.SUBSCRIPTION_ID_DOES_NOT_EXIST
    session.send(Response(Key.UNSUBSCRIBE, command.correlation_id, code))
    if subscription is not None:
        session.drop_subscription(subscription)
        session.unwatch_if_unused(subscription.stream)


def credit(session: Session, command: Credit) -> None:
    subscription = session.subscriptions.get(command.subscription_id)
    if subscription is None:
        code = Code.SUBSCRIPTION_ID_DOES_NOT_EXIST
        session.send(CreditError(code, command.subscription_id))
        return
    # RabbitMQ reads the 16 bits as a signed number (rabbit_stream_core:parse_request).
    subscription.credit += (command.credit ^ 0x8000) - 0x8000
    if subscription.position is None:
        session.send(CreditError(Code.PRECONDITION_FAILED, command.subscription_id))
    else:
        subscription.wake()


def store_offset(session: Session, command: StoreOffset) -> None:
    """Store an offset with the next commit group. The protocol has no answer, so errors are silent.

    A client that has to know asks with QueryOffset.
    """
    stream = session.node.catalog.streams.get(command.stream)
    if stream is not None and not reference_too_long(command.reference):
        session.watched.add(stream)
        stream.store_offset(command.reference, command.offset)
        session.node.committer.mark_dirty(stream)


async def query_offset(session: Session, command: QueryOffset) -> None:
    stream = session.node.catalog.streams.get(command.stream)
    if stream is None:
        code = Code.STREAM_DOES_NOT_EXIST
        session.send(QueryOffsetResponse(command.correlation_id, code, 0))
        return
    session.watched.add(stream)
    offset = stream.offsets.get(command.reference)
    code = OK if offset is not None else Code.NO_OFFSET
    # Answered only when durable: clients use the answer to verify that an offset is stored.
    await session.node.committer.flush(stream)
    session.send(QueryOffsetResponse(command.correlation_id, code, offset or 0))


async def resolve(session: Session, command: ResolveOffsetSpec) -> None:
    if command.offset.kind is OffsetKind.NONE:
        session.abort("the client sent a ResolveOffsetSpec without an offset")
        return
    stream = session.node.catalog.streams.get(command.stream)
    code, position = Code.STREAM_DOES_NOT_EXIST, 0
    if stream is not None:
        code, position = OK, await session.node.reader.locate(stream, command.offset)
    session.send(
        ResolveOffsetSpecResponse(command.correlation_id, code, OffsetSpec.offset(position))
    )
