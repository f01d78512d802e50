"""Handlers of commands about streams and super streams.

A definition changes in memory at once and is answered when it is durable. Source of rules and
codes: rabbit_stream_reader.
"""

from __future__ import annotations

from flowstream.broker.session import Session
from flowstream.protocol import (
    NO_LEADER,
    OK,
    Code,
    CreateStream,
    CreateSuperStream,
    DeleteStream,
    DeleteSuperStream,
    Key,
    Metadata,
    MetadataResponse,
    Partitions,
    PartitionsResponse,
    Response,
    Route,
    RouteResponse,
    StreamMetadata,
    StreamStats,
    StreamStatsResponse,
)


async def create(session: Session, command: CreateStream) -> None:
    code, changes = session.node.catalog.create(command.stream, command.arguments)
    if changes:
        await session.node.committer.commit(changes)
    session.send(Response(Key.CREATE_STREAM, command.correlation_id, code))


async def delete(session: Session, command: DeleteStream) -> None:
    node = session.node
    stream, changes = node.catalog.delete(command.stream)
    if stream is None:
        code = Code.STREAM_DOES_NOT_EXIST
        session.send(Response(Key.DELETE_STREAM, command.correlation_id, code))
        return
    try:
        await node.committer.commit(changes)
        session.send(Response(Key.DELETE_STREAM, command.correlation_id, OK))
    finally:  # other connections must be notified even if this one has ended meanwhile
        node.stream_deleted(stream)


async def create_super(session: Session, command: CreateSuperStream) -> None:
    code, changes = session.node.catalog.create_super(
        command.name, command.partitions, command.binding_keys, command.arguments
    )
    if changes:
        await session.node.committer.commit(changes)
    session.send(Response(Key.CREATE_SUPER_STREAM, command.correlation_id, code))


async def delete_super(session: Session, command: DeleteSuperStream) -> None:
    node = session.node
    streams, changes = node.catalog.delete_super(command.name)
    if streams is None:
        code = Code.STREAM_DOES_NOT_EXIST
        session.send(Response(Key.DELETE_SUPER_STREAM, command.correlation_id, code))
        return
    try:
        await node.committer.commit(changes)
        session.send(Response(Key.DELETE_SUPER_STREAM, command.correlation_id, OK))
    finally:
        for stream in streams:
            node.stream_deleted(stream)


def metadata(session: Session, command: Metadata) -> None:
    streams = session.node.catalog.streams
    names = dict.fromkeys(command.streams)
    found = tuple(
        StreamMetadata(name, OK, 0, ())
        if name in streams
        else StreamMetadata(name, Code.STREAM_DOES_NOT_EXIST, NO_LEADER, ())
        for name in names
    )
    brokers = {0: session.advertised} if any(it.code == OK for it in found) else {}
    session.send(MetadataResponse(command.correlation_id, brokers, found))


def route(session: Session, command: Route) -> None:
    streams = session.node.catalog.route(command.routing_key, command.super_stream)
    code = OK if streams is not None else Code.STREAM_DOES_NOT_EXIST
    session.send(RouteResponse(command.correlation_id, code, streams or ()))


def partitions(session: Session, command: Partitions) -> None:
    streams = session.node.catalog.partitions(command.super_stream)
    code = OK if streams is not None else Code.STREAM_DOES_NOT_EXIST
    session.send(PartitionsResponse(command.correlation_id, code, streams or ()))


def statistics(session: Session, command: StreamStats) -> None:
    stream = session.node.catalog.streams.get(command.stream)
    if stream is None:
        code = Code.STREAM_DOES_NOT_EXIST
        session.send(StreamStatsResponse(command.correlation_id, code, {}))
        return
    session.send(StreamStatsResponse(command.correlation_id, OK, stream.statistics()))
