"""Looks at a few chunks of a stream: where an offset leads to, on any server version."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from flowstream.client.connecting.connection import ClientConnection, raise_for_code
from flowstream.client.connecting.manager import ConnectionManager
from flowstream.errors import ConnectionClosed, StreamNotAvailable
from flowstream.protocol import (
    Chunk,
    Deliver,
    Key,
    Metadata,
    MetadataResponse,
    OffsetKind,
    OffsetSpec,
    ResolveOffsetSpec,
    ResolveOffsetSpecResponse,
    Response,
    StreamStats,
    StreamStatsResponse,
    Subscribe,
    Unsubscribe,
)

OWN_RECORDS = 100
"""Below RabbitMQ 3.11 nothing tells whether the offsets before the first message were removed, or
are taken by stored offsets of readers that came before it. So few are the latter."""


class _Probe:
    """A subscription that keeps the chunks it gets for its credit."""

    def __init__(self, stream: str, credit: int) -> None:
        self.stream = stream
        self.credit = credit
        self.chunks: list[Chunk] = []

    def delivered(self, deliver: Deliver) -> None:
        if len(self.chunks) < self.credit:
            self.chunks.append(Chunk.parse(deliver.chunk))

    def credit_refused(self, code: int) -> None:
        """A probe gives no credit."""

    def update(self, correlation_id: int, active: bool) -> None:
        """A probe is not a single active consumer."""

    def metadata_changed(self, code: int) -> None:
        """The request that follows tells."""

    def connection_lost(self, error: ConnectionClosed) -> None:
        """The request that is waited for raises it."""


async def probe(
    manager: ConnectionManager,
    stream: str,
    offset: OffsetSpec,
    properties: Mapping[str, str] | None = None,
) -> Chunk | None:
    """The chunk that a subscription at `offset` begins with now; None when there is none yet.

    `properties` are those of the subscription: a filter.

    A stream that holds nothing but stored offsets has none. Raises StreamNotAvailable where a new
    leader does not know yet what is committed (from 3.11 on, where statistics tell).
    """
    found = await probe_some(manager, stream, offset, 1, properties)
    return found[0] if found else None


async def probe_some(
    manager: ConnectionManager,
    stream: str,
    offset: OffsetSpec,
    credit: int,
    properties: Mapping[str, str] | None = None,
    *,
    anywhere: bool = False,
) -> list[Chunk]:
    """As `probe`: the first `credit` chunks, less only where there are no more.

    `anywhere`: not at the leader but where a connection is open, for who asks again and again and
    can do with what a replica has.
    """
    user = _Probe(stream, credit)
    doubtful = await _look(manager, user, offset, properties or {}, anywhere)
    if doubtful:  # either only offsets are stored there, or it was committed just now
        await _look(manager, user, offset, properties or {}, anywhere)
    return user.chunks


async def _look(
    manager: ConnectionManager,
    user: _Probe,
    offset: OffsetSpec,
    properties: Mapping[str, str],
    anywhere: bool,
) -> bool:
    """Fills `user`; whether there may be something though nothing came.

    Brokers send what there is before they look at the next command, so the answer to any request
    after Subscribe proves that nothing more was there.
    """
    manager.probes.add(user)
    try:
        return await _subscribed(manager, user, offset, properties, anywhere)
    finally:
        manager.probes.discard(user)


async def _subscribed(
    manager: ConnectionManager,
    user: _Probe,
    offset: OffsetSpec,
    properties: Mapping[str, str],
    anywhere: bool,
) -> bool:
    stream = user.stream
    nodes = await manager.locate(stream)
    node = manager.consuming.open_at_one_of(nodes.members) if anywhere else None
    registration = await manager.consuming.enter(node or nodes.for_writer(), user)
    connection = registration.connection
    try:
        answer = await connection.request(
            lambda c: Subscribe(c, registration.id, stream, offset, user.credit, properties),
            Response,
        )
        raise_for_code(answer.code, f'read "{stream}"', stream=stream)
        if len(user.chunks) < user.credit:
            await connection.request(lambda c: Metadata(c, (stream,)), MetadataResponse)
        doubtful = False
        if not user.chunks and offset.kind in (OffsetKind.FIRST, OffsetKind.LAST):
            doubtful = await _has_committed(connection, stream)
        return doubtful and not user.chunks
    finally:
        with anyio.CancelScope(shield=True):
            if connection.usable:
                connection.send(Unsubscribe(0, registration.id))
            await manager.consuming.leave(registration)


async def find_first(
    manager: ConnectionManager, connection: ClientConnection, stream: str
) -> int | None:
    """The first retained offset of the member at this connection; None for an empty stream.

    Below RabbitMQ 3.11 that of the first message, as the leader has it: see `OWN_RECORDS`.
    """
    if connection.supports(Key.STREAM_STATS):
        return (await statistics(connection, stream))[0]
    chunk = await probe(manager, stream, OffsetSpec.first())
    if chunk is None:
        return None
    return 0 if chunk.offset <= OWN_RECORDS else int(chunk.offset)


async def find_ends(
    manager: ConnectionManager, connection: ClientConnection, stream: str
) -> tuple[int | None, int | None]:
    """The first retained offset, and the offset at which the newest committed chunk begins."""
    if connection.supports(Key.STREAM_STATS):
        return await statistics(connection, stream)
    last = await probe(manager, stream, OffsetSpec.last())
    return await find_first(manager, connection, stream), None if last is None else last.offset


async def resolve(manager: ConnectionManager, stream: str, spec: OffsetSpec) -> int:
    """The offset at which a consumer would begin now, as the server (4.3) or a look tells."""
    if spec.kind is OffsetKind.NEXT:
        return await _end(manager, stream)
    asked = spec.value if spec.kind is OffsetKind.OFFSET else 0
    connection = await manager.locator.get()
    if connection.supports(Key.RESOLVE_OFFSET_SPEC):
        answer = await connection.request(
            lambda c: ResolveOffsetSpec(c, stream, spec, {}), ResolveOffsetSpecResponse
        )
        raise_for_code(answer.code, f'resolve an offset of "{stream}"', stream=stream)
        return max(answer.offset.value, asked)  # it may be that of the chunk
    end = await _end(manager, stream)  # before the look: what comes after it is not to be left out
    chunk = await probe(manager, stream, spec)
    return end if chunk is None else max(int(chunk.offset), asked)


async def _end(manager: ConnectionManager, stream: str) -> int:
    """The offset behind the last message; where none is left, that of the broker's own records."""
    last = await probe(manager, stream, OffsetSpec.last())
    if last is not None:
        return int(last.offset + last.records)
    return await find_first(manager, await manager.locator.get(), stream) or 0


async def statistics(connection: ClientConnection, stream: str) -> tuple[int | None, int | None]:
    """The first retained offset and where the newest committed chunk begins, by StreamStats."""
    answer = await connection.request(lambda c: StreamStats(c, stream), StreamStatsResponse)
    raise_for_code(answer.code, f'read "{stream}"', stream=stream)
    values = dict(answer.stats)
    first, newest = values.get("first_chunk_id", -1), values.get("committed_chunk_id", -1)
    return None if first < 0 else first, None if newest < 0 else newest


async def _has_committed(connection: ClientConnection, stream: str) -> bool:
    if not connection.supports(Key.STREAM_STATS):
        return False
    return await newest_chunk(connection, stream) is not None


async def newest_chunk(connection: ClientConnection, stream: str) -> int | None:
    """Where the newest committed chunk begins, by StreamStats; None for an empty stream.

    Raises StreamNotAvailable where a new leader does not know yet what is committed.
    """
    first, newest = await statistics(connection, stream)
    if first is not None and newest is None:
        raise StreamNotAvailable(
            f'the leader of "{stream}" does not know yet what is committed; try again',
            stream=stream,
        )
    return newest
